//! From a controller's messages to documents. No I/O; a controller that does not keep to the protocol is left.

use std::time::Duration;

use bytes::Bytes;

use crate::proto::config_stream::{Edition, FromController, from_controller::Message};
use crate::source::protocol::{MAX_DOCUMENT, PROTOCOL, Sha256, is_gateway};

/// The least and the most that is waited for a sign of life.
const HEARTBEAT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A Gateway's document, whole and as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) gateway: String,
    pub(super) generation: u64,
    pub(super) sha256: Sha256,
    pub(super) bytes: Bytes,
}

/// Which document, not what is in it.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} bytes)", self.gateway, self.generation, self.bytes.len())
    }
}

/// What a message brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The greeting, and after which time without a message the controller counts as away.
    Welcome(Duration),
    /// A document.
    Document(Document),
    /// The document of that digest, which is here, is of that generation now.
    Unchanged { gateway: String, generation: u64, sha256: Sha256 },
    /// A Gateway is served no longer.
    Withdrawn(String),
    /// That was all there is.
    Complete,
    /// Nothing yet.
    Nothing,
}

/// What a controller must not send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the controller does not keep to the protocol: {0}")]
pub(super) struct Violation(String);

fn violation<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// A document of which not all has come.
struct Open {
    edition: Edition,
    sha256: Sha256,
    size: usize,
    bytes: Vec<u8>,
}

/// The messages of one connection.
#[derive(Default)]
pub(super) struct Incoming {
    welcomed: bool,
    open: Option<Open>,
}

impl Incoming {
    pub(super) fn take(&mut self, message: FromController) -> Result<News, Violation> {
        match message.message {
            Some(Message::Welcome(welcome)) => {
                if std::mem::replace(&mut self.welcomed, true) {
                    return violation("a second greeting");
                }
                if welcome.protocol != PROTOCOL {
                    return violation(format!("it speaks version {}, not {PROTOCOL}", welcome.protocol));
                }
                let every = Duration::from_millis(welcome.heartbeat_millis.into());
                Ok(News::Welcome((every * 4).clamp(HEARTBEAT.0, HEARTBEAT.1)))
            }
            Some(_) if !self.welcomed => violation("no greeting"),
            Some(Message::Part(part)) => self.part(&part.data),
            Some(Message::Heartbeat(_)) => Ok(News::Nothing),
            _ if self.open.is_some() => violation("another message in the middle of a document"),
            Some(Message::Edition(edition)) => self.edition(edition),
            Some(Message::Withdrawal(withdrawal)) => {
                if !is_gateway(&withdrawal.gateway) {
                    return violation("a withdrawal of no Gateway");
                }
                Ok(News::Withdrawn(withdrawal.gateway))
            }
            Some(Message::Complete(_)) => Ok(News::Complete),
            // Of a later version.
            None => Ok(News::Nothing),
        }
    }

    fn edition(&mut self, edition: Edition) -> Result<News, Violation> {
        if !is_gateway(&edition.gateway) {
            return violation("an edition of no Gateway");
        }
        let Some(sha256) = Sha256::read(&edition.sha256) else {
            return violation("a digest of another length");
        };
        if edition.size == 0 {
            let Edition { gateway, generation, .. } = edition;
            return Ok(News::Unchanged { gateway, generation, sha256 });
        }
        match usize::try_from(edition.size) {
            // Room is made as it comes, and not as it is announced.
            Ok(size) if size <= MAX_DOCUMENT => {
                self.open = Some(Open { edition, sha256, size, bytes: Vec::new() });
                Ok(News::Nothing)
            }
            _ => violation(format!("a document of {} bytes; at most {MAX_DOCUMENT} are taken", edition.size)),
        }
    }

    fn part(&mut self, data: &[u8]) -> Result<News, Violation> {
        let Some(open) = &mut self.open else { return violation("a part of no document") };
        if data.is_empty() || data.len() > open.size - open.bytes.len() {
            return violation("a part that is empty or too long");
        }
        open.bytes.extend_from_slice(data);
        if open.bytes.len() < open.size {
            return Ok(News::Nothing);
        }
        let Some(Open { edition, sha256, bytes, .. }) = self.open.take() else { return Ok(News::Nothing) };
        if Sha256::of(&bytes) != sha256 {
            return violation("a document that is not the one that was announced");
        }
        let Edition { gateway, generation, .. } = edition;
        Ok(News::Document(Document { gateway, generation, sha256, bytes: bytes.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::config_stream::{Complete, Heartbeat, Part, Welcome, Withdrawal};

    fn message(message: Message) -> FromController {
        FromController { message: Some(message) }
    }

    fn welcome() -> Message {
        Message::Welcome(Welcome { protocol: PROTOCOL, heartbeat_millis: 5_000 })
    }

    fn edition(document: &[u8]) -> Edition {
        Edition {
            gateway: "d/gw".to_owned(),
            generation: 3,
            sha256: Bytes::copy_from_slice(Sha256::of(document).as_bytes()),
            size: document.len() as u64,
        }
    }

    fn part(data: &'static [u8]) -> Message {
        Message::Part(Part { data: data.into() })
    }

    fn all(messages: Vec<Message>) -> Result<Vec<News>, Violation> {
        let mut incoming = Incoming::default();
        messages.into_iter().map(|next| incoming.take(message(next))).collect()
    }

    #[test]
    fn a_document_is_put_together() {
        let heartbeat = Message::Heartbeat(Heartbeat {});
        let news =
            all(vec![welcome(), Message::Edition(edition(b"hello")), part(b"he"), heartbeat, part(b"llo")]);
        let mut news = news.unwrap();
        let Some(News::Document(document)) = news.pop() else { panic!() };
        assert_eq!(
            (document.gateway.as_str(), document.generation, &*document.bytes),
            ("d/gw", 3, &b"hello"[..])
        );
        assert!(!format!("{document:?}").contains("hello"));
        assert_eq!(news[0], News::Welcome(Duration::from_secs(20)));
    }

    #[test]
    fn what_does_not_fit_is_a_violation() {
        let edition = |change: fn(&mut Edition)| {
            let mut edition = edition(b"hello");
            change(&mut edition);
            Message::Edition(edition)
        };
        let good = || edition(|_| {});
        let nobody = Message::Withdrawal(Withdrawal { gateway: "../x".to_owned() });
        let other = Message::Welcome(Welcome { protocol: 2, heartbeat_millis: 1 });
        for messages in [
            vec![Message::Complete(Complete {})],
            vec![other],
            vec![welcome(), welcome()],
            vec![welcome(), part(b"x")],
            vec![welcome(), nobody],
            vec![welcome(), edition(|edition| edition.gateway = "../../etc/passwd".to_owned())],
            vec![welcome(), edition(|edition| edition.sha256 = Bytes::new())],
            vec![welcome(), edition(|edition| edition.size = u64::MAX)],
            vec![welcome(), edition(|edition| edition.size = MAX_DOCUMENT as u64 + 1)],
            vec![welcome(), good(), part(b"")],
            vec![welcome(), good(), part(b"hellos")],
            vec![welcome(), good(), part(b"hallo")],
            vec![welcome(), good(), good()],
            vec![welcome(), good(), Message::Complete(Complete {})],
        ] {
            assert!(all(messages.clone()).is_err(), "{messages:?}");
        }
    }
}

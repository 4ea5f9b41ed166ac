//! One processor's stream.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::Publisher;
use super::grant::Grant;
use super::ledger::{Next, Peer, Stored, Verdict};
use crate::proto::config_stream::config_stream_server::ConfigStream;
use crate::proto::config_stream::{
    Complete, Edition, FromController, FromProcessor, Heartbeat, Hello, Part, Welcome, Withdrawal,
    from_controller, from_processor,
};
use crate::source::protocol::{MAX_GATEWAYS, MAX_PART, PROTOCOL, Sha256, is_gateway, is_replica};

/// The longest time in which nothing is sent.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a processor may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// What is kept of the problems of an edition, and of each.
const MAX_PROBLEMS: usize = 50;
const MAX_PROBLEM: usize = 1_000;

/// What the connection of a processor was opened with.
#[derive(Debug, Clone)]
pub(super) struct Proved(pub(super) Arc<[Grant]>);

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<FromController, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigStream for Publisher {
    type FollowStream = Messages;

    async fn follow(&self, request: Request<Streaming<FromProcessor>>) -> Result<Response<Messages>, Status> {
        let proved = request.extensions().get::<Proved>().cloned();
        let Some(Proved(grants)) = proved else {
            return Err(Status::unauthenticated("a client certificate is needed"));
        };
        if !self.ledger().is_serving() {
            return Err(away());
        }
        let mut inbound = request.into_inner();
        let hello = timeout(HELLO, inbound.message()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
        let Some(from_processor::Message::Hello(hello)) = hello.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message has to say who this is"));
        };
        let peer = peer(hello, grants)?;
        let replica = peer.replica.clone();
        // Before it is known, so that nothing is missed.
        let news = self.0.news.subscribe();
        let id = self.ledger().connect(peer, SystemTime::now()).ok_or_else(away)?;
        self.0.progress.send_modify(|count| *count += 1);
        tracing::info!(replica, "a processor is connected");
        let connected = Connected { publisher: self.clone(), id, replica };
        let session =
            Session { connected, inbound, news, sending: None, quiet: Instant::now(), greeted: false };
        Ok(Response::new(Box::pin(stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))))
    }
}

fn away() -> Status {
    Status::unavailable("this controller does not serve processors now; ask again")
}

/// Who it is, if it says so as it should.
fn peer(hello: Hello, grants: Arc<[Grant]>) -> Result<Peer, Status> {
    let Hello { protocol, replica, version, gateways, held, instance } = hello;
    if protocol != PROTOCOL {
        let message = format!(
            "protocol {protocol} is not spoken here, but {PROTOCOL}; controller and processors have to be of versions that fit"
        );
        return Err(Status::failed_precondition(message));
    }
    if !is_replica(&replica) || instance.len() > 64 || version.len() > 100 {
        return Err(Status::invalid_argument("the processor's name is none"));
    }
    if gateways.len() > MAX_GATEWAYS || held.len() > MAX_GATEWAYS {
        return Err(Status::invalid_argument("too many Gateways"));
    }
    if let Some(bad) = gateways.iter().find(|gateway| !is_gateway(gateway)) {
        return Err(Status::invalid_argument(format!("{bad:?} is no Gateway's namespace/name")));
    }
    if grants.is_empty() {
        return Err(Status::permission_denied(
            "the certificate names no Gateway; it needs a URI such as aigw://gateways/*",
        ));
    }
    let refused = gateways.iter().find(|gateway| !grants.iter().any(|grant| grant.covers(gateway)));
    if let Some(refused) = refused {
        return Err(Status::permission_denied(format!(
            "the certificate does not name the Gateway {refused}"
        )));
    }
    let held = held
        .into_iter()
        .filter(|held| is_gateway(&held.gateway))
        .filter_map(|held| Some((held.gateway, (held.generation, Sha256::read(&held.sha256)?))));
    Ok(Peer {
        held: held.collect(),
        gateways: gateways.into_iter().collect(),
        instance: instance.to_vec(),
        replica,
        version: printable(&version, 100),
        grants,
    })
}

/// A text of somebody else's, for people.
fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Somebody is connected, until this is dropped.
struct Connected {
    publisher: Publisher,
    id: u64,
    replica: String,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.publisher.ledger().disconnect(self.id);
        self.publisher.0.progress.send_modify(|count| *count += 1);
        tracing::info!(replica = self.replica, "a processor is no longer connected");
    }
}

struct Session {
    connected: Connected,
    inbound: Streaming<FromProcessor>,
    news: watch::Receiver<u64>,
    /// A document, and how much of it was sent.
    sending: Option<(Arc<Stored>, usize)>,
    /// When something was sent last.
    quiet: Instant,
    greeted: bool,
}

impl Session {
    /// The next message, once there is one. Nothing at the end. Asked for only when there is room for one.
    async fn next(&mut self) -> Result<Option<FromController>, Status> {
        if !std::mem::replace(&mut self.greeted, true) {
            // The receiver has to allow for delays.
            let heartbeat_millis = u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX);
            return self
                .say(from_controller::Message::Welcome(Welcome { protocol: PROTOCOL, heartbeat_millis }));
        }
        loop {
            if let Some(part) = self.part() {
                return self.say(from_controller::Message::Part(part));
            }
            // Also where there is always something to say.
            while let Some(said) = self.inbound.message().now_or_never() {
                if !self.hear(said?)? {
                    return Ok(None);
                }
            }
            self.news.borrow_and_update();
            let (next, connected) = {
                let mut ledger = self.connected.publisher.ledger();
                (ledger.next(self.connected.id), ledger.is_connected(self.connected.id))
            };
            if !connected {
                return Err(away());
            }
            if let Some(next) = next {
                let message = self.message(next);
                return self.say(message);
            }
            tokio::select! {
                biased;
                said = self.inbound.message() => if !self.hear(said?)? {
                    return Ok(None);
                },
                _ = self.news.changed() => {}
                () = sleep_until(self.quiet + HEARTBEAT) => {
                    return self.say(from_controller::Message::Heartbeat(Heartbeat {}));
                }
            }
        }
    }

    /// Whether more may come.
    fn hear(&self, said: Option<FromProcessor>) -> Result<bool, Status> {
        match said {
            None => Ok(false),
            Some(FromProcessor { message: Some(from_processor::Message::Verdict(verdict)) }) => {
                self.note(verdict).map(|()| true)
            }
            Some(_) => Err(Status::invalid_argument("only verdicts may follow")),
        }
    }

    fn say(&mut self, message: from_controller::Message) -> Result<Option<FromController>, Status> {
        self.quiet = Instant::now();
        Ok(Some(FromController { message: Some(message) }))
    }

    fn part(&mut self) -> Option<Part> {
        let (stored, sent) = self.sending.as_mut()?;
        let end = stored.document.len().min(*sent + MAX_PART);
        let data = stored.document.slice(*sent..end);
        *sent = end;
        if end == stored.document.len() {
            self.sending = None;
        }
        Some(Part { data })
    }

    fn message(&mut self, next: Next) -> from_controller::Message {
        match next {
            Next::Edition { stored, held } => {
                let edition = Edition {
                    gateway: stored.gateway.to_string(),
                    generation: stored.generation,
                    sha256: Bytes::copy_from_slice(stored.sha256.as_bytes()),
                    size: if held { 0 } else { stored.document.len() as u64 },
                };
                self.sending = (!held).then_some((stored, 0));
                from_controller::Message::Edition(edition)
            }
            Next::Withdrawal(gateway) => {
                from_controller::Message::Withdrawal(Withdrawal { gateway: gateway.to_string() })
            }
            Next::Complete => from_controller::Message::Complete(Complete {}),
        }
    }

    fn note(&self, verdict: crate::proto::config_stream::Verdict) -> Result<(), Status> {
        let sha256 = Sha256::read(&verdict.sha256);
        let sha256 = sha256.ok_or_else(|| Status::invalid_argument("a digest of another length"))?;
        let problem = |problem: &crate::proto::config_stream::Problem| {
            printable(&format!("{}: {}", problem.at, problem.message), MAX_PROBLEM)
        };
        let problems: Vec<_> = verdict.problems.iter().take(MAX_PROBLEMS).map(problem).collect();
        let (replica, gateway, generation) = (&self.connected.replica, &verdict.gateway, verdict.generation);
        if !verdict.in_force {
            let problems = problems.join("; ");
            tracing::error!(replica, ?gateway, generation, problems, "a processor cannot use an edition");
        }
        let verdict = Verdict {
            gateway: verdict.gateway,
            generation: verdict.generation,
            sha256,
            in_force: verdict.in_force,
            problems,
        };
        if self.connected.publisher.ledger().note(self.connected.id, verdict) {
            self.connected.publisher.0.progress.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

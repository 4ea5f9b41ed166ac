//! A request, described in one line: `model=gpt-4o host=api.example.com header=x-tenant:gold`.

use std::fmt;
use std::str::FromStr;

use crate::diagnostics::nearest;
use crate::tenant::{InvalidTenant, Tenant};

/// What can be said about a request.
const KEYS: [&str; 6] = ["model", "host", "listener", "path", "tenant", "header"];

/// Where requests go that name no path.
const DEFAULT_PATH: &str = "/v1/chat/completions";

/// A request as far as it matters for where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    text: String,
    model: String,
    host: Option<String>,
    listener: Option<String>,
    path: Option<String>,
    tenant: Option<Tenant>,
    headers: Vec<(String, String)>,
}

/// Why a description cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// A word without `=`.
    #[error("`{0}` says nothing: write words such as model=gpt-4o, with spaces between them")]
    NoValue(String),
    /// A word that means nothing.
    #[error(
        "`{0}` is not known{1}; there are model=, host=, listener=, path=, tenant= and header=name:value"
    )]
    Unknown(String, String),
    /// The same word twice.
    #[error("`{0}` is given twice; only header= may be")]
    Twice(String),
    /// A header without a colon, or with a name that none can have.
    #[error("`header={0}` names no header: write header=name:value")]
    NoHeader(String),
    /// A path that is none.
    #[error("`path={0}` must begin with a slash")]
    NoPath(String),
    /// A tenant that is none.
    #[error("`tenant={0}` names nobody: {1}")]
    NoTenant(String, InvalidTenant),
}

impl FromStr for Question {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let mut question = Self { text: text.trim().to_owned(), ..Self::default() };
        let mut seen = Vec::new();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| QuestionError::NoValue(word.to_owned()))?;
            if key != "header" && seen.contains(&key) {
                return Err(QuestionError::Twice(key.to_owned()));
            }
            seen.push(key);
            match key {
                "model" => value.clone_into(&mut question.model),
                "host" => question.host = Some(value.to_owned()),
                "listener" => question.listener = Some(value.to_owned()),
                "path" if value.starts_with('/') => question.path = Some(value.to_owned()),
                "path" => return Err(QuestionError::NoPath(value.to_owned())),
                "tenant" => {
                    let named =
                        value.parse().map_err(|error| QuestionError::NoTenant(value.to_owned(), error));
                    question.tenant = Some(named?);
                }
                "header" => question.headers.push(header(value)?),
                _ => {
                    let near = nearest(key, KEYS).map(|near| format!(" (did you mean `{near}`?)"));
                    return Err(QuestionError::Unknown(key.to_owned(), near.unwrap_or_default()));
                }
            }
        }
        Ok(question)
    }
}

fn header(text: &str) -> Result<(String, String), QuestionError> {
    let refused = || QuestionError::NoHeader(text.to_owned());
    let (name, value) = text.split_once(':').ok_or_else(refused)?;
    let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

impl Question {
    /// The model; empty if none is named.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The host name that is called.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The name of the listener that is called.
    #[must_use]
    pub fn listener(&self) -> Option<&str> {
        self.listener.as_deref()
    }

    /// The path that is called.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
    }

    /// Who is asking, having proved what is asked for; nothing if somebody is of whom no more is known.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Headers besides, with lower-case names.
    pub fn other_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// As it was written, without the values of headers that may hold credentials.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.text.split_whitespace().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            match word.strip_prefix("header=").and_then(|header| header.split_once(':')) {
                Some((name, _)) if is_secret(name) => write!(f, "header={name}:[REDACTED]")?,
                _ => f.write_str(word)?,
            }
        }
        Ok(())
    }
}

/// Whether a header of that name may hold a credential, whatever the files say of it.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    crate::auth::CLIENT_CREDENTIAL_HEADERS.contains(&name.as_str())
        || ["auth", "key", "token", "secret", "password", "cookie"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_understood() {
        let question: Question =
            " model=gpt-4o  host=a.example listener=gw/http path=/v1/embeddings header=X-A:1 header=x-b:c:d "
                .parse()
                .expect("a request");
        assert_eq!(
            (question.model(), question.host(), question.listener()),
            ("gpt-4o", Some("a.example"), Some("gw/http"))
        );
        assert_eq!(question.path(), "/v1/embeddings");
        assert_eq!(question.other_headers().collect::<Vec<_>>(), [("x-a", "1"), ("x-b", "c:d")]);
        assert_eq!("".parse::<Question>().expect("a request").path(), DEFAULT_PATH);
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, words) in [
            ("gpt-4o", "model=gpt-4o"),
            ("modle=x", "did you mean `model`?"),
            ("model=a model=b", "given twice"),
            ("header=x-a", "header=name:value"),
            ("header=a b:c", "header=name:value"),
            ("path=v1", "slash"),
            ("tenant=acme", "ORGANISATION/TEAM/KEY"),
        ] {
            let error = text.parse::<Question>().expect_err("refused").to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_are_not_repeated() {
        let question: Question = "model=a header=Authorization:sk-secret".parse().expect("a request");
        assert_eq!(question.to_string(), "model=a header=Authorization:[REDACTED]");
        let question: Question = "header=X-Our-Token:t header=x-team:a".parse().expect("a request");
        assert_eq!(question.to_string(), "header=X-Our-Token:[REDACTED] header=x-team:a");
    }
}

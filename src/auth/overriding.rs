//! Credentials that requests bring themselves, by way of a filter in front of the gateway.

use std::borrow::Cow;

use secrecy::SecretString;
use serde_json::Value;

use super::{AwsKeys, SignError, SigningRequest};
use crate::headers::HeaderEdits;

const AWS_HEADERS: [&str; 3] = ["access-key-id", "secret-access-key", "session-token"];
const AWS_MEMBERS: [&str; 3] = ["accessKeyId", "secretAccessKey", "sessionToken"];

/// Where a request's own credential stands.
#[derive(Debug, Clone)]
pub struct Override {
    from: From,
    fallback: bool,
    remove: Vec<String>,
}

#[derive(Debug, Clone)]
enum From {
    /// A lower-case name; for AWS a prefix of three.
    Header(String),
    Metadata {
        namespace: String,
        key: String,
    },
}

/// What a request brought.
#[derive(Debug)]
pub enum Provided {
    /// A key or token.
    Text(SecretString),
    /// Keys to sign with.
    Aws(AwsKeys),
}

impl Override {
    /// In a request header; for AWS, `name` is the prefix of three headers.
    pub fn header(name: &str, fallback: bool) -> Self {
        Self { from: From::Header(name.to_ascii_lowercase()), fallback, remove: Vec::new() }
    }

    /// In dynamic metadata: a text, for AWS an object of three texts.
    pub fn metadata(namespace: &str, key: &str, fallback: bool) -> Self {
        let from = From::Metadata { namespace: namespace.to_owned(), key: key.to_owned() };
        Self { from, fallback, remove: Vec::new() }
    }

    /// Takes more headers off the request than those it is read from.
    #[must_use]
    pub fn removing<'n>(mut self, names: impl IntoIterator<Item = &'n String>) -> Self {
        self.remove.extend(names.into_iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// Whether requests without one are signed with the configured one.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback
    }

    /// What the request brings. It is off the request from then on, whatever it is.
    pub(super) fn take(
        &self,
        request: &SigningRequest<'_>,
        edits: &mut HeaderEdits,
        aws: bool,
    ) -> Result<Option<Provided>, SignError> {
        let texts: [Option<String>; 3] = match &self.from {
            From::Header(prefix) if aws => {
                AWS_HEADERS.map(|name| take_header(&format!("{prefix}{name}"), request, edits))
            }
            From::Header(name) => [take_header(name, request, edits), None, None],
            From::Metadata { namespace, key } => {
                let value = request.credential_metadata.get(namespace, key);
                let text = |value: Option<&Value>| {
                    let text = value.and_then(Value::as_str).map(str::trim);
                    text.filter(|text| !text.is_empty()).map(str::to_owned)
                };
                if aws {
                    AWS_MEMBERS.map(|member| text(value.and_then(|value| value.get(member))))
                } else {
                    [text(value), None, None]
                }
            }
        };
        for name in &self.remove {
            drop(take_header(name, request, edits));
        }
        match texts {
            [None, None, None] => Ok(None),
            [Some(text), ..] if !aws => Ok(Some(Provided::Text(text.into()))),
            [Some(id), Some(secret), token] => match AwsKeys::new(&id, &secret, token.as_deref()) {
                Some(keys) => Ok(Some(Provided::Aws(keys))),
                None => Err(SignError::Unusable(
                    "the AWS keys the request brings hold characters that no header may hold".to_owned(),
                )),
            },
            // Signing with the gateway's own keys would let the request pass as somebody else's.
            _ => Err(SignError::Unusable(
                "the AWS keys the request brings are incomplete: access key id and secret access key go together"
                    .to_owned(),
            )),
        }
    }
}

/// The value the provider would have seen; now it will not.
fn take_header(name: &str, request: &SigningRequest<'_>, edits: &mut HeaderEdits) -> Option<String> {
    let set = edits.set.iter().position(|(set, _)| set == name.as_bytes()).map(|at| edits.set.remove(at).1);
    let original = request.headers.get(name);
    if original.is_some() {
        edits.remove(Cow::Owned(name.to_owned()));
    }
    let value = set.as_deref().or(original)?;
    let text = String::from_utf8_lossy(value).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

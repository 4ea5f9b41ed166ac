//! L0. OpenAI-style request and response bodies, as far as the gateway acts on them.

pub mod answer;
pub mod chat;

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What the gateway reads from a JSON request of the OpenAI family. Everything else in the body stays unread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestPeek {
    /// `model`; absent and `null` are the same.
    pub model: Option<String>,
    /// `stream`.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// `stream_format`.
    pub stream_format: Option<String>,
    /// `input` is there.
    pub has_input: bool,
    /// `messages` is there.
    pub has_messages: bool,
    /// `prompt` is there.
    pub has_prompt: bool,
    /// `continue_final_message`.
    pub continue_final_message: bool,
    /// `add_generation_prompt`.
    pub add_generation_prompt: Option<bool>,
}

/// Why a request body cannot be read. The text names the member and the place, for the client to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRequest(pub String);

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_format: Option<&'a RawValue>,
    #[serde(borrow)]
    continue_final_message: Option<&'a RawValue>,
    #[serde(borrow)]
    add_generation_prompt: Option<&'a RawValue>,
    input: Option<IgnoredAny>,
    messages: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl RequestPeek {
    /// Reads a whole body. It must be exactly one JSON object; a member given twice is refused, because the provider
    /// might heed the other one.
    pub fn parse(body: &[u8]) -> Result<Self, MalformedRequest> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
            // Well-formed or not, it is not an object; the parser is asked for the place of a syntax error first.
            let error = serde_json::from_slice::<IgnoredAny>(body).err();
            let text = error.map_or_else(
                || "the request body must be a JSON object".to_owned(),
                |error| error.to_string(),
            );
            return Err(MalformedRequest(text));
        }
        let members: Members<'_> =
            serde_json::from_slice(body).map_err(|error| MalformedRequest(error.to_string()))?;
        let stream_options = member::<StreamOptions>("stream_options", "an object", members.stream_options)?;
        let text = |name, raw| Ok(member::<Cow<'_, str>>(name, "a string", raw)?.map(Cow::into_owned));
        let flag = |name, raw| member::<bool>(name, "true or false", raw);
        Ok(Self {
            model: text("model", members.model)?,
            stream: flag("stream", members.stream)?.unwrap_or(false),
            stream_format: text("stream_format", members.stream_format)?,
            has_input: members.input.is_some(),
            has_messages: members.messages.is_some(),
            has_prompt: members.prompt.is_some(),
            continue_final_message: flag("continue_final_message", members.continue_final_message)?
                .unwrap_or(false),
            add_generation_prompt: flag("add_generation_prompt", members.add_generation_prompt)?,
            include_usage: stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        })
    }
}

fn member<'a, T: Deserialize<'a>>(
    name: &str,
    what: &str,
    raw: Option<&'a RawValue>,
) -> Result<Option<T>, MalformedRequest> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|_| {
        let shown: String = raw.get().chars().take(40).collect();
        let more = if raw.get().len() > shown.len() { "…" } else { "" };
        MalformedRequest(format!("`{name}` must be {what}, not {shown}{more}"))
    })
}

/// The error body of the gateway and of wrapped provider errors:
/// `{"type":"error","error":{"type":…,"code":"<status>","message":…}}`.
pub fn error_body(kind: &str, code: u16, message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: &'a str,
        error: Inner<'a>,
    }
    #[derive(Serialize)]
    struct Inner<'a> {
        r#type: &'a str,
        code: String,
        message: &'a str,
    }
    let body = Body { r#type: "error", error: Inner { r#type: kind, code: code.to_string(), message } };
    serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
}

/// An error in the middle of a stream.
pub fn error_event(kind: &str, code: u16, message: &str) -> Vec<u8> {
    [&b"data: "[..], &error_body(kind, code, message), b"\n\n"].concat()
}

/// One entry of the models list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// The id clients send as `model`.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Always `model`.
    pub object: &'static str,
    /// Who runs it.
    pub owned_by: String,
}

/// The body of `GET /v1/models`.
pub fn models_body(data: &[ModelEntry]) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        data: &'a [ModelEntry],
        object: &'a str,
    }
    serde_json::to_vec(&List { data, object: "list" }).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &str) -> String {
        RequestPeek::parse(body.as_bytes()).unwrap_err().0
    }

    #[test]
    fn reads_what_it_acts_on() {
        let body = br#"{"messages":[{"model":"no"}],"model":"gpt-\u0034","stream":true,"stream_options":{"include_usage":true}}"#;
        let peek = RequestPeek::parse(body).unwrap();
        let expected = RequestPeek {
            model: Some("gpt-4".into()),
            stream: true,
            include_usage: true,
            has_messages: true,
            ..RequestPeek::default()
        };
        assert_eq!(peek, expected);
        assert_eq!(RequestPeek::parse(br#" {"model":null} "#).unwrap(), RequestPeek::default());
    }

    #[test]
    fn names_the_place_of_a_syntax_error() {
        assert!(problem("{\"model\": \"a\",\n oops}").contains("line 2 column 2"));
        assert!(problem("[1,").contains("line 1 column 3"));
        assert!(problem("{\"model\":\"a\"} x").contains("trailing characters at line 1 column 15"));
        assert!(problem("").contains("line 1 column 0"));
    }

    #[test]
    fn names_the_member_of_a_wrong_type() {
        assert_eq!(problem(r#"{"model":5}"#), "`model` must be a string, not 5");
        assert_eq!(problem(r#"{"stream":"yes"}"#), "`stream` must be true or false, not \"yes\"");
        assert_eq!(problem("[1]"), "the request body must be a JSON object");
        assert_eq!(problem("null"), "the request body must be a JSON object");
        assert!(problem(r#"{"model":"a","model":"b"}"#).contains("duplicate field `model`"));
    }

    #[test]
    fn error_bodies_are_json_whatever_the_message() {
        let body = error_body("BadRequest", 400, "a \"quoted\"\n\u{1} text");
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["error"]["message"], "a \"quoted\"\n\u{1} text");
        assert_eq!(value["error"]["code"], "400");
    }
}

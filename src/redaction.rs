//! L1. What of a message may be logged: headers without credentials, bodies without content.
//!
//! Where the Go processor hides a header, this hides it too; it hides more, because what is hidden in vain does no harm.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::auth::CLIENT_CREDENTIAL_HEADERS;

/// What stands for a header's value.
const REDACTED: &str = "[REDACTED]";
/// How much of a header's value is shown.
const MAX_VALUE: usize = 1024;
/// Bodies that are longer are not looked into.
const MAX_LOOKED_INTO: usize = 1 << 20;

/// A header's value as it may be shown; `name` is lower-case. The queries of paths are credentials at some providers.
pub fn header<'a>(name: &str, value: &'a [u8]) -> Cow<'a, str> {
    if is_secret(name) {
        return REDACTED.into();
    }
    let shown = &value[..value.len().min(MAX_VALUE)];
    let is_path = matches!(name, ":path" | "location" | "referer") || name.ends_with("-path");
    match shown.iter().position(|byte| *byte == b'?').filter(|_| is_path) {
        Some(query) => format!("{}?{REDACTED}", String::from_utf8_lossy(&shown[..query])).into(),
        None => String::from_utf8_lossy(shown),
    }
}

fn is_secret(name: &str) -> bool {
    const ENDS: [&str; 9] = [
        "-access-key-id",
        "-secret-access-key",
        "-token",
        "-key",
        "-secret",
        "-password",
        "-authorization",
        "cookie",
        "-signature",
    ];
    name.starts_with("x-aigw-")
        || CLIENT_CREDENTIAL_HEADERS.contains(&name)
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// A body without its content: JSON keeps its structure, its numbers, and the texts that say what is what; every other text
/// becomes its length and the beginning of its SHA-256, so that equal ones can be told. What is not JSON is one text.
pub fn body(body: &[u8]) -> String {
    let looked_into =
        body.len() <= MAX_LOOKED_INTO && body.first().is_some_and(|first| b"{[ \t\r\n".contains(first));
    match serde_json::from_slice(body) {
        Ok(document) if looked_into => redacted(document, false).to_string(),
        _ => text(body),
    }
}

/// `[REDACTED LENGTH=<bytes> HASH=<16 hexadecimal digits>]`.
fn text(text: &[u8]) -> String {
    let hash = digest(&SHA256, text);
    let start = hash.as_ref().iter().take(8).fold(0_u64, |start, byte| (start << 8) | u64::from(*byte));
    format!("[REDACTED LENGTH={} HASH={start:016x}]", text.len())
}

/// `tool`: the value is the description of a tool, whose name and schema are kept.
fn redacted(value: Value, tool: bool) -> Value {
    match value {
        Value::String(content) => text(content.as_bytes()).into(),
        Value::Array(items) => items.into_iter().map(|item| redacted(item, tool)).collect(),
        Value::Object(members) => {
            let member = |(name, value): (String, Value)| {
                let kept = match name.as_str() {
                    "type" | "role" | "model" | "object" => value.is_string(),
                    "name" => tool && value.is_string(),
                    "parameters" | "input_schema" | "inputSchema" => tool,
                    _ => false,
                };
                let tool = name == "tools" || (tool && matches!(name.as_str(), "function" | "toolSpec"));
                let value = if kept { value } else { redacted(value, tool) };
                (name, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_in_headers_are_hidden_and_the_rest_is_shown() {
        for name in [
            "authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "cookie",
            "set-cookie",
            "proxy-authorization",
            "x-aigw-anything",
            "x-amz-security-token",
            "tenant-access-key-id",
            "my-secret-access-key",
            "aws-session-token",
        ] {
            assert_eq!(header(name, b"secret"), REDACTED, "{name}");
        }
        assert_eq!(header("content-type", b"application/json"), "application/json");
        assert_eq!(header("x-request-id", b"1\xff"), "1\u{fffd}");
        for name in [":path", "x-ai-eg-original-path", "x-envoy-original-path"] {
            assert_eq!(header(name, b"/v1/models?key=secret"), "/v1/models?[REDACTED]", "{name}");
        }
        assert_eq!(header("x-long", &[b'a'; 5000]).len(), MAX_VALUE);
    }

    #[test]
    fn bodies_keep_their_shape_only() {
        // SHA-256 of "abc" begins with these digits.
        let abc = "[REDACTED LENGTH=3 HASH=ba7816bf8f01cfea]";
        assert_eq!(body(b"abc"), abc);
        let document = json!({
            "model": "m", "temperature": 0.5, "stream": true, "user": "abc", "stop": null, "name": "abc",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}]}],
            "tools": [{"type": "function", "function": {"name": "f", "description": "abc", "parameters": {"title": "t"}}}],
        });
        let expected = json!({
            "model": "m", "temperature": 0.5, "stream": true, "user": abc, "stop": null, "name": abc,
            "messages": [{"role": "user", "content": [{"type": "text", "text": abc}]}],
            "tools": [{"type": "function", "function": {"name": "f", "description": abc, "parameters": {"title": "t"}}}],
        });
        assert_eq!(body(document.to_string().as_bytes()), expected.to_string());
        // A text in the place of what would be kept for its name.
        let odd = json!({"type": ["abc"], "model": {"x": "abc"}});
        assert_eq!(body(odd.to_string().as_bytes()), json!({"type": [abc], "model": {"x": abc}}).to_string());
    }

    proptest! {
        #[test]
        fn no_content_is_shown(content in "[a-z]{3,}-[a-z]{3,}-[0-9]{3,}", wrap in 0..4) {
            let whole = match wrap {
                0 => json!({"messages": [{"content": content}]}).to_string(),
                1 => json!([[content]]).to_string(),
                2 => format!("data: {{\"text\":\"{content}\"}}\n\n"),
                _ => format!("{{\"text\":\"{content}"),
            };
            prop_assert!(!body(whole.as_bytes()).contains(&content));
        }
    }
}

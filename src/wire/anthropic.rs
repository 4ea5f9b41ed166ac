//! L0. Anthropic's bodies, as far as the gateway reads or writes them.

pub mod answer;
pub mod request;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

/// The version of the API that is spoken, where the client does not say which it wants.
pub const VERSION: &str = "2023-06-01";

/// An error: `{"error":{"message":…,"type":…},"request_id":"","type":"error"}`, its type by the status.
pub fn error_body(status: u16, message: &str) -> Bytes {
    let kind = error_type(status);
    json!({"error": {"message": message, "type": kind}, "request_id": "", "type": "error"}).to_string().into()
}

/// What Anthropic calls an error of that status: <https://docs.anthropic.com/en/api/errors>.
fn error_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "service_unavailable_error",
        529 => "overloaded_error",
        _ => "internal_server_error",
    }
}

/// The HTTP status of an error of that type: the other way round, for errors in the middle of a stream, which have none.
pub fn error_status(kind: &str) -> u16 {
    match kind {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "service_unavailable_error" => 503,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => 500,
    }
}

/// An error in the middle of a stream.
pub fn error_event(status: u16, message: &str) -> Bytes {
    let body = error_body(status, message);
    [&b"event: error\ndata: "[..], &body, b"\n\n"].concat().into()
}

/// One entry of the models list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// The id clients send as `model`.
    pub id: String,
    /// Always `model`.
    pub r#type: &'static str,
    /// For people; the id again.
    pub display_name: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// The body of `GET /anthropic/v1/models`: everything on one page.
pub fn models_body(data: &[ModelEntry]) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        data: &'a [ModelEntry],
        #[serde(skip_serializing_if = "Option::is_none")]
        first_id: Option<&'a str>,
        has_more: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_id: Option<&'a str>,
    }
    let id = |entry: Option<&'_ ModelEntry>| entry.map(|entry| entry.id.clone());
    let (first, last) = (id(data.first()), id(data.last()));
    let list = List { data, first_id: first.as_deref(), has_more: false, last_id: last.as_deref() };
    serde_json::to_vec(&list).map(Bytes::from).unwrap_or_default()
}

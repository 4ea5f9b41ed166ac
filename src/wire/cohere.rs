//! L0. Cohere's bodies, as far as the gateway writes them.

use bytes::Bytes;
use serde_json::json;

/// An error: `{"message":…}`.
pub fn error_body(message: &str) -> Bytes {
    json!({"message": message}).to_string().into()
}

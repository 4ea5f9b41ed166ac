//! Messages of Envoy in the log, at level debug: headers without credentials, bodies without content.

use std::fmt::Write;

use tracing::Level;

use crate::exchange::Input;
use crate::headers::Headers;
use crate::redaction;

/// Logs one message, where that is wanted. `shapes`: bodies are shown by their shape; otherwise by their length only.
pub(super) fn message(input: &Input, shapes: bool) {
    const TARGET: &str = "aigw::messages";
    if !tracing::enabled!(target: TARGET, Level::DEBUG) {
        return;
    }
    match input {
        Input::RequestHeaders { headers, end_of_stream } => {
            tracing::debug!(target: TARGET, headers = shown(headers), end_of_stream, "request headers");
        }
        Input::ResponseHeaders { headers, end_of_stream } => {
            tracing::debug!(target: TARGET, headers = shown(headers), end_of_stream, "response headers");
        }
        Input::RequestBody { body, end_of_stream } => {
            let shape = shapes.then(|| redaction::body(body));
            tracing::debug!(target: TARGET, length = body.len(), shape, end_of_stream, "request body");
        }
        Input::ResponseBody { body, end_of_stream } => {
            let shape = shapes.then(|| redaction::body(body));
            tracing::debug!(target: TARGET, length = body.len(), shape, end_of_stream, "response body");
        }
        Input::RequestTrailers => tracing::debug!(target: TARGET, "request trailers"),
        Input::ResponseTrailers => tracing::debug!(target: TARGET, "response trailers"),
    }
}

fn shown(headers: &Headers) -> String {
    headers.iter().fold(String::new(), |mut text, (name, value)| {
        let name = String::from_utf8_lossy(name);
        let between = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{between}{name}: {}", redaction::header(&name, value));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_shown_without_credentials() {
        let headers: Headers =
            [(":method", "POST"), ("authorization", "Bearer secret"), ("x-a", "1")].into_iter().collect();
        assert_eq!(shown(&headers), ":method: POST, authorization: [REDACTED], x-a: 1");
    }
}

//! The listener for tools (Model Context Protocol), which are not served yet: whoever asks is told so.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::listen::{Incoming, Listener};

/// Answers every request with 501 and an error in the protocol's own form (JSON-RPC), until dropped.
pub(super) async fn serve(listener: Listener) {
    let answer = || async {
        let error = serde_json::json!({
            "jsonrpc": "2.0",
            "id": null,
            "error": {
                "code": -32601,
                "message": "this gateway does not serve tools (MCP) yet; requests to models are not affected",
            },
        });
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::NOT_IMPLEMENTED, kind, format!("{error}\n")).into_response()
    };
    if let Err(error) = axum::serve(Incoming(listener), Router::new().fallback(answer)).await {
        tracing::error!(%error, "the listener for MCP failed");
    }
}

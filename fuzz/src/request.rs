//! The first byte chooses the endpoint, the second whether the body is a form; the rest is the body.

use ai_gateway::endpoint::{Endpoint, ModelRequest};
use ai_gateway::headers::Headers;
use ai_gateway::translate::{self, BodyEdits, Pair, RequestFacts};
use bytes::Bytes;

pub fn run(data: &[u8]) {
    let [endpoint, form, body @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*endpoint) % Endpoint::ALL.len()];
    let content_type = if form % 2 == 1 { "multipart/form-data; boundary=b" } else { "application/json" };
    let Ok(request) = ModelRequest::read(endpoint, content_type, body) else { return };
    let edits = BodyEdits::default();
    let headers: Headers = [("content-type", content_type)].into_iter().collect();
    let body = Bytes::copy_from_slice(body);
    let facts = RequestFacts {
        endpoint,
        headers: &headers,
        body: &body,
        model: "other",
        model_override: Some("other"),
        streaming: request.streaming,
        force_usage: endpoint.usage_is_optional(),
        edits: &edits,
    };
    // What was accepted can be edited, and says afterwards what it was made to say.
    let edited = translate::request(Pair::Same, &facts).unwrap().body.unwrap();
    let again = ModelRequest::read(endpoint, content_type, &edited).unwrap();
    assert_eq!(again.model.as_deref(), Some("other"));
    assert_eq!(again.streaming, request.streaming);
    assert!(again.include_usage || !endpoint.usage_is_optional());
}

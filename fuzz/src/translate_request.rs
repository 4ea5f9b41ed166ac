//! The first byte chooses between which dialects; the rest is a request for chat completions.

use ai_gateway::endpoint::Endpoint;
use ai_gateway::headers::Headers;
use ai_gateway::translate::{self, BodyEdits, Pair, RequestFacts};
use bytes::Bytes;

pub fn run(data: &[u8]) {
    let [choice, body @ ..] = data else { return };
    let pair = [Pair::ChatToAnthropic, Pair::ChatToConverse][usize::from(choice % 2)];
    let body = Bytes::copy_from_slice(body);
    let facts = RequestFacts {
        endpoint: Endpoint::ChatCompletions,
        headers: &Headers::default(),
        body: &body,
        model: if choice & 2 == 0 { "claude-opus-4-6" } else { "anthropic.claude-x" },
        model_override: None,
        streaming: choice & 4 == 0,
        force_usage: false,
        edits: &BodyEdits::default(),
    };
    if let Ok(outgoing) = translate::request(pair, &facts) {
        let body: serde_json::Value = serde_json::from_slice(&outgoing.body.unwrap()).unwrap();
        assert!(body["messages"].is_array());
    }
}

//! The first bytes choose between which dialects, what the answer claims to be and how large its chunks are; the rest is its body.

use std::time::SystemTime;

use ai_gateway::endpoint::Endpoint;
use ai_gateway::headers::Headers;
use ai_gateway::mutation::{BodyChange, ResponsePhases};
use ai_gateway::translate::{self, Answer, Pair, Report};
use bytes::Bytes;

const PAIRS: [Pair; 3] = [Pair::ChatToAnthropic, Pair::ChatToConverse, Pair::Same];
const TYPES: [&str; 3] = ["text/event-stream", "application/vnd.amazon.eventstream", "application/json"];

/// What the client gets, and what was counted; nothing where the exchange ends.
fn read(choice: u8, body: &[u8], size: usize) -> Option<(Vec<u8>, Report)> {
    let answer = Answer {
        pair: PAIRS[usize::from(choice % 3)],
        model: "m",
        created: SystemTime::UNIX_EPOCH,
        endpoint: Endpoint::ChatCompletions,
        streaming: true,
        hide_usage: choice & 64 == 0,
        status: if choice & 128 == 0 { 200 } else { 500 },
    };
    let headers: Headers = [("content-type", TYPES[usize::from(choice / 3 % 3)])].into_iter().collect();
    let plan = translate::plan(&answer, &headers);
    // Envoy cuts nothing that it was asked to hold.
    let size = if plan.phases == ResponsePhases::Buffered { body.len().max(1) } else { size };
    let mut reader = plan.reader?;
    let mut out = Vec::new();
    let chunks = body.chunks(size).map(Bytes::copy_from_slice);
    for (chunk, end) in chunks.map(|chunk| (chunk, false)).chain([(Bytes::new(), true)]) {
        match reader.chunk(chunk.clone(), end).ok()? {
            BodyChange::Keep => out.extend_from_slice(&chunk),
            BodyChange::Replace(bytes) => out.extend_from_slice(&bytes),
        }
    }
    Some((out, reader.report().clone()))
}

pub fn run(data: &[u8]) {
    let [choice, size, body @ ..] = data else { return };
    let whole = read(*choice, body, body.len().max(1));
    assert_eq!(read(*choice, body, usize::from(*size).max(1)), whole);
    let Some((out, report)) = whole else { return };
    if report.cut && PAIRS[usize::from(choice % 3)] != Pair::Same {
        assert!(
            !out.windows(6).any(|window| window == b"[DONE]")
                || body.windows(6).any(|window| window == b"[DONE]")
        );
    }
}

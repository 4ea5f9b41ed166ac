use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoint;

/// What the client gets of a stream in those pieces, and whether it was cut.
fn read(endpoint: Endpoint, hide_usage: bool, pieces: &[&[u8]]) -> (String, bool) {
    let mut edits = HeaderEdits::default();
    let mut stream = Stream::new(Observer::of(endpoint), Decoding::of(""), hide_usage, &mut edits);
    let mut out = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let piece = Bytes::copy_from_slice(piece);
        match stream.chunk(piece.clone(), index + 1 == pieces.len()).unwrap() {
            BodyChange::Keep => out.extend_from_slice(&piece),
            BodyChange::Replace(bytes) => out.extend_from_slice(&bytes),
        }
    }
    (String::from_utf8(out).unwrap(), stream.report().cut)
}

const CHUNK: &str =
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";

#[test]
fn a_stream_that_stops_in_the_middle_ends_with_the_dialects_error() {
    let openai = r#"data: {"type":"error","error":{"type":"UpstreamError","code":"502","message":"the provider ended the stream before the answer was complete"}}"#;
    let openai = openai.to_owned() + "\n\n";
    for hide in [false, true] {
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses] {
            assert_eq!(read(endpoint, hide, &[CHUNK.as_bytes()]), (CHUNK.to_owned() + &openai, true));
            // An event that is itself cut is closed first.
            let half = &CHUNK[..CHUNK.len() - 9];
            let expected = (format!("{CHUNK}{half}\n\n{openai}"), true);
            assert_eq!(read(endpoint, hide, &[CHUNK.as_bytes(), half.as_bytes()]), expected);
        }
        assert_eq!(read(Endpoint::ChatCompletions, hide, &[b""]), (openai.clone(), true));
    }
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n";
    let (text, cut) = read(Endpoint::Messages, false, &[delta.as_bytes(), b""]);
    let ending = text.strip_prefix(delta).unwrap();
    let data = ending.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    let error: serde_json::Value = serde_json::from_str(data).unwrap();
    assert!(cut && error["type"] == "error" && error["error"]["type"] == "internal_server_error", "{error}");
}

#[test]
fn a_stream_that_is_complete_passes_as_it_is() {
    for (endpoint, end) in [
        (Endpoint::ChatCompletions, "data: [DONE]\n\n"),
        // Not every provider ends its streams as OpenAI does.
        (Endpoint::ChatCompletions, "data: [DONE]"),
        (Endpoint::ChatCompletions, "data: {\"choices\":[{\"finish_reason\": \"stop\"}]}\n\n"),
        (Endpoint::ChatCompletions, "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}\n\n"),
        (Endpoint::Responses, "data: {\"type\":\"response.completed\",\"response\":{}}\n\n"),
        (Endpoint::Responses, "data: {\"type\":\"response.incomplete\"}\n\n"),
        (Endpoint::Messages, "event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n"),
        (Endpoint::Speech, "data: {}\n\n"),
    ] {
        let stream = CHUNK.to_owned() + end;
        assert_eq!(read(endpoint, false, &[stream.as_bytes()]), (stream, false), "{endpoint:?} {end}");
    }
}

#[test]
fn a_providers_own_error_is_not_told_twice() {
    for (endpoint, end) in [
        (Endpoint::ChatCompletions, "data: {\"error\":{\"message\":\"no\"}}\n\n"),
        (Endpoint::ChatCompletions, "data: {\"error\": {\"message\":\"no\"}}\n\ndata: [DONE]\n\n"),
        (Endpoint::Responses, "data: {\"type\":\"response.failed\",\"response\":{}}\n\n"),
        (Endpoint::Responses, "data: {\"type\":\"error\",\"message\":\"no\"}\n\n"),
        (Endpoint::Messages, "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"),
    ] {
        let stream = CHUNK.to_owned() + end;
        assert_eq!(read(endpoint, false, &[stream.as_bytes()]), (stream, true), "{endpoint:?} {end}");
    }
    let harmless = "data: {\"choices\":[{\"delta\":{\"error\":1}}],\"error\":null}\n\ndata: [DONE]\n\n";
    assert_eq!(read(Endpoint::ChatCompletions, false, &[harmless.as_bytes()]), (harmless.to_owned(), false));
}

#[test]
fn nothing_is_said_within_a_compression_that_is_the_providers() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, CHUNK.as_bytes()).unwrap();
    let body = Bytes::from(encoder.finish().unwrap());
    let mut edits = HeaderEdits::default();
    let observer = Observer::of(Endpoint::ChatCompletions);
    let mut stream = Stream::new(observer, Decoding::of("gzip"), false, &mut edits);
    assert_eq!(stream.chunk(body, true), Ok(BodyChange::Keep));
    assert!(stream.report().cut);
}

#[test]
fn trailers_end_a_stream_too() {
    for (body, cut) in [("data: [DONE]\n\n", false), ("data: [DONE]", false), (CHUNK, true)] {
        let mut edits = HeaderEdits::default();
        let observer = Observer::of(Endpoint::ChatCompletions);
        let mut stream = Stream::new(observer, Decoding::of(""), false, &mut edits);
        stream.chunk(body.into(), false).unwrap();
        stream.finish();
        assert_eq!(stream.report().cut, cut, "{body}");
    }
}

proptest! {
    #[test]
    fn where_a_cut_stream_was_cut_into_chunks_does_not_matter(at in 0..CHUNK.len(), last in 0..CHUNK.len()) {
        let body = &(CHUNK.to_owned() + CHUNK)[..CHUNK.len() + last];
        let whole = read(Endpoint::ChatCompletions, true, &[body.as_bytes()]);
        let (first, second) = body.as_bytes().split_at(at);
        prop_assert_eq!(read(Endpoint::ChatCompletions, true, &[first, second]), whole);
    }
}

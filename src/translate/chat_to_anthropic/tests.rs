//! Inputs are in `testdata`; what becomes of them is in the snapshots beside them, byte for byte.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::mutation::{BodyChange, ResponsePhases};
use crate::translate::{self, Answer, BodyEdits, Outgoing, Pair, Plan, Report, RequestFacts, TranslateError};

fn request(body: &str, edits: &BodyEdits) -> Result<Outgoing, TranslateError> {
    let parsed: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let (headers, body) = (Headers::default(), Bytes::copy_from_slice(body.as_bytes()));
    let facts = RequestFacts {
        endpoint: Endpoint::ChatCompletions,
        headers: &headers,
        body: &body,
        model: parsed["model"].as_str().unwrap_or_default(),
        model_override: None,
        streaming: parsed["stream"] == true,
        force_usage: true,
        edits,
    };
    translate::request(Pair::ChatToAnthropic, &facts)
}

fn plan(status: u16, content_type: &str, hide_usage: bool) -> Plan {
    let headers = [("content-type", content_type.to_owned()), ("content-length", "5".to_owned())];
    plan_of(status, hide_usage, headers)
}

fn plan_of(status: u16, hide_usage: bool, headers: [(&'static str, String); 2]) -> Plan {
    let answer = Answer {
        pair: Pair::ChatToAnthropic,
        model: "asked-for",
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        endpoint: Endpoint::ChatCompletions,
        streaming: true,
        hide_usage,
        status,
    };
    translate::plan(&answer, &headers.into_iter().collect())
}

/// What the client gets of a body that comes in those pieces.
fn read(plan: Plan, pieces: &[&[u8]]) -> (String, Report) {
    let mut reader = plan.reader.unwrap();
    let mut out = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match reader.chunk(Bytes::copy_from_slice(piece), index + 1 == pieces.len()).unwrap() {
            BodyChange::Replace(body) => out.extend_from_slice(&body),
            BodyChange::Keep => panic!("nothing passes untranslated"),
        }
    }
    (String::from_utf8(out).unwrap(), reader.report().clone())
}

fn golden(files: &str, show: impl Fn(&str) -> String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("testdata");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("testdata", files, |path| {
            let kind = files.split('/').next().unwrap_or_default();
            insta::assert_snapshot!(kind, show(&std::fs::read_to_string(path).unwrap()));
        });
    });
}

#[test]
fn requests() {
    golden("requests/*.json", |body| {
        let outgoing = request(body, &BodyEdits::default()).unwrap();
        let headers: Vec<_> = outgoing
            .headers
            .set
            .iter()
            .map(|(name, value)| {
                format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            })
            .collect();
        headers.concat() + std::str::from_utf8(&outgoing.body.unwrap()).unwrap()
    });
}

#[test]
fn answers() {
    golden("answers/*.json", |body| {
        let plan = plan(200, "application/json", false);
        assert_eq!(plan.phases, ResponsePhases::Buffered);
        assert_eq!(plan.headers.remove, ["content-length"]);
        let (text, report) = read(plan, &[body.as_bytes()]);
        format!("{text}\n{:?} {:?}", report.usage, report.model)
    });
}

#[test]
fn streams() {
    golden("streams/*.sse", |body| {
        let asked = plan(200, "text/event-stream; charset=utf-8", false);
        assert_eq!((asked.phases, &asked.headers.set[..]), (ResponsePhases::Streamed, &[][..]));
        let (told, report) = read(asked, &[body.as_bytes()]);
        let (untold, quiet) = read(plan(200, "text/event-stream", true), &[body.as_bytes()]);
        assert_eq!(quiet, report, "usage is counted whether the client wants to know or not");
        let usage_events = told.matches("\"choices\":[]").count();
        assert_eq!(told.lines().count() - untold.lines().count(), 2 * usage_events);
        assert_eq!(report.cut, !told.ends_with("data: [DONE]\n\n"));
        format!("{told}{:?} {:?} cut: {}", report.usage, report.model, report.cut)
    });
}

#[test]
fn errors_keep_their_type_and_message_or_are_told_as_they_are() {
    let own =
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow \"down\""},"request_id":"r"}"#;
    let (text, _) = read(plan(429, "application/json", false), &[own.as_bytes()]);
    let expected =
        r#"{"type":"error","error":{"type":"rate_limit_error","code":"429","message":"Slow \"down\""}}"#;
    assert_eq!(text, expected);
    for (content_type, body) in
        [("text/html", "<b>\"no\""), ("application/json", "{\"error\":5}"), ("application/json", "{")]
    {
        let plan = plan(503, content_type, false);
        assert!(
            plan.headers
                .set
                .iter()
                .any(|(name, value)| name == "content-type" && value == "application/json")
        );
        let (text, report) = read(plan, &[b"", body.as_bytes()]);
        let error: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(error["error"]["type"], "AnthropicBackendError");
        assert_eq!(error["error"]["message"], body);
        assert_eq!(error["error"]["code"], "503");
        assert!(report.usage.is_empty());
    }
}

#[test]
fn an_answer_that_is_none_ends_the_exchange_and_is_not_repeated() {
    let mut reader = plan(200, "application/json", false).reader.unwrap();
    let error = reader.chunk(Bytes::from_static(b"{\"content\":\"secret\"}"), true).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_document_is_whole_though_trailers_follow() {
    for (status, body) in [(200, include_str!("testdata/answers/text.json")), (503, "busy")] {
        let content_type = if status == 200 { "application/json" } else { "text/plain" };
        let at_end = read(plan(status, content_type, false), &[body.as_bytes()]);
        assert_eq!(read(plan(status, content_type, false), &[body.as_bytes(), b""]), at_end);
    }
}

#[test]
fn trailers_after_an_unfinished_stream_tell_that_it_was_cut() {
    let mut reader = plan(200, "text/event-stream", false).reader.unwrap();
    reader.chunk(Bytes::from_static(b"data: {\"type\":\"message_start\"}\n\n"), false).unwrap();
    assert!(!reader.report().cut);
    reader.finish();
    assert!(reader.report().cut);
}

#[test]
fn compressed_answers_are_translated_and_sent_plain() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let answer = include_str!("testdata/answers/text.json");
    for (content_type, text) in [("text/event-stream", STREAMS[0]), ("application/json", answer)] {
        let headers = [("content-type", content_type.to_owned()), ("content-encoding", "gzip".to_owned())];
        let compressed = plan_of(200, false, headers);
        assert!(compressed.headers.remove.contains(&"content-encoding".into()));
        let body = gzip(text);
        let plain = read(plan(200, content_type, false), &[text.as_bytes()]);
        let cut = if compressed.phases == ResponsePhases::Buffered { 0 } else { 5 };
        assert_eq!(read(compressed, &[&body[..cut], &body[cut..]]), plain);
    }
}

#[test]
fn configured_edits_come_last() {
    let mut edits = BodyEdits::default();
    edits.remove("top_p");
    edits.set("metadata.user_id", "u");
    let body = r#"{"model":"m","max_tokens":1,"top_p":0.5,"messages":[]}"#;
    let body = request(body, &edits).unwrap().body.unwrap();
    assert_eq!(body, r#"{"max_tokens":1,"messages":[],"model":"m","metadata":{"user_id":"u"}}"#);
}

#[test]
fn what_anthropic_does_not_have_is_refused_by_name() {
    let message = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":[{content}]}}]}}"#);
    for (body, part) in [
        (r#"{"temperature":1.5}"#.to_owned(), "temperature: "),
        (r#"{"reasoning_effort":"minimal"}"#.to_owned(), "reasoning_effort: "),
        (r#"{"tools":[{"type":"web_search"}]}"#.to_owned(), "tools[0].type: "),
        (r#"{"tool_choice":"maybe","tools":[{"type":"function","function":{"name":"f"}}]}"#.to_owned(), "tool_choice: "),
        (message(r#"{"type":"input_audio","input_audio":{}}"#), "messages[0].content[0]: "),
        (message(r#"{"type":"file","file":{"file_id":"f"}}"#), "messages[0].content[0]: "),
        (message(r#"{"type":"image_url","image_url":{"url":"data:image/bmp;base64,AA"}}"#), "messages[0].content[0].image_url.url: "),
        (message(r#"{"type":"image_url","image_url":{"url":"data:image/png,AA"}}"#), "messages[0].content[0].image_url.url: "),
        (r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]}"#.to_owned(), "messages[0].tool_calls[0].id: "),
        (r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"[]"}}]}]}"#.to_owned(), "messages[0].tool_calls[0]: function.arguments"),
    ] {
        match request(&body, &BodyEdits::default()) {
            Err(TranslateError::User(error)) => assert!(error.contains(part), "{body}: {error}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    let malformed = request(r#"{"messages":[{"role":"boss"}]}"#, &BodyEdits::default());
    assert!(matches!(malformed, Err(TranslateError::Malformed(_))), "{malformed:?}");
}

const STREAMS: [&str; 4] = [
    include_str!("testdata/streams/text.sse"),
    include_str!("testdata/streams/tools.sse"),
    include_str!("testdata/streams/failed.sse"),
    include_str!("testdata/streams/cut.sse"),
];

proptest! {
    #[test]
    fn how_a_stream_is_cut_into_chunks_does_not_matter(
        stream in prop::sample::select(&STREAMS[..]),
        crlf in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = if crlf { stream.replace('\n', "\r\n") } else { stream.to_owned() };
        let whole = read(plan(200, "text/event-stream", false), &[stream.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        cuts.insert(0, 0);
        cuts.push(stream.len());
        let mut pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream.as_bytes()[ends[0]..ends[1]]).collect();
        pieces.push(b"");
        prop_assert_eq!(read(plan(200, "text/event-stream", false), &pieces), whole);
    }

    #[test]
    fn no_stream_however_broken_ends_without_a_word(garbage in "[a-z{}\"\\[\\]:,\n ]{0,80}", kind in "(message_start|content_block_delta|content_block_start|message_delta|error|ping)") {
        let stream = format!("data: {{\"type\":\"{kind}\",\"delta\":{{{garbage}}}}}\n\n{garbage}");
        let (text, report) = read(plan(200, "text/event-stream", false), &[stream.as_bytes()]);
        prop_assert!(report.cut);
        prop_assert!(text.ends_with("}}\n\n") && !text.contains("[DONE]"), "{}", text);
    }
}

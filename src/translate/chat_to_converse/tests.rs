//! Inputs are in `testdata`; what becomes of them is in the snapshots beside them, byte for byte.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use crate::codec::eventstream::tests::{event, frame};
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::mutation::{BodyChange, ResponsePhases};
use crate::translate::{self, Answer, BodyEdits, Outgoing, Pair, Plan, Report, RequestFacts, TranslateError};

const STREAM_TYPE: &str = "application/vnd.amazon.eventstream";

fn request(body: &str) -> Result<Outgoing, TranslateError> {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let (headers, body) = (Headers::default(), Bytes::copy_from_slice(body.as_bytes()));
    let facts = RequestFacts {
        endpoint: Endpoint::ChatCompletions,
        headers: &headers,
        body: &body,
        model: parsed["model"].as_str().unwrap_or_default(),
        model_override: None,
        streaming: parsed["stream"] == true,
        force_usage: true,
        edits: &BodyEdits::default(),
    };
    translate::request(Pair::ChatToConverse, &facts)
}

fn plan(status: u16, content_type: &str, error_type: &str, hide_usage: bool) -> Plan {
    let answer = Answer {
        pair: Pair::ChatToConverse,
        model: "asked-for",
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        endpoint: Endpoint::ChatCompletions,
        streaming: true,
        hide_usage,
        status,
    };
    let headers =
        [("content-type", content_type), ("x-amzn-requestid", "req-1"), ("x-amzn-errortype", error_type)];
    let headers: Headers =
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    translate::plan(&answer, &headers)
}

fn stream(hide_usage: bool) -> Plan {
    plan(200, STREAM_TYPE, "", hide_usage)
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

/// Events of one line each as frames: `{"<type>": <payload>}`.
fn frames(lines: &str) -> Vec<u8> {
    let frames = lines.lines().map(|line| {
        let Value::Object(members) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        let (name, payload) = members.into_iter().next().unwrap();
        if name.ends_with("Exception") {
            let headers = [(":message-type", "exception"), (":exception-type", &name)];
            frame(&headers, &payload.to_string())
        } else {
            event(&name, &payload.to_string())
        }
    });
    frames.collect::<Vec<_>>().concat()
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
        let outgoing = request(body).unwrap();
        assert!(outgoing.headers.is_empty());
        String::from_utf8(outgoing.body.unwrap().to_vec()).unwrap()
    });
}

#[test]
fn answers() {
    golden("answers/*.json", |body| {
        let plan = plan(200, "application/json", "", false);
        assert_eq!(plan.phases, ResponsePhases::Buffered);
        let (text, report) = read(plan, &[body.as_bytes()]);
        format!("{text}\n{:?}", report.usage)
    });
}

#[test]
fn streams() {
    golden("streams/*.jsonl", |lines| {
        let body = frames(lines);
        let asked = stream(false);
        assert_eq!(asked.phases, ResponsePhases::Streamed);
        assert!(asked.headers.set.contains(&("content-type".into(), "text/event-stream".into())));
        let (told, report) = read(asked, &[&body]);
        let (untold, quiet) = read(stream(true), &[&body]);
        assert_eq!(quiet, report, "usage is counted whether the client wants to know or not");
        let usage_events = told.matches("\"choices\":[]").count();
        assert_eq!(told.lines().count() - untold.lines().count(), 2 * usage_events);
        assert_eq!(report.cut, !told.ends_with("data: [DONE]\n"));
        format!("{told}{:?} cut: {}", report.usage, report.cut)
    });
}

#[test]
fn errors_have_the_type_of_the_header_or_are_told_as_they_are() {
    let own = r#"{"message":"Slow \"down\""}"#;
    let (text, _) = read(plan(429, "application/json", "ThrottlingException", false), &[own.as_bytes()]);
    let expected =
        r#"{"type":"error","error":{"type":"ThrottlingException","code":"429","message":"Slow \"down\""}}"#;
    assert_eq!(text, expected);
    for (content_type, body) in [("text/plain", own), ("application/json", "{"), ("text/html", "<b>\"no\"")] {
        let (text, _) = read(plan(503, content_type, "X", false), &[b"", body.as_bytes()]);
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&error["error"]["type"], &error["error"]["message"]),
            (&"AWSBedrockBackendError".into(), &body.into())
        );
    }
}

#[test]
fn an_answer_without_output_ends_the_exchange() {
    let mut reader = plan(200, "application/json", "", false).reader.unwrap();
    assert!(reader.chunk(Bytes::from_static(b"{\"secret\":1}"), true).is_err());
}

/// Bedrock has no such choice. The Go gateway demands a tool called "none" then, or ignores the choice.
#[test]
fn a_client_that_wants_no_calls_gets_none() {
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none""#;
    let body = request(&format!("{{\"model\":\"anthropic.claude-x\",{tools}}}")).unwrap().body.unwrap();
    assert_eq!(body, r#"{"inferenceConfig":{},"messages":[]}"#);
    let result = r#""messages":[{"role":"tool","tool_call_id":"a","content":"x"}]"#;
    let body = request(&format!("{{\"model\":\"m\",{tools},{result}}}")).unwrap().body.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["toolConfig"]["tools"].is_array() && body["toolConfig"]["toolChoice"].is_null(), "{body}");
}

#[test]
fn what_bedrock_does_not_have_is_refused_by_name() {
    let message = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":[{content}]}}]}}"#);
    for (body, part) in [
        (message(r#"{"type":"input_audio","input_audio":{}}"#), "messages[0].content[0]: input_audio"),
        (message(r#"{"type":"file","file":{}}"#), "messages[0].content[0]: files"),
        (message(r#"{"type":"image_url","image_url":{"url":"https://x/y.png"}}"#), "messages[0].content[0].image_url.url: "),
        (message(r#"{"type":"image_url","image_url":{"url":"data:image/bmp;base64,AA"}}"#), "messages[0].content[0].image_url.url: "),
        (r#"{"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"?"}]}]}"#.to_owned(), "messages[0].content[0].redactedContent: "),
        (r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]}"#.to_owned(), "messages[0].tool_calls[0].id: "),
        (r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"5"}}]}]}"#.to_owned(), "messages[0].tool_calls[0]: function.arguments"),
    ] {
        match request(&body) {
            Err(TranslateError::User(error)) => assert!(error.contains(part), "{body}: {error}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn damaged_frames_end_the_stream_with_a_word() {
    let mut body = frames(STREAMS[0]);
    let last = body.len() - 1;
    body[last] ^= 1;
    let (text, report) = read(stream(false), &[&body, b"more"]);
    assert!(report.cut && text.contains("damaged") && !text.contains("[DONE]"), "{text}");
}

const STREAMS: [&str; 5] = [
    include_str!("testdata/streams/text.jsonl"),
    include_str!("testdata/streams/tools.jsonl"),
    include_str!("testdata/streams/no_usage.jsonl"),
    include_str!("testdata/streams/failed.jsonl"),
    include_str!("testdata/streams/cut.jsonl"),
];

proptest! {
    #[test]
    fn how_a_stream_is_cut_into_chunks_does_not_matter(
        lines in prop::sample::select(&STREAMS[..]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let body = frames(lines);
        let whole = read(stream(false), &[&body]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.sort_unstable();
        cuts.insert(0, 0);
        cuts.push(body.len());
        let mut pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &body[ends[0]..ends[1]]).collect();
        pieces.push(b"");
        prop_assert_eq!(read(stream(false), &pieces), whole);
    }
}

//! What each endpoint says, whole and streamed.

use super::*;

const FORM: &str = "multipart/form-data; boundary=b";

fn part(name: &str, text: &str) -> String {
    format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
}

fn ask(service: Service, request: &Value, knobs: &Knobs) -> (Answer, Vec<u8>) {
    let answer = Answer::of(service, "application/json", request.to_string().as_bytes(), knobs);
    let body = (0..).map_while(|i| answer.pieces.get(i)).collect::<Vec<_>>().concat();
    (answer, body)
}

fn whole(service: Service, request: &Value) -> Value {
    let usage = "prompt=9,completion=11,cached=4,cache-creation=2,reasoning=3".parse().unwrap();
    let (answer, body) = ask(service, request, &Knobs { usage: Some(usage), ..Knobs::default() });
    assert_eq!(answer.content_type, "application/json");
    serde_json::from_slice(&body).unwrap()
}

/// The events of a stream; each that has a name has that of its data.
fn events(service: Service, request: &Value, knobs: &Knobs) -> Vec<Value> {
    let (answer, body) = ask(service, request, knobs);
    assert_eq!(answer.content_type, "text/event-stream");
    let text = String::from_utf8(body).unwrap();
    let events = text.trim_end().split("\n\n").map(|event| {
        let (name, data) = event.split_once("data: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        if !name.is_empty() {
            assert_eq!(name, format!("event: {}\n", data["type"].as_str().unwrap()));
        }
        data
    });
    events.collect()
}

#[test]
fn each_reports_its_tokens_where_its_provider_does() {
    let asked = json!({"model": "m", "documents": ["a", "b", "c"], "top_n": 2, "n": 3});
    let value = whole(Service::Responses, &asked);
    assert_eq!((&value["model"], &value["status"]), (&json!("m"), &json!("completed")));
    assert_eq!(value["output"][0]["content"][0]["text"], CONTENT);
    assert_eq!(value["usage"]["total_tokens"], 20);
    assert_eq!(value["usage"]["input_tokens_details"]["cached_tokens"], 4);
    assert_eq!(value["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(whole(Service::InputTokens, &asked)["input_tokens"], 9);
    let value = whole(Service::Images, &asked);
    assert_eq!((value["data"].as_array().unwrap().len(), &value["usage"]["total_tokens"]), (3, &json!(20)));
    let value = whole(Service::Tokenize, &asked);
    assert_eq!((&value["count"], value["tokens"].as_array().unwrap().len()), (&json!(9), 9));
    let value = whole(Service::Rerank, &asked);
    assert_eq!(value["results"][1]["index"], 1);
    assert_eq!(value["results"].as_array().unwrap().len(), 2);
    assert_eq!(value["meta"]["tokens"]["input_tokens"], 9);
    assert_eq!(whole(Service::CountTokens, &asked)["input_tokens"], 9);
    let usage = &whole(Service::Messages, &asked)["usage"];
    assert_eq!(
        [&usage["input_tokens"], &usage["cache_read_input_tokens"], &usage["cache_creation_input_tokens"]],
        [3, 4, 2]
    );
}

#[test]
fn streams_say_what_the_whole_answer_says() {
    let asked = json!({"model": "m", "stream": true});
    let got = events(Service::Responses, &asked, &Knobs::default());
    let numbers: Vec<u64> = got.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..11).collect::<Vec<_>>());
    let said: String = got
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(said, CONTENT);
    assert_eq!(got[10]["response"]["output"][0]["content"][0]["text"], CONTENT);
    assert_eq!(got[10]["response"]["usage"]["total_tokens"], 20);

    let got = events(Service::Messages, &asked, &Knobs { chunks: Some(2), ..Knobs::default() });
    let kinds: Vec<&str> = got.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let delta = "content_block_delta";
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        delta,
        delta,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(got[0]["message"]["usage"]["input_tokens"], 9);
    assert_eq!(got[6]["usage"]["output_tokens"], 11);
}

#[test]
fn speech_is_the_same_as_bytes_and_as_events() {
    let (answer, bytes) = ask(Service::Speech, &json!({"response_format": "mp3"}), &Knobs::default());
    assert_eq!(answer.content_type, "audio/mpeg");
    let got = events(Service::Speech, &json!({"stream_format": "sse"}), &Knobs::default());
    let (done, deltas) = got.split_last().unwrap();
    assert!(deltas.len() > 1);
    let heard: Vec<Vec<u8>> =
        deltas.iter().map(|event| STANDARD.decode(event["audio"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(heard.concat(), bytes);
    assert_eq!((&done["type"], &done["usage"]["total_tokens"]), (&json!("speech.audio.done"), &json!(20)));
}

#[test]
fn a_stream_without_end_repeats_its_contents_only() {
    let (answer, _) = ask(Service::Messages, &json!({"stream": true}), &Knobs::default());
    for i in 3..30 {
        let event = answer.pieces.get_endless(i);
        assert!(event.starts_with(b"event: content_block_delta"), "{i}");
    }
}

#[test]
fn a_form_needs_a_model_and_a_file() {
    let ask = |service, parts: &[String]| {
        let body = parts.concat() + "--b--\r\n";
        Answer::of(service, FORM, body.as_bytes(), &Knobs::default())
    };
    let (file, model) = (part("file", "RIFF"), part("model", "m"));
    let answer = ask(Service::Transcriptions, &[file.clone(), model.clone()]);
    assert_eq!((answer.status, answer.model), (StatusCode::OK, Some(HeaderValue::from_static("m"))));
    let text = ask(Service::Translations, &[file.clone(), model.clone(), part("response_format", "text")]);
    assert_eq!(text.content_type, "text/plain; charset=utf-8");
    assert_eq!(text.pieces.get(0).unwrap(), "I am inevitable.\n");
    let streamed = ask(Service::Transcriptions, &[file.clone(), model.clone(), part("stream", "true")]);
    assert_eq!(streamed.content_type, "text/event-stream");
    for lacking in [file, model] {
        assert_eq!(ask(Service::Translations, &[lacking]).status, StatusCode::BAD_REQUEST);
    }
    let json = Answer::of(Service::Transcriptions, "application/json", b"{}", &Knobs::default());
    assert_eq!(json.status, StatusCode::BAD_REQUEST);
}

#[test]
fn errors_are_worded_as_each_provider_does() {
    let knobs = Knobs { status: Some(StatusCode::TOO_MANY_REQUESTS), ..Knobs::default() };
    let error = |service| serde_json::from_slice::<Value>(&ask(service, &json!({}), &knobs).1).unwrap();
    assert_eq!(error(Service::Messages)["error"]["type"], "rate_limit_error");
    assert_eq!(error(Service::Messages)["type"], "error");
    assert!(error(Service::Rerank)["message"].is_string());
    assert!(error(Service::Responses)["error"]["message"].is_string());
}

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::family::Family;
use super::*;

fn tokens(endpoint: Endpoint, body: serde_json::Value) -> u64 {
    let model = body["model"].as_str().unwrap_or("gpt-4o").to_owned();
    prompt(endpoint, &model, body.to_string().as_bytes(), Measure::default()).tokens
}

#[test]
fn everything_that_reaches_the_model_counts_wherever_it_stands() {
    let long = "word ".repeat(400);
    let chat = |messages: serde_json::Value| json!({"model": "gpt-4o", "messages": messages});
    let user = |content: serde_json::Value| chat(json!([{"role": "user", "content": content}]));
    let tool =
        json!([{"type": "function", "function": {"name": "f", "description": long, "parameters": {}}}]);
    for (endpoint, body) in [
        (Endpoint::ChatCompletions, user(json!(long))),
        (Endpoint::ChatCompletions, user(json!([{"type": "text", "text": long}]))),
        (
            Endpoint::ChatCompletions,
            chat(json!([{"role": "assistant", "tool_calls": [{"function": {"arguments": long}}]}])),
        ),
        (Endpoint::ChatCompletions, chat(json!([{"role": "user", "unheard_of": {"a": [long]}}]))),
        (Endpoint::ChatCompletions, json!({"messages": [], "tools": tool})),
        (Endpoint::ChatCompletions, json!({"messages": [], "unheard_of": long})),
        (
            Endpoint::ChatCompletions,
            json!({"messages": [], "response_format": {"json_schema": {"schema": {"description": long}}}}),
        ),
        (Endpoint::Completions, json!({"prompt": [long]})),
        (Endpoint::Completions, json!({"prompt": "", "suffix": long})),
        (Endpoint::Completions, json!({"prompt": [vec![1; 400]]})),
        (Endpoint::Embeddings, json!({"input": [long, ""]})),
        (Endpoint::Embeddings, json!({"input": vec![1; 400]})),
        (Endpoint::Responses, json!({"instructions": long})),
        (Endpoint::Responses, json!({"input": [{"type": "function_call_output", "output": long}]})),
        (Endpoint::Messages, json!({"system": [{"type": "text", "text": long}], "messages": []})),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "tool_use", "input": {"a": long}}]}]}),
        ),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "tool_result", "content": [{"text": long}]}]}]}),
        ),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "document", "source": {"data": long, "type": "text", "media_type": "text/plain"}}]}]}),
        ),
        (Endpoint::Rerank, json!({"query": "q", "documents": [long]})),
        (Endpoint::ImageGenerations, json!({"prompt": long})),
        (Endpoint::Speech, json!({"input": long})),
        (Endpoint::Tokenize, json!({"prompt": long})),
    ] {
        let told = body.to_string().replace(&long, "…");
        let (counted, without) =
            (tokens(endpoint, body.clone()), tokens(endpoint, json!({"model": body["model"]})));
        assert!(counted >= without.min(600) + 400 || counted >= 1000, "{endpoint:?} {told}: {counted}");
    }
}

#[test]
fn what_is_no_text_counts_by_what_it_is_and_not_by_its_letters() {
    let data = "A".repeat(400_000);
    let url = format!("data:image/png;base64,{data}");
    let user = |part: serde_json::Value| json!({"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]});
    let (from, to) = (1_000, 9_000);
    for body in [
        user(json!({"type": "image_url", "image_url": {"url": url}})),
        user(json!({"type": "image_url", "image_url": url})),
        user(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
        user(json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})),
        user(json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})),
        user(json!({"source": {"type": "base64", "media_type": "image/png", "data": data}})),
        user(json!({"type": "input_audio", "input_audio": {"format": "wav", "data": data}})),
    ] {
        let counted = tokens(Endpoint::ChatCompletions, body);
        assert!((from..to).contains(&counted), "{counted}");
    }
    for seen in [json!("original"), json!("gigantic")] {
        let fine = user(json!({"type": "image_url", "image_url": {"url": url, "detail": seen}}));
        assert!(tokens(Endpoint::ChatCompletions, fine) > 20_000);
        let fine = json!({"model": "gpt-5", "input": [{"content": [{"type": "input_image", "image_url": url, "detail": seen}]}]});
        assert!(tokens(Endpoint::Responses, fine) > 20_000);
    }
    let coarse = user(json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}}));
    assert!(tokens(Endpoint::ChatCompletions, coarse) < 1_000);
    let pages =
        user(json!({"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{data}")}}));
    assert!((300_000..400_000).contains(&tokens(Endpoint::ChatCompletions, pages)));
    // 30 documents are read 30 times with the query.
    let query = "word ".repeat(100);
    let documents = vec!["a"; 30];
    assert!(tokens(Endpoint::Rerank, json!({"query": query, "documents": documents})) >= 3_000);
}

#[test]
fn what_a_provider_adds_by_itself_is_said() {
    let open = |endpoint, body: serde_json::Value| {
        prompt(endpoint, "gpt-5", body.to_string().as_bytes(), Measure::default()).open_ended
    };
    for body in [
        json!({"input": "", "previous_response_id": "resp_1"}),
        json!({"input": "", "tools": [{"type": "web_search"}]}),
        json!({"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    ] {
        assert!(open(Endpoint::Responses, body.clone()), "{body}");
    }
    let tools = json!({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}], "messages": []});
    assert!(!open(Endpoint::Messages, tools));
    let remote =
        json!([{"content": [{"type": "document", "source": {"type": "url", "url": "https://example.com"}}]}]);
    assert!(open(Endpoint::Messages, json!({"messages": remote})));
}

#[test]
fn a_tokenizer_counts_what_the_characters_only_bound() {
    let text = include_str!("../../../ARCHITECTURE.md");
    let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
    let counted = |model, measure| prompt(Endpoint::ChatCompletions, model, body.as_bytes(), measure).tokens;
    let exact = bpe_openai::o200k_base().count(text) as u64;
    let by_tokenizer = counted("gpt-4o", Measure::Tokenizer);
    assert!((exact..exact + 40).contains(&by_tokenizer), "{by_tokenizer} of {exact}");
    assert!(counted("gpt-4o", Measure::Characters) > by_tokenizer);
    assert!(counted("claude-opus-5", Measure::Tokenizer) > exact * 3 / 2);
    assert_eq!(Family::of("gpt-4o").tokenizer().1, 10);
}

#[test]
fn a_tokenizer_of_another_family_is_no_excuse() {
    for (name, text) in
        [("digits", "0123456789".repeat(200)), ("hexadecimal", "9f86d081884c7d65".repeat(100))]
    {
        let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
        let counted = prompt(Endpoint::ChatCompletions, "qwen3", body.as_bytes(), Measure::Tokenizer).tokens;
        assert!(counted >= bpe_openai::voyage3_base().count(&text[..]) as u64, "{name}: {counted}");
    }
}

#[test]
fn a_text_in_base64_counts_as_the_text_that_it_is() {
    let file = |text: &[u8]| {
        let data = format!("data:text/plain;base64,{}", STANDARD.encode(text));
        let body = json!({"model": "gpt-4o", "messages": [{"content": [{"type": "file", "file": {"file_data": data}}]}]});
        tokens(Endpoint::ChatCompletions, body)
    };
    let plain = |text: &str| {
        tokens(
            Endpoint::ChatCompletions,
            json!({"model": "gpt-4o", "messages": [{"content": [{"text": text}]}]}),
        )
    };
    for text in [include_str!("../../../ARCHITECTURE.md"), &"龘靐齉爩 ".repeat(2_000), "a", ""] {
        let (file, plain) = (file(text.as_bytes()), plain(text));
        assert!((plain..plain + plain / 20 + 100).contains(&file), "{file} for {plain}");
    }
    // What is no text at all: a byte is at most a token.
    assert!((9_000..9_300).contains(&file(&[0xff; 9_000])));
}

#[test]
fn nothing_that_a_schema_can_hold_comes_cheap() {
    let schema = |value: serde_json::Value| {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"enum": value}}});
        json!({"model": "gpt-4o", "messages": [], "tools": [tool]})
    };
    let whole: serde_json::Value =
        serde_json::from_str(&format!("[{}]", vec!["9".repeat(300); 100].join(","))).unwrap();
    let keys: serde_json::Map<_, _> = (0..1_000).map(|number| (format!("k{number}"), json!(null))).collect();
    let nested = (0..60).fold(json!([]), |value, _| json!({"anyOf": [value, "qzjx"]}));
    for (value, least) in [
        (json!(vec![1_234_567_890_123_u64; 1_000]), 6_000),
        (json!(vec![-1.234_567_890_123e-300; 1_000]), 10_000),
        (whole, 30_000 / 3),
        (json!(vec![true; 1_000]), 2_000),
        (json!("\n".repeat(1_000)), 1_000),
        (json!("\"\\".repeat(1_000)), 3_000),
        (json!("\u{1}".repeat(1_000)), 4_000),
        (json!(keys), 3_000),
        (nested, 60 * 6),
    ] {
        let body = schema(value);
        let counted = tokens(Endpoint::ChatCompletions, body.clone());
        assert!(counted >= least, "{counted} of {least}");
        let chosen = json!({"model": "gpt-4o", "messages": [], "tool_choice": body["tools"]});
        assert!(tokens(Endpoint::ChatCompletions, chosen) >= least);
    }
    let tool = |number| json!({"type": "function", "function": {"name": format!("tool_{number}")}});
    let tools: Vec<_> = (0..5_000).map(tool).collect();
    assert!(tokens(Endpoint::ChatCompletions, json!({"messages": [], "tools": tools})) > 5_000 * 12);
}

#[test]
fn each_id_of_a_token_is_a_token_however_deep_the_lists() {
    for input in
        [json!(vec![7; 3_000]), json!(vec![vec![7; 100]; 30]), json!(vec![vec![vec![7; 10]; 10]; 30])]
    {
        let counted =
            tokens(Endpoint::Embeddings, json!({"model": "text-embedding-3-small", "input": input}));
        assert!((3_000..3_100).contains(&counted), "{counted}");
    }
}

#[test]
fn what_cannot_be_read_counts_by_its_bytes() {
    for body in [
        "{\"messages\": \"\\ud800\"}".to_owned(),
        "[".repeat(5_000),
        format!("{{\"messages\": [1{}]}}", "0".repeat(400)),
    ] {
        let counted = prompt(Endpoint::ChatCompletions, "gpt-4o", body.as_bytes(), Measure::default()).tokens;
        assert_eq!(counted, body.len() as u64);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_measured(bytes in prop::collection::vec(any::<u8>(), 0..300), endpoint in prop::sample::select(&Endpoint::ALL[..])) {
        let measured = prompt(endpoint, "m", &bytes, Measure::default());
        prop_assert!(measured.tokens <= MAX_AMOUNT);
    }

    #[test]
    fn a_longer_text_never_counts_less(text in ".{0,200}", more in ".{0,50}") {
        let count = |text: &str| tokens(Endpoint::ChatCompletions, json!({"messages": [{"content": text}]}));
        // A few letters may make a word of two.
        prop_assert!(count(&(text.clone() + " " + &more)) + 12 >= count(&text));
    }
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn lowered(endpoint: Endpoint, model: &str, body: &Value, output: u64) -> (Value, u64) {
    let body = body.to_string();
    let Lowered { body: new, output } = lower(endpoint, model, body.as_bytes(), output).unwrap();
    (serde_json::from_slice(new.as_deref().unwrap_or(body.as_bytes())).unwrap(), output)
}

#[test]
fn each_dialect_says_it_in_its_own_member() {
    for (endpoint, model, member) in [
        (Endpoint::ChatCompletions, "gpt-4o", "max_completion_tokens"),
        (Endpoint::ChatCompletions, "openai/o3-mini", "max_completion_tokens"),
        (Endpoint::ChatCompletions, "GPT-5", "max_completion_tokens"),
        (Endpoint::ChatCompletions, "gpt-oss-120b", "max_tokens"),
        (Endpoint::ChatCompletions, "llama-3.3-70b", "max_tokens"),
        (Endpoint::Completions, "gpt-3.5-turbo-instruct", "max_tokens"),
        (Endpoint::Responses, "gpt-5", "max_output_tokens"),
        (Endpoint::Messages, "claude-opus-5", "max_tokens"),
    ] {
        let (body, output) = lowered(endpoint, model, &json!({"model": model}), 500);
        assert_eq!(body, json!({"model": model, member: 500}), "{endpoint:?}");
        assert_eq!(output, 500);
        let cap = read(endpoint, body.to_string().as_bytes());
        assert_eq!(cap.output, Some(500), "{endpoint:?}");
    }
    for endpoint in [Endpoint::Embeddings, Endpoint::Rerank, Endpoint::Speech] {
        let body = json!({"max_tokens": 9});
        assert_eq!(lowered(endpoint, "m", &body, 5).0, body);
        assert_eq!(read(endpoint, body.to_string().as_bytes()).output, None);
    }
}

#[test]
fn what_a_client_asks_for_is_lowered_and_never_raised() {
    for (asked, expected) in [
        (json!({"max_tokens": 900}), json!({"max_tokens": 500})),
        (json!({"max_tokens": 100}), json!({"max_tokens": 100})),
        (
            json!({"max_tokens": 100, "max_completion_tokens": 900}),
            json!({"max_tokens": 100, "max_completion_tokens": 500}),
        ),
        (json!({"max_tokens": null}), json!({"max_tokens": 500})),
        (json!({"max_tokens": "many"}), json!({"max_tokens": 500})),
        (json!({"max_tokens": -1}), json!({"max_tokens": 500})),
        (json!({"max_tokens": 1e300}), json!({"max_tokens": 500})),
    ] {
        assert_eq!(lowered(Endpoint::ChatCompletions, "m", &asked, 500).0, expected, "{asked}");
    }
    let twice = br#"{"max_tokens":1,"max_tokens":900}"#;
    assert_eq!(read(Endpoint::Messages, twice).output, Some(900));
    let body = lower(Endpoint::Messages, "m", twice, 500).unwrap().body.unwrap();
    assert_eq!(body, br#"{"max_tokens":500,"max_tokens":500}"#);
}

#[test]
fn thinking_fits_into_what_is_left_or_the_request_is_refused() {
    let asked = json!({"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}});
    let (body, _) = lowered(Endpoint::Messages, "claude", &asked, 5000);
    assert_eq!(body, json!({"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4999}}));
    let (body, _) = lowered(Endpoint::Messages, "claude", &asked, 8500);
    assert_eq!(body["thinking"]["budget_tokens"], 8000);
    let text = asked.to_string();
    assert_eq!(read(Endpoint::Messages, text.as_bytes()).least, 1025);
    assert_eq!(lower(Endpoint::Messages, "claude", text.as_bytes(), 1024), Err(TooLow { least: 1025 }));
    let adaptive = json!({"max_tokens": 9000, "thinking": {"type": "adaptive"}}).to_string();
    assert_eq!(read(Endpoint::Messages, adaptive.as_bytes()).least, 1);
    assert_eq!(lower(Endpoint::Responses, "gpt-5", b"{}", 15), Err(TooLow { least: 16 }));
}

#[test]
fn answers_that_are_made_are_counted_shown_or_not() {
    for (endpoint, body, answers) in [
        (Endpoint::ChatCompletions, json!({"n": 3}), 3),
        (Endpoint::ChatCompletions, json!({"n": null, "best_of": 9}), 1),
        (Endpoint::Completions, json!({"n": 2, "best_of": 4, "prompt": "a"}), 4),
        (Endpoint::Completions, json!({"n": 2, "prompt": ["a", "b", "c"]}), 6),
        (Endpoint::Completions, json!({"prompt": [1, 2, 3]}), 1),
        (Endpoint::Completions, json!({"prompt": [[1, 2], [3]]}), 2),
        (Endpoint::Completions, json!({"prompt": []}), 1),
        (Endpoint::Messages, json!({"n": 7}), 1),
        (Endpoint::Responses, json!({"n": 7}), 1),
    ] {
        assert_eq!(read(endpoint, body.to_string().as_bytes()).answers, answers, "{endpoint:?} {body}");
    }
}

proptest! {
    #[test]
    fn every_other_byte_stays_and_no_cap_is_above_what_was_asked(
        before in "[ \n\t]{0,3}",
        other in prop::collection::vec(("[a-z]{1,8}", "[^\"\\\\]{0,12}"), 0..5),
        asked in prop::option::of(1_u64..10_000),
        output in 1_u64..10_000,
        place in 0_usize..5,
    ) {
        let mut members: Vec<String> =
            other.iter().map(|(key, value)| format!("\"x{key}\" :{before}{}", json!(value))).collect();
        if let Some(asked) = asked {
            members.insert(place.min(members.len()), format!("\"max_tokens\":{before}{asked}"));
        }
        let body = format!("{before}{{{}}}{before}", members.join(&format!(",{before}")));
        let Lowered { body: new, output: said } = lower(Endpoint::Messages, "m", body.as_bytes(), output).unwrap();
        let new = String::from_utf8(new.unwrap_or_else(|| body.clone().into_bytes())).unwrap();
        prop_assert_eq!(said, asked.map_or(output, |asked| asked.min(output)));
        prop_assert_eq!(read(Endpoint::Messages, new.as_bytes()).output, Some(said));
        // Put back, it is the client's body again.
        let expected = match asked {
            Some(asked) => body.replacen(&format!("\"max_tokens\":{before}{asked}"), &format!("\"max_tokens\":{before}{said}"), 1),
            None => new.clone(),
        };
        prop_assert_eq!(&new, &expected);
        for (key, value) in &other {
            let member = format!("\"x{key}\" :{before}{}", json!(value));
            prop_assert!(new.contains(&member));
        }
    }

    #[test]
    fn any_bytes_are_read(body in prop::collection::vec(any::<u8>(), 0..200), output in any::<u64>()) {
        let cap = read(Endpoint::Completions, &body);
        prop_assert!(cap.answers >= 1);
        let _ = lower(Endpoint::ChatCompletions, "gpt-5", &body, output);
    }
}

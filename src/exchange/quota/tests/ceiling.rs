//! What a backend is really sent is covered by what is held, and is within what was granted, whatever its edits of bodies say.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::quota::DEFAULT_OUTPUT;

const OPENAI: &str = "OpenAI";
const ANTHROPIC: &str = "Anthropic";
const BEDROCK: &str = "AWSBedrock";

/// The member that says how long an answer may get.
fn member(schema: &str) -> (&'static str, &'static str) {
    match schema {
        BEDROCK => ("inferenceConfig.maxTokens", "/inferenceConfig/maxTokens"),
        _ => ("max_tokens", "/max_tokens"),
    }
}

fn set_to(path: &str, value: impl ToString) -> Value {
    json!({"set": [{"path": path, "value": value.to_string()}]})
}

/// Model `direct` is served by one backend of that dialect; `attempts` by a plain one and by one with the same edits.
fn edited(schema: &str, edits: &Value, policy: Value) -> Arc<Runtime> {
    let edited = |name: &str| json!({"name": name, "schema": {"name": schema}, "httpBodyMutation": edits});
    let backends = json!([edited(DIRECT), {"name": FIRST}, edited(SECOND), {"name": CLAUDE}]);
    runtime_of(backends, policy, &[limit("tokens", "TotalToken"), of_backend("three", "default/three")])
}

fn chat_of(model: &str, cap: Option<u64>) -> Value {
    let mut body = chat(model);
    match cap {
        Some(cap) => body["max_tokens"] = json!(cap),
        None => drop(body.as_object_mut().unwrap().remove("max_tokens")),
    }
    body
}

/// What a backend gets.
fn delivered(change: &Change, client: &Value) -> Value {
    match &change.body {
        BodyChange::Replace(body) => serde_json::from_slice(body).unwrap(),
        _ => client.clone(),
    }
}

/// A request that goes straight to its backend, and is granted so much: what was asked for, and what was sent.
fn direct(runtime: &Arc<Runtime>, client: &Value, grant: impl Fn(&Ask) -> u64) -> (Arc<Ask>, Value) {
    let mut run = Run::new(runtime);
    let ask = run.asked(client);
    let sent = change(run.answered(granted(&ask, grant(&ask))));
    let body = delivered(&sent, client);
    if let BodyChange::Replace(new) = &sent.body {
        assert_eq!(set(&sent, "content-length"), Some(&*new.len().to_string()));
    }
    (ask, body)
}

#[test]
fn no_edit_puts_a_cap_above_what_was_granted_and_lower_ones_are_kept() {
    for schema in [OPENAI, ANTHROPIC, BEDROCK] {
        let (path, pointer) = member(schema);
        for (edits, wanted, sent) in [
            (set_to(path, 9_000), 9_000, 200),
            (set_to(path, 60), 60, 60),
            (set_to(path, "as many as you like"), DEFAULT_OUTPUT, 200),
            (set_to(path, "null"), DEFAULT_OUTPUT, 200),
            (json!({"remove": [path]}), DEFAULT_OUTPUT, 200),
            (json!({}), 500, 200),
        ] {
            let runtime = edited(schema, &edits, json!({"clamp": 50}));
            let (ask, body) =
                direct(&runtime, &chat_of("direct", Some(500)), |ask| 200.min(ask.output.wanted));
            assert_eq!(ask.output.wanted, wanted, "{schema} {edits}");
            assert_eq!(body.pointer(pointer), Some(&json!(sent)), "{schema} {edits}: {body}");
        }
    }
    // By another name, or with all that is around it.
    let runtime = edited(OPENAI, &set_to("max_completion_tokens", 9_000), json!({"clamp": 50}));
    let (_, body) = direct(&runtime, &chat_of("direct", Some(100)), |_| 200);
    assert_eq!((&body["max_completion_tokens"], &body["max_tokens"]), (&json!(200), &json!(100)));
    let edits = set_to("inferenceConfig", json!({"maxTokens": 9_000, "topP": 0.5}));
    let (_, body) =
        direct(&edited(BEDROCK, &edits, json!({"clamp": 50})), &chat_of("direct", Some(100)), |_| 200);
    assert_eq!(body["inferenceConfig"], json!({"maxTokens": 200, "topP": 0.5}));
}

#[test]
fn without_a_clamp_what_an_edit_asks_for_is_held_and_sent() {
    for schema in [OPENAI, ANTHROPIC, BEDROCK] {
        let (path, pointer) = member(schema);
        let runtime = edited(schema, &set_to(path, 9_000), json!({}));
        let (ask, body) = direct(&runtime, &chat_of("direct", Some(500)), |ask| ask.output.wanted);
        assert_eq!(ask.output.wanted, 9_000, "{schema}");
        assert!(ask.claims[0].bound.at(ask.output.wanted) > 9_000, "{schema}");
        assert_eq!(body.pointer(pointer), Some(&json!(9_000)), "{schema}");
    }
}

#[test]
fn what_an_edit_adds_to_the_prompt_is_held() {
    let long = "A line of the operator's own. ".repeat(200);
    let bound = |schema: &str, edits: Value| {
        let runtime = edited(schema, &edits, json!({}));
        direct(&runtime, &chat_of("direct", Some(500)), |ask| ask.output.wanted).0.claims[0].bound.fixed
    };
    for (schema, path, value) in [
        (OPENAI, "messages", json!([{"role": "user", "content": long}])),
        (ANTHROPIC, "system", json!([{"type": "text", "text": long}])),
    ] {
        let (plain, with) = (bound(schema, json!({})), bound(schema, set_to(path, value)));
        assert!(with > plain + 1_000, "{schema}: {with} {plain}");
    }
}

/// Anthropic demands a cap: where the client names none, the translation does.
#[test]
fn a_cap_that_only_the_translation_names_is_held_and_within_what_was_granted() {
    let mut client = chat_of("direct", None);
    client["thinking"] = json!({"type": "enabled", "budget_tokens": 3_000});
    let (ask, body) = direct(&edited(ANTHROPIC, &json!({}), json!({})), &client, |ask| ask.output.wanted);
    assert_eq!((ask.output.wanted, &body["max_tokens"]), (7_096, &json!(7_096)));
    // Room for thoughts is made within it.
    for (schema, cap, budget) in [
        (ANTHROPIC, "/max_tokens", "/thinking/budget_tokens"),
        (BEDROCK, "/inferenceConfig/maxTokens", "/additionalModelRequestFields/thinking/budget_tokens"),
    ] {
        let (ask, body) = direct(&edited(schema, &json!({}), json!({"clamp": 50})), &client, |_| 2_000);
        assert_eq!(ask.output.least, 1_025, "{schema}");
        assert_eq!(body.pointer(cap), Some(&json!(2_000)), "{schema}: {body}");
        assert_eq!(body.pointer(budget), Some(&json!(1_999)), "{schema}: {body}");
    }
}

/// The router does not know who will be tried: it holds what the most expensive may cost.
#[test]
fn the_router_holds_what_any_backend_may_be_asked_for() {
    for (schema, cap, wanted) in
        [(OPENAI, Some(500), 9_000), (ANTHROPIC, Some(500), 9_000), (OPENAI, None, 9_000)]
    {
        let (path, pointer) = member(schema);
        let runtime = edited(schema, &set_to(path, 9_000), json!({}));
        let client = chat_of("attempts", cap);
        let mut run = Run::new(&runtime);
        let ask = run.asked(&client);
        assert_eq!(ask.output.wanted, wanted, "{schema}");
        change(run.answered(granted(&ask, wanted)));
        // The first falls under no limit of its own.
        let (_, step) = attempt(&run, &runtime, FIRST, 1);
        assert_eq!(delivered(&change(step), &client).get("max_tokens"), cap.map(|cap| json!(cap)).as_ref());
        let (mut second, step) = attempt(&run, &runtime, SECOND, 2);
        let ask = asked(step);
        assert_eq!(ask.output.wanted, 9_000);
        let sent = change(second.answered(granted(&ask, 9_000), at(run.now)).unwrap());
        assert_eq!(delivered(&sent, &client).pointer(pointer), Some(&json!(9_000)), "{schema}");
    }
    // A backend that is told no cap may answer as much as the default says.
    let runtime = edited(OPENAI, &set_to("max_tokens", 60), json!({}));
    let ask = Run::new(&runtime).asked(&chat_of("attempts", None));
    assert_eq!(ask.output.wanted, DEFAULT_OUTPUT);
}

#[test]
fn every_attempt_keeps_to_what_the_router_was_granted() {
    for schema in [OPENAI, ANTHROPIC, BEDROCK] {
        let (path, pointer) = member(schema);
        let runtime = edited(schema, &set_to(path, 9_000), json!({"clamp": 50}));
        let client = chat_of("attempts", Some(500));
        let mut run = Run::new(&runtime);
        let ask = run.asked(&client);
        change(run.answered(granted(&ask, 400)));
        let (_, step) = attempt(&run, &runtime, FIRST, 1);
        assert_eq!(delivered(&change(step), &client)["max_tokens"], json!(400));
        let (mut second, step) = attempt(&run, &runtime, SECOND, 2);
        let ask = asked(step);
        assert_eq!(ask.output.wanted, 400, "{schema}");
        let sent = change(second.answered(granted(&ask, 300), at(run.now)).unwrap());
        assert_eq!(delivered(&sent, &client).pointer(pointer), Some(&json!(300)), "{schema}");
        let answer = run.response("200", JSON);
        assert_eq!(set(&answer, headers::CLAMPED), Some("300"), "{schema}");
    }
}

proptest! {
    /// Whatever the client and the operator say: what is sent costs no more than what was granted, and what was granted is held.
    #[test]
    fn what_is_sent_is_never_above_what_was_granted(
        schema in prop::sample::select(vec![OPENAI, ANTHROPIC, BEDROCK]),
        client in prop::option::of(1_u64..20_000),
        newer in prop::option::of(1_u64..20_000),
        edit in prop::option::of(prop::option::of(1_u64..20_000)),
        clamp in any::<bool>(),
        granted in 50_u64..20_000,
    ) {
        let (path, _) = member(schema);
        let edits = match edit {
            None => json!({}),
            Some(None) => json!({"remove": [path]}),
            Some(Some(value)) => set_to(path, value),
        };
        let runtime = edited(schema, &edits, if clamp { json!({"clamp": 50}) } else { json!({}) });
        let mut body = chat_of("direct", client);
        if let Some(newer) = newer {
            body["max_completion_tokens"] = json!(newer);
        }
        let grant = |ask: &Ask| if clamp { granted.min(ask.output.wanted).max(ask.output.least) } else { ask.output.wanted };
        let (ask, sent) = direct(&runtime, &body, grant);
        let form = match schema {
            ANTHROPIC => Form::Messages,
            BEDROCK => Form::Converse,
            _ => Form::Chat,
        };
        let said = cap::read(form, &Bytes::from(sent.to_string())).output;
        prop_assert!(said.is_some() || !clamp, "{}", sent);
        prop_assert!(said.is_none_or(|said| said <= grant(&ask)), "{} of {:?}", sent, ask.output);
    }
}

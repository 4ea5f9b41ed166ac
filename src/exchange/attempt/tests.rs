//! Attempts, driven as Envoy drives them: each sees the headers as the one before left them, and the body as the router left it.

use std::time::{Instant, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::attempted::ATTEMPT_HEADER;
use super::super::{Exchange, ROUTING_HEADER, Settlement};
use super::*;
use crate::mutation::{MetadataValue, PhaseOverride, ResponsePhases};
use crate::runtime::Runtime;

const AUTHORITY: &str = "http.gw.default";
const ID: ExchangeId = ExchangeId { process: 1, number: 7 };
/// What each backend gets of its own, and nobody else may.
const OWN: [&str; 3] = ["of-0", "of-1", "of-2"];

fn name(index: usize) -> String {
    format!("default/b{index}/route/r/rule/0/ref/{index}")
}

/// Three backends that differ in everything; the last has no credential.
fn backends() -> Value {
    json!([
        {
            "name": name(0), "auth": {"apiKey": {"key": "sk-of-0"}},
            "httpHeaderMutation": {"set": [{"name": "x-plain", "value": "of-0"}], "remove": ["x-team"]},
        },
        {
            "name": name(1), "schema": {"name": "OpenAI", "prefix": "/other/v9"}, "modelNameOverride": "other",
            "auth": {"azureAPIKey": {"key": "key-of-1"}},
        },
        {
            "name": name(2), "httpHeaderMutation": {"set": [{"name": "x-note", "value": "of-2"}]},
            "httpBodyMutation": {"set": [{"path": "user", "value": "us"}]},
        },
    ])
}

fn gateways() -> Runtime {
    runtime(gateways_config())
}

fn gateways_config() -> Value {
    json!({
        "backends": backends(),
        "llmRequestCosts": [{"routeName": "default/r", "metadataKey": "t", "type": "TotalToken"}],
        "gateways": [{
            "authority": AUTHORITY, "name": "default/gw", "models": {},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "default/r", "attempts": [name(0), name(1), name(2)], "routingKey": "k"}],
        }],
    })
}

fn classic(costs: bool) -> Runtime {
    let cost = json!({"routeName": "default/r", "metadataKey": "t", "type": "TotalToken"});
    let costs = if costs { vec![cost] } else { vec![] };
    runtime(json!({"version": "dev", "backends": backends(), "llmRequestCosts": costs}))
}

fn runtime(config: Value) -> Runtime {
    let (runtime, problems) = Runtime::new(serde_json::from_value(config).unwrap());
    assert!(problems.is_empty(), "{problems:?}");
    runtime
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::UNIX_EPOCH }
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    pairs.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

/// As Envoy does: removals, then sets.
fn apply(headers: &mut Headers, edits: &HeaderEdits) {
    let set = |name: &[u8]| edits.set.iter().any(|(set, _)| set == name);
    let removed = |name: &[u8]| edits.remove.iter().any(|removed| removed.as_bytes() == name);
    *headers = headers.filtered(|name| !set(name) && !removed(name));
    edits.set.iter().for_each(|(name, value)| headers.push(name.clone(), value.clone()));
}

fn proceed(step: Result<Step, Violation>) -> Change {
    match step {
        Ok(Step::Continue(change)) => change,
        other => panic!("{other:?}"),
    }
}

/// One request in an Envoy with both filters.
struct Envoy {
    runtime: Runtime,
    exchange: Exchange,
    headers: Headers,
    body: Bytes,
    count: u32,
}

/// What a provider gets.
struct Delivered {
    headers: Headers,
    body: Bytes,
}

impl Delivered {
    fn text(&self) -> String {
        let line =
            |(name, value): (&[u8], &[u8])| format!("{}: {}\n", name.escape_ascii(), value.escape_ascii());
        self.headers.iter().map(line).collect()
    }
}

impl Envoy {
    fn new(runtime: Runtime, client: &[(&str, &str)], body: &Value) -> Self {
        let own = [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "ai.example")];
        let mut current = headers(&[&own, client].concat());
        let body = Bytes::from(body.to_string());
        let mut exchange = Exchange::new(runtime.scope(AUTHORITY), ID, Arc::default(), now());
        let input = Input::RequestHeaders { headers: current.clone(), end_of_stream: false };
        apply(&mut current, &proceed(exchange.handle(input, now())).headers);
        let input = Input::RequestBody { body: body.clone(), end_of_stream: true };
        let change = proceed(exchange.handle(input, now()));
        assert!(change.clear_route_cache && change.body == BodyChange::Keep);
        apply(&mut current, &change.headers);
        Self { runtime, exchange, headers: current, body, count: 0 }
    }

    /// What Envoy says of its next attempt, at that backend.
    fn arrival(&mut self, backend: &str) -> Arrival {
        self.count += 1;
        let mut arrival = Arrival { host_backend: Some(backend.to_owned()), ..Arrival::default() };
        arrival.route = Some("default/r".to_owned());
        match self.headers.text(INTERNAL_ID_HEADER) {
            Some(id) => arrival.read_id(id),
            None => {
                arrival.id = Some(ID);
                arrival.count = Some(self.count);
                arrival.routing_key = self.headers.get_bytes(ROUTING_HEADER);
            }
        }
        arrival
    }

    fn attempt(&mut self, backend: &str, elsewhere: bool) -> Attempt {
        let arrival = self.arrival(backend);
        let handover = self.exchange.handover().filter(|_| !elsewhere).cloned();
        Attempt::new(arrival, handover, self.runtime.scope(AUTHORITY), Arc::default())
    }

    /// An attempt at a backend, in this process or another one.
    fn deliver(&mut self, index: usize, elsewhere: bool) -> (Attempt, Delivered) {
        let mut attempt = self.attempt(&name(index), elsewhere);
        let input = Input::RequestHeaders { headers: self.headers.clone(), end_of_stream: false };
        let mut change = proceed(attempt.handle(input, now()));
        apply(&mut self.headers, &change.headers);
        if elsewhere {
            assert_eq!(change.phases, Some(PhaseOverride::RequestBody));
            // What Envoy would send if it did not heed that.
            let unheeded = Delivered { headers: self.headers.clone(), body: self.body.clone() };
            assert!(!unheeded.text().contains("of-") || !unheeded.text().contains("authorization"));
            let input = Input::RequestBody { body: self.body.clone(), end_of_stream: true };
            change = proceed(attempt.handle(input, now()));
            apply(&mut self.headers, &change.headers);
        } else {
            assert_eq!(change.phases, None);
            if matches!(change.body, BodyChange::Replace(_)) {
                // Envoy takes the length off, and the filter after ours sets the one it is told.
                let told = change.metadata.0.iter().find(|(key, _)| key == "content_length");
                let Some((_, MetadataValue::Number(length))) = told else { panic!("no length") };
                let mut edits = HeaderEdits::default();
                edits.set("content-length", length.to_string());
                apply(&mut self.headers, &edits);
            }
        }
        let body = match change.body {
            BodyChange::Keep => self.body.clone(),
            BodyChange::Replace(body) => body,
        };
        (attempt, Delivered { headers: self.headers.clone(), body })
    }

    /// The answer that an attempt at a backend gives in its place.
    fn refused(&mut self, index: usize, elsewhere: bool) -> LocalReply {
        let mut attempt = self.attempt(&name(index), elsewhere);
        let input = Input::RequestHeaders { headers: self.headers.clone(), end_of_stream: false };
        let mut step = attempt.handle(input, now());
        if elsewhere {
            apply(&mut self.headers, &proceed(step).headers);
            let input = Input::RequestBody { body: self.body.clone(), end_of_stream: true };
            step = attempt.handle(input, now());
        }
        match step {
            Ok(Step::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// The answer of a provider, as the router's stream gets it, and what becomes of it.
    fn answer(&mut self, head: &[(&str, &str)], body: &str) -> Settlement {
        let input = Input::ResponseHeaders { headers: headers(head), end_of_stream: false };
        let change = proceed(self.exchange.handle(input, now()));
        if head.iter().any(|(name, _)| *name == ATTEMPT_HEADER) {
            assert!(change.headers.remove.iter().any(|name| name == ATTEMPT_HEADER), "{change:?}");
        }
        if change.phases != Some(PhaseOverride::Response(ResponsePhases::None)) {
            let body = Bytes::copy_from_slice(body.as_bytes());
            proceed(self.exchange.handle(Input::ResponseBody { body, end_of_stream: true }, now()));
        }
        self.exchange.settle(Instant::now()).unwrap()
    }
}

fn chat() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
}

const JSON: (&str, &str) = ("content-type", "application/json");
const ANSWER: &str = r#"{"model":"x","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;

/// Whatever attempts there were, a backend gets what is its own and nothing that is another's, and the client's own headers.
fn is_as_if_it_were_the_first(delivered: &Delivered, index: usize, client_key: bool) {
    let text = delivered.text();
    for (other, own) in OWN.iter().enumerate() {
        assert_eq!(text.contains(own), other == index, "{own} at {index}:\n{text}");
    }
    assert_eq!(text.contains("client-key"), client_key, "{index}:\n{text}");
    let (path, model) =
        if index == 1 { ("/other/v9/chat/completions", "other") } else { ("/v1/chat/completions", "m") };
    assert_eq!(delivered.headers.text(":path"), Some(path));
    let body: Value = serde_json::from_slice(&delivered.body).unwrap();
    assert_eq!((&body["model"], body.get("user").is_some()), (&json!(model), index == 2));
    assert_eq!(delivered.headers.text("x-kept"), Some("1"));
    if let Some(length) = delivered.headers.text("content-length") {
        assert_eq!(length, delivered.body.len().to_string());
    }
}

proptest! {
    /// In any order, in any process.
    #[test]
    fn no_attempt_leaves_anything_to_another(
        attempts in prop::collection::vec((0..3_usize, any::<bool>()), 1..6),
        is_classic: bool,
    ) {
        let runtime = if is_classic { classic(true) } else { gateways() };
        let client = [("authorization", "Bearer client-key"), ("x-kept", "1"), ("x-team", "a")];
        let mut envoy = Envoy::new(runtime, &client, &chat());
        let mut seen = Vec::new();
        for (number, (index, elsewhere)) in attempts.into_iter().enumerate() {
            let (_, delivered) = envoy.deliver(index, elsewhere);
            // A Go gateway sends the client's credential to a backend that has none of its own. Where another process
            // has the request, that is so as long as no attempt can have touched it.
            let passes = is_classic && index == 2 && (number == 0 || !elsewhere);
            is_as_if_it_were_the_first(&delivered, index, passes);
            if !elsewhere {
                prop_assert_eq!(delivered.headers.contains("x-team"), index != 0);
            }
            seen.push(index);
        }
    }
}

#[test]
fn the_account_is_that_of_the_last_attempt_and_names_those_that_failed() {
    let mut envoy = Envoy::new(gateways(), &[("x-kept", "1")], &chat());
    envoy.deliver(0, false);
    envoy.deliver(1, false);
    let settlement = envoy.answer(&[(":status", "200"), JSON], ANSWER);
    assert!(settlement.succeeded());
    assert_eq!(settlement.usage.total, Some(3));
    assert_eq!(&*settlement.served.unwrap().backend.name, name(1));
    assert_eq!(settlement.request_model.as_deref(), Some("other"));
    let failed: Vec<_> = settlement.failed.iter().map(|served| served.backend.name.to_string()).collect();
    assert_eq!(failed, [name(0)]);
}

#[test]
fn an_attempt_of_another_process_is_known_by_its_word() {
    for runtime in [gateways(), classic(true)] {
        let mut envoy = Envoy::new(runtime, &[("x-kept", "1")], &chat());
        envoy.deliver(0, false);
        let (mut attempt, _) = envoy.deliver(1, true);
        let input =
            Input::ResponseHeaders { headers: headers(&[(":status", "200"), JSON]), end_of_stream: false };
        let change = proceed(attempt.handle(input, now()));
        let word = change.headers.set.iter().find(|(name, _)| name == ATTEMPT_HEADER).unwrap().1.clone();
        let word = std::str::from_utf8(&word).unwrap();
        let settlement = envoy.answer(&[(":status", "200"), JSON, (ATTEMPT_HEADER, word)], ANSWER);
        assert_eq!(&*settlement.served.unwrap().backend.name, name(1));
        assert_eq!((settlement.request_model.as_deref(), settlement.usage.total), (Some("other"), Some(3)));
    }
}

#[test]
fn a_provider_cannot_say_that_another_answered() {
    let other = ExchangeId { process: 1, number: 8 };
    for word in [
        format!("{other};{};default/r", name(1)),
        format!("{ID};default/unknown;default/r"),
        format!(";{};", name(1)),
        String::new(),
    ] {
        let mut envoy = Envoy::new(gateways(), &[], &chat());
        envoy.deliver(0, false);
        let settlement = envoy.answer(&[(":status", "200"), JSON, (ATTEMPT_HEADER, &word)], ANSWER);
        assert_eq!(&*settlement.served.unwrap().backend.name, name(0), "{word}");
    }
}

#[test]
fn what_is_unknown_is_not_sent() {
    for elsewhere in [false, true] {
        let mut envoy = Envoy::new(gateways(), &[], &chat());
        for backend in ["", "default/b9/route/r/rule/0/ref/9"] {
            let mut attempt = envoy.attempt(backend, elsewhere);
            let input = Input::RequestHeaders { headers: envoy.headers.clone(), end_of_stream: false };
            let refused = attempt.handle(input, now());
            assert_eq!(refused, Err(Violation::UnknownBackend(backend.to_owned())));
        }
    }
    // Nobody here knows the configuration that the request was routed by.
    let mut envoy = Envoy::new(gateways(), &[], &chat());
    let mut arrival = envoy.arrival(&name(0));
    arrival.routing_key = Some("older".into());
    for scope in [envoy.runtime.scope(AUTHORITY), None] {
        let mut attempt = Attempt::new(arrival.clone(), None, scope, Arc::default());
        let input = Input::RequestHeaders { headers: envoy.headers.clone(), end_of_stream: false };
        let step = attempt.handle(input, now());
        assert!(matches!(&step, Ok(Step::Reply(reply)) if reply.status == 503), "{step:?}");
    }
}

#[test]
fn usage_is_asked_for_where_somebody_needs_it() {
    let stream = json!({"model": "m", "stream": true, "messages": []});
    for (runtime, asked) in [(gateways(), true), (classic(true), true), (classic(false), false)] {
        let mut envoy = Envoy::new(runtime, &[], &stream);
        for elsewhere in [false, true] {
            let (_, delivered) = envoy.deliver(0, elsewhere);
            let body: Value = serde_json::from_slice(&delivered.body).unwrap();
            assert_eq!(body["stream_options"]["include_usage"] == true, asked);
        }
    }
}

#[test]
fn an_answer_before_any_attempt_is_envoys() {
    let mut envoy = Envoy::new(gateways(), &[], &chat());
    let settlement =
        envoy.answer(&[(":status", "503"), ("content-type", "text/plain")], "no healthy upstream");
    assert!(settlement.served.is_none() && settlement.failed.is_empty());
    assert_eq!((settlement.outcome.word(), settlement.status), ("answered_by_envoy", Some(503)));
}

/// What an attempt says of itself in an answer.
fn word_of(attempt: &mut Attempt) -> String {
    let input =
        Input::ResponseHeaders { headers: headers(&[(":status", "200"), JSON]), end_of_stream: false };
    let change = proceed(attempt.handle(input, now()));
    let (_, word) = change.headers.set.iter().find(|(name, _)| name == ATTEMPT_HEADER).unwrap();
    String::from_utf8(word.to_vec()).unwrap()
}

/// A rule that asks for proof: its attempts take place in this process or another one.
#[test]
fn the_account_names_the_tenant_wherever_an_attempt_took_place_and_however_it_ended() {
    const PROOF: &str = "x-ai-eg-auth-1";
    let mut config = gateways_config();
    let rule = &mut config["gateways"][0]["rules"][0];
    rule["proofs"] = json!([{"kind": "apiKey", "header": PROOF, "policy": "d/p", "told": ["x-user"]}]);
    rule["tenancy"] = json!({
        "policy": "d/t", "apiKey": "{organisation}.{key}",
        "access": [{"tenant": {"organisation": "acme"}, "models": ["*"]}],
    });
    for elsewhere in [false, true] {
        for (shown, refused, tenant, told) in [
            (Some("acme.k"), None, "acme/-/k", "completed"),
            (Some("other.k"), Some("403"), "other/-/k", "model_not_allowed"),
            (None, Some("401"), "-", "unauthenticated"),
        ] {
            let mut envoy = Envoy::new(runtime(config.clone()), &[], &chat());
            // As Envoy's filter leaves it.
            if let Some(shown) = shown {
                envoy.headers.push(PROOF.into(), shown.into());
                envoy.headers.push("x-user".into(), "ann".into());
            }
            let settlement = if let Some(status) = refused {
                let reply = envoy.refused(0, elsewhere);
                assert_eq!(reply.status.to_string(), status);
                let mut head = vec![(":status", status)];
                head.extend(reply.headers.iter().map(|(name, value)| (*name, value.as_str())));
                envoy.answer(&head, "{}")
            } else {
                let (mut attempt, delivered) = envoy.deliver(0, elsewhere);
                assert!(!delivered.text().contains(PROOF), "{}", delivered.text());
                assert_eq!(delivered.headers.text("x-user"), Some("ann"));
                let word = elsewhere.then(|| word_of(&mut attempt));
                if !elsewhere {
                    // The provider of a retry is told what that of the first attempt was.
                    let (_, delivered) = envoy.deliver(1, false);
                    assert_eq!(delivered.headers.text("x-user"), Some("ann"), "{}", delivered.text());
                }
                let mut head = vec![(":status", "200"), JSON];
                head.extend(word.as_deref().map(|word| (ATTEMPT_HEADER, word)));
                envoy.answer(&head, ANSWER)
            };
            assert_eq!(settlement.tenant.to_string(), tenant, "{elsewhere} {shown:?}");
            let outcome = match settlement.outcome {
                crate::exchange::Outcome::Refused(reason) => reason,
                other => other.word(),
            };
            assert_eq!(outcome, told, "{elsewhere} {shown:?}");
        }
    }
}

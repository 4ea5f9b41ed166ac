//! Exchanges under limits, at every exit: what is asked, what the client is told, and what is settled.

mod ceiling;
mod elsewhere;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{Arrival, Attempt, Exchange, Input, Settings, Step, Violation};
use super::*;
use crate::mutation::{BodyChange, Change};
use crate::quota::Refusal;
use crate::runtime::Runtime;

const AUTHORITY: &str = "http.gw.default";
const ID: ExchangeId = ExchangeId { process: 1, number: 7 };
const DIRECT: &str = "default/one/route/r/rule/0/ref/0";
const FIRST: &str = "default/two/route/r/rule/1/ref/0";
const SECOND: &str = "default/three/route/r/rule/1/ref/1";
const CLAUDE: &str = "default/claude/route/r/rule/2/ref/0";

/// A rule for model `direct`, one for `attempts` at two backends, and limits of one policy.
fn runtime(policy: Value, limits: &[Value]) -> Arc<Runtime> {
    let backends = json!([{"name": DIRECT}, {"name": FIRST}, {"name": SECOND, "modelNameOverride": "other"},
        {"name": CLAUDE, "schema": {"name": "Anthropic"}}]);
    runtime_of(backends, policy, limits)
}

fn runtime_of(backends: Value, policy: Value, limits: &[Value]) -> Arc<Runtime> {
    let mut quota = json!({"policy": "p", "limits": limits});
    quota.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    let matched = |model: &str, rule: u32| json!({"headers": [{"name": "x-ai-eg-model", "value": model}], "rule": rule});
    let (runtime, problems) = Runtime::new(
        serde_json::from_value(json!({
            "backends": backends,
            "quotas": [quota],
            "gateways": [{
                "authority": AUTHORITY, "name": "default/gw", "models": {},
                "hosts": [{"hostname": "*", "matches": [matched("direct", 0), matched("attempts", 1), matched("claude", 2)]}],
                "rules": [
                    {"route": "default/r", "backend": DIRECT, "routingKey": "k0"},
                    {"route": "default/r", "attempts": [FIRST, SECOND], "routingKey": "k1"},
                    {"route": "default/r", "backend": CLAUDE, "routingKey": "k2"},
                ],
            }],
        }))
        .unwrap(),
    );
    assert!(problems.is_empty(), "{problems:?}");
    Arc::new(runtime)
}

fn limit(name: &str, metric: &str) -> Value {
    let mut limit = json!({"id": name, "name": name, "metric": metric, "amount": 100_000});
    if metric != "InFlight" {
        limit["window"] = json!({"kind": "Fixed", "seconds": 60});
    }
    limit
}

/// A limit on one backend.
fn of_backend(name: &str, backend: &str) -> Value {
    let mut limit = limit(name, "TotalToken");
    limit["targets"] = json!([{"kind": "AIServiceBackend", "name": backend}]);
    limit
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

struct Run {
    exchange: Exchange,
    now: Instant,
}

impl Run {
    fn new(runtime: &Arc<Runtime>) -> Self {
        let now = Instant::now();
        let settings = Arc::new(Settings::default());
        Self { exchange: Exchange::new(runtime.scope(AUTHORITY), ID, settings, at(now)), now }
    }

    fn send(&mut self, input: Input) -> Step {
        self.exchange.handle(input, at(self.now)).unwrap()
    }

    fn request(&mut self, path: &str, body: &Value) -> Step {
        let own = [(":method", "POST"), (":path", path), (":authority", "ai.example")];
        self.send(Input::RequestHeaders { headers: headers(&own), end_of_stream: false });
        self.send(Input::RequestBody { body: body.to_string().into(), end_of_stream: true })
    }

    /// A chat that is asked about.
    fn asked(&mut self, body: &Value) -> Arc<Ask> {
        asked(self.request("/v1/chat/completions", body))
    }

    fn answered(&mut self, answer: Result<Verdict, NoAnswer>) -> Step {
        self.exchange.answered(answer, at(self.now)).unwrap()
    }

    /// A chat that is let in.
    fn sent(&mut self, body: &Value) -> Change {
        let ask = self.asked(body);
        change(self.answered(granted(&ask, ask.output.wanted)))
    }

    fn response(&mut self, status: &str, own: &[(&str, &str)]) -> Change {
        let head = [&[(":status", status)], own].concat();
        change(self.send(Input::ResponseHeaders { headers: headers(&head), end_of_stream: false }))
    }

    fn body(&mut self, body: &str, end_of_stream: bool) {
        self.send(Input::ResponseBody { body: body.to_owned().into(), end_of_stream });
    }

    /// What is settled: ids and amounts.
    fn settled(&mut self) -> Vec<(u32, Vec<u64>)> {
        let settlement = self.exchange.settle(self.now).expect("settled once");
        assert!(self.exchange.settle(self.now).is_none(), "settled twice");
        settlement.settles().map(|settle| shown(&settle)).collect()
    }
}

fn shown(settle: &Settle) -> (u32, Vec<u64>) {
    assert_eq!((settle.id.process, settle.id.exchange), (ID.process, ID.number));
    (settle.id.part, settle.spent.iter().map(|(_, spent)| *spent).collect())
}

fn at(monotonic: Instant) -> Now {
    Now { monotonic, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(600) }
}

fn asked(step: Step) -> Arc<Ask> {
    match step {
        Step::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

fn change(step: Step) -> Change {
    match step {
        Step::Continue(change) => change,
        other => panic!("{other:?}"),
    }
}

fn reply(step: Step) -> LocalReply {
    match step {
        Step::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn granted(ask: &Ask, output: u64) -> Result<Verdict, NoAnswer> {
    let reading = Reading { amount: 100_000, spent: 7, held: 3, resets_at: 660_000 };
    Ok(Verdict::Granted(Grant { output, readings: vec![reading; ask.claims.len()], now: 600_000 }))
}

fn full(ask: &Ask) -> Result<Verdict, NoAnswer> {
    let reading = Reading { amount: 100_000, spent: 100_000, held: 0, resets_at: 660_000 };
    Ok(Verdict::Refused(Refusal { claim: 0, readings: vec![reading; ask.claims.len()], now: 600_000 }))
}

fn chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": "Hi."}]})
}

fn stream() -> Value {
    json!({"model": "direct", "stream": true, "messages": []})
}

fn tokens() -> Arc<Runtime> {
    runtime(
        json!({}),
        &[limit("tokens", "TotalToken"), limit("requests", "Request"), limit("flight", "InFlight")],
    )
}

fn set<'a>(change: &'a Change, name: &str) -> Option<&'a str> {
    let entry = change.headers.set.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(&entry.1).ok()
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream")];
const ANSWER: &str = r#"{"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}"#;

#[test]
fn a_request_without_limits_is_not_asked_about() {
    let mut run = Run::new(&runtime(json!({}), &[]));
    change(run.request("/v1/chat/completions", &chat("direct")));
    assert_eq!(run.settled(), []);
}

#[test]
fn a_served_request_costs_what_the_provider_counted() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&chat("direct"));
    assert_eq!(ask.id, reservation_id(ID, 0));
    assert!(ask.claims[0].bound.at(500) >= 500 + 10, "prompt and answer are reserved");
    let sent = change(run.answered(granted(&ask, 500)));
    assert_eq!(sent.body, BodyChange::Keep);
    run.response("200", JSON);
    run.body(ANSWER, true);
    let settlement = run.exchange.settle(run.now).unwrap();
    let settled: Vec<_> = settlement.settles().map(|settle| shown(&settle)).collect();
    assert_eq!(settled, [(0, vec![30, 1, 0])]);
    let times = settlement.prompt_estimate().unwrap();
    assert!((times - ask.claims[0].bound.fixed as f64 / 10.0).abs() < 1e-9, "{times}");
}

#[test]
fn a_refused_request_holds_nothing_and_names_the_limit() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&chat("direct"));
    let refused = reply(run.answered(full(&ask)));
    assert_eq!((refused.status, refused.details), (429, refusal::EXCEEDED));
    assert!(refused.headers.contains(&("retry-after", "60".to_owned())), "{:?}", refused.headers);
    let settlement = run.exchange.settle(run.now).unwrap();
    assert_eq!(settlement.refused_by.as_deref(), Some("tokens"));
    assert_eq!(settlement.outcome, Outcome::Refused(refusal::EXCEEDED));
    assert_eq!(settlement.settles().count(), 0);
}

/// What happens then is said by the policy, and not left to chance: Kuadrant/limitador#265.
#[test]
fn while_the_store_is_away_policies_decide() {
    let mut run = Run::new(&tokens());
    run.asked(&chat("direct"));
    change(run.answered(Err(NoAnswer::Away)));
    let answer = run.response("200", JSON);
    assert_eq!(set(&answer, "x-ratelimit-limit-tokens"), None, "nothing is known");
    run.body(ANSWER, true);
    assert_eq!(run.settled(), [(0, vec![30, 1, 0])], "charged once it is back");

    let mut run = Run::new(&runtime(json!({"onStoreFailure": "Closed"}), &[limit("tokens", "TotalToken")]));
    run.asked(&chat("direct"));
    let refused = reply(run.answered(Err(NoAnswer::Away)));
    assert_eq!((refused.status, refused.details), (503, refusal::UNAVAILABLE));
    assert_eq!(run.settled(), [(0, vec![0])], "it may be held all the same");
}

#[test]
fn windows_that_are_over_by_the_stores_clock_are_named_anew() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&chat("direct"));
    let again = asked(run.answered(Err(NoAnswer::Stale(6_000_000))));
    assert_eq!(ask.id, again.id);
    assert_ne!(ask.claims[0].window, again.claims[0].window);
    asked(run.answered(Err(NoAnswer::Stale(6_000_000))));
    // A store that cannot make up its mind is none.
    change(run.answered(Err(NoAnswer::Stale(6_000_000))));
}

#[test]
fn an_error_of_the_provider_is_free_unless_the_policy_charges_it() {
    for (policy, status, charged) in
        [(json!({}), "500", false), (json!({}), "429", false), (json!({"onError": "Charge"}), "500", true)]
    {
        let mut run =
            Run::new(&runtime(policy, &[limit("tokens", "TotalToken"), limit("requests", "Request")]));
        run.sent(&chat("direct"));
        run.response(status, JSON);
        run.body(r#"{"error":{"message":"no"}}"#, true);
        let settled = run.settled();
        assert_eq!(
            (settled[0].1[0] > 0, settled[0].1[1]),
            (charged, u64::from(charged)),
            "{status} {settled:?}"
        );
    }
}

#[test]
fn a_client_that_leaves_while_the_store_is_asked_has_used_nothing() {
    let mut run = Run::new(&tokens());
    run.asked(&chat("direct"));
    assert_eq!(run.settled(), [(0, vec![0, 0, 0])]);
}

#[test]
fn a_client_that_leaves_before_the_answer_pays_the_prompt_and_no_answer() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&chat("direct"));
    change(run.answered(granted(&ask, 500)));
    let settled = run.settled();
    let prompt = ask.claims[0].bound.fixed;
    assert_eq!(settled, [(0, vec![prompt, 1, 0])]);
}

#[test]
fn a_stream_that_is_cut_off_costs_what_was_delivered() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&stream());
    change(run.answered(granted(&ask, ask.output.wanted)));
    run.response("200", SSE);
    for _ in 0..40 {
        run.body("data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n", false);
    }
    let settled = run.settled();
    let prompt = ask.claims[0].bound.fixed;
    assert!((40..120).contains(&(settled[0].1[0] - prompt)), "{settled:?}");
    assert_eq!(settled[0].1[1], 1);
}

/// Otherwise a provider could charge more of a prompt than anybody counted, and a tenant that leaves its streams would go beyond its limits.
#[test]
fn a_stream_without_usage_costs_its_prompt_as_it_was_estimated_and_no_more_than_was_held() {
    for (max_tokens, events, least, most) in [(500, 4, 4, 30), (2, 40, 2, 2)] {
        let mut run = Run::new(&tokens());
        let prompt = "模型 42 {x} ".repeat(100);
        let body = json!({"model": "direct", "stream": true, "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]});
        let ask = run.asked(&body);
        change(run.answered(granted(&ask, max_tokens)));
        run.response("200", SSE);
        for _ in 0..events {
            run.body("data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n", false);
        }
        let prompt = ask.claims[0].bound.fixed;
        assert!(prompt > body.to_string().len() as u64 / 4, "its length alone says less: {prompt}");
        let output = run.settled()[0].1[0].checked_sub(prompt).expect("the prompt");
        assert!((least..=most).contains(&output), "{output}");
    }
}

#[test]
fn what_an_anthropic_stream_has_counted_at_its_beginning_is_not_all_it_costs() {
    let mut run =
        Run::new(&runtime(json!({}), &[limit("output", "OutputToken"), limit("input", "InputToken")]));
    let body = json!({"model": "claude", "stream": true, "max_tokens": 500, "messages": []});
    let ask = asked(run.request("/anthropic/v1/messages", &body));
    change(run.answered(granted(&ask, 500)));
    run.response("200", SSE);
    run.body("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"c\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n", false);
    for _ in 0..40 {
        run.body("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"word\"}}\n\n", false);
    }
    let settled = run.settled();
    assert!((40..120).contains(&settled[0].1[0]), "{settled:?}");
    assert_eq!(settled[0].1[1], 25);
}

#[test]
fn a_stream_that_reports_no_usage_costs_what_was_delivered() {
    let mut run = Run::new(&tokens());
    let ask = run.asked(&stream());
    change(run.answered(granted(&ask, ask.output.wanted)));
    run.response("200", SSE);
    for _ in 0..40 {
        run.body("data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n", false);
    }
    run.body("data: [DONE]\n\n", true);
    assert!((40..120).contains(&(run.settled()[0].1[0] - ask.claims[0].bound.fixed)));
}

#[test]
fn messages_that_do_not_fit_settle_what_was_held() {
    let mut run = Run::new(&tokens());
    run.sent(&chat("direct"));
    let input = Input::ResponseTrailers;
    assert!(matches!(run.exchange.handle(input, at(run.now)), Err(Violation::OutOfOrder { .. })));
    assert_eq!(run.settled().len(), 1);
    let mut run = Run::new(&tokens());
    let answer = run.exchange.answered(Err(NoAnswer::Away), at(run.now));
    assert!(matches!(answer, Err(Violation::NotAsked(_))));
}

#[test]
fn an_answer_is_limited_to_what_is_left_and_the_client_is_told() {
    let clamping = |limits: &[Value]| runtime(json!({"clamp": 50}), limits);
    let runtime = clamping(&[limit("tokens", "TotalToken")]);
    for (asked_for, output, written) in
        [(Some(500), 200, Some(200)), (Some(500), 500, None), (None, 300, Some(300)), (Some(20), 20, None)]
    {
        let mut body = chat("direct");
        match asked_for {
            Some(asked_for) => body["max_tokens"] = json!(asked_for),
            None => drop(body.as_object_mut().unwrap().remove("max_tokens")),
        }
        let mut run = Run::new(&runtime);
        let ask = run.asked(&body);
        assert_eq!(ask.output.wanted, asked_for.unwrap_or(crate::quota::DEFAULT_OUTPUT));
        assert_eq!(ask.output.least, 50.min(ask.output.wanted));
        let sent = change(run.answered(granted(&ask, output)));
        match (&sent.body, written) {
            (BodyChange::Keep, None) => {}
            (BodyChange::Replace(new), Some(written)) => {
                let new: Value = serde_json::from_slice(new).unwrap();
                assert_eq!(new["max_tokens"], json!(written));
                assert_eq!(new["messages"], body["messages"]);
                assert_eq!(set(&sent, "content-length"), Some(&*new.to_string().len().to_string()));
            }
            other => panic!("{other:?}"),
        }
        let answer = run.response("200", JSON);
        assert_eq!(set(&answer, headers::CLAMPED), written.map(|written| written.to_string()).as_deref());
    }
}

#[test]
fn every_answer_says_what_is_left_in_place_of_the_providers_own_limits() {
    let own = [
        ("content-type", "text/event-stream"),
        ("x-ratelimit-remaining-tokens", "9999999"),
        ("x-ratelimit-remaining-project-tokens", "9999999"),
        ("anthropic-ratelimit-tokens-remaining", "9999999"),
    ];
    for status in ["200", "500"] {
        let mut run = Run::new(&tokens());
        run.sent(&stream());
        run.now += Duration::from_secs(20);
        let answer = run.response(status, &own);
        for (name, value) in [
            ("x-ratelimit-limit-tokens", "100000"),
            ("x-ratelimit-remaining-tokens", "99990"),
            ("x-ratelimit-reset-tokens", "40s"),
            ("x-ratelimit-limit-requests", "100000"),
            ("x-ratelimit-remaining-requests", "99990"),
            ("x-ratelimit-reset-requests", "40s"),
        ] {
            assert_eq!(set(&answer, name), Some(value), "{name}");
        }
        for name in ["x-ratelimit-remaining-project-tokens", "anthropic-ratelimit-tokens-remaining"] {
            assert!(answer.headers.remove.iter().any(|removed| removed == name), "{name}");
        }
    }
    let mut run = Run::new(&runtime(json!({}), &[]));
    change(run.request("/v1/chat/completions", &chat("direct")));
    let answer = run.response("200", &own);
    assert!(answer.headers.remove.is_empty(), "no limits, nothing to hide");
}

/// The stream of an attempt at a backend.
fn attempt(run: &Run, runtime: &Arc<Runtime>, backend: &str, count: u32) -> (Attempt, Step) {
    let arrival = Arrival {
        host_backend: Some(backend.to_owned()),
        count: Some(count),
        id: Some(ID),
        ..Arrival::default()
    };
    let handover = run.exchange.handover().cloned();
    let mut attempt = Attempt::new(arrival, handover, runtime.scope(AUTHORITY), Arc::default());
    let own = [(":method", "POST"), (":path", "/v1/chat/completions")];
    let step =
        attempt.handle(Input::RequestHeaders { headers: headers(&own), end_of_stream: false }, at(run.now));
    (attempt, step.unwrap())
}

fn per_attempt(policy: Value) -> Arc<Runtime> {
    let limits =
        [limit("all", "TotalToken"), of_backend("two", "default/two"), of_backend("three", "default/three")];
    runtime(policy, &limits)
}

#[test]
fn each_attempt_is_asked_for_its_own_backends_limits_and_one_in_vain_is_free() {
    let runtime = per_attempt(json!({}));
    let mut run = Run::new(&runtime);
    let ask = run.asked(&chat("attempts"));
    assert_eq!(ask.claims.len(), 1, "the backends' are not known yet");
    change(run.answered(granted(&ask, 500)));

    let (mut first, step) = attempt(&run, &runtime, FIRST, 1);
    let ask = asked(step);
    assert_eq!((ask.id.part, ask.claims.len()), (1, 1));
    change(first.answered(granted(&ask, 500), at(run.now)).unwrap());
    assert_eq!(first.settles().count(), 0);

    let (mut second, step) = attempt(&run, &runtime, SECOND, 2);
    let ask = asked(step);
    assert_eq!((ask.id.part, ask.claims.len()), (2, 1));
    let in_vain: Vec<_> = second.settles().map(|settle| shown(&settle)).collect();
    assert_eq!(in_vain, [(1, vec![0])]);
    change(second.answered(granted(&ask, 500), at(run.now)).unwrap());

    let answer = run.response("200", JSON);
    assert_eq!(set(&answer, "x-ratelimit-limit-tokens"), Some("100000"));
    run.body(ANSWER, true);
    assert_eq!(run.settled(), [(0, vec![30]), (2, vec![30])]);
}

#[test]
fn an_attempt_in_vain_is_charged_where_the_policy_says_so() {
    let runtime = per_attempt(json!({"onError": "Charge"}));
    let mut run = Run::new(&runtime);
    run.sent(&chat("attempts"));
    let (mut first, step) = attempt(&run, &runtime, FIRST, 1);
    let ask = asked(step);
    change(first.answered(granted(&ask, 500), at(run.now)).unwrap());
    let (mut second, _) = attempt(&run, &runtime, SECOND, 2);
    let in_vain: Vec<_> = second.settles().map(|settle| shown(&settle)).collect();
    assert_eq!(in_vain, [(1, vec![ask.claims[0].bound.fixed])]);
}

#[test]
fn an_attempt_whose_backend_has_no_room_is_refused_and_nothing_is_charged() {
    let runtime = per_attempt(json!({}));
    let mut run = Run::new(&runtime);
    run.sent(&chat("attempts"));
    let (mut first, step) = attempt(&run, &runtime, FIRST, 1);
    let refused = reply(first.answered(full(&asked(step)), at(run.now)).unwrap());
    assert_eq!(refused.status, 429);
    run.response("429", JSON);
    let settlement = run.exchange.settle(run.now).unwrap();
    assert_eq!(settlement.outcome, Outcome::Refused(refusal::EXCEEDED));
    assert_eq!(settlement.refused_by.as_deref(), Some("two"));
    let settled: Vec<_> = settlement.settles().map(|settle| shown(&settle)).collect();
    assert_eq!(settled, [(0, vec![0])]);
}

#[test]
fn what_an_attempt_has_asked_for_is_given_up_when_the_client_leaves() {
    let runtime = per_attempt(json!({}));
    let mut run = Run::new(&runtime);
    run.sent(&chat("attempts"));
    let (_first, step) = attempt(&run, &runtime, FIRST, 1);
    asked(step);
    assert_eq!(run.settled(), [(0, vec![0]), (1, vec![0])]);
}

#[test]
fn every_attempt_is_sent_the_answer_that_is_left() {
    let runtime = per_attempt(json!({"clamp": 10}));
    let mut run = Run::new(&runtime);
    let ask = run.asked(&chat("attempts"));
    // Whatever a backend's edits make of it, it is limited last.
    assert_eq!(change(run.answered(granted(&ask, 400))).body, BodyChange::Keep);
    let (mut first, step) = attempt(&run, &runtime, FIRST, 1);
    let ask = asked(step);
    assert_eq!(ask.output.wanted, 400);
    let sent = change(first.answered(granted(&ask, 90), at(run.now)).unwrap());
    let BodyChange::Replace(body) = &sent.body else { panic!("{sent:?}") };
    assert_eq!(cap::read(Endpoint::ChatCompletions, body).output, Some(90));
    let (mut second, step) = attempt(&run, &runtime, SECOND, 2);
    let ask = asked(step);
    assert_eq!(ask.output.wanted, 400, "what the first had no room for is none of the second's business");
    let sent = change(second.answered(granted(&ask, 400), at(run.now)).unwrap());
    let BodyChange::Replace(body) = &sent.body else { panic!("{sent:?}") };
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["model"], &body["max_tokens"]), (&json!("other"), &json!(400)));
}

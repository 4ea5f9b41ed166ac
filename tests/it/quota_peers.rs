//! What users of other gateways have complained of, as far as quotas go: each complaint is a test here or, where one says the same
//! already, named in that test's description.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ai_gateway::config::Config;
use ai_gateway::endpoint::Endpoint;
use ai_gateway::headers::Headers;
use ai_gateway::proto::ext_proc::ProcessingResponse;
use ai_gateway::proto::ext_proc::body_mutation::Mutation;
use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use ai_gateway::quota::{
    Bound, Claim, Estimate, Facts, Mode, ReservationId, Settled, Stage, Verdict, Window,
};
use ai_gateway::quotastore::{Away, MemoryStore, Store, StoreError};
use ai_gateway::runtime::Runtime;
use ai_gateway::server::{Listen, Processor, ProcessorOptions};
use ai_gateway::source::Slot;
use ai_gateway::tenant::Tenant;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::quota_store::stores::{connect, on_all};
use crate::quota_store::{AMOUNT, MINUTE, ask, attended, claim, first, look, settle, start};
use crate::support::redis::Redis;
use crate::support::scripted::{
    AUTHORITY, Envoy, channel, headers, request_body, response_body, response_headers,
};
use crate::support::until;

/// A processor with quotas of its own, and the scripted Envoy before it.
struct Rig {
    _processor: Processor,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

fn runtime(policy: &Value, limits: &Value) -> Runtime {
    let mut quota = json!({"policy": "p", "limits": limits});
    quota.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    let backend = "default/b/route/r/rule/0/ref/0";
    let config: Config = serde_json::from_value(json!({
        "backends": [{"name": backend, "auth": {"apiKey": {"key": "sk-1"}}}],
        "quotas": [quota],
        "gateways": [{
            "authority": AUTHORITY, "name": "default/gw", "models": {},
            "hosts": [{"hostname": "*", "matches": [
                {"headers": [{"name": "x-ai-eg-model", "value": "m"}], "rule": 0},
            ]}],
            "rules": [{"route": "default/r", "backend": backend, "routingKey": "key"}],
        }],
    }))
    .unwrap();
    let (runtime, problems) = Runtime::new(config);
    assert!(problems.is_empty(), "{problems:?}");
    runtime
}

fn limit(name: &str, amount: u64, per: &Value) -> Value {
    json!({
        "id": name, "name": name, "metric": "TotalToken", "amount": amount, "per": per,
        "window": {"kind": "Rolling", "seconds": 3600},
    })
}

/// One limit for everybody.
fn shared(amount: u64) -> Value {
    json!([limit("tokens", amount, &json!([]))])
}

impl Rig {
    fn new(policy: &Value, limits: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("extproc.sock");
        let slot = Slot::default();
        slot.publish(runtime(policy, limits));
        let processor = Processor::start(ProcessorOptions::new(Listen::Unix(socket.clone()), slot)).unwrap();
        Self { _processor: processor, socket, _folder: folder }
    }

    /// A request up to the reply to its body.
    async fn ask(&self, user: &str, body: Value) -> (Envoy, ProcessingResponse) {
        let mut envoy = Envoy::open(channel(self.socket.clone())).await;
        let own = [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-user", user)];
        envoy.send(Some(headers(&own))).await.unwrap();
        let reply = envoy.send(Some(request_body(body))).await.unwrap();
        (envoy, reply)
    }

    /// A request that is let in.
    async fn sent(&self, body: Value) -> Envoy {
        let (envoy, reply) = self.ask("u", body).await;
        assert!(matches!(reply.response, Some(Reply::RequestBody(_))), "{reply:?}");
        envoy
    }

    /// What is left, by a request that can never fit: it is refused and costs nothing.
    async fn left(&self) -> u64 {
        let (_, reply) = self.ask("u", chat(1_000_000_000, false)).await;
        refusal(reply)["error"]["quota"]["remaining"].as_u64().unwrap()
    }
}

fn refusal(reply: ProcessingResponse) -> Value {
    let Some(Reply::ImmediateResponse(reply)) = reply.response else { panic!("it was let in") };
    assert_eq!(reply.status.unwrap().code, 429);
    serde_json::from_slice(&reply.body).unwrap()
}

fn chat(max_tokens: u64, stream: bool) -> Value {
    json!({
        "model": "m", "max_tokens": max_tokens, "stream": stream,
        "messages": [{"role": "user", "content": "Who are you?"}],
    })
}

const JSON: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/json")];
const EVENTS: [(&str, &str); 2] = [(":status", "200"), ("content-type", "text/event-stream")];

fn usage(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Elsewhere, what is left stays as it was, or goes down by one for each request: envoyproxy/ai-gateway#1754, #1866, #1169 and #2248,
/// higress-group/higress#1665 and #1826.
#[tokio::test]
async fn what_is_left_goes_down_by_what_each_answer_used() {
    let rig = Rig::new(&json!({}), &shared(10_000));
    let mut left = 10_000;
    assert_eq!(rig.left().await, left);
    for (stream, used) in [(false, 41), (true, 1_234), (false, 7)] {
        let mut envoy = rig.sent(chat(2_000, stream)).await;
        let usage = usage(4, used - 4);
        if stream {
            envoy.send(Some(response_headers(&EVENTS))).await.unwrap();
            let last = event(&json!({"choices": [], "usage": usage})) + "data: [DONE]\n\n";
            envoy.send(Some(response_body(last, true))).await.unwrap();
        } else {
            envoy.send(Some(response_headers(&JSON))).await.unwrap();
            let answer = json!({"choices": [], "usage": usage}).to_string();
            envoy.send(Some(response_body(answer, true))).await.unwrap();
        }
        left -= used;
        assert_eq!(rig.left().await, left);
    }
}

/// Some providers say `"usage": null` in every event, some count anew in each: only the last count is the stream's, and it counts once.
/// higress-group/higress#1080 and #2187.
#[tokio::test]
async fn a_stream_is_charged_once_and_by_what_it_says_last() {
    let rig = Rig::new(&json!({}), &shared(10_000));
    let mut envoy = rig.sent(chat(500, true)).await;
    envoy.send(Some(response_headers(&EVENTS))).await.unwrap();
    let delta = json!([{"index": 0, "delta": {"content": "1"}}]);
    for _ in 0..5 {
        let nothing = event(&json!({"choices": delta, "usage": null}));
        envoy.send(Some(response_body(nothing, false))).await.unwrap();
    }
    for output in 1..=20 {
        let so_far = event(&json!({"choices": delta, "usage": usage(9, output)}));
        envoy.send(Some(response_body(so_far, false))).await.unwrap();
    }
    envoy.send(Some(response_body("data: [DONE]\n\n", true))).await.unwrap();
    assert_eq!(rig.left().await, 10_000 - 29);
}

/// A client that has read the usage may close its connection before the provider does: envoyproxy/ai-gateway#2563 and #2571.
#[tokio::test]
async fn a_client_that_leaves_after_the_usage_is_charged_just_that() {
    let rig = Rig::new(&json!({}), &shared(10_000));
    let mut envoy = rig.sent(chat(500, true)).await;
    envoy.send(Some(response_headers(&EVENTS))).await.unwrap();
    let delta = event(&json!({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}));
    envoy.send(Some(response_body(delta, false))).await.unwrap();
    let last = event(&json!({"choices": [], "usage": usage(100, 200)}));
    envoy.send(Some(response_body(last, false))).await.unwrap();
    drop(envoy);
    until("it is settled", async || rig.left().await == 10_000 - 300).await;
}

/// What is reserved is given back on every way out; what is counted is what was used: BerriAI/litellm#27639, #36926 and #40050.
#[tokio::test]
async fn nothing_stays_reserved_however_requests_end() {
    let rig = Rig::new(&json!({}), &shared(10_000));
    let mut left = 10_000;
    for turn in 0..60 {
        let mut envoy = rig.sent(chat(500, turn % 2 == 0)).await;
        match turn % 3 {
            // Answered.
            0 => {
                envoy.send(Some(response_headers(&JSON))).await.unwrap();
                let answer = json!({"choices": [], "usage": usage(4, 6)}).to_string();
                envoy.send(Some(response_body(answer, true))).await.unwrap();
                left -= 10;
            }
            // Refused by the provider.
            1 => {
                let head = [(":status", "503"), ("content-type", "application/json")];
                envoy.send(Some(response_headers(&head))).await.unwrap();
            }
            // Its client leaves.
            _ => {
                envoy.send(Some(response_headers(&EVENTS))).await.unwrap();
                let said = event(&json!({"choices": [], "usage": usage(1, 1)}));
                envoy.send(Some(response_body(said, false))).await.unwrap();
                left -= 2;
            }
        }
        drop(envoy);
        until("it is settled", async || rig.left().await == left).await;
    }
    // All of that is there to be had.
    let (_, reply) = rig.ask("u", chat(left - 200, false)).await;
    assert!(matches!(reply.response, Some(Reply::RequestBody(_))), "{reply:?}");
}

/// The first requests of a client are no exception, however many come at once: BerriAI/litellm#40095.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_requests_of_somebody_unknown_keep_to_the_limit() {
    let per_user = limit("user", 1_500, &json!([{"by": "Header", "name": "x-user"}]));
    let rig = Rig::new(&json!({}), &json!([per_user]));
    for user in ["ann", "bob"] {
        let all = (0..16).map(|_| rig.ask(user, chat(300, false)));
        let mut let_in = Vec::new();
        for (envoy, reply) in futures_util::future::join_all(all).await {
            if matches!(reply.response, Some(Reply::RequestBody(_))) {
                let_in.push(envoy);
            }
        }
        // Each may need 300 tokens, and less than 200 for its prompt.
        assert_eq!(let_in.len(), 3, "{user}");
    }
}

/// Who does not say how long an answer may get is served all the same, as far as there is anything left: tensorzero/tensorzero#3648.
#[tokio::test]
async fn a_request_that_names_no_cap_is_let_in_and_given_one() {
    let policy = json!({"clamp": 16, "outputs": [{"model": "*", "tokens": 4000}]});
    let rig = Rig::new(&policy, &shared(1_000));
    let mut body = chat(1, false);
    body.as_object_mut().unwrap().remove("max_tokens");
    let (_envoy, reply) = rig.ask("u", body).await;
    let Some(Reply::RequestBody(reply)) = reply.response else { panic!("{reply:?}") };
    let mutation = reply.response.unwrap().body_mutation.and_then(|body| body.mutation);
    let Some(Mutation::Body(sent)) = mutation else { panic!("the body is as it was") };
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert!((800..1_000).contains(&sent["max_tokens"].as_u64().unwrap()), "{sent}");
}

/// Who is told apart by a header, a key or anything else needs no object of its own: envoyproxy/ai-gateway#2223, Portkey-AI/gateway#1160
/// and #1169, tensorzero/tensorzero#4441 and #4532.
#[tokio::test]
async fn one_limit_gives_each_of_many_clients_an_amount_of_its_own() {
    let per_user = limit("user", 1_000, &json!([{"by": "Header", "name": "x-user"}]));
    let rig = Rig::new(&json!({}), &json!([per_user]));
    for number in 0..50 {
        let user = format!("user-{number}");
        let (_held, reply) = rig.ask(&user, chat(600, false)).await;
        assert!(matches!(reply.response, Some(Reply::RequestBody(_))), "{user}: {reply:?}");
        refusal(rig.ask(&user, chat(600, false)).await.1);
    }
}

/// A prompt counts before a provider has counted it, and no odd letters make it look short: Kong/developer.konghq.com#3358.
#[tokio::test]
async fn a_prompt_that_is_longer_than_what_is_left_is_refused_before_it_is_sent() {
    let rig = Rig::new(&json!({}), &shared(2_000));
    for (unit, times, fits) in [
        ("word ", 300, true),
        ("word ", 2_000, false),
        ("\u{9f98}\u{9750}", 400, false),
        ("qzjx", 600, false),
    ] {
        let mut body = chat(16, false);
        body["messages"][0]["content"] = json!(unit.repeat(times));
        let (_envoy, reply) = rig.ask("u", body).await;
        assert_eq!(matches!(reply.response, Some(Reply::RequestBody(_))), fits, "{unit}");
    }
}

/// A limit is reached at its amount, and not a request earlier: maximhq/bifrost#5770. Nor later, however often what is left is looked at:
/// Kuadrant/limitador#127 and #288.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_reached_at_its_amount_exactly() {
    on_all(async |timed| {
        timed.set(start());
        for exchange in 0..10 {
            let asked = ask(exchange, 90, 90, vec![claim("a", MINUTE)]);
            assert_eq!(look(&timed.store, &asked.claims[0]).await, (exchange * 100, 0));
            let answer = timed.store.reserve(&asked).await.unwrap().verdict;
            assert!(matches!(answer, Verdict::Granted(_)), "{exchange}: {answer:?}");
            assert_eq!(timed.store.settle(&settle(&asked, 100)).await.unwrap(), Settled::Done);
        }
        let least = vec![Claim { bound: Bound::fixed(1), ..claim("a", MINUTE) }];
        let answer = timed.store.reserve(&ask(10, 0, 0, least)).await.unwrap().verdict;
        assert!(matches!(answer, Verdict::Refused(_)), "{answer:?}");
    })
    .await;
}

/// Streams that last an hour keep what was reserved for them, and pay it once: praxis-proxy/ai#459.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_hour_keeps_what_is_reserved_for_it() {
    on_all(async |timed| {
        let from = start();
        timed.set(from);
        let asked = ask(1, 490, 490, vec![claim("a", MINUTE)]);
        timed.store.reserve(&asked).await.unwrap();
        for second in (5..=3_600).step_by(5) {
            timed.set(from + second * 1000);
            assert_eq!(timed.store.renew(&[(asked.id, 10_000)]).await.unwrap(), [true], "{second}");
        }
        assert_eq!(look(&timed.store, &asked.claims[0]).await, (0, 500));
        assert_eq!(timed.store.settle(&settle(&asked, 321)).await.unwrap(), Settled::Done);
        assert_eq!(look(&timed.store, &asked.claims[0]).await, (321, 0));
    })
    .await;
}

/// tensorzero/tensorzero#3678.
#[tokio::test]
async fn a_refusal_says_which_limit_it_was_what_is_left_and_what_was_asked_for() {
    let rig = Rig::new(&json!({}), &shared(1_000));
    let _held = rig.sent(chat(600, false)).await;
    let (_, reply) = rig.ask("u", chat(600, false)).await;
    let body = refusal(reply);
    let error = &body["error"];
    assert_eq!((&error["code"], &error["quota"]["limit"]), (&json!("rate_limit_exceeded"), &json!("tokens")));
    let number = |name: &str| error["quota"][name].as_u64().unwrap();
    assert!(number("remaining") < 400 && number("needed") > 600 && number("amount") == 1_000, "{body}");
    assert!(error["message"].as_str().unwrap().contains("The limit `tokens` is reached"), "{body}");
}

/// What was used counts, although it is more than there was; what is refused does not: envoyproxy/ratelimit#937 and #185.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_is_recorded_beyond_the_limit_and_what_is_refused_is_not() {
    on_all(async |timed| {
        timed.set(start());
        for mode in [Mode::Reserve, Mode::Record] {
            let claims = vec![Claim { mode, ..claim(&format!("{mode:?}"), MINUTE) }];
            let asked = ask(1 + mode as u64, 100, 100, claims.clone());
            timed.store.reserve(&asked).await.unwrap();
            timed.store.settle(&settle(&asked, AMOUNT + 500)).await.unwrap();
            for exchange in 10..30 {
                let refused = timed.store.reserve(&ask(exchange, 1, 1, claims.clone())).await.unwrap();
                assert!(matches!(refused.verdict, Verdict::Refused(_)), "{refused:?}");
                assert_eq!(first(&refused.verdict), (AMOUNT + 500, 0));
            }
        }
    })
    .await;
}

/// An amount that is changed, or that differs from one request to the next, goes with any cost: envoyproxy/envoy#45611. Nor is what is
/// held or spent meanwhile lost by it: maximhq/bifrost#2753.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_whose_amount_is_changed_keeps_what_was_spent() {
    on_all(async |timed| {
        timed.set(start());
        let of = |amount: u64| vec![Claim { amount, ..claim("a", MINUTE) }];
        let asked = ask(1, 490, 490, of(AMOUNT));
        timed.store.reserve(&asked).await.unwrap();
        timed.store.settle(&settle(&asked, 400)).await.unwrap();
        for (exchange, (amount, fits)) in
            (2..).zip([(AMOUNT, true), (500, false), (350, false), (5_000, true)])
        {
            let asked = ask(exchange, 200, 200, of(amount));
            let answer = timed.store.reserve(&asked).await.unwrap();
            assert_eq!(matches!(answer.verdict, Verdict::Granted(_)), fits, "{amount}");
            if fits {
                assert_eq!(timed.store.settle(&settle(&asked, 0)).await.unwrap(), Settled::Done);
            }
            assert_eq!(look(&timed.store, &asked.claims[0]).await, (400, 0));
        }
    })
    .await;
}

/// A window is where the clock is, and not where somebody has asked last: reservations do not anchor it anew (review of
/// Kuadrant/limitador#515).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_later_does_not_prolong_what_was_spent_before() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start() / 60_000 * 60_000);
        let aligned = Window::Aligned { start: now, end: now + 60_000, next_end: now + 120_000 };
        let claims = vec![claim("rolling", MINUTE), claim("fixed", aligned)];
        timed.set(now);
        let before = ask(1, 490, 490, claims.clone());
        store.reserve(&before).await.unwrap();
        store.settle(&settle(&before, 300)).await.unwrap();
        for second in (5..60).step_by(5) {
            timed.set(now + second * 1000);
            let asked = ask(1 + second, 20, 20, claims.clone());
            let answer = store.reserve(&asked).await.unwrap();
            assert!(matches!(answer.verdict, Verdict::Granted(_)), "{answer:?}");
            store.settle(&settle(&asked, 1)).await.unwrap();
        }
        timed.set(now + 62_000);
        // The first is forgotten; the others came later.
        assert_eq!(look(store, &claims[0]).await, (11, 0));
        assert_eq!(look(store, &claims[1]).await, (0, 0), "another window");
    })
    .await;
}

/// Several keys may share a budget, and each have one of its own besides: agentgateway/agentgateway#1398 and #3302,
/// agentgateway/website#573.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_team_share_its_budget_and_have_one_of_their_own() {
    let by = |what: &str| json!([{"by": what}]);
    let limits = json!([limit("team", 1_000, &by("Team")), limit("key", 700, &by("Key"))]);
    let runtime = Arc::new(runtime(&json!({}), &limits));
    let claims = |team: &str, key: &str| {
        let part = |text: &str| Some(Arc::from(text));
        let tenant = Tenant { organisation: part("o"), team: part(team), key: part(key) };
        let facts = Facts {
            tenant: &tenant,
            key_quota: None,
            gateway: Some("default/gw"),
            route: Some("default/r"),
            backend: Some("default/b"),
            asked_model: "m",
            sent_model: Some("m"),
            headers: &Headers::default(),
            endpoint: Endpoint::ChatCompletions,
            source: None,
        };
        let id = ReservationId { process: 1, exchange: 1, part: 0 };
        let estimate = Estimate { prompt: 0, output: Some(600), unsaid: false, answers: 1 };
        let scope = runtime.scope(AUTHORITY).unwrap();
        scope.quotas().prepare(Stage::Whole, &facts, estimate, id, start()).unwrap().ask.claims
    };
    on_all(async |timed| {
        timed.set(start());
        let of = |exchange: u64, team: &str, key: &str| ask(exchange, 600, 600, claims(team, key));
        let refused_by = async |asked| match timed.store.reserve(&asked).await.unwrap().verdict {
            Verdict::Granted(_) => None,
            Verdict::Refused(refusal) => Some(refusal.claim),
        };
        assert_eq!(refused_by(of(1, "t", "a")).await, None);
        assert_eq!(refused_by(of(2, "t", "b")).await, Some(0), "the team has too little left");
        assert_eq!(refused_by(of(3, "u", "a")).await, None, "another team's key");
        timed.store.settle(&settle(&of(1, "t", "a"), 200)).await.unwrap();
        assert_eq!(refused_by(of(4, "t", "a")).await, Some(1), "the key has too little left");
        assert_eq!(refused_by(of(5, "t", "b")).await, None, "and its neighbour has not");
    })
    .await;
}

/// What the store of this process answers, which it does at once.
fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> T {
    answer.now_or_never().expect("at once").unwrap()
}

/// In this process, too, nobody sees a moment between a charge and the end of its reservation: Kuadrant/limitador#520.
#[test]
fn threads_that_reserve_and_settle_at_once_stay_within_the_limit() {
    let store = Store::Memory(MemoryStore::default());
    let claims = vec![claim("a", Window::Rolling { length: 3_600_000 })];
    let spent: u64 = std::thread::scope(|scope| {
        let (store, claims) = (&store, &claims);
        let thread = |number: u64| {
            move || {
                let mut spent = 0;
                for turn in 0..2_000 {
                    let asked = ask(number * 10_000 + turn, 40, 40, claims.clone());
                    if let Verdict::Granted(grant) = now(store.reserve(&asked)).verdict {
                        let reading = grant.readings[0];
                        assert!(reading.spent + reading.held <= AMOUNT, "{reading:?}");
                        let used = turn % 2;
                        spent += used;
                        now(store.settle(&settle(&asked, used)));
                    }
                }
                spent
            }
        };
        let threads: Vec<_> = (1..=4).map(|number| scope.spawn(thread(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let looking = ask(1, 0, 0, vec![Claim { bound: Bound::fixed(AMOUNT * 1000), ..claims[0].clone() }]);
    assert_eq!(first(&now(store.reserve(&looking)).verdict), (spent, 0));
    assert!(spent > AMOUNT - 100 && spent <= AMOUNT, "{spent}");
}

/// A Redis that hangs is not waited for again and again (envoyproxy/ratelimit#462), and what it does with questions that nobody waits for
/// any more is undone (BerriAI/litellm#30460).
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_soon_left_alone_and_holds_nothing_afterwards() {
    let Some(redis) = Redis::start().await else { return };
    let store = Store::Redis(connect(&redis.url()));
    let (desk, background) = attended(&store, Duration::from_millis(50));
    until("Redis answers", async || store.now().await.is_ok()).await;
    redis.signal("STOP");
    let mut waited = 0;
    let mut exchange = 0;
    loop {
        exchange += 1;
        let asked = Arc::new(ask(exchange, 90, 90, vec![claim("a", MINUTE)]));
        let Err(Away(StoreError::Away(reason))) = desk.reserve(Arc::clone(&asked)).await else {
            panic!("it answers")
        };
        desk.settle(settle(&asked, 0));
        if reason.contains("did not answer lately") {
            break;
        }
        waited += 1;
        assert!(waited <= 5, "{reason}");
    }
    redis.signal("CONT");
    until("all is settled", async || desk.unsettled() == 0).await;
    assert_eq!(look(&store, &claim("a", MINUTE)).await, (0, 0));
    background.end().await;
}

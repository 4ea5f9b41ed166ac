//! What the processors are told, and what it comes to for one request.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ai_gateway::config::Config;
use ai_gateway::endpoint::Endpoint;
use ai_gateway::headers::Headers;
use ai_gateway::quota::estimate::{Measure, prompt};
use ai_gateway::quota::ledger::Place;
use ai_gateway::quota::{
    Ask, Bound, Claim, Estimate, Facts, Group, Mode, OutputCap, ReservationId, Stage, Verdict, cap,
};
use ai_gateway::quotastore::{RedisOptions, RedisStore, Store};
use ai_gateway::runtime::Runtime;
use ai_gateway::tenant::Tenant;
use serde_json::json;

use crate::support::scripted::AUTHORITY;
use crate::support::{spawn, within};

/// What all requests may use together, in tokens.
pub(crate) const AMOUNT: u64 = 120_000;
/// What a client may use.
pub(crate) const OF_A_CLIENT: u64 = AMOUNT / 20;
/// How many requests may be served at a time.
pub(crate) const FLYING: u64 = 56;
/// How long answers may get where a request does not say.
const OUTPUT: u64 = 400;
/// The fewest tokens that an answer is cut to.
pub(crate) const LEAST: u64 = 16;

/// The compiled configuration, as the processors have it.
#[derive(Clone)]
pub(crate) struct World(Arc<Runtime>);

/// What one request claims.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    /// Of what all may use.
    pub(crate) all: Claim,
    /// Of what its client may use.
    pub(crate) client: Claim,
    /// Of those that are served at a time.
    pub(crate) flying: Claim,
    /// Of a limit that is never reached and has a bucket for each request: what Redis counts for this one alone.
    pub(crate) own: Claim,
    /// The estimate of its prompt, in tokens.
    pub(crate) prompt: u64,
    /// How long the answer may get, where it is not cut.
    pub(crate) wanted: u64,
}

impl Claims {
    /// The most it costs if its answer has at most so many tokens.
    pub(crate) fn bound(&self, output: u64) -> u64 {
        self.own.bound.at(output)
    }
}

impl World {
    /// Writes `config.json` into that folder.
    pub(crate) fn create(folder: &Path) -> Self {
        let limit = |name: &str, amount: u64, by: Option<&str>| {
            let per = by.map(|header| json!({"by": "Header", "name": header}));
            json!({
                "id": name, "name": name, "metric": "TotalToken", "amount": amount,
                "window": {"kind": "Rolling", "seconds": 3600}, "per": per.into_iter().collect::<Vec<_>>(),
            })
        };
        let backend = "default/b/route/r/rule/0/ref/0";
        let document = json!({
            "backends": [{"name": backend, "auth": {"apiKey": {"key": "sk-1"}}}],
            "quotas": [{
                "policy": "chaos", "onStoreFailure": "Closed", "clamp": LEAST,
                "outputs": [{"model": "*", "tokens": OUTPUT}],
                "limits": [
                    limit("all", AMOUNT, None),
                    limit("client", OF_A_CLIENT, Some("x-client")),
                    {"id": "flying", "name": "flying", "metric": "InFlight", "amount": FLYING},
                    limit("own", 1_000_000_000, Some("x-exchange")),
                ],
            }],
            "gateways": [{
                "authority": AUTHORITY, "name": "default/gw", "models": {},
                "hosts": [{"hostname": "*", "matches": [
                    {"headers": [{"name": "x-ai-eg-model", "value": "m"}], "rule": 0},
                ]}],
                "rules": [{"route": "default/r", "backend": backend, "routingKey": "key"}],
            }],
        });
        std::fs::write(folder.join("config.json"), document.to_string()).expect("a configuration");
        let config: Config = serde_json::from_value(document).expect("a configuration");
        let (runtime, problems) = Runtime::new(config);
        assert!(problems.is_empty(), "{problems:?}");
        Self(Arc::new(runtime))
    }

    /// What a request with these headers and this body claims.
    pub(crate) fn claims(&self, headers: &[(&str, &str)], body: &[u8]) -> Claims {
        let headers: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let endpoint = Endpoint::ChatCompletions;
        let facts = Facts {
            tenant: &Tenant::anonymous(),
            key_quota: None,
            gateway: Some("default/gw"),
            route: Some("default/r"),
            backend: Some("default/b/route/r/rule/0/ref/0"),
            asked_model: "m",
            sent_model: Some("m"),
            headers: &headers,
            endpoint,
            source: None,
        };
        let cap = cap::read(endpoint, body);
        let prompt = prompt(endpoint, "m", body, Measure::Characters).tokens;
        let estimate = Estimate { prompt, output: cap.output, unsaid: false, answers: cap.answers };
        let id = ReservationId { process: 0, exchange: 0, part: 0 };
        let scope = self.0.scope(AUTHORITY).expect("the gateway");
        let prepared = scope.quotas().prepare(Stage::Whole, &facts, estimate, id, now()).expect("limits");
        let wanted = prepared.ask.output.wanted;
        let [all, client, flying, own] = <[Claim; 4]>::try_from(prepared.ask.claims).expect("four limits");
        Claims { all, client, flying, own, prompt, wanted }
    }
}

/// The key of a claim's bucket in Redis.
pub(crate) fn bucket(claim: &Claim) -> String {
    format!("{{aigw}}:q:b:{}", Place::new(claim, claim.window.at_or_first()).own)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500,000,000")
}

/// Looks at buckets as they will be when every lease has run out.
pub(crate) struct Later(Store);

impl Later {
    pub(crate) fn new(redis: &str) -> Self {
        let store =
            RedisStore::open(redis.parse().expect("a URL"), &RedisOptions::default()).expect("a store");
        // No lease is longer than a minute, and no window of this test is shorter than an hour.
        store.set_clock(now() + 180_000);
        let store = Store::Redis(store);
        let connecting = store.clone();
        spawn(async move { connecting.connect().await });
        Self(store)
    }

    /// Spent and held.
    pub(crate) async fn look(&self, claim: &Claim) -> (u64, u64) {
        // There is never that much: it is refused, and nothing is held.
        let claim = Claim {
            bound: Bound::fixed(u64::MAX),
            mode: Mode::Reserve,
            shadow: false,
            group: 0,
            ..claim.clone()
        };
        let ask = Ask {
            id: ReservationId { process: u64::MAX, exchange: 0, part: 0 },
            claims: vec![claim],
            groups: vec![Group::All],
            output: OutputCap { wanted: 0, least: 0 },
            lease: Duration::from_secs(1),
        };
        let answer = within("Redis answers", self.0.reserve(&ask)).await.expect("an answer");
        let Verdict::Refused(refusal) = answer.verdict else { panic!("granted: {answer:?}") };
        (refusal.readings[0].spent, refusal.readings[0].held)
    }
}

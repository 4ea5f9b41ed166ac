//! Whatever bytes stand in the headers by which clients say who they are: nobody becomes somebody else.

use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::config::{Config, KeyDemand};
use crate::exchange::{Exchange, ExchangeId, Input, Now, Settings, Step};
use crate::headers::Headers;
use crate::keys::{Grant, Index, NewKey};
use crate::runtime::Runtime;

const PROOF: &str = "x-ai-eg-auth-0011";
const ID: ExchangeId = ExchangeId { process: 1, number: 1 };

fn key(seed: u8) -> NewKey {
    NewKey::generate(&[seed; 64])
}

/// A gateway with a proof that is optional, and keys of two tenants, of which one was taken back besides.
fn scene(demand: KeyDemand) -> (Runtime, Arc<Settings>) {
    let config: Config = serde_json::from_value(json!({
        "backends": [{"name": "d/b/route/r/rule/0/ref/0"}],
        "gateways": [{
            "authority": "a", "name": "d/gw", "models": {},
            "gatewayKey": demand,
            "proofs": [{"kind": "apiKey", "header": PROOF, "policy": "d/p", "optional": true, "forward": "x-client"}],
            "tenancy": {"policy": "d/t", "apiKey": "{organisation}.{key}"},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "d/r", "backend": "d/b/route/r/rule/0/ref/0", "routingKey": "k"}],
        }],
    }))
    .unwrap();
    let (runtime, problems) = Runtime::new(config);
    assert_eq!(problems, []);
    let index = Index::new(Duration::from_secs(60));
    let record = |seed: u8, organisation: &str| {
        let grant = Grant { organisation: Some(organisation.into()), ..Grant::named("k") };
        Record::new(&key(seed), grant, SystemTime::UNIX_EPOCH).unwrap()
    };
    let mut revoked = record(3, "gone");
    revoked.revoke(SystemTime::UNIX_EPOCH);
    index.replace([record(1, "acme"), record(2, "other"), revoked]);
    index.confirm(Instant::now());
    (runtime, Arc::new(Settings { keys: Some(Arc::new(index)), ..Settings::default() }))
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::UNIX_EPOCH }
}

/// Where a request goes with these headers: nothing if it is refused, else for whom it goes on.
fn goes_on(scene: &(Runtime, Arc<Settings>), shown: &[(&'static str, Vec<u8>)]) -> Option<Tenant> {
    let (runtime, settings) = scene;
    let mut exchange = Exchange::new(runtime.scope("a"), ID, Arc::clone(settings), now());
    let own = [(":path", "/v1/chat/completions"), (":method", "POST"), ("content-type", "application/json")];
    let mut headers: Headers = own.into_iter().collect();
    for (name, value) in shown {
        headers.push((*name).into(), value.clone().into());
    }
    let first = exchange.handle(Input::RequestHeaders { headers, end_of_stream: false }, now());
    let step = match first.unwrap() {
        Step::Continue(_) => {
            let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
            exchange.handle(Input::RequestBody { body, end_of_stream: true }, now()).unwrap()
        }
        other => other,
    };
    let settlement = exchange.settle(Instant::now()).unwrap();
    match step {
        Step::Continue(change) => {
            // What the provider is told of clients is what was proved.
            let mut told = change.headers.set.iter().filter(|(name, _)| name == "x-client");
            let proved: Vec<_> =
                shown.iter().filter(|(name, _)| *name == PROOF).map(|(_, value)| value.clone()).collect();
            assert!(told.all(|(_, told)| proved == [told.to_vec()]));
            Some(settlement.tenant)
        }
        Step::Reply(reply) => {
            assert!([401, 403].contains(&reply.status), "{reply:?}");
            None
        }
        Step::Ask(_) => panic!("there are no limits"),
    }
}

fn text(seed: u8) -> Vec<u8> {
    key(seed).text.expose_secret().as_bytes().to_vec()
}

/// A key with something about it: a byte of it another, a scheme before it, space around it.
fn near_a_key() -> impl Strategy<Value = Vec<u8>> {
    let changed = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (1_u8..4, any::<[bool; 3]>(), changed).prop_map(|(seed, [bearer, before, after], changed)| {
        let mut value = text(seed);
        if let Some((at, with)) = changed {
            let at = at.index(value.len());
            value[at] = with;
        }
        if bearer {
            value.splice(0..0, *b"Bearer ");
        }
        if before {
            value.insert(0, b'\t');
        }
        if after {
            value.push(b' ');
        }
        value
    })
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => near_a_key(),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::sample::select(&["acme.k", "-", "", "other.k"][..]).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn any_headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names = [
        "authorization",
        "x-api-key",
        "api-key",
        PROOF,
        "x-ai-eg-auth-0012",
        "x-ai-eg-tenant",
        "x-tenant",
        "x-client",
        "cookie",
        "proxy-authorization",
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), any_value()), 0..5)
}

/// Whether that key is shown somewhere, as it is.
fn shows(headers: &[(&'static str, Vec<u8>)], seed: u8) -> bool {
    let key = text(seed);
    headers.iter().any(|(name, value)| {
        ["authorization", "x-api-key", "api-key"].contains(name)
            && value.windows(key.len()).any(|part| part == key)
    })
}

proptest! {
    #[test]
    fn any_bytes_in_any_header_make_nobody_somebody_else(headers in any_headers()) {
        for demand in [KeyDemand::Required, KeyDemand::Optional, KeyDemand::NotAsked] {
            let Some(tenant) = goes_on(&scene(demand), &headers) else { continue };
            let proofs: Vec<&Vec<u8>> =
                headers.iter().filter(|(name, _)| *name == PROOF).map(|(_, value)| value).collect();
            // Two proofs are none.
            prop_assert!(proofs.len() < 2, "{headers:?}");
            let proves = |name: &str| proofs.first().is_some_and(|proof| proof.trim_ascii() == name.as_bytes());
            let asked = demand != KeyDemand::NotAsked;
            match tenant.organisation.as_deref() {
                Some("acme") => prop_assert!(proves("acme.k") || asked && shows(&headers, 1), "{headers:?}"),
                Some("other") => prop_assert!(proves("other.k") || asked && shows(&headers, 2), "{headers:?}"),
                // Made of what Envoy has proved, which is any text here.
                Some(_) => prop_assert!(proofs.len() == 1, "{headers:?}"),
                None => prop_assert!(tenant.key.is_none() || proofs.len() == 1, "{headers:?}"),
            }
            let keys = [1, 2].into_iter().filter(|seed| shows(&headers, *seed)).count();
            // Two keys of two tenants are none, unless one of them stands where no key is looked for.
            prop_assert!(demand != KeyDemand::Required || keys >= 1, "{headers:?}");
        }
    }
}

/// Where Envoy Gateway runs the filters, nothing else tells the processors who clients are.
#[test]
fn a_token_that_envoy_vouches_for_says_who_is_asking() {
    let mut config: Config = serde_json::from_value(json!({
        "backends": [{"name": "d/b/route/r/rule/0/ref/0"}],
        "gateways": [{
            "authority": "a", "name": "d/gw", "models": {},
            "tenancy": {"policy": "d/t", "jwt": {"organisation": "realm.org", "key": "sub"}, "access": [
                {"tenant": {"organisation": "acme"}, "models": ["m"]}]},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "d/r", "backend": "d/b/route/r/rule/0/ref/0", "routingKey": "k"}],
        }],
    }))
    .unwrap();
    let ask = |config: &Config, tokens: &[serde_json::Value]| {
        use base64::Engine as _;
        let (runtime, _) = Runtime::new(config.clone());
        let mut exchange = Exchange::new(runtime.scope("a"), ID, Arc::default(), now());
        let encode =
            |claims: &serde_json::Value| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        exchange.has_shown(tokens.iter().map(|claims| encode(claims).into()));
        let own =
            [(":path", "/v1/chat/completions"), (":method", "POST"), ("content-type", "application/json")];
        let headers = own.into_iter().collect();
        exchange.handle(Input::RequestHeaders { headers, end_of_stream: false }, now()).unwrap();
        let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
        let step = exchange.handle(Input::RequestBody { body, end_of_stream: true }, now()).unwrap();
        let status = if let Step::Reply(reply) = step { reply.status } else { 200 };
        (status, exchange.settle(Instant::now()).unwrap().tenant.to_string())
    };
    let acme = json!({"realm": {"org": "acme"}, "sub": "s"});
    assert_eq!(ask(&config, std::slice::from_ref(&acme)), (200, "acme/-/s".to_owned()));
    assert_eq!(ask(&config, &[]).0, 401);
    let other = json!({"realm": {"org": "other"}});
    assert_eq!(ask(&config, &[other]).0, 403);
    // A rule's own policy reads the same token its own way.
    config.gateways[0].rules[0].tenancy =
        serde_json::from_value(json!({"policy": "d/r", "access": []})).unwrap();
    assert_eq!(ask(&config, &[acme]), (200, "-/-/s".to_owned()));
}

#[test]
fn a_gateway_asks_for_keys_as_it_says() {
    let key = |seed| ("x-api-key", text(seed));
    let bearer = ("authorization", b"Bearer for-envoy".to_vec());
    let ask = |demand, shown: &[(&'static str, Vec<u8>)]| {
        goes_on(&scene(demand), shown).map(|tenant| tenant.to_string())
    };
    let (acme, nobody) = (Some("acme/-/k".to_owned()), Some("-".to_owned()));
    for (shown, required, optional) in [
        (vec![], None, nobody.clone()),
        (vec![bearer.clone()], None, nobody.clone()),
        (vec![key(1)], acme.clone(), acme.clone()),
        (vec![bearer, key(1)], acme.clone(), acme),
        (vec![key(3)], None, None),
        (vec![key(9)], None, None),
        (vec![("x-api-key", b"aigw-".to_vec())], None, None),
        (vec![key(1), ("api-key", text(2))], None, None),
    ] {
        assert_eq!(ask(KeyDemand::Required, &shown), required, "{shown:?}");
        assert_eq!(ask(KeyDemand::Optional, &shown), optional, "{shown:?}");
        assert_eq!(ask(KeyDemand::NotAsked, &shown), nobody, "{shown:?}");
    }
    // Without a store, a gateway that asks for keys lets nobody in, and says so to who shows one.
    let (runtime, _) = scene(KeyDemand::Required);
    for (value, status) in [(text(1), 503), (Vec::new(), 401)] {
        let mut exchange = Exchange::new(runtime.scope("a"), ID, Arc::default(), now());
        let mut headers: Headers =
            [(":path", "/v1/chat/completions"), (":method", "POST")].into_iter().collect();
        headers.push("x-api-key".into(), value.into());
        let step = exchange.handle(Input::RequestHeaders { headers, end_of_stream: false }, now());
        assert!(matches!(&step, Ok(Step::Reply(reply)) if reply.status == status), "{step:?}");
    }
}

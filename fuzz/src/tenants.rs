//! The input is headers of a request, a line each: the first byte chooses the name, the rest is the value; a 1 and a 2 at the end stand
//! for keys of two tenants. Whatever comes, nobody is let in as somebody whose key is not there.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use ai_gateway::exchange::{Exchange, ExchangeId, Input, Now, Settings, Step};
use ai_gateway::headers::Headers;
use ai_gateway::keys::{Grant, Index, NewKey, Record};
use ai_gateway::runtime::Runtime;
use secrecy::ExposeSecret;

const PROOF: &str = "x-ai-eg-auth-0011";
const NAMES: [&str; 8] =
    ["authorization", "x-api-key", "api-key", PROOF, "x-ai-eg-tenant", "x-ai-eg-auth-0012", "cookie", "x-client"];

struct Scene {
    runtime: Runtime,
    settings: Arc<Settings>,
    start: Instant,
    keys: [String; 2],
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let config = serde_json::json!({
        "backends": [{"name": "b"}],
        "gateways": [{
            "authority": "a", "name": "d/gw", "models": {}, "gatewayKey": "optional",
            "proofs": [{"kind": "apiKey", "header": PROOF, "policy": "d/p", "optional": true}],
            "tenancy": {"policy": "d/t", "apiKey": "{organisation}.{key}"},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "d/r", "backend": "b", "routingKey": "k"}],
        }],
    });
    let runtime = Runtime::new(serde_json::from_value(config).unwrap()).0;
    let (index, start) = (Index::new(Duration::from_secs(1)), Instant::now());
    let keys = [1, 2].map(|seed| NewKey::generate(&[seed; 64]));
    index.replace(keys.iter().zip(["one", "two"]).map(|(key, organisation)| {
        let grant = Grant { organisation: Some(organisation.into()), ..Grant::named("k") };
        Record::new(key, grant, SystemTime::UNIX_EPOCH).expect("a record")
    }));
    index.confirm(start);
    let settings = Arc::new(Settings { keys: Some(Arc::new(index)), ..Settings::default() });
    Scene { runtime, settings, start, keys: keys.map(|key| key.text.expose_secret().to_owned()) }
});

pub fn run(data: &[u8]) {
    let Scene { runtime, settings, start, keys } = &*SCENE;
    let mut headers: Headers = [(":path", "/v1/chat/completions"), (":method", "POST")].into_iter().collect();
    let mut shown = [false; 2];
    let mut proofs = 0;
    for line in data.split(|byte| *byte == b'\n') {
        let [name, value @ ..] = line else { continue };
        let name = NAMES[usize::from(*name) % NAMES.len()];
        let mut value = value.to_vec();
        if let Some(which @ (b'1' | b'2')) = value.last().copied() {
            value.pop();
            value.extend(keys[usize::from(which - b'1')].bytes());
        }
        let is_key = NAMES[..3].contains(&name);
        for (key, shown) in keys.iter().zip(&mut shown) {
            *shown |= is_key && value.windows(key.len()).any(|part| part == key.as_bytes());
        }
        proofs += usize::from(name == PROOF);
        headers.push(name.into(), value.into());
    }
    let now = Now { monotonic: *start, wall: SystemTime::UNIX_EPOCH };
    let id = ExchangeId { process: 1, number: 1 };
    let mut exchange = Exchange::new(runtime.scope("a"), id, Arc::clone(settings), now);
    let step = exchange.handle(Input::RequestHeaders { headers, end_of_stream: false }, now);
    let settlement = exchange.settle(now.monotonic).expect("an account");
    match step.expect("no violation") {
        Step::Ask(_) => panic!("there are no limits"),
        Step::Reply(reply) => assert!([401, 403].contains(&reply.status)),
        Step::Continue(_) => match settlement.tenant.organisation.as_deref() {
            Some("one") => assert!(shown[0] || proofs == 1),
            Some("two") => assert!(shown[1] || proofs == 1),
            Some(_) => assert_eq!(proofs, 1),
            None => assert!(settlement.tenant.key.is_none() || proofs == 1),
        },
    }
}

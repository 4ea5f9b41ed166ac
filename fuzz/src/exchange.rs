//! A whole exchange: bytes become headers and bodies of messages in any order. Whatever comes, there is one settlement, and a
//! credential goes out only together with its routing key.

use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use ai_gateway::exchange::{Exchange, ExchangeId, Input, Now, ROUTING_HEADER, Step};
use ai_gateway::headers::Headers;
use ai_gateway::runtime::Runtime;
use bytes::Bytes;

static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
    let config = serde_json::json!({
        "backends": [{"name": "d/b/route/r/rule/0/ref/0", "auth": {"apiKey": {"key": "k"}}, "modelNameOverride": "o"}],
        "llmRequestCosts": [{"routeName": "d/r", "metadataKey": "t", "type": "TotalToken"}],
        "gateways": [{
            "authority": "a", "name": "d/gw", "models": {},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "d/r", "backend": "d/b/route/r/rule/0/ref/0", "routingKey": "key"}],
        }],
    });
    Arc::new(Runtime::new(serde_json::from_value(config).unwrap()).0)
});

const ID: ExchangeId = ExchangeId { process: 1, number: 1 };

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

const PATHS: [&str; 4] =
    ["/v1/chat/completions", "/v1/responses", "/v1/audio/transcriptions", "/cohere/v2/rerank"];
const TYPES: [&str; 4] =
    ["application/json", "text/event-stream", "text/html", "multipart/form-data; boundary=b"];
const ENCODINGS: [&str; 4] = ["", "gzip", "br", "zstd"];

pub fn run(data: &[u8]) {
    let mut exchange = Exchange::new(RUNTIME.scope("a"), ID, Arc::default(), now());
    for message in data.split(|byte| *byte == 0xff) {
        let [kind, choice, body @ ..] = message else { continue };
        let choose = |list: [&'static str; 4], shift: u32| list[usize::from(choice >> shift) % 4];
        let headers: Headers = [
            (":path", choose(PATHS, 0)),
            (":method", "POST"),
            (":status", if choice & 64 == 0 { "200" } else { "500" }),
            ("content-type", choose(TYPES, 2)),
            ("content-encoding", choose(ENCODINGS, 4)),
        ]
        .into_iter()
        .filter(|(name, value)| !(*name == "content-encoding" && kind % 6 == 0) && !value.is_empty())
        .collect();
        let (body, end_of_stream) = (Bytes::copy_from_slice(body), kind & 64 != 0);
        let input = match kind % 6 {
            0 => Input::RequestHeaders { headers, end_of_stream },
            1 => Input::RequestBody { body, end_of_stream },
            2 => Input::RequestTrailers,
            3 => Input::ResponseHeaders { headers, end_of_stream },
            4 => Input::ResponseBody { body, end_of_stream },
            _ => Input::ResponseTrailers,
        };
        match exchange.handle(input, now()) {
            Ok(Step::Continue(change)) => {
                let sets = |name: &str| change.headers.set.iter().any(|(set, _)| set == name);
                assert!(!sets("authorization") || sets(ROUTING_HEADER));
            }
            Ok(Step::Reply(reply)) => assert!((200..600).contains(&reply.status)),
            Err(_) => break,
        }
    }
    assert!(exchange.settle(Instant::now()).is_some());
    assert!(exchange.settle(Instant::now()).is_none());
}

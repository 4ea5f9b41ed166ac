//! A whole exchange: bytes become headers and bodies of messages in any order. Whatever comes, there is one settlement, and a
//! credential goes out only together with its routing key.

use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use ai_gateway::exchange::{Exchange, ExchangeId, Input, NoAnswer, Now, ROUTING_HEADER, Step};
use ai_gateway::headers::Headers;
use ai_gateway::quota::{Ask, Grant, Reading, Refusal, Verdict};
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
        "quotas": [{"policy": "q", "clamp": 1, "limits": [
            {"id": "l", "name": "l", "metric": "TotalToken", "amount": 1000, "window": {"kind": "Fixed", "seconds": 60}},
        ]}],
    });
    let (runtime, problems) = Runtime::new(serde_json::from_value(config).unwrap());
    assert!(problems.is_empty(), "{problems:?}");
    Arc::new(runtime)
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

/// Whatever a store may say to that.
fn answer(ask: &Ask, choice: u8) -> Result<Verdict, NoAnswer> {
    let number = u64::from(choice);
    let reading = Reading { amount: number, spent: number / 2, held: 1, resets_at: number * 1000 };
    let readings = vec![reading; ask.claims.len()];
    match choice % 4 {
        0 => Ok(Verdict::Granted(Grant { output: number.min(ask.output.wanted), readings, now: number })),
        1 => Ok(Verdict::Refused(Refusal { claim: 0, readings, now: number })),
        2 => Err(NoAnswer::Away),
        _ => Err(NoAnswer::Stale(number)),
    }
}

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
        let mut step = exchange.handle(input, now());
        while let Ok(Step::Ask(ask)) = &step {
            let answer = answer(ask, *choice);
            step = exchange.answered(answer, now());
        }
        match step {
            Ok(Step::Continue(change)) => {
                let sets = |name: &str| change.headers.set.iter().any(|(set, _)| set == name);
                assert!(!sets("authorization") || sets(ROUTING_HEADER));
            }
            Ok(Step::Reply(reply)) => assert!((200..600).contains(&reply.status)),
            Ok(Step::Ask(_)) | Err(_) => break,
        }
    }
    assert!(exchange.settle(Instant::now()).is_some());
    assert!(exchange.settle(Instant::now()).is_none());
}

//! How much the codecs and the matcher cost on the request path.

use std::fmt::Write;
use std::hint::black_box;

use ai_gateway::codec::json::{MemberScanner, members, set_member};
use ai_gateway::codec::sse::Splitter;
use ai_gateway::cost::{Cost, CostFacts, CostKind};
use ai_gateway::endpoint::Endpoint;
use ai_gateway::quota::estimate::{Measure, prompt};
use ai_gateway::routing::{Condition, Entry, INDEX_HEADER, Matcher};
use ai_gateway::usage::TokenUsage;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// 200 events of a chat stream.
fn stream() -> Bytes {
    let mut text = String::new();
    for index in 0..200 {
        let _ = write!(
            text,
            "data: {{\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o-mini\",\
             \"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token{index}\"}},\
             \"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        );
    }
    text.into()
}

fn sse(c: &mut Criterion) {
    let stream = stream();
    let mut group = c.benchmark_group("sse");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("200 events, one chunk", |b| {
        b.iter(|| {
            let mut splitter = Splitter::new(1 << 20);
            splitter
                .feed(stream.clone())
                .filter_map(Result::ok)
                .filter(|event| event.data().is_some())
                .count()
        });
    });
    for size in [1024, 100] {
        group.bench_function(format!("200 events, chunks of {size}"), |b| {
            b.iter(|| {
                let mut splitter = Splitter::new(1 << 20);
                let mut count = 0;
                for start in (0..stream.len()).step_by(size) {
                    let chunk = stream.slice(start..stream.len().min(start + size));
                    count += splitter
                        .feed(chunk)
                        .filter_map(Result::ok)
                        .filter(|event| event.data().is_some())
                        .count();
                }
                count
            });
        });
    }
    group.bench_function("200 events, members of each", |b| {
        b.iter(|| {
            let mut splitter = Splitter::new(1 << 20);
            let mut count = 0;
            for event in splitter.feed(stream.clone()).filter_map(Result::ok) {
                let data = event.data().unwrap_or_default();
                count += members(&data, ["usage", "model"]).iter().flatten().flatten().count();
            }
            count
        });
    });
    group.finish();
}

fn json(c: &mut Criterion) {
    let numbers = "0.0123456789,".repeat(1536 * 64);
    let embeddings = format!(
        "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"embedding\":[{numbers}0],\"index\":0}}],\
         \"model\":\"text-embedding-3-small\",\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}"
    );
    let text = format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}],\"model\":\"gpt-4o\",\"usage\":{{}}}}",
        "All work and no play. ".repeat(50_000)
    );
    let mut group = c.benchmark_group("json");
    for (name, doc) in [("numbers", &embeddings), ("text", &text)] {
        group.throughput(Throughput::Bytes(doc.len() as u64));
        group.bench_function(format!("scanner, 1 MB of {name}, chunks of 16 KiB"), |b| {
            b.iter(|| {
                let mut scanner = MemberScanner::new(&["usage", "model"], 4096);
                for chunk in doc.as_bytes().chunks(16 << 10) {
                    scanner.push(chunk);
                }
                black_box(scanner.member("usage").is_some())
            });
        });
        group.bench_function(format!("set_member, 1 MB of {name}"), |b| {
            b.iter(|| set_member(doc.as_bytes(), "model", b"\"other\"").map(|doc| doc.len()));
        });
    }
    group.finish();
}

fn routing(c: &mut Criterion) {
    let exact = |index: usize| Condition::exact(INDEX_HEADER, &format!("model-{index}"));
    let entries = |count: usize| {
        (0..count).map(|rule| Entry { conditions: vec![exact(rule)], rule }).collect::<Vec<_>>()
    };
    let header = |name: &str| if name == INDEX_HEADER { vec![&b"model-9999"[..]] } else { Vec::new() };
    let mut group = c.benchmark_group("routing");
    for count in [10, 10_000] {
        let matcher = Matcher::new(entries(count));
        group.bench_function(format!("{count} exact models"), |b| b.iter(|| matcher.find(header)));
    }
    let tenant = |index: usize| Condition::exact("x-tenant", &format!("tenant-{index}"));
    let other = (0..10_000).map(|rule| Entry { conditions: vec![tenant(rule)], rule }).collect();
    let matcher = Matcher::new(other);
    group.bench_function("10000 entries without the model", |b| b.iter(|| matcher.find(header)));
    let mut mixed = entries(10_000);
    if let Ok(regex) = Condition::regex(INDEX_HEADER, "gpt-.*") {
        mixed.insert(0, Entry { conditions: vec![regex], rule: 0 });
    }
    let matcher = Matcher::new(mixed);
    group.bench_function("10000 exact models behind one expression", |b| b.iter(|| matcher.find(header)));
    group.finish();
}

fn cost(c: &mut Criterion) {
    let usage = TokenUsage { input: Some(100), output: Some(40), ..TokenUsage::default() };
    let facts =
        CostFacts { model: "gpt-5", backend: "ns/b/route/r/rule/0/ref/0", route_name: "ns/r", usage: &usage };
    let Ok(cel) =
        Cost::new(CostKind::Cel("model == 'gpt-5' ? input_tokens * 2u + output_tokens * 10u : total_tokens"))
    else {
        return;
    };
    c.bench_function("cost/cel", |b| b.iter(|| cel.evaluate(&facts)));
    let usage = br#"{"prompt_tokens":75,"completion_tokens":1186,"total_tokens":1261,"prompt_tokens_details":{"cached_tokens":0}}"#;
    c.bench_function("usage/openai", |b| b.iter(|| TokenUsage::from_openai(usage)));
}

/// A prompt of ordinary text, and one of letters without sense.
fn estimate(c: &mut Criterion) {
    let mut group = c.benchmark_group("prompt estimate");
    let texts =
        [("prose", include_str!("../ARCHITECTURE.md").to_owned()), ("gibberish", "qzjxKv".repeat(4096))];
    for (name, text) in texts {
        let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]})
            .to_string();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                prompt(Endpoint::ChatCompletions, "gpt-4o", black_box(body.as_bytes()), Measure::Characters)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sse, json, routing, cost, estimate);
criterion_main!(benches);

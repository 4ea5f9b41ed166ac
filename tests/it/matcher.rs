//! Our matcher against Envoy's: the same generated routes and requests, and the same rule must come out.
//!
//! The processor picks the credential by its own matcher and Envoy picks the destination by its own; the routing key makes
//! a difference harmless, and this test makes it absent.

use ai_gateway::config::{
    Backend, Config, Gateway, HeaderMatch, HeaderMatchType, Host, Models, Rule, RuleMatch,
};
use ai_gateway::runtime::{Route, Runtime};
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::envoy::Envoy;

const GATEWAYS: usize = 120;
const REQUESTS: usize = 40;
const MODEL: &str = "x-ai-eg-model";

/// A gateway's hosts, with as many rules as matches.
fn hosts() -> impl Strategy<Value = Vec<Host>> {
    let hostname = proptest::sample::subsequence(
        vec![
            "*",
            "*.com",
            "*.example.com",
            "*.eu.example.com",
            "example.com",
            "a.example.com",
            "b.example.com",
            "a.eu.example.com",
            "localhost",
        ],
        1..=5,
    );
    (hostname, proptest::collection::vec(proptest::collection::vec(headers(), 0..5), 5)).prop_map(
        |(names, matches)| {
            let mut rule = 0;
            names
                .into_iter()
                .zip(matches)
                .map(|(hostname, matches)| Host {
                    hostname: hostname.to_owned(),
                    matches: matches
                        .into_iter()
                        .map(|headers| {
                            rule += 1;
                            RuleMatch { headers, rule: rule - 1 }
                        })
                        .collect(),
                })
                .collect()
        },
    )
}

fn headers() -> impl Strategy<Value = Vec<HeaderMatch>> {
    let name = || proptest::sample::select(vec![MODEL, MODEL, "x-tenant", "x-tier"]);
    let exact = (name(), proptest::sample::select(VALUES.to_vec())).prop_map(|(name, value)| HeaderMatch {
        name: name.to_owned(),
        kind: HeaderMatchType::Exact,
        value: value.to_owned(),
    });
    let regex = (name(), proptest::sample::select(REGEXES.to_vec())).prop_map(|(name, value)| HeaderMatch {
        name: name.to_owned(),
        kind: HeaderMatchType::RegularExpression,
        value: value.to_owned(),
    });
    proptest::collection::vec(prop_oneof![exact, regex], 0..3)
}

/// Values that are matched for, and sent.
const VALUES: &[&str] = &[
    "gpt-4",
    "gpt-4o",
    "GPT-4",
    "gpt.4",
    "gpt",
    "a",
    "ab",
    "a,b",
    "a b",
    "kimi-k2-0905-preview",
    "模型",
    "é",
    "É",
    "K",
    "\u{212a}",
    "١",
    "12",
    "claude-3-7-sonnet@20250219",
    "org/model:8b",
    "{\"a\":1}",
];

/// Sent only: what no rule can name.
const ODD_VALUES: &[&[u8]] = &[b"", b"\xff", b"gpt-4\xff", b"\xc3", b"a\tb", b"  gpt-4  ", b"a, b", b"ssz"];

/// What Envoy (RE2) and we both take. Perl's classes, case folding and `.` are where engines differ.
const REGEXES: &[&str] = &[
    ".*",
    ".+",
    ".",
    "..",
    "gpt",
    "gpt-4",
    "gpt.4",
    "gpt\\.4",
    "gpt-.*",
    "^gpt-4$",
    "^gpt",
    "a|ab",
    "ab|a",
    "(a|b)*",
    "(?:a|ab)(?:c|bcd)?",
    "\\d+",
    "\\w+",
    "\\w",
    "\\W",
    "\\s*a.*",
    "a\\sb",
    "\\bgpt\\b.*",
    ".*\\B4.*",
    "[a-z0-9.-]+",
    "[[:alpha:]]+",
    "[^a]",
    "[^[:ascii:]]+",
    "\\pL+",
    "\\p{Han}+",
    "(?i)gpt-4",
    "(?i)k",
    "(?i)é",
    "(?i)[a-z]",
    "(?s).*",
    "(?s).",
    "\\Aa\\z",
    "a{1,2}",
    "a*?b",
    "(?P<name>gpt)-4o?",
    "gpt-4o?|kimi-.*",
    "claude-3-7-sonnet@\\d{8}",
    "\\x61",
    "\\S+",
    "\\D",
    "^$",
    "()",
    "模.",
    "(?U)a+b",
];

#[derive(Debug, Clone)]
struct Sent {
    host: String,
    headers: Vec<(&'static str, Vec<u8>)>,
}

fn request() -> impl Strategy<Value = Sent> {
    let host = proptest::sample::select(vec![
        "example.com",
        "a.example.com",
        "b.example.com",
        "c.example.com",
        "A.Example.COM",
        "a.example.com:8080",
        "c.example.com:443",
        "deep.c.example.com",
        "a.eu.example.com",
        "b.eu.example.com",
        "eu.example.com",
        "xexample.com",
        ".example.com",
        "a.example.com.",
        "other.org",
        "localhost",
        "localhost:1975",
        "127.0.0.1",
        "127.0.0.1:1975",
        "[::1]:1975",
        "com",
    ]);
    let value = prop_oneof![
        6 => proptest::sample::select(VALUES.to_vec()).prop_map(|v| v.as_bytes().to_vec()),
        1 => proptest::sample::select(ODD_VALUES.to_vec()).prop_map(<[u8]>::to_vec),
    ];
    let name = proptest::sample::select(vec![MODEL, MODEL, MODEL, "x-tenant", "x-tier"]);
    let headers = proptest::collection::vec((name, value), 0..5);
    (host, headers).prop_map(|(host, headers)| Sent { host: host.to_owned(), headers })
}

/// The routes as Envoy takes them: each answers with the number of its rule.
fn listener(number: usize, hosts: &[Host], socket: &std::path::Path) -> Value {
    let header = |h: &HeaderMatch| match h.kind {
        HeaderMatchType::Exact => json!({"name": h.name, "string_match": {"exact": h.value}}),
        HeaderMatchType::RegularExpression => {
            json!({"name": h.name, "string_match": {"safe_regex": {"regex": h.value}}})
        }
    };
    let route = |m: &RuleMatch| {
        json!({
            "match": {"prefix": "/", "headers": m.headers.iter().map(header).collect::<Vec<_>>()},
            "direct_response": {"status": 200, "body": {"inline_string": m.rule.to_string()}},
        })
    };
    let virtual_hosts: Vec<Value> = hosts
        .iter()
        .map(|host| {
            let routes: Vec<Value> = host.matches.iter().map(route).collect();
            json!({"name": host.hostname, "domains": [host.hostname], "routes": routes})
        })
        .collect();
    json!({
        "name": format!("gateway-{number}"),
        "address": {"pipe": {"path": socket}},
        "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http",
                "route_config": {"ignore_port_in_host_matching": true, "virtual_hosts": virtual_hosts},
                "http_filters": [{
                    "name": "router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

fn runtime(hosts: &[Host]) -> Runtime {
    let rules = hosts.iter().map(|host| host.matches.len()).sum();
    let backend = json!({"name": "only", "schema": {"name": "OpenAI"}});
    let config = Config {
        backends: vec![serde_json::from_value::<Backend>(backend).unwrap()],
        gateways: vec![Gateway {
            authority: "test".to_owned(),
            name: "default/test".to_owned(),
            hosts: hosts.to_vec(),
            rules: (0..rules)
                .map(|i| Rule {
                    route: "default/r".to_owned(),
                    backend: "only".to_owned(),
                    attempts: Vec::new(),
                    routing_key: i.to_string(),
                    proofs: Vec::new(),
                    tenancy: None,
                })
                .collect(),
            models: Models::default(),
            proofs: Vec::new(),
            tenancy: None,
            gateway_key: None,
        }],
        ..Config::default()
    };
    let (runtime, problems) = Runtime::new(config);
    assert!(problems.is_empty(), "{problems:?}");
    runtime
}

fn ours(runtime: &Runtime, sent: &Sent) -> String {
    let gateway = runtime.gateway("test").unwrap();
    // As Envoy hands them on: without white space around.
    let values =
        |name: &str| sent.headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.trim_ascii()).collect();
    match gateway.select(&sent.host, values) {
        Route::Rule(rule) => String::from_utf8(rule.routing_key.to_vec()).unwrap(),
        Route::None => "none".to_owned(),
        Route::Broken => "broken".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_gets_the_same_rule_from_envoy_and_from_us() {
    // The same cases every time; a failure can be looked at.
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> = (0..GATEWAYS)
        .map(|_| Case {
            hosts: hosts().new_tree(&mut runner).unwrap().current(),
            sent: (0..REQUESTS).map(|_| request().new_tree(&mut runner).unwrap().current()).collect(),
        })
        .collect();
    let Some(matched) = compare(&cases).await else { return };
    // Most of the cases must say something.
    assert!(matched > GATEWAYS * REQUESTS / 4, "only {matched} requests matched");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_takes_the_same_values() {
    let exact = VALUES.iter().map(|value| (HeaderMatchType::Exact, value));
    let regex = REGEXES.iter().map(|value| (HeaderMatchType::RegularExpression, value));
    let sent = |value: &[u8]| Sent { host: "h".to_owned(), headers: vec![(MODEL, value.to_vec())] };
    let cases: Vec<Case> = exact
        .chain(regex)
        .map(|(kind, value)| {
            let headers = vec![HeaderMatch { name: MODEL.to_owned(), kind, value: (*value).to_owned() }];
            Case {
                hosts: vec![Host { hostname: "*".to_owned(), matches: vec![RuleMatch { headers, rule: 0 }] }],
                sent: VALUES
                    .iter()
                    .map(|v| v.as_bytes())
                    .chain(ODD_VALUES.iter().copied())
                    .map(sent)
                    .collect(),
            }
        })
        .collect();
    let Some(matched) = compare(&cases).await else { return };
    assert!(matched > cases.len(), "only {matched} requests matched");
}

/// What one listener serves and what is sent to it.
struct Case {
    hosts: Vec<Host>,
    sent: Vec<Sent>,
}

/// Sends everything through Envoy and through our matcher, fails on any difference, and tells how many requests matched.
async fn compare(cases: &[Case]) -> Option<usize> {
    let envoy = Envoy::start(|dir| {
        let listeners =
            cases.iter().enumerate().map(|(i, case)| listener(i, &case.hosts, &dir.join(i.to_string())));
        json!({"static_resources": {"listeners": listeners.collect::<Vec<Value>>()}})
    })
    .await?;
    let (mut differences, mut matched) = (Vec::new(), 0);
    for (number, Case { hosts, sent }) in cases.iter().enumerate() {
        let runtime = runtime(hosts);
        let mut connection = envoy.peer(&number.to_string()).keep().await;
        for sent in sent {
            let mut request = Request::get("/v1/chat/completions").header("host", &sent.host);
            for (name, value) in &sent.headers {
                request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
            }
            let answer = connection.send(request.body(Full::<Bytes>::default()).unwrap()).await;
            let theirs = match answer.status.as_u16() {
                200 => answer.text(),
                404 => "none".to_owned(),
                other => panic!("Envoy answered {other} to {sent:?}"),
            };
            matched += usize::from(theirs != "none");
            let ours = ours(&runtime, sent);
            if ours != theirs {
                differences.push(format!("Envoy {theirs}, we {ours}: {sent:?}\n  of {hosts:?}"));
            }
        }
    }
    let some = differences[..differences.len().min(20)].join("\n");
    assert!(differences.is_empty(), "{} differences, such as\n{some}", differences.len());
    Some(matched)
}

//! Whatever the resources say, compiling them ends and both halves agree.

use proptest::prelude::*;

use super::*;

/// Few names, so that references hit as often as they miss.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c.d", "gw"])
}

fn host() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a.com", "*.a.com", "x.a.com", "*.com", "b.org"])
}

fn header() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec!["m", "'.*'", "'a('", "'[a-z]+'", "'\\d{2,}'", "'\u{7f}'", "'%'"]);
    let kind = prop::sample::select(vec!["Exact", "RegularExpression"]);
    (prop::sample::select(vec!["x-ai-eg-model", "X-AI-EG-Model", "X-T", "host"]), kind, value)
        .prop_map(|(name, kind, value)| format!("{{name: {name}, type: {kind}, value: {value}}}"))
}

fn rule() -> impl Strategy<Value = String> {
    let matches = prop::collection::vec(prop::collection::vec(header(), 0..3), 0..3);
    let reference = (name(), 0_u32..3, 0_u32..2).prop_map(|(name, weight, priority)| {
        format!("{{name: {name}, weight: {weight}, priority: {priority}}}")
    });
    (matches, prop::collection::vec(reference, 0..3)).prop_map(|(matches, references)| {
        let matches: Vec<String> =
            matches.iter().map(|headers| format!("{{headers: [{}]}}", headers.join(", "))).collect();
        format!("  - matches: [{}]\n    backendRefs: [{}]\n", matches.join(", "), references.join(", "))
    })
}

fn document() -> impl Strategy<Value = String> {
    let routes = (name(), prop::collection::vec(host(), 0..3), prop::collection::vec(rule(), 0..3)).prop_map(
        |(name, hosts, rules)| {
            let rules = if rules.is_empty() { "  []\n".to_owned() } else { rules.concat() };
            route(name, &rules).replace(
                "  rules:",
                &format!(
                    "  hostnames: [{}]\n  rules:",
                    hosts.iter().map(|h| format!("'{h}'")).collect::<Vec<_>>().join(", ")
                ),
            )
        },
    );
    let listener = (name(), prop::option::of(host()), prop::sample::select(vec!["HTTP", "HTTPS", "x.y/z"]))
        .prop_map(|(name, host, protocol)| {
            let host = host.map_or_else(String::new, |host| format!("hostname: '{host}', "));
            format!("{{name: {name}, {host}protocol: {protocol}, port: 80}}")
        });
    let gateway = prop::collection::vec(listener, 1..3).prop_map(|listeners| {
        GATEWAY.replace("{name: http, protocol: HTTP, port: 80}", &listeners.join(", "))
    });
    let backends = (name(), prop::sample::select(vec!["OpenAI", "Cohere"]))
        .prop_map(|(name, schema)| backend(name, "").replace("OpenAI", schema));
    let keys = (name(), prop::sample::select(vec!["k", "''", "'\u{e9}'"]))
        .prop_map(|(name, value)| key(name, value));
    (
        gateway,
        prop::collection::vec(routes, 0..3),
        prop::collection::vec(backends, 0..3),
        prop::collection::vec(keys, 0..2),
    )
        .prop_map(|(gateway, routes, backends, keys)| {
            [gateway, routes.concat(), backends.concat(), keys.concat()].concat()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_halves_agree(text in document()) {
        // Duplicates and the like are the reader's findings; what it lets through is compiled.
        let (snapshot, _) = Snapshot::parse(&text);
        let compiled = compile(&snapshot, &options());
        prop_assert_eq!(compiled.config.gateways.len(), compiled.listeners.len());
        for (index, gateway) in compiled.config.gateways.iter().enumerate() {
            for rule in &gateway.rules {
                let names = if rule.attempts.is_empty() { std::slice::from_ref(&rule.backend) } else { &rule.attempts };
                for name in names {
                    let known = compiled.config.backends.iter().filter(|backend| backend.name == *name).count();
                    prop_assert_eq!(known, 1, "{}", name);
                }
            }
            for host in &gateway.hosts {
                let hosts = virtual_hosts(&compiled, index);
                let written = hosts.iter().find(|found| found["name"] == host.hostname.as_str());
                let routes = written.expect("a virtual host")["routes"].as_array().expect("routes");
                prop_assert_eq!(routes.len(), host.matches.len() + 1);
                for (selected, route) in host.matches.iter().zip(routes) {
                    let key = &gateway.rules[selected.rule].routing_key;
                    prop_assert!(route["match"]["headers"].to_string().contains(key.as_str()));
                }
            }
        }
        let clusters = clusters(&compiled);
        let clusters: Vec<&str> = clusters.iter().filter_map(|cluster| cluster["name"].as_str()).collect();
        for named in compiled.envoy.bootstrap().to_string().split("\"cluster\":\"").skip(1) {
            let named = named.split('"').next().expect("a name");
            prop_assert!(named == "aigw" || clusters.contains(&named), "{}", named);
        }
    }
}

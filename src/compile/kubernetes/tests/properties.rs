//! Whatever a cluster holds, what comes of it fits Kubernetes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// What must hold of every programme.
fn check(programme: &Programme) -> Result<(), TestCaseError> {
    for objects in [Some(&programme.objects), programme.transitional.as_ref()].into_iter().flatten() {
        let mut names = BTreeSet::new();
        for object in objects {
            let Object { kind, namespace, name, body, api_version } = object;
            prop_assert!(
                names.insert((kind, namespace, name)),
                "{} {}/{} is there twice",
                kind,
                namespace,
                name
            );
            let most = if kind == "Service" { 63 } else { 253 };
            prop_assert!(name.len() <= most);
            let valid = |name: &str| {
                !name.is_empty()
                    && name.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
                    })
                    && name
                        .split('.')
                        .all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
            };
            prop_assert!(valid(name), "{}", name);
            prop_assert_eq!(&body["kind"], kind);
            prop_assert_eq!(&body["apiVersion"], api_version);
            prop_assert_eq!(&body["metadata"]["name"], name);
            let labels = &body["metadata"]["labels"];
            prop_assert_eq!(&labels[MANAGED_BY_LABEL], MANAGED_BY);
            prop_assert!(labels[GATEWAY_LABEL].as_str().is_some_and(|label| label.len() <= 63));
            if kind == "HTTPRoute" {
                prop_assert!((1..=16).contains(&rules(object).len()));
                let mut sections = BTreeSet::new();
                for rule in rules(object) {
                    let matches = rule["matches"].as_array().unwrap();
                    prop_assert!((1..=64).contains(&matches.len()));
                    prop_assert!(
                        matches
                            .iter()
                            .all(|tried| tried["headers"].as_array().is_none_or(|all| all.len() <= 16))
                    );
                    if let Some(name) = rule["name"].as_str() {
                        prop_assert!(sections.insert(name), "{} names two rules", name);
                    }
                }
            }
        }
        // Each key of a processor is known to Envoy, and leads to one place.
        let mut keys = BTreeSet::new();
        for rule in http_routes(objects).into_iter().flat_map(rules) {
            if let Some(key) = applied::key(rule).filter(|key| *key != objects::NOBODY) {
                prop_assert!(keys.insert(key), "{} is there twice", key);
            }
        }
        let rules = programme.gateways.iter().flat_map(|it| &it.config.gateways).flat_map(|it| &it.rules);
        for rule in rules {
            prop_assert!(keys.contains(rule.routing_key.as_str()), "Envoy does not know {}", rule.route);
        }
    }
    for gateway in &programme.gateways {
        let text = String::from_utf8_lossy(gateway.config.reveal().bytes()).into_owned();
        let read = crate::source::parse(&text);
        prop_assert!(read.is_ok_and(|read| read.reveal().bytes() == text.as_bytes()));
    }
    Ok(())
}

/// Of a route: which name it has, the Gateways, the backends of its rules.
type Shape = (usize, Vec<usize>, Vec<usize>);

/// Gateways, and routes between them and backends.
fn cluster() -> impl Strategy<Value = (String, Vec<Shape>)> {
    let shape =
        (0..2_usize, prop::collection::btree_set(0..3_usize, 0..3), prop::collection::vec(0..4_usize, 0..15));
    prop::collection::vec(shape, 0..4).prop_map(|routes| {
        let routes: Vec<Shape> = routes
            .into_iter()
            .map(|(name, gateways, backends)| (name, gateways.into_iter().collect(), backends))
            .collect();
        let mut text = CLASS.to_owned();
        for index in 0..3 {
            text.push_str(&gateway(&format!("g{index}")));
        }
        for index in 0..3 {
            text.push_str(&backend(&format!("b{index}")));
        }
        for (index, (name, gateways, backends)) in routes.iter().enumerate() {
            let gateways: Vec<String> = gateways.iter().map(|index| format!("g{index}")).collect();
            let gateways: Vec<&str> = gateways.iter().map(String::as_str).collect();
            let rules: Vec<(String, String)> = backends
                .iter()
                .enumerate()
                .map(|(model, backend)| (format!("m{model}"), format!("b{backend}")))
                .collect();
            let rules: Vec<(&str, &str)> =
                rules.iter().map(|(model, backend)| (model.as_str(), backend.as_str())).collect();
            let name = ["r".repeat(240), "route".to_owned()][*name].clone();
            let written = route(&format!("{name}{index}"), &gateways, &rules);
            text.push_str(&if rules.is_empty() {
                written.replace("  rules:\n", "  rules: []\n")
            } else {
                written
            });
        }
        (text, routes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn programmes_fit_kubernetes((old, _) in cluster(), (new, routes) in cluster()) {
        let first = compiled(&old);
        check(&first)?;
        let second = after(&first.objects, &new);
        check(&second)?;
        let again = after(&first.objects, &new);
        prop_assert_eq!(&second.objects, &again.objects);
        prop_assert_eq!(&second.transitional, &again.transitional);
        prop_assert_eq!(&second.statuses, &again.statuses);
        // No secret is told to the processors of a Gateway whose routes do not need it.
        for gateway in &second.gateways {
            let text = String::from_utf8_lossy(gateway.config.reveal().bytes()).into_owned();
            let own = gateway.id.strip_prefix("default/g").and_then(|index| index.parse().ok()).unwrap_or(9);
            for backend in 0..3 {
                let needed = routes.iter().any(|(_, gateways, backends)| gateways.contains(&own) && backends.contains(&backend));
                prop_assert_eq!(needed, text.contains(&format!("key-of-b{backend}")));
            }
        }
    }
}

/// The examples of upstream, which are no part of this repository.
#[test]
fn examples_fit_kubernetes() {
    let data =
        std::env::var_os("AIGW_SHARED_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let Ok(folders) = std::fs::read_dir(data.join("examples")) else {
        println!("skipped: there are no examples in {}", data.display());
        return;
    };
    let mut served = 0;
    for folder in folders.filter_map(Result::ok) {
        let files = std::fs::read_dir(folder.path()).into_iter().flatten().filter_map(Result::ok);
        for file in
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        {
            let text = std::fs::read_to_string(&file).unwrap();
            let (snapshot, _) = Memory::of_stored().parse([Source::new("example", text)], &|_| None);
            let programme = programme(&snapshot, &options());
            check(&programme).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            served += programme.gateways.len();
        }
    }
    assert!(served > 0);
}

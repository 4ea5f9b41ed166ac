//! Attachment, precedence, models, ports and routing keys.

use super::*;

fn selected(compiled: &Compiled, host: &str) -> Vec<(Vec<String>, String)> {
    let gateway = only_gateway(compiled);
    let host = gateway.hosts.iter().find(|found| found.hostname == host).expect("the host");
    let matches = host.matches.iter().map(|selected| {
        let headers =
            selected.headers.iter().map(|header| format!("{}={}", header.name, header.value)).collect();
        (headers, gateway.rules[selected.rule].backend.clone())
    });
    matches.collect()
}

fn backends_in_order(compiled: &Compiled) -> Vec<String> {
    let short = |(_, backend): (Vec<String>, String)| backend.split('/').nth(1).expect("a name").to_owned();
    selected(compiled, "*").into_iter().map(short).collect()
}

#[test]
fn more_headers_then_more_exact_then_age_then_name_then_order() {
    let names = ["two-headers", "exact", "regex", "older", "b-first", "b-second", "c"];
    let backends: String = names.iter().map(|name| backend(name, "")).collect();
    let header = |kind: &str, name: &str| format!("{{name: {name}, value: v, type: {kind}}}");
    let rule = |headers: &[String], name: &str| {
        format!("  - matches: [{{headers: [{}]}}]\n    backendRefs: [{{name: {name}}}]\n", headers.join(", "))
    };
    let (exact, regex) = ("Exact", "RegularExpression");
    let dated = |name: &str, time: &str, rules: &str| {
        route(name, rules).replace(
            &format!("metadata: {{name: {name}}}"),
            &format!("metadata: {{name: {name}, creationTimestamp: '{time}'}}"),
        )
    };
    let text = [
        GATEWAY,
        &dated("c", "2025-01-02T00:00:00Z", &rule(&[header(exact, "x")], "c")),
        &dated(
            "b",
            "2025-01-02T00:00:00Z",
            &[rule(&[header(exact, "x")], "b-first"), rule(&[header(exact, "x")], "b-second")].concat(),
        ),
        &dated("z", "2025-01-01T00:00:00Z", &rule(&[header(exact, "x")], "older")),
        &dated(
            "a",
            "2026-01-01T00:00:00Z",
            &[
                rule(&[header(regex, "x"), header(regex, "w")], "regex"),
                rule(&[header(exact, "x"), header(regex, "w")], "exact"),
                rule(&[header(exact, "x"), header(regex, "w"), header(regex, "z")], "two-headers"),
            ]
            .concat(),
        ),
        &backends,
    ]
    .concat();
    let compiled = compile_text(&text);
    assert_eq!(
        backends_in_order(&compiled),
        ["two-headers", "exact", "regex", "older", "b-first", "b-second", "c"]
    );
    // Envoy tries the same order, and the 404 last.
    let hosts = virtual_hosts(&compiled, 0);
    let routes = hosts[0]["routes"].as_array().expect("routes");
    let named = routes.iter().map(|route| &route["route"]["cluster"]).filter(|cluster| cluster.is_string());
    let clusters: Vec<&str> = named.map(backend_of).collect();
    let expected: Vec<String> =
        backends_in_order(&compiled).iter().map(|name| format!("backend/default/{name}")).collect();
    assert_eq!(clusters, expected);
    assert_eq!(routes.last().expect("a route")["direct_response"]["status"], 404);
    assert_eq!(routes.last().expect("a route")["direct_response"]["body"]["inline_string"], NO_ROUTE);
}

#[test]
fn every_route_demands_its_rules_key_and_no_two_rules_share_one() {
    let rules = [model_rule("a", "{name: one}"), model_rule("b", "{name: one}")].concat();
    let compiled = compile_clean(&[GATEWAY, &route("r", &rules), &backend("one", "")].concat());
    let gateway = only_gateway(&compiled);
    let keys: Vec<&str> = gateway.rules.iter().map(|rule| rule.routing_key.as_str()).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    let hosts = virtual_hosts(&compiled, 0);
    let routes = hosts[0]["routes"].as_array().expect("routes");
    for (route, key) in routes.iter().zip(keys) {
        let demanded = route["match"]["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .find(|header| header["name"] == ROUTING_HEADER);
        assert_eq!(demanded.expect("demanded")["string_match"]["exact"], key);
    }
}

#[test]
fn whatever_is_sent_elsewhere_or_otherwise_changes_the_routing_key() {
    let text = |backend_ref: &str, spec: &str, secret: &str| {
        [GATEWAY, &route("r", &model_rule("a", backend_ref)), &backend("one", spec), &key("one", secret)]
            .concat()
    };
    let base = text("{name: one}", "", "first-key");
    let variants = [
        text("{name: one}", "", "second-key"),
        text("{name: one, modelNameOverride: other}", "", "first-key"),
        text("{name: one, bodyMutation: {remove: [x]}}", "", "first-key"),
        text("{name: one}", "  headerMutation: {remove: [x]}", "first-key"),
        base.replace("name: OpenAI", "name: OpenAI, prefix: other"),
        base.replace("one.example.com", "evil.example.com"),
        base.replace("port: 8080", "port: 8081"),
        base.replace(
            "kind: AIGatewayRoute\nmetadata: {name: r}",
            "kind: AIGatewayRoute\nmetadata: {name: s}",
        ),
        base.replace("{name: http, protocol", "{name: other, protocol"),
    ];
    let key = |text: &str| only_gateway(&compile_text(text)).rules[0].routing_key.clone();
    let mut keys = vec![key(&base)];
    assert_eq!(keys[0], key(&base), "the same input has the same key");
    keys.extend(variants.iter().map(|text| key(text)));
    let mut other = options();
    other.secret = RoutingSecret([1; 32]);
    keys.push(only_gateway(&compile_with(&base, &other)).rules[0].routing_key.clone());
    let mut unique = keys.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), keys.len(), "{keys:?}");
}

#[test]
fn hosts_are_the_intersection_and_unknown_hosts_get_the_404() {
    let text = [
        &GATEWAY.replace("{name: http, ", "{name: http, hostname: '*.example.com', "),
        &route("r", &model_rule("a", "{name: one}"))
            .replace("  rules:", "  hostnames: [a.example.com, '*.com', b.org]\n  rules:"),
        &*backend("one", ""),
    ]
    .concat();
    let compiled = compile_clean(&text);
    let hosts: Vec<&str> = only_gateway(&compiled).hosts.iter().map(|host| host.hostname.as_str()).collect();
    assert_eq!(hosts, ["*.example.com", "a.example.com"]);
    let hosts = virtual_hosts(&compiled, 0);
    let domains: Vec<&Value> = hosts.iter().map(|host| &host["domains"][0]).collect();
    assert_eq!(domains, ["*.example.com", "a.example.com", "*"]);
    assert_eq!(compiled.listeners[0].hostname.as_deref(), Some("www.example.com"));
}

#[test]
fn a_route_reaches_the_listeners_its_parent_names() {
    let gateway = GATEWAY.replace(
        "[{name: http, protocol: HTTP, port: 80}]",
        "[{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 81}]",
    );
    let reach = |parent: &str| {
        let route = route("r", &model_rule("m", "{name: one}")).replace("[{name: gw}]", parent);
        let compiled = compile_text(&[&gateway, &*route, &backend("one", "")].concat());
        let reached: Vec<String> =
            compiled.listeners.iter().filter(|l| l.rules > 0).map(|l| l.name.clone()).collect();
        (reached.join(","), messages(&compiled))
    };
    assert_eq!(reach("[{name: gw}]"), ("a,b".to_owned(), String::new()));
    assert_eq!(reach("[{name: gw, sectionName: b}]"), ("b".to_owned(), String::new()));
    assert_eq!(reach("[{name: gw, port: 80}]"), ("a".to_owned(), String::new()));
    let (reached, said) = reach("[{name: gw, sectionName: c}]");
    assert_eq!(reached, "");
    assert!(said.contains("its listeners are a (port 80), b (port 81)"), "{said}");
    let (_, said) = reach("[{name: gx}]");
    assert!(said.contains("did you mean `gw`"), "{said}");
    let (_, said) = reach("[{name: gw, namespace: other}]");
    assert!(said.contains("there is no Gateway other/gw"), "{said}");
}

#[test]
fn listeners_are_numbered_through_all_gateways_and_tell_themselves_apart() {
    let second = GATEWAY.replace("name: class", "name: unused").replace("{name: gw}", "{name: gw2}");
    let second = second.replace("gatewayClassName: unused", "gatewayClassName: class");
    let text = [GATEWAY, "---", &second].concat();
    let ports =
        |compiled: &Compiled| compiled.listeners.iter().map(|l| (l.name.clone(), l.port)).collect::<Vec<_>>();
    let compiled = compile_text(&text);
    assert_eq!(ports(&compiled), [("gw/http".to_owned(), 1975), ("gw2/http".to_owned(), 1976)]);
    let authorities: Vec<&str> =
        compiled.config.gateways.iter().map(|gateway| gateway.authority.as_str()).collect();
    assert_eq!(authorities, ["http.gw.default", "http.gw2.default"]);

    let mut options = options();
    options.ports = vec![PortOverride { listener: "gw2/http".to_owned(), port: 8080 }];
    let compiled = compile_with(&text, &options);
    assert_eq!(ports(&compiled), [("gw/http".to_owned(), 1975), ("gw2/http".to_owned(), 8080)]);
    assert!(compiled.options_fit);
    for (listener, said) in
        [("http", "use one of default/gw/http, default/gw2/http"), ("htpp", "did you mean `http`?")]
    {
        options.ports = vec![PortOverride { listener: listener.to_owned(), port: 8080 }];
        let compiled = compile_with(&text, &options);
        assert!(messages(&compiled).contains(said), "{}", messages(&compiled));
        assert!(!compiled.options_fit);
    }
    options.ports = vec![PortOverride { listener: "gw2/http".to_owned(), port: 1975 }];
    let compiled = compile_with(&text, &options);
    assert!(!compiled.options_fit);
    assert!(messages(&compiled).contains("both be served on port 1975"), "{}", messages(&compiled));
}

#[test]
fn models_are_listed_per_host() {
    let scoped = route("a", &model_rule("scoped", "{name: one}"))
        .replace("  rules:", "  hostnames: [a.com]\n  rules:");
    let open = route(
        "b",
        "  - matches: [{headers: [{name: x-ai-eg-model, value: open}]}, {headers: [{name: x-ai-eg-model, type: RegularExpression, value: '.*'}]}]\n    modelsOwnedBy: Us\n    modelsCreatedAt: '2024-05-06T07:08:09Z'\n    backendRefs: [{name: one}]\n",
    );
    let compiled = compile_clean(&[GATEWAY, &scoped, &open, &backend("one", "")].concat());
    let models = &only_gateway(&compiled).models;
    let names = |models: &[config::Model]| models.iter().map(|model| model.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&models.all), ["scoped", "open"]);
    assert_eq!(names(&models.by_host["a.com"]), ["scoped", "open"]);
    assert_eq!(names(&models.unscoped), ["open"]);
    assert_eq!(models.unscoped[0].owned_by, "Us");
    assert_eq!(models.unscoped[0].created_at, "2024-05-06T07:08:09Z");
    assert_eq!(models.all[0].owned_by, "Envoy AI Gateway");
}

#[test]
fn the_last_cost_of_a_key_counts() {
    let route = route("r", &model_rule("a", "{name: one}")).replace(
        "  rules:",
        "  llmRequestCosts: [{metadataKey: k, type: InputToken}, {metadataKey: k, type: OutputToken}]\n  rules:",
    );
    let compiled = compile_text(&[GATEWAY, &route, &backend("one", "")].concat());
    let [cost] = compiled.config.llm_request_costs.as_slice() else { panic!("one cost") };
    assert_eq!((cost.route_name.as_str(), cost.cost.kind), ("default/r", config::CostType::OutputToken));
    assert!(messages(&compiled).contains("defined again below"), "{}", messages(&compiled));
}

#[test]
fn an_image_makes_a_stand_in_of_its_service() {
    let service = "
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: up}
spec:
  selector: {matchLabels: {app: up}}
  template:
    metadata: {labels: {app: up}}
    spec:
      containers: [{name: c, image: 'registry/ai-gateway-testupstream:v1', env: [{name: TESTUPSTREAM_ID, value: primary}]}]
---
apiVersion: v1
kind: Service
metadata: {name: up}
spec: {selector: {app: up}, ports: [{port: 80}]}
";
    for name in ["up", "up.default", "up.default.svc", "up.default.svc.cluster.local"] {
        let backend = backend("one", "").replace("one.example.com", name);
        let compiled = compile_clean(
            &[GATEWAY, &route("r", &model_rule("a", "{name: one}")), &backend, service].concat(),
        );
        let [embedded] = compiled.embedded_backends.as_slice() else {
            panic!("one embedded backend for {name}")
        };
        assert_eq!(embedded.name, "default/up");
        assert_eq!(embedded.env["TESTUPSTREAM_ID"], "primary");
        let endpoint =
            &clusters(&compiled)[0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["pipe"]["path"], embedded.socket.to_str().expect("a path"));
        assert_eq!(endpoint["hostname"], name);
    }
    let elsewhere = backend("one", "").replace("one.example.com", "up.other.svc.cluster.local");
    let compiled =
        compile_text(&[GATEWAY, &route("r", &model_rule("a", "{name: one}")), &elsewhere, service].concat());
    assert!(compiled.embedded_backends.is_empty());
    assert!(messages(&compiled).contains("inside a Kubernetes cluster only"), "{}", messages(&compiled));
}

#[test]
fn each_dialect_and_each_kind_of_key_reaches_the_processor_as_it_is() {
    let kinds = [
        ("OpenAI, prefix: api", "APIKey", "apiKey"),
        ("AzureOpenAI, version: 2025-01-01-preview", "AzureAPIKey", "azureAPIKey"),
        ("Anthropic", "AnthropicAPIKey", "anthropicAPIKey"),
        ("Cohere, version: v2", "APIKey", "apiKey"),
    ];
    let mut keys = Vec::new();
    for (schema, kind, member) in kinds {
        let policy = key("one", "live-key")
            .replace("type: APIKey", &format!("type: {kind}"))
            .replace("  apiKey: {secretRef", &format!("  {member}: {{secretRef"));
        let service = backend("one", "").replace("{name: OpenAI}", &format!("{{name: {schema}}}"));
        let text = [GATEWAY, &route("r", &model_rule("a", "{name: one}")), &service, &policy].concat();
        let compiled = compile_clean(&text);
        let document = compiled.config.redacted();
        let [backend] = document["backends"].as_array().expect("backends").as_slice() else {
            panic!("one backend: {document:#}")
        };
        assert_eq!(backend["schema"]["name"], schema.split(',').next().expect("a name"));
        assert_eq!(backend["auth"], serde_json::json!({ member: { "key": "[REDACTED]" } }));
        keys.push(only_gateway(&compiled).rules[0].routing_key.clone());
        let (_, problems) = crate::runtime::Runtime::new(compiled.config);
        assert!(problems.is_empty(), "{problems:?}");
    }
    keys.dedup();
    assert_eq!(keys.len(), kinds.len(), "the kind of a key is part of what the routing key stands for");
}

//! Matches that are never chosen are named, and no others.

use super::*;

/// A rule with conditions written as `name=value` (exact) or `name~value` (an expression).
fn rule(conditions: &str) -> String {
    let header = |condition: &str| match condition.split_once('~') {
        Some((name, value)) => format!("{{name: {name}, type: RegularExpression, value: '{value}'}}"),
        None => {
            let (name, value) = condition.split_once('=').expect("a condition");
            format!("{{name: {name}, value: '{value}'}}")
        }
    };
    let headers: Vec<String> = conditions.split_whitespace().map(header).collect();
    match headers.as_slice() {
        [] => "  - backendRefs: [{name: one}]\n".to_owned(),
        _ => format!(
            "  - matches: [{{headers: [{}]}}]\n    backendRefs: [{{name: one}}]\n",
            headers.join(", ")
        ),
    }
}

/// What is said about one route with these rules.
fn said(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|conditions| rule(conditions)).collect();
    let compiled = compile_text(&[GATEWAY, &route("r", &rules), &backend("one", "")].concat());
    assert!(!compiled.diagnostics.has_errors(), "{}", messages(&compiled));
    messages(&compiled)
}

#[test]
fn hidden_rules_are_named_with_the_one_that_hides_them() {
    for (rules, words) in [
        (
            &["m=a", "m=a"][..],
            &["spec.rules[1]", "spec.rules[0].matches[0] (line", "same conditions", "stands first"][..],
        ),
        (
            &["", ""],
            &["in AIGatewayRoute default/r: spec.rules[1]", "spec.rules[0] (line", "same conditions"],
        ),
        (&["m~.*", "m~gpt-.*"], &["spec.rules[1]", "m matches `.*`", "put this one first"]),
        (&["m~gpt-4", "m=gpt-4"], &["default/r: spec.rules[0]", "m is `gpt-4`", "more exact conditions"]),
        (&["m~gpt-4.*", "m~gpt-4o"], &["default/r: spec.rules[1]", "m matches `gpt-4.*`"]),
        (&["m=a t=x", "t=x m=a"], &["spec.rules[1]", "same conditions"]),
        (&["m~a.* t~x.*", "m~ab.* t~xy.*"], &["spec.rules[1]", "m matches `a.*`, t matches `x.*`"]),
        (&["x-ai-eg-model~.+", "x-ai-eg-model~.*"], &["spec.rules[1]"]),
    ] {
        let said = said(rules);
        assert_eq!(said.matches("never chosen").count(), 1, "{rules:?}:\n{said}");
        for word in words {
            assert!(said.contains(word), "{rules:?}: `{word}` is not in\n{said}");
        }
    }
}

#[test]
fn nothing_is_said_about_rules_that_can_be_chosen() {
    for rules in [
        &["m=a", "m=b", "m~a.*", "m~.*", ""][..],
        &["m~gpt-.*", "m~.*"],
        &["m~gpt-4.*", "m~gpt-.*", "m~[a-z]+"],
        &["m=a t=x", "m=a", "t=x"],
        &["m~a.* t~xy.*", "m~ab.* t~x.*"],
        &["m~.+", "m~.*"],
        &["m~A", "m=a"],
    ] {
        assert_eq!(said(rules), "", "{rules:?}");
    }
}

#[test]
fn hosts_and_listeners_keep_rules_apart() {
    let two = |hostnames: [&str; 2]| {
        let routes: Vec<String> = ["a", "b"]
            .iter()
            .zip(hostnames)
            .map(|(name, hostnames)| {
                route(name, &rule("m=x"))
                    .replace("  rules:", &format!("  hostnames: [{hostnames}]\n  rules:"))
            })
            .collect();
        messages(&compile_text(&[GATEWAY, &routes.concat(), &backend("one", "")].concat()))
    };
    assert_eq!(two(["one.example.com", "two.example.com"]), "");
    assert_eq!(
        two(["one.example.com", "'*.example.com'"]),
        "",
        "the host `two.example.com` reaches the second"
    );
    assert_eq!(two(["one.example.com", "one.example.com, two.example.com"]), "", "one host is enough");
    let said = two(["one.example.com, two.example.com", "one.example.com"]);
    assert!(said.contains("AIGatewayRoute default/a (input.yaml:"), "{said}");
    assert!(said.contains("`default/a` sorts before `default/b`"), "{said}");
}

#[test]
fn the_gateways_own_headers_cannot_be_matched() {
    let compiled =
        compile_text(&[GATEWAY, &route("r", &rule("x-ai-eg-route=x")), &backend("one", "")].concat());
    assert!(compiled.diagnostics.has_errors());
    assert!(messages(&compiled).contains("not believed from clients"), "{}", messages(&compiled));
    assert!(messages(&compiled).contains("matches[0].headers[0].name"), "{}", messages(&compiled));
}

#[test]
fn what_a_rule_asks_of_a_credential_is_asked_by_the_processor_alone() {
    let text = [GATEWAY, &route("r", &rule("Authorization=x x-team=y")), &backend("one", "")].concat();
    let compiled = compile_text(&text);
    assert!(!compiled.diagnostics.has_errors(), "{}", messages(&compiled));
    let asked = &only_gateway(&compiled).hosts[0].matches[0].headers;
    assert!(asked.iter().any(|header| header.name == "authorization"), "{asked:?}");
    let route = virtual_hosts(&compiled, 0)[0]["routes"][0]["match"].to_string();
    assert!(
        !route.contains("authorization") && route.contains("x-team") && route.contains(ROUTING_HEADER),
        "{route}"
    );
}

#[test]
fn thousands_of_rules_are_looked_at_in_one_pass() {
    let routes = (0..200).map(|index| {
        let rules: Vec<String> = (0..15).map(|rule| format!("m=model-{index}-{rule}")).collect();
        let rules: String = rules.iter().map(|conditions| rule(conditions)).collect();
        route(&format!("r{index:03}"), &rules)
    });
    let last = route("z", &rule("m=model-7-7"));
    let text: String = routes.chain([last]).collect();
    let said = messages(&compile_text(&[GATEWAY, &text, &backend("one", "")].concat()));
    assert_eq!(said.matches("never chosen").count(), 1, "{said}");
}

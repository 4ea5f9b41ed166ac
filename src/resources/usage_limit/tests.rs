use crate::resources::Snapshot;

use super::*;

/// What is said about a UsageLimit with these limits: fields and messages.
fn findings(spec: &str) -> Vec<(String, String)> {
    let text = format!(
        "
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {{name: l}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
{spec}
"
    );
    let (snapshot, findings) = Snapshot::parse(&text);
    assert_eq!(snapshot.usage_limits.is_empty(), !findings.is_empty(), "{findings:?}");
    let told = |finding: &crate::diagnostics::Diagnostic| {
        let help = finding.help.clone().unwrap_or_default();
        (finding.field.clone().unwrap_or_default(), format!("{}: {help}", finding.message))
    };
    findings.iter().map(told).collect()
}

fn limit(fields: &str) -> Vec<(String, String)> {
    findings(&format!("  limits: [{{name: l, {fields}}}]"))
}

#[test]
fn the_least_that_can_be_said() {
    assert_eq!(limit("type: Request, amount: 1, window: {every: 1m}"), []);
    assert_eq!(limit("type: InFlight, amount: 1"), []);
}

#[test]
fn mistakes_about_windows_are_named() {
    all_found(&[
        ("type: Request, amount: 1", "spec.limits[0].window", "a window is missing"),
        ("type: InFlight, amount: 1, window: {every: 1m}", "spec.limits[0].window", "has no window"),
        ("type: Request, amount: 1, window: {}", "spec.limits[0].window", "exactly one"),
        (
            "type: Request, amount: 1, window: {every: 1m, rolling: 1m}",
            "spec.limits[0].window",
            "exactly one",
        ),
        (
            "type: Request, amount: 1, window: {every: 1w}",
            "spec.limits[0].window.every",
            "90s, 5m, 12h or 7d",
        ),
        ("type: Request, amount: 1, window: {every: 400d}", "spec.limits[0].window.every", "366 days"),
        (
            "type: Request, amount: 1, window: {calendar: Fortnight}",
            "spec.limits[0].window.calendar",
            "Month",
        ),
        (
            "type: Request, amount: 1, window: {calendar: Day, timeZone: Europe/Berlim}",
            "spec.limits[0].window.timeZone",
            "did you mean `Europe/Berlin`?",
        ),
        (
            "type: Request, amount: 1, window: {every: 1d, timeZone: UTC}",
            "spec.limits[0].window.timeZone",
            "only the calendar",
        ),
    ]);
}

#[test]
fn mistakes_are_named_with_their_field_and_what_to_do() {
    all_found(&[
        ("type: Requests, amount: 1, window: {every: 1m}", "spec.limits[0].type", "Request"),
        ("type: Request, amount: '1.5', window: {every: 1m}", "spec.limits[0].amount", "not a whole number"),
        (
            "type: Request, amount: 9007199254740992, window: {every: 1m}",
            "spec.limits[0].amount",
            "more than can be counted",
        ),
        ("type: Request, amount: -1, window: {every: 1m}", "spec.limits[0].amount", "at least 0"),
        ("type: Request, amount: many, window: {every: 1m}", "spec.limits[0].amount", "expected a number"),
        ("type: InFlight, amount: 1, mode: Record", "spec.limits[0].mode", "remove it"),
        ("type: CEL, amount: 1, window: {every: 1m}", "spec.limits[0].cel", "needs an expression"),
        ("type: CEL, cel: input_tokens * 2, amount: 1, window: {every: 1m}", "spec.limits[0].cel", "2u"),
        (
            "type: Request, cel: input_tokens, amount: 1, window: {every: 1m}",
            "spec.limits[0].cel",
            "goes with type CEL",
        ),
        ("type: Money, amount: 1, window: {every: 1m}", "spec.limits[0].type", "money needs prices"),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {tenants: [{}]}",
            "spec.limits[0].match.tenants[0]",
            "say which tenants",
        ),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {tenants: [{key: a, anonymous: true}]}",
            "spec.limits[0].match.tenants[0]",
            "say which tenants",
        ),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {headers: [{name: x}]}",
            "spec.limits[0].match.headers[0].value",
            "missing",
        ),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {headers: [{name: x, type: Present, value: z}]}",
            "spec.limits[0].match.headers[0].value",
            "no value",
        ),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {headers: [{name: x, type: RegularExpression, value: '('}]}",
            "spec.limits[0].match.headers[0].value",
            "RE2",
        ),
        (
            "type: Request, amount: 1, window: {every: 1m}, match: {networks: [home]}",
            "spec.limits[0].match.networks[0]",
            "no network",
        ),
        ("type: Request, amount: 1, window: {every: 1m}, matching: {}", "spec.limits[0].matching", "match"),
    ]);
}

/// Of each limit, that something is said about a field.
fn all_found(mistakes: &[(&str, &str, &str)]) {
    for (fields, field, part) in mistakes {
        let found = limit(fields);
        assert!(
            found.iter().any(|(at, message)| at == field && message.contains(part)),
            "{fields}: {field} {part}: {found:?}"
        );
    }
}

#[test]
fn mistakes_outside_of_limits_are_named_too() {
    const LIMITS: &str = "  limits: [{name: l, type: Request, amount: 1, window: {every: 1m}}]";
    for (spec, field) in [
        ("  output: {minimum: 5}\n", "spec.output.minimum"),
        ("  prices: {models: [{model: m, input: '10000001', output: 1}]}\n", "spec.prices.models[0].input"),
        ("  prices: {models: [{model: m, input: '0.0000001', output: 1}]}\n", "spec.prices.models[0].input"),
        ("  prices: {models: [{model: m, input: 0.5, output: 1}]}\n", "spec.prices.models[0].input"),
        ("  onStoreFailure: Shut\n", "spec.onStoreFailure"),
    ] {
        let found = findings(&(spec.to_owned() + LIMITS));
        assert!(found.iter().any(|(at, _)| at == field), "{spec}: {found:?}");
    }
    let twice = "{name: l, type: Request, amount: 1, window: {every: 1m}}";
    let found = findings(&format!("  limits: [{twice}, {twice}]"));
    assert_eq!(found[0].0, "spec.limits[1].name");
}

#[test]
fn lengths_are_read() {
    for (text, length) in [("1s", 1), ("90s", 90), ("1h30m", 5_400), ("7d", 604_800), ("366d", 31_622_400)] {
        assert_eq!(seconds(text), Ok(length), "{text}");
    }
    for text in [
        "",
        "s",
        "0s",
        "1",
        "1ms",
        "1M",
        "-1s",
        "367d",
        "99999999999999999999d",
        "18446744073709551615d",
        "1é",
    ] {
        assert!(seconds(text).is_err(), "{text}");
    }
}

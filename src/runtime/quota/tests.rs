use serde_json::{Value, json};

use super::*;

/// What is said about one limit with these fields, and whether it counts.
fn problems(fields: Value) -> (Vec<String>, bool) {
    let mut limit = json!({"id": "l", "name": "l", "metric": "Request", "amount": 1, "window": {"kind": "Fixed", "seconds": 60}});
    for (name, value) in fields.as_object().expect("an object") {
        limit[name] = value.clone();
    }
    let quotas = serde_json::from_value(json!([{"policy": "p", "limits": [limit]}])).expect("quotas");
    let quotas: Vec<config::Quota> = quotas;
    let mut problems = Vec::new();
    let compiled = compile(&quotas, &mut problems);
    (problems.iter().map(ToString::to_string).collect(), !compiled.is_empty())
}

#[test]
fn a_limit_that_cannot_be_understood_is_left_out_and_named() {
    assert_eq!(problems(json!({})), (vec![], true));
    assert_eq!(problems(json!({"metric": "InFlight", "window": null})), (vec![], true));
    for (fields, at) in [
        (json!({"metric": "InFlight"}), "window"),
        (json!({"window": null}), "window"),
        (json!({"window": {"kind": "Fixed"}}), "window.seconds"),
        (json!({"window": {"kind": "Rolling", "seconds": 0}}), "window.seconds"),
        (json!({"window": {"kind": "Rolling", "seconds": u64::MAX}}), "window.seconds"),
        (json!({"window": {"kind": "Calendar"}}), "window.unit"),
        (json!({"window": {"kind": "Calendar", "unit": "Day", "timeZone": "Mars"}}), "window.timeZone"),
        (json!({"metric": "CEL"}), "cel"),
        (json!({"metric": "CEL", "cel": "1 +"}), "cel"),
        (json!({"amount": 1_u64 << 53}), "amount"),
        (json!({"per": [{"by": "Header"}]}), "per[0].name"),
        (json!({"tests": [{"what": "Header", "name": "x"}]}), "tests[0].values"),
        (json!({"tests": [{"what": "Header", "values": ["x"]}]}), "tests[0].name"),
        (
            json!({"tests": [{"what": "Header", "name": "x", "compare": "RegularExpression", "values": ["("]}]}),
            "tests[0].values[0]",
        ),
        (json!({"tests": [{"what": "Path", "compare": "Present"}]}), "tests[0].compare"),
        (json!({"tests": [{"what": "Source", "values": ["home"]}]}), "tests[0].values[0]"),
        (
            json!({"tests": [{"what": "Parameter", "name": "x", "compare": "Prefix", "values": ["y"]}]}),
            "tests[0].values[0].compare",
        ),
    ] {
        let (problems, counts) = problems(fields.clone());
        let begin = format!("quotas[0].limits[0].{at}: ");
        assert!(problems.len() == 1 && problems[0].starts_with(&begin) && !counts, "{fields}: {problems:?}");
    }
}

#[test]
fn names_of_buckets_are_unique() {
    let limit = json!({"id": "l", "name": "l", "metric": "Request", "amount": 1, "window": {"kind": "Fixed", "seconds": 60}});
    let quotas: Vec<config::Quota> =
        serde_json::from_value(json!([{"limits": [limit]}, {"limits": [limit]}])).expect("quotas");
    let mut problems = Vec::new();
    assert_eq!(compile(&quotas, &mut problems).iter().count(), 1);
    assert_eq!(problems[0].at, "quotas[1].limits[0].id");
}

//! Conditions in the status of objects: written only when they say something else than before.

use serde_json::{Value, json};

/// A condition that an object shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

/// The types of conditions that are ours to write, in the order in which they are written. `kubectl get` shows the last one, which is
/// what it showed with the Go controller.
const TYPES: [&str; 5] = ["ResolvedRefs", "IdentityResolved", "Programmed", "NotAccepted", "Accepted"];

/// More than this the API server does not take in a message.
const MOST_MESSAGE: usize = 32_768;

/// The list of conditions to write in the place of `found`; nothing if that says the same. Conditions of other types stay. A condition's
/// time moves only when its status does.
pub(super) fn merge(found: &[Value], wanted: &[Wanted], generation: Option<i64>, now: &str) -> Option<Value> {
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).map(str::to_owned);
    let mut merged: Vec<Value> = found
        .iter()
        .filter(|condition| kind(condition).is_some_and(|kind| !TYPES.contains(&&*kind)))
        .cloned()
        .collect();
    // One that says no is shown rather than one that says yes.
    let mut ours: Vec<&Wanted> = wanted.iter().collect();
    ours.sort_by_key(|wanted| {
        let refused = wanted.kind == "NotAccepted" || (wanted.kind == "Accepted" && wanted.holds);
        (refused, TYPES.iter().position(|kind| *kind == wanted.kind))
    });
    for Wanted { kind: name, holds, reason, message } in ours {
        let status = if *holds { "True" } else { "False" };
        let before = found.iter().find(|condition| kind(condition).as_deref() == Some(name));
        let same = before.filter(|before| before.get("status").and_then(Value::as_str) == Some(status));
        let since = same.and_then(|before| before.get("lastTransitionTime")).cloned();
        let mut condition = json!({
            "type": name,
            "status": status,
            "reason": reason,
            "message": shortened(message),
            "lastTransitionTime": since.unwrap_or_else(|| now.into()),
        });
        if let (Some(generation), Some(condition)) = (generation, condition.as_object_mut()) {
            condition.insert("observedGeneration".to_owned(), generation.into());
        }
        merged.push(condition);
    }
    let merged = Value::Array(merged);
    (merged.as_array().map(Vec::as_slice) != Some(found)).then_some(merged)
}

fn shortened(message: &str) -> &str {
    match message.char_indices().nth(MOST_MESSAGE) {
        Some((end, _)) => &message[..end],
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: &'static str, holds: bool, message: &str) -> Wanted {
        Wanted { kind, holds, reason: "R".to_owned(), message: message.to_owned() }
    }

    fn types(conditions: &Value) -> Vec<&str> {
        conditions.as_array().unwrap().iter().map(|condition| condition["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn what_says_the_same_is_not_written() {
        let ours = [wanted("Accepted", true, "m"), wanted("Programmed", false, "p")];
        let first = merge(&[], &ours, Some(3), "t1").unwrap();
        assert_eq!(merge(first.as_array().unwrap(), &ours, Some(3), "t2"), None);
        assert_eq!(first[1]["observedGeneration"], 3);
    }

    #[test]
    fn times_move_with_the_status_only() {
        let first = merge(&[], &[wanted("Accepted", true, "m")], Some(1), "t1").unwrap();
        let second =
            merge(first.as_array().unwrap(), &[wanted("Accepted", true, "n")], Some(2), "t2").unwrap();
        assert_eq!((&second[0]["lastTransitionTime"], &second[0]["message"]), (&json!("t1"), &json!("n")));
        let third =
            merge(second.as_array().unwrap(), &[wanted("Accepted", false, "n")], Some(2), "t3").unwrap();
        assert_eq!(third[0]["lastTransitionTime"], "t3");
    }

    #[test]
    fn the_go_controllers_condition_comes_last_and_others_stay() {
        let found = [
            json!({"type": "Accepted", "status": "True", "reason": "ReconciliationSucceeded", "message": "",
                "lastTransitionTime": "t0"}),
            json!({"type": "theirs/Own", "status": "True"}),
        ];
        let accepted =
            [wanted("Accepted", true, ""), wanted("ResolvedRefs", true, ""), wanted("Programmed", true, "")];
        let merged = merge(&found, &accepted, None, "t1").unwrap();
        assert_eq!(types(&merged), ["theirs/Own", "ResolvedRefs", "Programmed", "Accepted"]);
        assert_eq!(merged[3]["lastTransitionTime"], "t0");
        let refused = [wanted("NotAccepted", false, "why"), wanted("Accepted", false, "why")];
        let merged = merge(merged.as_array().unwrap(), &refused, None, "t2").unwrap();
        assert_eq!(types(&merged), ["theirs/Own", "Accepted", "NotAccepted"]);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let merged =
            merge(&[], &[wanted("Accepted", true, &"ä".repeat(MOST_MESSAGE + 5))], None, "t").unwrap();
        assert_eq!(merged[0]["message"].as_str().unwrap().chars().count(), MOST_MESSAGE);
    }
}

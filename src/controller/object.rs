//! Objects as the API server keeps them, and what this controller reads of any of them.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

/// The label that names who wrote an object.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value on objects of this controller.
pub(super) const MANAGER: &str = "envoy-ai-gateway";
/// The label that names the Gateway an object was generated for.
pub(super) const GATEWAY: &str = "aigateway.envoyproxy.io/gateway";
/// The finalizer of this controller, and of the Go one before it.
pub(super) const FINALIZER: &str = "aigateway.envoyproxy.io/finalizer";
/// The annotation in which the edition of a written object stands.
pub(super) const EDITION: &str = "aigateway.envoyproxy.io/edition";
/// What kubectl notes for itself; it may be as long as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object's namespace, empty where it has none, and name.
pub(super) type Name = (String, String);

/// An object of the API server.
#[derive(Clone, PartialEq)]
pub(super) struct Stored {
    value: Value,
    text: Option<Arc<str>>,
}

impl Stored {
    /// Takes an object in. `input`: whether its text is wanted, to be compiled.
    pub(super) fn new(mut value: Value, (kind, api_version): (&str, &str), input: bool) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
            }
        }
        // Items of lists come without them.
        if let Some(object) = value.as_object_mut() {
            object.insert("apiVersion".to_owned(), api_version.into());
            object.insert("kind".to_owned(), kind.into());
        }
        let text = input.then(|| text(&value).into());
        Self { value, text }
    }

    /// The object.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// What is compiled of it, as JSON on one line; nothing if it is on its way out.
    pub(super) fn text(&self) -> Option<&Arc<str>> {
        self.text.as_ref().filter(|_| !self.deleting())
    }

    /// Takes the text of `other` for its own, if they are equal, so that equal ones are told by their address.
    pub(super) fn share_text(&mut self, other: &Self) {
        if self.text == other.text {
            self.text.clone_from(&other.text);
        }
    }

    /// Whether it is the same object as `other`, and later in time. The API server's versions are numbers that grow.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        let number = |stored: &Self| stored.version().parse::<u128>().ok();
        let later = number(self).zip(number(other)).is_some_and(|(own, other)| own > other);
        self.uid() == other.uid() && later
    }

    fn metadata(&self, field: &str) -> Option<&Value> {
        self.value.get("metadata")?.get(field)
    }

    /// Its namespace and name.
    pub(super) fn name(&self) -> Name {
        let text = |field| self.metadata(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    }

    /// Its version of the API, with the group.
    pub(super) fn api_version(&self) -> &str {
        self.value.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// What tells it from every other object, of its name too.
    pub(super) fn uid(&self) -> &str {
        self.metadata("uid").and_then(Value::as_str).unwrap_or_default()
    }

    /// What tells it from itself before and after each change.
    pub(super) fn version(&self) -> &str {
        self.metadata("resourceVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// How often what is asked for has changed; 0 for kinds that do not count.
    pub(super) fn generation(&self) -> i64 {
        self.metadata("generation").and_then(Value::as_i64).unwrap_or_default()
    }

    /// A label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.metadata("labels")?.get(name)?.as_str()
    }

    /// An annotation.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata("annotations")?.get(name)?.as_str()
    }

    /// Whether it is on its way out, and only finalizers keep it.
    pub(super) fn deleting(&self) -> bool {
        self.metadata("deletionTimestamp").is_some_and(Value::is_string)
    }

    /// Its finalizers.
    pub(super) fn finalizers(&self) -> impl Iterator<Item = &str> {
        let finalizers = self.metadata("finalizers").and_then(Value::as_array);
        finalizers.into_iter().flatten().filter_map(Value::as_str)
    }

    /// The kind and uid of each owner.
    pub(super) fn owners(&self) -> impl Iterator<Item = (&str, &str)> {
        let owners = self.metadata("ownerReferences").and_then(Value::as_array);
        owners
            .into_iter()
            .flatten()
            .filter_map(|owner| Some((owner.get("kind")?.as_str()?, owner.get("uid")?.as_str()?)))
    }

    /// Whether this controller generated it.
    pub(super) fn generated(&self) -> bool {
        self.label(MANAGED_BY) == Some(MANAGER) && self.label(GATEWAY).is_some()
    }

    /// Its conditions.
    pub(super) fn conditions(&self) -> &[Value] {
        let conditions = self.value.get("status").and_then(|status| status.get("conditions"));
        conditions.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// What its parents' controllers (or ancestors', in policies) say of it: the parent, and the conditions.
    pub(super) fn parents(&self) -> impl Iterator<Item = (&Value, &[Value])> {
        let status = self.value.get("status");
        let list = |field: &str| status.and_then(|status| status.get(field)).and_then(Value::as_array);
        let parents = list("parents").into_iter().flatten().map(|parent| (parent, "parentRef"));
        let ancestors = list("ancestors").into_iter().flatten().map(|ancestor| (ancestor, "ancestorRef"));
        parents.chain(ancestors).filter_map(|(entry, field)| {
            let conditions = entry.get("conditions").and_then(Value::as_array).map(Vec::as_slice);
            Some((entry.get(field)?, conditions.unwrap_or_default()))
        })
    }
}

/// The object without what changes by itself, so that equal texts mean that nothing has to be done.
fn text(value: &Value) -> String {
    const KEPT: [&str; 7] =
        ["name", "namespace", "labels", "annotations", "creationTimestamp", "generation", "uid"];
    let Value::Object(object) = value else { return String::new() };
    let mut kept = Map::new();
    for (field, value) in object {
        match (field.as_str(), value) {
            ("status", _) => {}
            ("metadata", Value::Object(metadata)) => {
                let metadata = metadata.iter().filter(|(field, _)| KEPT.contains(&field.as_str()));
                let metadata: Map<_, _> =
                    metadata.map(|(field, value)| (field.clone(), value.clone())).collect();
                kept.insert(field.clone(), metadata.into());
            }
            _ => {
                kept.insert(field.clone(), value.clone());
            }
        }
    }
    printable(&Value::Object(kept).to_string())
}

/// JSON that is YAML too: characters that YAML takes for no part of a text are written as escapes. Outside of strings, JSON has none of
/// them.
fn printable(json: &str) -> String {
    let odd = |char: char| {
        matches!(char, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if !json.contains(odd) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if odd(char) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out
}

/// A condition of this type among them: its status, the generation it is about, and its reason and message.
pub(super) fn condition<'a>(conditions: &'a [Value], kind: &str) -> Option<Seen<'a>> {
    let found =
        conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |field: &str| found.get(field).and_then(Value::as_str).unwrap_or_default();
    Some(Seen {
        holds: text("status") == "True",
        generation: found.get("observedGeneration").and_then(Value::as_i64).unwrap_or_default(),
        reason: text("reason"),
        message: text("message"),
    })
}

/// A condition as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) holds: bool,
    pub(super) generation: i64,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resources::{Memory, Source};

    #[test]
    fn what_changes_by_itself_is_no_part_of_the_text() {
        let object = |version: &str, status: &str| {
            let value = json!({
                "metadata": {"name": "a", "namespace": "n", "resourceVersion": version, "managedFields": [version],
                    "annotations": {"a": "b", LAST_APPLIED: version}},
                "spec": {"x": 1},
                "status": {"conditions": [{"type": status}]},
            });
            Stored::new(value, ("Gateway", "v1"), true)
        };
        let (before, after) = (object("1", "A"), object("2", "B"));
        assert_eq!(before.text(), after.text());
        assert!(before != after);
        assert_eq!(before.annotation("a"), Some("b"));
        assert_eq!(before.annotation(LAST_APPLIED), None);
        assert_eq!(after.conditions().len(), 1);
    }

    #[test]
    fn what_is_being_deleted_has_no_text() {
        let value = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let stored = Stored::new(value, ("Gateway", "v1"), true);
        assert!(stored.deleting() && stored.text().is_none());
    }

    proptest! {
        /// Whatever a value holds, it is read back.
        #[test]
        fn any_text_survives(text in any::<String>(), key in "[a-z]{1,8}") {
            let value = json!({
                "metadata": {"name": "a", "namespace": "n"},
                "data": {key.as_str(): text.as_str()},
            });
            let stored = Stored::new(value, ("ConfigMap", "v1"), true);
            let source = Source::new("x", &**stored.text().unwrap());
            let (snapshot, findings) = Memory::of_stored().parse([source], &|_| None);
            prop_assert!(findings.is_empty(), "{}", findings.render(false));
            prop_assert_eq!(&snapshot.config_maps.get("n", "a").unwrap().data[&key], &text);
        }
    }
}

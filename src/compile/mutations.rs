//! Edits of a request, as an AIServiceBackend and a rule ask for them together.
//!
//! A rule's `set` wins over the backend's of the same key; removals are united.

use crate::config::{BodyField, BodyMutation, HeaderMutation, HeaderValue};
use crate::resources::aigateway::{HTTPBodyMutation, HTTPHeaderMutation};

/// The header edits of both levels; `None` if there are none.
pub(super) fn headers(
    backend: Option<&HTTPHeaderMutation>,
    rule: Option<&HTTPHeaderMutation>,
) -> Option<HeaderMutation> {
    let mut merged = HeaderMutation::default();
    for level in [backend, rule].into_iter().flatten() {
        for header in &level.set {
            let name = header.name.to_ascii_lowercase();
            match merged.set.iter_mut().find(|set| set.name == name) {
                Some(set) => set.value.clone_from(&header.value),
                None => merged.set.push(HeaderValue { name, value: header.value.clone() }),
            }
        }
        unite(&mut merged.remove, level.remove.iter().map(|name| name.to_ascii_lowercase()));
    }
    (merged != HeaderMutation::default()).then_some(merged)
}

/// The body edits of both levels; `None` if there are none.
pub(super) fn body(
    backend: Option<&HTTPBodyMutation>,
    rule: Option<&HTTPBodyMutation>,
) -> Option<BodyMutation> {
    let mut merged = BodyMutation::default();
    for level in [backend, rule].into_iter().flatten() {
        for field in &level.set {
            match merged.set.iter_mut().find(|set| set.path == field.path) {
                Some(set) => set.value.clone_from(&field.value),
                None => merged.set.push(BodyField { path: field.path.clone(), value: field.value.clone() }),
            }
        }
        unite(&mut merged.remove, level.remove.iter().cloned());
    }
    (merged != BodyMutation::default()).then_some(merged)
}

fn unite(all: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for name in more {
        if !all.contains(&name) {
            all.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::aigateway::{HTTPBodyField, HTTPHeader};

    fn header(name: &str, value: &str) -> HTTPHeader {
        HTTPHeader { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn the_rules_header_wins_whatever_its_case() {
        let backend = HTTPHeaderMutation {
            set: vec![header("X-A", "backend"), header("x-b", "backend")],
            remove: vec!["X-Gone".to_owned()],
        };
        let rule = HTTPHeaderMutation {
            set: vec![header("x-a", "rule"), header("X-C", "rule")],
            remove: vec!["x-gone".to_owned(), "x-too".to_owned()],
        };
        let merged = headers(Some(&backend), Some(&rule)).expect("edits");
        let set: Vec<_> = merged.set.iter().map(|set| (set.name.as_str(), set.value.as_str())).collect();
        assert_eq!(set, [("x-a", "rule"), ("x-b", "backend"), ("x-c", "rule")]);
        assert_eq!(merged.remove, ["x-gone", "x-too"]);
        assert_eq!(headers(None, Some(&HTTPHeaderMutation::default())), None);
    }

    #[test]
    fn body_members_are_told_apart_by_case() {
        let set = |path: &str, value: &str| HTTPBodyMutation {
            set: vec![HTTPBodyField { path: path.to_owned(), value: value.to_owned() }],
            remove: vec![],
        };
        let merged = body(Some(&set("a", "1")), Some(&set("A", "2"))).expect("edits");
        assert_eq!(merged.set.len(), 2);
        let merged = body(Some(&set("a", "1")), Some(&set("a", "2"))).expect("edits");
        assert_eq!(merged.set, [BodyField { path: "a".to_owned(), value: "2".to_owned() }]);
    }
}

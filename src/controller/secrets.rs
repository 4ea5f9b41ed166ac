//! Which Secrets are read: those that a policy names, and no others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::object::Name;
use super::store::View;

/// The kinds whose Secrets processors need. What Envoy Gateway needs, such as certificates of listeners, it reads itself.
const KINDS: [&str; 1] = ["BackendSecurityPolicy"];
/// The fields that refer to a Secret, at whatever depth.
const FIELDS: [&str; 3] = ["secretRef", "clientSecretRef", "clientSecret"];
/// How deep they may be.
const DEPTH: u32 = 16;

/// The namespaces and names of all Secrets that anything refers to.
pub(super) fn referenced(view: &View) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    for kind in KINDS {
        for ((namespace, _), stored) in view.kind(kind) {
            if let Some(spec) = stored.value().get("spec").filter(|_| !stored.deleting()) {
                search(spec, namespace, DEPTH, &mut found);
            }
        }
    }
    found
}

fn search(value: &Value, home: &str, depth: u32, found: &mut BTreeSet<Name>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if FIELDS.contains(&field.as_str()) {
                    found.extend(reference(value, home));
                }
                search(value, home, depth, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| search(item, home, depth, found)),
        _ => {}
    }
}

fn reference(value: &Value, home: &str) -> Option<Name> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty() && name.len() <= 253)?;
    let secret = text("kind").is_none_or(|kind| kind == "Secret") && text("group").is_none_or(str::is_empty);
    secret.then(|| (text("namespace").unwrap_or(home).to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_a_policy_names_is_read() {
        let policy = |name: &str, spec: Value| {
            json!({"apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "BackendSecurityPolicy",
                "metadata": {"namespace": "n", "name": name}, "spec": spec})
        };
        let view = View::of([
            policy("a", json!({"apiKey": {"secretRef": {"name": "key"}}})),
            policy(
                "b",
                json!({"awsCredentials": {"oidcExchangeToken": {"oidc": {
                "clientSecret": {"name": "client", "namespace": "m"}}}}}),
            ),
            policy("c", json!({"apiKey": {"secretRef": {"name": "map", "kind": "ConfigMap"}}})),
            policy("d", json!({"apiKey": {"secretRef": {"name": ""}}})),
        ]);
        let expected =
            [("m", "client"), ("n", "key")].map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        assert_eq!(referenced(&view), BTreeSet::from(expected));
    }
}

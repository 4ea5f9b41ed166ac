//! Finalizers: a route stays until all that was generated for it is gone; what the Go controller has marked is let go.

use std::cell::LazyCell;
use std::collections::HashSet;

use serde_json::json;

use super::object::FINALIZER;
use super::plan::Operation;
use super::store::View;

/// The kinds that the Go controller marks.
const MARKED: [&str; 5] =
    ["AIGatewayRoute", "AIServiceBackend", "BackendSecurityPolicy", "MCPRoute", "QuotaPolicy"];

/// What is to be marked, and what is let go. `clean`: nothing is left to be written or deleted.
pub(super) fn plan(view: &View, clean: bool) -> Vec<Operation> {
    let mut operations = Vec::new();
    let leaving = LazyCell::new(|| owners(view));
    for kind in MARKED {
        for (name, stored) in view.kind(kind) {
            let marked = stored.finalizers().any(|finalizer| finalizer == FINALIZER);
            let route = kind == "AIGatewayRoute";
            let finalizers: Vec<&str> = match (stored.deleting(), marked) {
                (false, false) if route => stored.finalizers().chain([FINALIZER]).collect(),
                (true, true) if !route || (clean && !leaving.contains(stored.uid())) => {
                    stored.finalizers().filter(|finalizer| *finalizer != FINALIZER).collect()
                }
                _ => continue,
            };
            let body = json!({"metadata": {"resourceVersion": stored.version(), "finalizers": finalizers}});
            operations.push(Operation::Patch {
                id: (kind.to_owned(), name.clone()),
                api_version: stored.api_version().to_owned(),
                body,
                status: false,
            });
        }
    }
    operations
}

/// Whose objects are still there, by uid.
fn owners(view: &View) -> HashSet<&str> {
    let generated = view.iter().filter(|(_, _, stored)| stored.generated());
    generated.flat_map(|(_, _, stored)| stored.owners().map(|(_, uid)| uid)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn object(kind: &str, version: &str, metadata: Value) -> Value {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "n",
            "uid": "u", "resourceVersion": "7"}});
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        object
    }

    fn route(metadata: Value) -> Value {
        object("AIGatewayRoute", "aigateway.envoyproxy.io/v1beta1", metadata)
    }

    fn finalizers(operations: &[Operation]) -> Vec<Value> {
        let bodies = operations.iter().map(|operation| match operation {
            Operation::Patch { body, status: false, .. } => {
                assert_eq!(body["metadata"]["resourceVersion"], "7");
                body["metadata"]["finalizers"].clone()
            }
            other => panic!("{other:?}"),
        });
        bodies.collect()
    }

    #[test]
    fn routes_are_marked_once_beside_others_marks() {
        let unmarked = View::of([route(json!({"finalizers": ["other"]}))]);
        assert_eq!(finalizers(&plan(&unmarked, false)), [json!(["other", FINALIZER])]);
        assert!(plan(&View::of([route(json!({"finalizers": [FINALIZER]}))]), true).is_empty());
    }

    #[test]
    fn a_route_stays_until_nothing_is_left_of_it() {
        let going = route(json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let left = object(
            "HTTPRoute",
            "gateway.networking.k8s.io/v1",
            json!({"uid": "h", "ownerReferences": [{"kind": "AIGatewayRoute", "uid": "u"}],
                "labels": {"app.kubernetes.io/managed-by": "envoy-ai-gateway", "aigateway.envoyproxy.io/gateway": "g"}}),
        );
        assert!(plan(&View::of([going.clone(), left]), true).is_empty());
        assert!(plan(&View::of([going.clone()]), false).is_empty());
        assert_eq!(finalizers(&plan(&View::of([going]), true)), [json!([])]);
    }

    #[test]
    fn what_the_go_controller_marked_is_let_go() {
        let version = "aigateway.envoyproxy.io/v1beta1";
        let going = json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let view = View::of([
            object("AIServiceBackend", version, going),
            object("MCPRoute", version, json!({"finalizers": [FINALIZER]})),
            object("BackendSecurityPolicy", version, json!({})),
        ]);
        assert_eq!(finalizers(&plan(&view, false)), [json!([])]);
    }
}

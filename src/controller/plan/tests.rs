use serde_json::json;

use super::*;
use crate::controller::kinds;

fn wanted(kind: &str, name: &str, spec: Value) -> Arc<Prepared> {
    let known = kinds::find(kind).unwrap();
    let api_version = known.resource(known.versions[0]).api_version;
    let body = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "n", "labels": {MANAGED_BY: MANAGER, GATEWAY: "g"}},
        "spec": spec,
    });
    let (kind, namespace, name) = (kind.to_owned(), "n".to_owned(), name.to_owned());
    Arc::new(Prepared::new(Object { api_version, kind, namespace, name, body }))
}

/// What the API server makes of a body: defaults, a uid, a generation.
fn applied(plan: &Plan) -> Vec<Value> {
    let bodies = plan.operations.iter().filter_map(|operation| match operation {
        Operation::Apply { object, .. } => Some(object.body.clone()),
        Operation::Delete { .. } | Operation::Patch { .. } => None,
    });
    bodies
        .map(|mut body| {
            body["metadata"]["uid"] = "u".into();
            body["metadata"]["generation"] = 1.into();
            body["spec"]["defaulted"] = true.into();
            body
        })
        .collect()
}

fn run(wanted: &[Arc<Prepared>], view: &View) -> Plan {
    plan(wanted, view, &Written::default())
}

#[test]
fn what_is_there_already_is_not_written() {
    let objects = [wanted("HTTPRoute", "a", json!({"rules": [{"name": "x"}]}))];
    let first = run(&objects, &View::default());
    assert_eq!(first.operations.len(), 1);
    let there = applied(&first);
    assert!(run(&objects, &View::of(there.clone())).operations.is_empty());
    // Somebody has changed it since.
    let mut changed = there;
    changed[0]["spec"]["rules"][0]["name"] = "y".into();
    assert_eq!(run(&objects, &View::of(changed)).operations.len(), 1);
    // Something is wanted no longer, which the object still says.
    let fewer = [wanted("HTTPRoute", "a", json!({}))];
    assert_eq!(run(&fewer, &View::of(applied(&first))).operations.len(), 1);
}

#[test]
fn what_the_server_changed_itself_is_not_written_again_and_again() {
    let objects = [wanted("HTTPRoute", "a", json!({"timeout": "60s"}))];
    let first = run(&objects, &View::default());
    let mut there = applied(&first);
    there[0]["spec"]["timeout"] = "1m0s".into();
    let view = View::of(there);
    let Prepared { id, edition, .. } = &*objects[0];
    let mut written = Written::default();
    written.note(id.clone(), edition.clone(), view.get("HTTPRoute", &id.1).unwrap());
    let again = plan(&objects, &view, &written);
    assert!(again.operations.is_empty());
}

#[test]
fn what_is_ours_and_wanted_no_longer_is_deleted() {
    let objects = [wanted("HTTPRoute", "a", json!({})), wanted("Service", "s", json!({}))];
    let there = applied(&run(&objects, &View::default()));
    let fewer = run(&objects[..1], &View::of(there));
    let id = ("Service".to_owned(), ("n".to_owned(), "s".to_owned()));
    assert_eq!(
        fewer.operations,
        [Operation::Delete { id, api_version: "v1".to_owned(), uid: "u".to_owned() }]
    );
}

#[test]
fn what_is_not_ours_is_never_deleted() {
    let object = |labels: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "a", "namespace": "n", "labels": labels}})
    };
    // The second label is missing on what the Go controller makes for tools, and the first on users' own.
    for labels in [
        json!({}),
        json!({MANAGED_BY: MANAGER}),
        json!({GATEWAY: "g"}),
        json!({MANAGED_BY: "Helm", GATEWAY: "g"}),
    ] {
        assert!(run(&[], &View::of([object(labels)])).operations.is_empty());
    }
    // A kind that we never write.
    let backend = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": {"name": "a", "namespace": "n", "labels": {MANAGED_BY: MANAGER, GATEWAY: "g"}}});
    assert!(run(&[], &View::of([backend])).operations.is_empty());
}

#[test]
fn a_users_object_of_the_same_name_is_a_conflict() {
    let theirs = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "a", "namespace": "n"}, "spec": {}});
    let plan = run(&[wanted("HTTPRoute", "a", json!({}))], &View::of([theirs]));
    assert!(plan.operations.is_empty());
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].purpose.gateway, "g");
}

#[test]
fn what_the_go_controller_made_for_a_route_is_taken_over() {
    let route = |uid: &str| {
        json!({"apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
            "metadata": {"name": "a", "namespace": "n", "uid": uid}})
    };
    let theirs = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "a", "namespace": "n", "ownerReferences": [
            {"apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute", "name": "a", "uid": "u1"}]}});
    let wanted = [wanted("HTTPRoute", "a", json!({}))];
    assert_eq!(run(&wanted, &View::of([theirs.clone(), route("u1")])).operations.len(), 1);
    // Of a route that had the name before.
    assert_eq!(run(&wanted, &View::of([theirs, route("u2")])).conflicts.len(), 1);
}

#[test]
fn what_is_on_its_way_out_is_left_alone() {
    let objects = [wanted("HTTPRoute", "a", json!({"x": 1}))];
    let mut there = applied(&run(&objects, &View::default()));
    there[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    there[0]["spec"]["x"] = 2.into();
    let view = View::of(there);
    assert!(run(&objects, &view).operations.is_empty());
    assert!(run(&[], &view).operations.is_empty());
}

use super::*;
use crate::compile::kubernetes::Condition;

const GATEWAY: &str = "aigw-gw-00000000";

fn route(conditions: Value) -> Value {
    json!({"apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
        "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 2, "resourceVersion": "5"},
        "status": {"conditions": conditions}})
}

fn generated(kind: &str, version: &str, status: Value) -> Value {
    json!({"apiVersion": version, "kind": kind,
        "metadata": {"name": "r", "namespace": "n", "uid": kind, "generation": 3,
            "ownerReferences": [{"kind": "AIGatewayRoute", "uid": "u"}],
            "labels": {"app.kubernetes.io/managed-by": "envoy-ai-gateway", "aigateway.envoyproxy.io/gateway": GATEWAY}},
        "spec": {"parentRefs": [{"name": "gw"}]},
        "status": status})
}

fn accepted(field: &str, generation: i64, status: &str) -> Value {
    let condition = |kind: &str| {
        json!({"type": kind, "status": status, "reason": "Why", "message": "because",
            "observedGeneration": generation})
    };
    let parents = if field == "parentRef" { "parents" } else { "ancestors" };
    json!({parents: [{field: {"name": "gw"}, "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]})
}

fn http_route(generation: i64, status: &str) -> Value {
    generated("HTTPRoute", "gateway.networking.k8s.io/v1", accepted("parentRef", generation, status))
}

fn policy(status: &str) -> Value {
    generated("EnvoyExtensionPolicy", "gateway.envoyproxy.io/v1alpha1", accepted("ancestorRef", 3, status))
}

fn compilation(generation: i64) -> Compilation {
    let status = ObjectStatus {
        api_version: "aigateway.envoyproxy.io/v1beta1",
        kind: "AIGatewayRoute",
        namespace: "n".to_owned(),
        name: "r".to_owned(),
        generation: Some(generation),
        conditions: vec![Condition {
            kind: "Accepted",
            status: true,
            reason: "ReconciliationSucceeded",
            message: String::new(),
        }],
        gateways: vec!["n/gw".to_owned()],
    };
    Compilation {
        gateways: Vec::new(),
        objects: Vec::new(),
        transitional: None,
        statuses: vec![status],
        unread: BTreeMap::new(),
    }
}

fn of_gateway() -> Purpose {
    Purpose { gateway: GATEWAY.to_owned(), route: None }
}

struct Case {
    stage: Stage,
    objects: Vec<Value>,
    replicas: Replicas,
    conflicts: Vec<Conflict>,
    failures: BTreeMap<Id, (Purpose, String)>,
    fresh: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            objects: vec![route(json!([])), http_route(3, "True"), policy("True")],
            replicas: Replicas { current: 2, behind: 1, refused: Vec::new() },
            conflicts: Vec::new(),
            failures: BTreeMap::new(),
            fresh: false,
            stage: Stage::Settled,
        }
    }
}

impl Case {
    fn updates(&self) -> Vec<Update> {
        let progress = Progress {
            label: GATEWAY.to_owned(),
            stage: self.stage,
            generation: 7,
            replicas: self.replicas.clone(),
        };
        let view = View::of(self.objects.clone());
        let situation = Situation {
            view: &view,
            gateways: &BTreeMap::from([("n/gw".to_owned(), progress)]),
            conflicts: &self.conflicts,
            failures: &self.failures,
            fresh: self.fresh,
            pending: &BTreeMap::new(),
        };
        updates(&compilation(2), &situation, "now")
    }

    /// The route has the conditions that it should.
    fn told(&mut self) {
        let updates = self.updates();
        let Operation::Patch { body, .. } = &updates[0].operation else { panic!() };
        self.objects[0] = route(body["status"]["conditions"].clone());
    }

    /// The condition Programmed: its reason and message.
    #[track_caller]
    fn programmed(&self) -> (String, String, Vec<Notice>) {
        let mut updates = self.updates();
        assert_eq!(updates.len(), 1);
        let update = updates.remove(0);
        let Operation::Patch { body, status: true, .. } = update.operation else { panic!() };
        assert_eq!(body["metadata"]["resourceVersion"], "5");
        let conditions = body["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == "Programmed").unwrap();
        assert_eq!(condition["observedGeneration"], 2);
        let text = |field: &str| condition[field].as_str().unwrap().to_owned();
        assert_eq!(text("status") == "True", text("reason") == "Programmed");
        (text("reason"), text("message"), update.notices)
    }
}

#[test]
fn what_is_in_force_says_where_and_on_how_many_processors() {
    let (reason, message, notices) = on(2, 1).programmed();
    assert_eq!(reason, "Programmed");
    assert_eq!(message, "Gateway n/gw: 2 of 3 processors run generation 7");
    assert!(notices.is_empty());
    let (_, message, _) = on(3, 0).programmed();
    assert_eq!(message, "Gateway n/gw: all processors run it since generation 7, 3 at that time");
}

#[test]
fn what_only_some_run_is_written_once_more_when_all_do() {
    let mut case = on(2, 1);
    case.told();
    assert!(case.updates().is_empty());
    case.replicas = on(3, 0).replicas;
    assert!(case.programmed().1.contains("all processors"));
    case.told();
    case.replicas = on(3, 2).replicas;
    assert!(case.updates().is_empty());
}

fn on(current: usize, behind: usize) -> Case {
    Case { replicas: Replicas { current, behind, refused: Vec::new() }, ..Case::default() }
}

/// With thousands of routes, each edit would be thousands of writes.
#[test]
fn what_is_in_force_is_not_written_again_because_of_others() {
    let mut case = on(3, 0);
    let pending = Case { objects: case.objects.clone(), stage: Stage::Changing, ..nobody_current() };
    assert_eq!(pending.programmed().0, "Pending");
    case.told();
    for stage in [Stage::Changing, Stage::Settled] {
        let case = Case { objects: case.objects.clone(), stage, ..nobody_current() };
        assert!(case.updates().is_empty(), "{stage:?}");
    }
    let id = ("HTTPRoute".to_owned(), ("n".to_owned(), "x".to_owned()));
    let another = Purpose { gateway: GATEWAY.to_owned(), route: Some("another".to_owned()) };
    case.conflicts = vec![Conflict { id: id.clone(), purpose: another.clone() }];
    case.failures = BTreeMap::from([(id, (another, "no".to_owned()))]);
    assert!(case.updates().is_empty());
    case.conflicts[0].purpose.route = Some("u".to_owned());
    assert_eq!(case.programmed().0, "Conflict");
}

fn nobody_current() -> Case {
    on(0, 3)
}

#[test]
fn what_is_said_already_is_not_said_again() {
    let mut case = Case::default();
    case.told();
    assert!(case.updates().is_empty());
}

#[test]
fn what_keeps_it_from_being_in_force_is_named() {
    type Change = fn(&mut Case);
    let cases: [(&str, &str, Change); 9] = [
        ("Pending", "has not taken the newest HTTPRoute n/r", |case| case.objects[1] = http_route(2, "True")),
        ("RefusedByEnvoyGateway", "HTTPRoute n/r: Accepted is False: Why: because", |case| {
            case.objects[1] = http_route(3, "False");
        }),
        ("Displaced", "another EnvoyExtensionPolicy", |case| case.objects[2] = policy("False")),
        ("Pending", "does it run?", |case| {
            case.objects[1] = generated("HTTPRoute", "gateway.networking.k8s.io/v1", json!({}));
        }),
        ("Pending", "yet to be written", |case| {
            case.objects.remove(1);
        }),
        ("NoProcessors", "no processor is connected", |case| case.replicas = Replicas::default()),
        ("Refused", "a processor refuses its configuration: p: bad", |case| {
            case.replicas.refused = vec!["p: bad".to_owned()];
        }),
        ("Conflict", "HTTPRoute n/x is not ours", |case| {
            let id = ("HTTPRoute".to_owned(), ("n".to_owned(), "x".to_owned()));
            case.conflicts = vec![Conflict { id, purpose: of_gateway() }];
        }),
        ("WriteFailed", "HTTPRoute n/r cannot be written: no", |case| {
            let id = ("HTTPRoute".to_owned(), ("n".to_owned(), "r".to_owned()));
            case.failures = BTreeMap::from([(id, (of_gateway(), "no".to_owned()))]);
        }),
    ];
    for (reason, message, change) in cases {
        let mut case = Case::default();
        change(&mut case);
        let found = case.programmed();
        assert_eq!(found.0, reason, "{}", found.1);
        assert!(found.1.contains(message), "{}", found.1);
        let passing = ["Pending", "NoProcessors"].contains(&reason);
        assert_eq!(found.2.is_empty(), passing, "{reason}");
    }
}

#[test]
fn who_leads_since_a_moment_ago_does_not_say_that_nothing_is_in_force() {
    let mut case = Case::default();
    let updates = case.updates();
    let Operation::Patch { body, .. } = &updates[0].operation else { panic!() };
    case.objects[0] = route(body["status"]["conditions"].clone());
    (case.replicas, case.fresh) = (Replicas::default(), true);
    assert!(case.updates().is_empty());
    case.fresh = false;
    assert_eq!(case.programmed().0, "NoProcessors");
}

#[test]
fn news_are_told_once() {
    let mut case = Case::default();
    case.objects[2] = policy("False");
    let updates = case.updates();
    let Operation::Patch { body, .. } = &updates[0].operation else { panic!() };
    assert_eq!(updates[0].notices.len(), 1);
    let mut conditions = body["status"]["conditions"].clone();
    // Something else changes: the status is written, and no event is.
    conditions[1]["message"] = "before".into();
    case.objects[0] = route(conditions);
    assert!(case.updates()[0].notices.is_empty());
}

#[test]
fn what_was_judged_before_the_last_change_is_not_said() {
    let view = View::of([route(json!([]))]);
    let situation = Situation {
        view: &view,
        gateways: &BTreeMap::new(),
        conflicts: &[],
        failures: &BTreeMap::new(),
        fresh: false,
        pending: &BTreeMap::new(),
    };
    assert!(updates(&compilation(1), &situation, "now").is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_not_accepted() {
    let view = View::of([route(json!([]))]);
    let situation = Situation {
        view: &view,
        gateways: &BTreeMap::new(),
        conflicts: &[],
        failures: &BTreeMap::new(),
        fresh: false,
        pending: &BTreeMap::new(),
    };
    let mut compilation = compilation(1);
    let id = ("AIGatewayRoute".to_owned(), ("n".to_owned(), "r".to_owned()));
    compilation.unread.insert(id, "spec.rules: why".to_owned());
    let updates = updates(&compilation, &situation, "now");
    let Operation::Patch { body, .. } = &updates[0].operation else { panic!() };
    let last = &body["status"]["conditions"][1];
    assert_eq!((&last["type"], &last["status"]), (&json!("NotAccepted"), &json!("False")));
    assert_eq!(updates[0].notices.len(), 1);
    compilation.unread.clear();
    compilation.statuses[0].generation = Some(2);
    compilation.statuses[0].conditions[0] = Condition {
        kind: "NotAccepted",
        status: false,
        reason: "ReconciliationFailed",
        message: "why".to_owned(),
    };
    let updates = super::updates(&compilation, &situation, "now");
    assert_eq!(updates[0].notices.len(), 1);
}

#[test]
fn a_route_is_taken_when_all_its_parents_have_spoken_of_its_newest_edition() {
    let taken = |value: Value| is_taken(&Stored::new(value, ("HTTPRoute", "v1"), false));
    assert!(taken(http_route(3, "True")));
    // A refusal is an answer, too: waiting would not help.
    assert!(taken(http_route(3, "False")));
    assert!(!taken(http_route(2, "True")));
    assert!(!taken(generated("HTTPRoute", "v1", json!({}))));
    let mut two = http_route(3, "True");
    two["spec"]["parentRefs"] = json!([{"name": "gw"}, {"name": "other"}]);
    assert!(!taken(two));
}

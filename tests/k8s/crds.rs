//! The definitions on a real API server: that it takes them, and that its verdicts are those of upstream's definitions.

use std::fs;
use std::path::{Path, PathBuf};

use ai_gateway::resources::Source;
use ai_gateway::resources::admission::Admission;
use kube::Client;
use serde_json::{Value, json};

use crate::support::apiserver::ApiServer;
use crate::support::isolated;
use crate::support::objects::Objects;

/// How many objects are made up for each kind, half of them with something wrong.
const OBJECTS: u64 = 1000;
/// The group under which upstream's definitions are installed beside ours.
const THEIRS: &str = "theirs.aigateway.envoyproxy.io";
const OURS: &str = "aigateway.envoyproxy.io";

fn shared() -> Option<PathBuf> {
    let data = std::env::var_os("AIGW_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    if data.is_dir() { Some(data) } else { crate::support::missing("there is no ../shared/data") }
}

fn definitions() -> String {
    let all = ai_gateway::resources::crd::all();
    all.iter().map(|definition| ai_gateway::resources::crd::yaml(definition).expect("YAML")).collect()
}

fn upstream(data: &Path) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(data.join("crds"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let options = || serde_saphyr::options! { budget: None };
    let parse = |path: &PathBuf| {
        serde_saphyr::from_str_with_options(&fs::read_to_string(path).expect("a file"), options())
            .expect("YAML")
    };
    files.iter().map(parse).collect()
}

/// Installs definitions and waits until their kinds are served.
async fn install(api: &ApiServer, definitions: &str) {
    api.apply(definitions).await;
    api.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]).await;
}

#[test]
fn recorded_cases_get_their_verdicts() {
    let Some(data) = shared() else { return };
    isolated(async move |api| {
        install(&api, &definitions()).await;
        let cases = data.join("crd-cases");
        let table = fs::read_to_string(cases.join("expected.tsv")).expect("the table");
        let mut judged = 0;
        for row in table.lines().skip(1) {
            let mut cells = row.split('\t');
            let (file, verdict) = (cells.next().expect("a file"), cells.next().expect("a verdict"));
            let message = cells.next().unwrap_or_default();
            let path = cases.join(file);
            let arguments = ["create", "--dry-run=server", "-f", path.to_str().expect("a path")];
            let result = api.try_kubectl(&arguments).await;
            assert_eq!(result.is_ok(), verdict == "accept", "{file}: {result:?}");
            let text = fs::read_to_string(&path).expect("a case");
            let judged_here = Admission::new().judge([Source::new(file, text)]);
            let findings = judged_here.diagnostics.render(false);
            assert_eq!(!judged_here.diagnostics.has_errors(), verdict == "accept", "{file}: {findings}");
            // The words are our own; the field is the same.
            let field =
                message.split(": Invalid value").next().and_then(|start| start.split(' ').next_back());
            if let (Err(said), Some(field)) = (result, field.filter(|field| field.starts_with("spec."))) {
                assert!(said.contains(field), "{file}: {field} is not named in {said}");
            }
            judged += 1;
        }
        assert!(judged > 28, "only {judged} cases");
    });
}

#[test]
fn objects_are_good_under_both_definitions_or_under_neither() {
    let Some(data) = shared() else { return };
    isolated(async move |api| {
        install(&api, &definitions()).await;
        let definitions = upstream(&data);
        let mut theirs = String::new();
        for definition in &definitions {
            let mut definition = definition.clone();
            let plural = definition["spec"]["names"]["plural"].as_str().expect("a name").to_owned();
            definition["metadata"]["name"] = json!(format!("{plural}.{THEIRS}"));
            definition["spec"]["group"] = json!(THEIRS);
            theirs += &format!("---\n{definition}\n");
        }
        install(&api, &theirs).await;
        for definition in &definitions {
            let versions = definition["spec"]["versions"].as_array().expect("versions");
            let objects = OBJECTS / u64::try_from(versions.len()).expect("few");
            for version in versions {
                compare(&api.client(), &definition["spec"]["names"], version, objects).await;
            }
        }
    });
}

/// Has both judge the same objects, and ours without an API server too.
async fn compare(client: &Client, names: &Value, version: &Value, objects: u64) {
    let mut offline = Admission::new();
    let (kind, plural) = (names["kind"].as_str().expect("a kind"), names["plural"].as_str().expect("a name"));
    let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let version = version["name"].as_str().expect("a version");
    let (mut good, mut bad) = (0, 0);
    for seed in 0..objects {
        let mut objects = Objects::new(seed + 1);
        let mut spec = objects.value(schema, "spec", 0);
        objects.mend(kind, &mut spec, schema);
        if seed % 2 == 1 {
            objects.spoil(&mut spec);
        }
        let theirs = judge(client, THEIRS, version, (kind, plural), &spec).await;
        let ours = judge(client, OURS, version, (kind, plural), &spec).await;
        same_offline(&mut offline, &object(OURS, version, kind, &spec), &ours, seed);
        match (theirs, ours) {
            // With the same defaults, and the same fields thrown away.
            (Ok(theirs), Ok(ours)) => {
                assert_eq!(theirs, ours, "{kind} {version}, seed {seed}: {spec}");
                good += 1;
            }
            (Err(_), Err(_)) => bad += 1,
            (theirs, ours) => {
                panic!("{kind} {version}, seed {seed}: {spec}\ntheirs: {theirs:?}\nours: {ours:?}");
            }
        }
    }
    println!("{kind} {version}: {good} accepted and {bad} refused by both");
    // Otherwise the objects would show nothing.
    assert!(good > 50 && bad > 20, "{kind} {version}: {good} accepted, {bad} refused");
}

/// The spec as it would be kept, or what is wrong with it.
async fn judge(
    client: &Client,
    group: &str,
    version: &str,
    (kind, plural): (&str, &str),
    spec: &Value,
) -> Result<Value, String> {
    let object = object(group, version, kind, spec);
    let path = format!("/apis/{group}/{version}/namespaces/default/{plural}?dryRun=All");
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    match client.request::<Value>(request).await {
        Ok(kept) => Ok(kept["spec"].clone()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("no verdict: {error}"),
    }
}

fn object(group: &str, version: &str, kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": { "name": "object" }, "spec": spec
    })
}

/// What `aigw check --schema-only` says is what the API server said, and what it would keep is what that keeps.
fn same_offline(offline: &mut Admission, object: &Value, online: &Result<Value, String>, seed: u64) {
    let verdict = offline.admit(object).expect("a kind of ours");
    match online {
        Ok(kept) => {
            assert!(verdict.is_accepted(), "seed {seed}: {object}\noffline: {:?}", verdict.refusals);
            assert_eq!(verdict.object["spec"], *kept, "seed {seed}: {object}");
        }
        Err(said) => assert!(!verdict.is_accepted(), "seed {seed}: {object}\nthe API server: {said}"),
    }
}

#[test]
fn objects_of_our_own_kinds_are_judged_alike_without_an_api_server() {
    isolated(async |api| {
        install(&api, &definitions()).await;
        let mut offline = Admission::new();
        for definition in ai_gateway::resources::crd::all() {
            let spec = &definition["spec"];
            let group = spec["group"].as_str().expect("a group");
            if group == OURS {
                continue;
            }
            let names = &spec["names"];
            let (kind, plural) =
                (names["kind"].as_str().expect("a kind"), names["plural"].as_str().expect("a name"));
            let version = &spec["versions"][0];
            let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let version = version["name"].as_str().expect("a version");
            for seed in 0..OBJECTS {
                let mut objects = Objects::new(seed + 1);
                let mut spec = objects.value(schema, "spec", 0);
                if seed % 2 == 1 {
                    objects.spoil(&mut spec);
                }
                let online = judge(&api.client(), group, version, (kind, plural), &spec).await;
                same_offline(&mut offline, &object(group, version, kind, &spec), &online, seed);
            }
        }
    });
}

#[test]
fn objects_that_upstream_stored_are_read_without_migration() {
    let Some(data) = shared() else { return };
    isolated(async move |api| {
        let theirs: String =
            upstream(&data).iter().map(|definition| format!("---\n{definition}\n")).collect();
        install(&api, &theirs).await;
        let cases = [
            "aigatewayroutes/basic.yaml",
            "aiservicebackends/basic-eg-backend-aws.yaml",
            "backendsecuritypolicies/aws_oidc.yaml",
            "mcpgatewayroutes/basic.yaml",
        ];
        for case in cases {
            api.apply(&fs::read_to_string(data.join("crd-cases").join(case)).expect("a case")).await;
        }
        let kinds = ["aigatewayroutes", "aiservicebackends", "backendsecuritypolicies", "mcproutes"];
        let read = async |version: &str, kind: &str| {
            let kind = format!("{kind}.{version}.{OURS}");
            api.kubectl(&["get", &kind, "--all-namespaces", "-o", "jsonpath={.items[*].spec}"]).await
        };
        let mut before = Vec::new();
        for kind in kinds {
            before.push(read("v1beta1", kind).await);
        }
        install(&api, &definitions()).await;
        for (kind, before) in kinds.iter().zip(before) {
            assert!(before.len() > 20, "{kind}: {before}");
            assert_eq!(read("v1beta1", kind).await, before, "{kind}");
            assert_eq!(read("v1alpha1", kind).await, before, "{kind} for old clients");
            // It can be written too: what is kept is good under our rules.
            let kind = format!("{kind}.{OURS}");
            api.kubectl(&["annotate", &kind, "--all", "--all-namespaces", "touched=true"]).await;
        }
    });
}

/// A UsageLimit and a TenantPolicy, in which one thing can be changed.
const OWN: &str = r#"
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {name: own, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  output: {default: 100, clamp: true, minimum: 10}
  prices: {models: [{model: "*", input: "1.25", output: 10}]}
  limits:
    - {name: tokens, type: TotalToken, amount: 200k, window: {calendar: Month, timeZone: Europe/Berlin}, per: [Team]}
    - {name: money, type: Money, amount: "25.00", window: {every: 7d}, match: {tenants: [{organisation: a}], headers: [{name: x-a, type: Present}]}}
    - {name: flight, type: InFlight, amount: 10}
    - {name: computed, type: CEL, cel: input_tokens + 2u, amount: 1000, window: {rolling: 1h}, match: {tenants: [{anonymous: true}]}}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {name: own, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  gatewayKey: {mode: Optional}
  access: [{tenant: {organisation: a}, models: ["*"]}, {anonymous: true, models: [small]}]
"#;

#[test]
fn our_own_kinds_are_judged_by_their_rules() {
    isolated(async |api| {
        install(&api, &definitions()).await;
        api.apply(OWN).await;
        let mistakes = [
            ("kind: Gateway, name: g}]\n  output", "kind: Backend, name: g}]\n  output", "spec.targetRefs"),
            ("clamp: true", "clamp: false", "`minimum` needs `clamp: true`"),
            ("amount: 200k", "amount: 200 tokens", "amount"),
            ("amount: 10}", "amount: -1}", "amount"),
            ("calendar: Month, ", "", "spec.limits[0].window"),
            ("{every: 7d}", "{every: 7d, rolling: 1h}", "exactly one of `every`"),
            ("cel: input_tokens + 2u, ", "", "type CEL needs `cel`"),
            ("type: InFlight, ", "type: Request, ", "needs a `window`"),
            ("type: InFlight, ", "type: InFlight, mode: Record, ", "remove `mode`"),
            ("name: money", "name: tokens", "duplicate entries"),
            ("{anonymous: true}]}}", "{anonymous: true, team: a}]}}", "say which tenants"),
            ("type: Present", "type: Prefix", "needs a `value`"),
            (
                "kind: Gateway, name: g}]\n  gatewayKey",
                "kind: HTTPRoute, name: g}]\n  gatewayKey",
                "`gatewayKey`",
            ),
            ("{anonymous: true, models", "{anonymous: true, tenant: {team: a}, models", "has no tenant"),
            ("models: [small]", "models: []", "models"),
        ];
        for (right, wrong, said) in mistakes {
            assert!(OWN.contains(right), "{right}");
            let refused = api.try_apply(&OWN.replace(right, wrong)).await.expect_err(wrong);
            assert!(refused.contains(said), "{wrong}: {refused}");
        }
    });
}

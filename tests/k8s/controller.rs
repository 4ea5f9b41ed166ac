//! `aigw controller` at a real API server, without Envoy Gateway: who leads, what survives, what is said, what is left.

mod scale;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::apiserver::ApiServer;
use crate::support::{isolated, until, until_some};

const SYSTEM: &str = "envoy-ai-gateway-system";

/// What is tested, or another build of it: a debug build says little of how long things take.
fn binary() -> PathBuf {
    std::env::var_os("AIGW_K8S_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_aigw").into(), PathBuf::from)
}

/// A controller, as a process of its own.
struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    /// Starts the `index`th one, with ports of its own and a lease that is soon over.
    fn start(api: &ApiServer, index: u16) -> Self {
        Self::start_with(api, index, &["--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms"])
    }

    /// As [`Controller::start`], with these flags.
    fn start_with(api: &ApiServer, index: u16, more: &[&str]) -> Self {
        let log = api.folder().join(format!("controller-{index}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(binary());
        let level = "debug,hyper=warn,h2=warn,tower=warn,kube_client=info";
        command.args(["--log-level", level, "controller"]);
        command.arg("--kubeconfig").arg(api.kubeconfig());
        command.arg("--rollout-bound=1s");
        command.arg(format!("--admin=127.0.0.1:{}", 8080 + index));
        command.arg(format!("--config-listen=127.0.0.1:{}", 1065 + index));
        command.args(more).env("POD_NAME", format!("controller-{index}")).env_remove("POD_NAMESPACE");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file).kill_on_drop(true);
        Self { child: command.spawn().expect("aigw"), log }
    }

    /// As the kernel does it, with no time to say anything.
    async fn kill(&mut self) {
        self.child.kill().await.expect("kill");
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logged = self.logged();
            let lines: Vec<&str> = logged.lines().collect();
            println!("{}:\n{}", self.log.display(), lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// The definitions of Gateway API and Envoy Gateway.
async fn foreign_kinds(api: &ApiServer) {
    let charts = api.tools.path("eg-v1.8.1/chart/charts/crds/crds");
    install(api, &charts.join("gatewayapi-crds.yaml")).await;
    install(api, &charts.join("generated")).await;
}

/// Ours.
async fn own_kinds(api: &ApiServer) {
    install(api, &Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds")).await;
}

async fn install(api: &ApiServer, path: &Path) {
    api.kubectl(&["apply", "--server-side", "-f", path.to_str().expect("text")]).await;
    api.kubectl(&["wait", "--for", "condition=Established", "--timeout=60s", "crd", "--all"]).await;
}

async fn cluster(api: &ApiServer) {
    foreign_kinds(api).await;
    own_kinds(api).await;
    api.kubectl(&["create", "namespace", SYSTEM]).await;
}

/// An object, if it is there.
async fn find(api: &ApiServer, namespace: &str, kind: &str, name: &str) -> Option<Value> {
    let found = api.try_kubectl(&["-n", namespace, "get", kind, name, "-o", "json"]).await.ok()?;
    serde_json::from_str(&found).ok()
}

/// A condition of an object: status, reason and message.
async fn condition(
    api: &ApiServer,
    kind: &str,
    name: &str,
    wanted: &str,
) -> Option<(String, String, String)> {
    let object = find(api, "default", kind, name).await?;
    let conditions = object["status"]["conditions"].as_array()?.clone();
    let found = conditions.into_iter().find(|condition| condition["type"] == wanted)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(found["observedGeneration"], object["metadata"]["generation"], "{found}");
    Some((text("status"), text("reason"), text("message")))
}

async fn holder(api: &ApiServer) -> Option<String> {
    let lease = find(api, SYSTEM, "lease", "envoy-ai-gateway-controller").await?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned()).filter(|holder| !holder.is_empty())
}

async fn held_by(api: &ApiServer, index: u16) {
    let name = format!("controller-{index}_");
    until(&format!("{name} leads"), async || {
        holder(api).await.is_some_and(|holder| holder.starts_with(&name))
    })
    .await;
}

const ROUTE: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: route, namespace: default}
spec:
  parentRefs: [{name: gw, kind: Gateway, group: gateway.networking.k8s.io}]
  rules:
    - matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: some-model}]}]
      backendRefs: [{name: backend}]
";

const BACKEND: &str = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: backend, namespace: default}
spec:
  schema: {name: OpenAI}
  backendRef: {name: backend, kind: Backend, group: gateway.envoyproxy.io}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {name: key, namespace: default}
spec:
  type: APIKey
  apiKey: {secretRef: {name: key, namespace: default}}
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: backend}]
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: default}
stringData: {apiKey: sk-never-shown}
";

const GATEWAY: &str = "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: backend, namespace: default}
spec: {endpoints: [{fqdn: {hostname: backend.example, port: 443}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  gatewayClassName: eg
  listeners: [{name: http, protocol: HTTP, port: 80}]
";

/// All that carries our label.
async fn generated(api: &ApiServer) -> Vec<String> {
    let kinds = "httproutes,httproutefilters,envoyextensionpolicies,clienttrafficpolicies,backendtrafficpolicies,\
                 referencegrants,services";
    let label = "app.kubernetes.io/managed-by=envoy-ai-gateway";
    let found = api.kubectl(&["get", kinds, "-A", "-l", label, "-o", "name"]).await;
    found.lines().map(str::to_owned).collect()
}

#[test]
fn of_two_controllers_one_leads_and_the_other_takes_over_when_it_is_gone() {
    isolated(async |api| {
        cluster(&api).await;
        let mut first = Controller::start(&api, 1);
        held_by(&api, 1).await;
        let mut second = Controller::start(&api, 2);
        let follows = async || second.logged().contains("another controller leads");
        until("the second follows", follows).await;
        let key = until_some("the routing key", async || {
            find(&api, SYSTEM, "secret", "ai-gateway-routing-key").await
        })
        .await;
        first.kill().await;
        held_by(&api, 2).await;
        // What was made once stays, whoever leads.
        let again = find(&api, SYSTEM, "secret", "ai-gateway-routing-key").await.expect("the routing key");
        assert_eq!(again["data"], key["data"]);
        // Told to stop, it gives the lease back: the next one need not wait for its end.
        let id = second.child.id().expect("it runs").to_string();
        Command::new("kill").arg(id).status().await.expect("kill");
        assert!(second.child.wait().await.expect("it ends").success());
        assert_eq!(holder(&api).await, None);
    });
}

#[test]
fn an_api_server_that_goes_takes_nothing_away_and_leads_to_no_second_leader() {
    isolated(async |mut api| {
        cluster(&api).await;
        api.apply(&[GATEWAY, BACKEND, ROUTE].join("---")).await;
        let first = Controller::start(&api, 1);
        held_by(&api, 1).await;
        let said =
            until_some("a condition", async || condition(&api, "aigatewayroute", "route", "Accepted").await)
                .await;
        api.stop().await;
        until("it leads no longer", async || first.logged().contains("does not lead any longer")).await;
        api.resume().await;
        held_by(&api, 1).await;
        // It goes on: what changes is seen, and said.
        api.kubectl(&["-n", "default", "delete", "aiservicebackend", "backend"]).await;
        until("the change is said", async || {
            condition(&api, "aigatewayroute", "route", "ResolvedRefs")
                .await
                .is_some_and(|now| now.0 == "False")
                || condition(&api, "aigatewayroute", "route", "NotAccepted").await.is_some()
        })
        .await;
        assert_eq!(said.0, "True", "{said:?}");
        assert!(!first.logged().contains("sk-never-shown"));
    });
}

#[test]
fn kinds_that_are_not_installed_are_watched_once_they_appear() {
    isolated(async |api| {
        api.kubectl(&["create", "namespace", SYSTEM]).await;
        own_kinds(&api).await;
        api.apply(&[BACKEND, ROUTE].join("---")).await;
        let _controller = Controller::start(&api, 1);
        // Without Gateway API there is no Gateway, and so nothing in force.
        until("the route is judged", async || {
            condition(&api, "aigatewayroute", "route", "Programmed").await.is_some()
                || condition(&api, "aigatewayroute", "route", "NotAccepted").await.is_some()
        })
        .await;
        assert!(api.try_kubectl(&["get", "httproutes", "-A"]).await.is_err());
        foreign_kinds(&api).await;
        api.apply(GATEWAY).await;
        until("something is generated", async || !generated(&api).await.is_empty()).await;
    });
}

#[test]
fn deleting_a_gateway_or_a_route_leaves_nothing() {
    isolated(async |api| {
        cluster(&api).await;
        api.apply(&[GATEWAY, BACKEND, ROUTE].join("---")).await;
        let mut first = Controller::start(&api, 1);
        let httproute = async || find(&api, "default", "httproute", "route").await;
        until_some("the HTTPRoute", httproute).await;
        let route = find(&api, "default", "aigatewayroute", "route").await.expect("the route");
        assert_eq!(route["metadata"]["finalizers"][0], "aigateway.envoyproxy.io/finalizer");
        api.kubectl(&["-n", "default", "delete", "gateway", "gw"]).await;
        until("nothing is left of the Gateway", async || generated(&api).await.is_empty()).await;
        api.apply(GATEWAY).await;
        until_some("the HTTPRoute again", httproute).await;
        // Killed at any moment: the next one ends what was begun.
        first.kill().await;
        api.kubectl(&["-n", "default", "delete", "aigatewayroute", "route", "--wait=false"]).await;
        let waiting =
            find(&api, "default", "aigatewayroute", "route").await.expect("it waits for its controller");
        assert!(waiting["metadata"]["deletionTimestamp"].is_string());
        let _second = Controller::start(&api, 2);
        until("nothing is left", async || {
            find(&api, "default", "aigatewayroute", "route").await.is_none()
                && generated(&api).await.is_empty()
        })
        .await;
    });
}

#[test]
fn what_the_go_controller_marked_is_let_go_and_what_it_made_is_taken_over() {
    isolated(async |api| {
        cluster(&api).await;
        api.apply(&[GATEWAY, BACKEND, ROUTE].join("---")).await;
        let route = find(&api, "default", "aigatewayroute", "route").await.expect("the route");
        let uid = route["metadata"]["uid"].as_str().expect("a uid");
        api.apply(&format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route
  namespace: default
  annotations: {{gateway.envoyproxy.io/ai-gateway-generated: 'true'}}
  ownerReferences:
    - {{apiVersion: aigateway.envoyproxy.io/v1beta1, kind: AIGatewayRoute, name: route, uid: {uid}, controller: true, blockOwnerDeletion: true}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{matches: [{{path: {{type: PathPrefix, value: /theirs}}}}], backendRefs: [{{name: s, port: 80}}]}}]
"
        ))
        .await;
        let patch = r#"{"metadata":{"finalizers":["aigateway.envoyproxy.io/finalizer"]}}"#;
        api.kubectl(&["-n", "default", "patch", "aiservicebackend", "backend", "--type=merge", "-p", patch])
            .await;
        let _controller = Controller::start(&api, 1);
        until("the HTTPRoute is ours", async || {
            let route = find(&api, "default", "httproute", "route").await.expect("it stays");
            route["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "envoy-ai-gateway"
                && !route["spec"]["rules"].to_string().contains("/theirs")
        })
        .await;
        api.kubectl(&["-n", "default", "delete", "aiservicebackend", "backend", "--timeout=60s"]).await;
    });
}

#[test]
fn a_users_object_in_the_way_is_left_alone_and_named() {
    isolated(async |api| {
        cluster(&api).await;
        let theirs = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {type: PathPrefix, value: /theirs}}], backendRefs: [{name: s, port: 80}]}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: HTTPRouteFilter
metadata: {name: ai-eg-host-rewrite-route, namespace: default}
spec: {urlRewrite: {hostname: {type: Header, header: x-theirs}}}
";
        api.apply(&[GATEWAY, BACKEND, theirs, ROUTE].join("---")).await;
        let kinds = [("httproute", "route"), ("httproutefilter", "ai-eg-host-rewrite-route")];
        let versions = async || {
            let mut versions = Vec::new();
            for (kind, name) in kinds {
                let found = find(&api, "default", kind, name).await.expect("theirs");
                versions.push(found["metadata"]["resourceVersion"].clone());
            }
            versions
        };
        let before = versions().await;
        let _controller = Controller::start(&api, 1);
        until("the first conflict is said", async || {
            let route = find(&api, "default", "aigatewayroute", "route").await.expect("the route");
            route["status"].to_string().contains("HTTPRoute default/route is not one of ours")
        })
        .await;
        until("an event tells", async || {
            events(&api).await.contains("HTTPRoute default/route is not one of ours")
        })
        .await;
        assert_eq!(versions().await, before);
        // Once it is out of the way, the next one is.
        api.kubectl(&["-n", "default", "delete", "httproute", "route"]).await;
        let named = until_some("the second conflict is said", async || {
            let found = condition(&api, "aigatewayroute", "route", "Programmed").await?;
            (found.1 == "Conflict").then_some(found)
        })
        .await;
        assert!(named.2.contains("HTTPRouteFilter default/ai-eg-host-rewrite-route"), "{named:?}");
        until("an event tells", async || events(&api).await.contains("\"reason\": \"Conflict\"")).await;
        let filter = find(&api, "default", kinds[1].0, kinds[1].1).await.expect("theirs");
        assert_eq!(filter["metadata"]["resourceVersion"], before[1]);
        api.kubectl(&["-n", "default", "delete", "httproutefilter", kinds[1].1]).await;
        until("ours is there", async || {
            let filter = find(&api, "default", kinds[1].0, kinds[1].1).await;
            filter.is_some_and(|filter| {
                filter["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "envoy-ai-gateway"
            })
        })
        .await;
    });
}

async fn events(api: &ApiServer) -> String {
    api.kubectl(&["-n", "default", "get", "events.events.k8s.io", "-o", "json"]).await
}

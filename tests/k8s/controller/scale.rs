//! Many routes: what one edit takes, and that it touches nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::*;
use crate::support::http::{Peer, get};
use crate::support::programmer::{self, resource};

/// How many edits are measured.
const EDITS: usize = 5;

/// All kinds that the controller writes, or writes the status of.
const WRITTEN: [(&str, &str, &str, &str); 9] = [
    ("aigateway.envoyproxy.io", "v1beta1", "AIGatewayRoute", "aigatewayroutes"),
    ("aigateway.envoyproxy.io", "v1beta1", "AIServiceBackend", "aiservicebackends"),
    ("aigateway.envoyproxy.io", "v1beta1", "BackendSecurityPolicy", "backendsecuritypolicies"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
    ("gateway.envoyproxy.io", "v1alpha1", "HTTPRouteFilter", "httproutefilters"),
    ("gateway.envoyproxy.io", "v1alpha1", "EnvoyExtensionPolicy", "envoyextensionpolicies"),
    ("gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"),
    ("gateway.envoyproxy.io", "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies"),
];

#[test]
fn an_edit_of_one_of_many_routes_writes_nothing_else() {
    isolated(async |api| measure(api, 60).await);
}

/// Prints what `bench/RESULTS.md` shows: `AIGW_K8S_ROUTES` routes (1,000), of `AIGW_K8S_BINARY` (the one under test).
#[test]
#[ignore = "takes minutes: for figures"]
fn figures_of_thousands_of_routes() {
    isolated(async |api| {
        let count = std::env::var("AIGW_K8S_ROUTES").ok().and_then(|count| count.parse().ok());
        measure(api, count.unwrap_or(1000)).await;
    });
}

async fn measure(api: ApiServer, count: usize) {
    cluster(&api).await;
    programmer::start(&api.client());
    api.apply(&[GATEWAY, BACKEND].join("---")).await;
    let scale = Scale { api: &api, count };
    let begun = Instant::now();
    scale.create().await;
    println!("{count} routes: created in {:.1?}", begun.elapsed());

    let begun = Instant::now();
    let controller = Controller::start_with(&api, 1, &["--rollout-grace=500ms"]);
    let processor = Processor::start(&api).await;
    scale.everything_is_in_force().await;
    println!("{count} routes: all in force {:.1?} after the controller's start", begun.elapsed());
    scale.at_rest().await;
    println!("{count} routes: at rest {:.1?} after the controller's start", begun.elapsed());
    println!("{count} routes: {} writes, {}", scale.metric("writes_total").await, controller.memory());

    for edit in 0..EDITS {
        let (before, counted) = (scale.versions().await, scale.counters().await);
        let route = format!("route-{}", (edit * 7919) % count);
        let old = key(&find(&api, "default", "httproute", &route).await.expect("the HTTPRoute"));
        let begun = Instant::now();
        scale.edit(&route, &format!("edited-{edit}")).await;
        scale.wait("the HTTPRoute changes", async || scale.key_of(&route).await != old).await;
        let applied = begun.elapsed();
        let wanted = format!("edited-{edit}");
        scale.wait("the processor has it", async || processor.knows(&wanted)).await;
        let served = begun.elapsed();
        scale.wait("the old rule is gone", async || !scale.rules_of(&route).await.contains(&old)).await;
        // A status that says so may be of the edition before, which had both rules.
        scale.wait("the last edition is accepted", async || scale.is_accepted(&route).await).await;
        scale.wait("the route is in force", async || scale.is_in_force(&route).await).await;
        let settled = begun.elapsed();
        scale.at_rest().await;
        let now = scale.counters().await;
        println!(
            "{count} routes, edit {edit}: HTTPRoute applied after {applied:.2?}, processor after {served:.2?}, \
             settled after {settled:.2?}; {} writes, {} compilations of {:.2} s on average",
            now.writes - counted.writes,
            now.compilations - counted.compilations,
            (now.compile_seconds - counted.compile_seconds) / (now.compilations - counted.compilations),
        );
        let after = scale.versions().await;
        let changed: Vec<&String> =
            after.iter().filter(|(id, version)| before.get(*id) != Some(version)).map(|(id, _)| id).collect();
        let own = [format!("AIGatewayRoute {route}"), format!("HTTPRoute {route}")];
        assert_eq!(changed, own.iter().collect::<Vec<_>>(), "an edit of {route} is written elsewhere");
        assert!(now.writes - counted.writes < 20.0, "{} writes", now.writes - counted.writes);
    }
    println!("{count} routes: {}; the processor: {}", controller.memory(), processor.memory());
}

/// Many routes, each with a backend and a credential of its own.
struct Scale<'a> {
    api: &'a ApiServer,
    count: usize,
}

/// What the controller counts.
struct Counters {
    writes: f64,
    compilations: f64,
    compile_seconds: f64,
}

impl Scale<'_> {
    fn api_of(&self, (group, version, kind, plural): (&str, &str, &str, &str)) -> Api<DynamicObject> {
        let resource: ApiResource = resource(group, version, kind, plural);
        Api::namespaced_with(self.api.client(), "default", &resource)
    }

    async fn create(&self) {
        let (routes, backends, policies) =
            (self.api_of(WRITTEN[0]), self.api_of(WRITTEN[1]), self.api_of(WRITTEN[2]));
        let destinations = self.api_of(("gateway.envoyproxy.io", "v1alpha1", "Backend", "backends"));
        let put = async |api: &Api<DynamicObject>, object: Value| {
            let object: DynamicObject = serde_json::from_value(object).expect("an object");
            api.create(&PostParams::default(), &object).await.expect("it is taken");
        };
        let one = async |index: usize| {
            put(
                &destinations,
                json!({
                    "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
                    "metadata": {"name": format!("backend-{index}")},
                    "spec": {"endpoints": [{"fqdn": {"hostname": format!("p{index}.example"), "port": 443}}]},
                }),
            )
            .await;
            put(&backends, json!({
                "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIServiceBackend",
                "metadata": {"name": format!("backend-{index}")},
                "spec": {"schema": {"name": "OpenAI"}, "backendRef": {
                    "group": "gateway.envoyproxy.io", "kind": "Backend", "name": format!("backend-{index}"),
                }},
            })).await;
            put(&policies, json!({
                "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "BackendSecurityPolicy",
                "metadata": {"name": format!("backend-{index}")},
                "spec": {"type": "APIKey", "apiKey": {"secretRef": {"name": "key"}}, "targetRefs": [{
                    "group": "aigateway.envoyproxy.io", "kind": "AIServiceBackend", "name": format!("backend-{index}"),
                }]},
            })).await;
            let rule = rule(&format!("model-{index}"), &format!("backend-{index}"));
            put(&routes, json!({
                "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
                "metadata": {"name": format!("route-{index}")},
                "spec": {
                    "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}],
                    "rules": [rule],
                },
            })).await;
        };
        stream::iter(0..self.count).for_each_concurrent(16, one).await;
    }

    /// Another model, by another backend.
    async fn edit(&self, route: &str, model: &str) {
        let patch = Patch::Merge(json!({ "spec": { "rules": [rule(model, "backend")] } }));
        let routes = self.api_of(WRITTEN[0]);
        routes.patch(route, &PatchParams::default(), &patch).await.expect("it is taken");
    }

    /// Versions of everything that might be written.
    async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for kind in WRITTEN {
            let all = self.api_of(kind).list_metadata(&ListParams::default()).await.expect("a list");
            versions.extend(all.items.into_iter().map(|object| {
                let meta = object.metadata;
                let name = meta.name.unwrap_or_default();
                (format!("{} {name}", kind.2), meta.resource_version.unwrap_or_default())
            }));
        }
        versions
    }

    async fn everything_is_in_force(&self) {
        let routes = self.api_of(WRITTEN[0]);
        self.wait("all routes are in force", async || {
            let all = routes.list(&ListParams::default()).await.expect("a list");
            all.items.len() == self.count && all.items.iter().all(in_force)
        })
        .await;
    }

    async fn is_in_force(&self, route: &str) -> bool {
        in_force(&self.api_of(WRITTEN[0]).get(route).await.expect("the route"))
    }

    async fn key_of(&self, route: &str) -> String {
        key(&find(self.api, "default", "httproute", route).await.expect("the HTTPRoute"))
    }

    async fn rules_of(&self, route: &str) -> String {
        let found = find(self.api, "default", "httproute", route).await.expect("the HTTPRoute");
        found["spec"]["rules"].to_string()
    }

    async fn is_accepted(&self, route: &str) -> bool {
        let found = find(self.api, "default", "httproute", route).await.expect("the HTTPRoute");
        let said = &found["status"]["parents"][0]["conditions"][0]["observedGeneration"];
        *said == found["metadata"]["generation"]
    }

    /// Until what is compiled anew, three times, leads to no write, and all routes are in force: then nothing is left to do, and to look
    /// again does nothing.
    async fn at_rest(&self) {
        let destinations = self.api_of(("gateway.envoyproxy.io", "v1alpha1", "Backend", "backends"));
        let mut quiet = 0;
        let mut nudge = 0;
        while quiet < 3 {
            let before = self.counters().await;
            nudge += 1;
            let patch =
                json!({"metadata": {"annotations": {"test": format!("{:?}{nudge}", Instant::now())}}});
            let patch = Patch::Merge(patch);
            destinations.patch("backend", &PatchParams::default(), &patch).await.expect("it is taken");
            self.wait("it is compiled anew", async || {
                self.counters().await.compilations > before.compilations
            })
            .await;
            let routes = self.api_of(WRITTEN[0]).list(&ListParams::default()).await.expect("a list");
            let same = self.counters().await.writes <= before.writes && routes.items.iter().all(in_force);
            quiet = if same { quiet + 1 } else { 0 };
        }
    }

    async fn counters(&self) -> Counters {
        let text = self.metrics().await;
        Counters {
            writes: sum(&text, "aigw_controller_writes_total"),
            compilations: sum(&text, "aigw_controller_compilations_total"),
            compile_seconds: sum(&text, "aigw_controller_compile_seconds_sum"),
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        sum(&self.metrics().await, &format!("aigw_controller_{name}"))
    }

    async fn metrics(&self) -> String {
        let admin = Peer::Tcp("127.0.0.1:8081".parse().expect("an address"));
        admin.send(get("/metrics")).await.text()
    }

    /// As `until`, for as long as so many routes may take.
    async fn wait(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(20 + self.count as u64 / 20)).await;
            }
        };
        let limit = Duration::from_secs(90 + self.count as u64 / 5);
        tokio::time::timeout(limit, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
    }
}

fn rule(model: &str, backend: &str) -> Value {
    json!({
        "matches": [{"headers": [{"type": "Exact", "name": "x-ai-eg-model", "value": model}]}],
        "backendRefs": [{"name": backend}],
    })
}

fn in_force(route: &DynamicObject) -> bool {
    let conditions = route.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| {
        condition["type"] == "Programmed"
            && condition["status"] == "True"
            && condition["observedGeneration"].as_i64() == route.metadata.generation
    })
}

/// The routing key of the newest rule of an HTTPRoute: the last one with any.
fn key(http_route: &Value) -> String {
    let rules = http_route["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let mut keys = rules.iter().filter_map(|rule| {
        let headers = rule["matches"][0]["headers"].as_array()?;
        let key = headers.iter().find(|header| header["name"] == "x-ai-eg-route")?["value"].as_str()?;
        Some(key.to_owned()).filter(|key| key != "none")
    });
    keys.next_back().unwrap_or_default()
}

/// The sum over all series of a metric.
fn sum(text: &str, name: &str) -> f64 {
    let series = text.lines().filter(|line| line.starts_with(name));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A processor that is served by the controller.
struct Processor {
    child: Child,
    cache: PathBuf,
}

impl Processor {
    async fn start(api: &ApiServer) -> Self {
        use base64::Engine;
        let secret = until_some("the processors' certificate", async || {
            find(api, SYSTEM, "secret", "ai-gateway-extproc-tls").await
        })
        .await;
        let at = |name: &str| api.folder().join(format!("processor-{name}"));
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            let text = secret["data"][name].as_str().expect("a part of the Secret");
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("Base64");
            std::fs::write(at(name), bytes).expect("write");
        }
        // The names of the test's own mount namespace.
        let hosts = at("hosts");
        let name = format!("ai-gateway-controller.{SYSTEM}.svc");
        std::fs::write(&hosts, format!("127.0.0.1 localhost {name}\n")).expect("write");
        let mount = Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts").status().await;
        assert!(mount.expect("mount").success());
        let cache = at("cache");
        let log = File::create(at("log")).expect("a log");
        let mut command = Command::new(binary());
        command.args(["extproc", "--listen=127.0.0.1:1063", "--admin=127.0.0.1:1064"]);
        command.arg(format!("--controller=https://{name}:1066"));
        for (flag, file) in [("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")] {
            command.arg(format!("--controller-{flag}={}", at(file).display()));
        }
        command.arg(format!("--config-cache={}", cache.display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        Self { child: command.spawn().expect("aigw"), cache }
    }

    /// Whether what it has been sent, and has put into force, names this.
    fn knows(&self, text: &str) -> bool {
        let files = std::fs::read_dir(&self.cache).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read(file.path()).ok()).any(|bytes| {
            let document = String::from_utf8_lossy(&bytes);
            document.contains(&format!("\"{text}\""))
        })
    }

    fn memory(&self) -> String {
        memory(&self.child)
    }
}

impl Controller {
    fn memory(&self) -> String {
        memory(&self.child)
    }
}

fn memory(child: &Child) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap_or_default()));
    let status = status.unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    [line("VmHWM"), line("VmRSS")].join(" ").replace(['\t', ' '], "")
}

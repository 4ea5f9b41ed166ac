//! Everything that the gateway writes, shows and answers, searched for what clients prove themselves with.

use ai_gateway::keystore::Manager;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::support::http::Peer;

/// A gateway with every kind of credential that there is, each of them in use.
struct Scene {
    gateway: Gateway,
    resources: String,
    /// What nobody may find, by name.
    secrets: Vec<(&'static str, String)>,
    answers: Vec<String>,
    _folder: tempfile::TempDir,
}

const PASSWORD: &str = "password-of-ann-5d0a";
const ADMIN_TOKEN: &str = "token-of-the-key-admin-0123456789";

fn policies() -> String {
    let hash = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, PASSWORD.as_bytes()));
    let on = |name: &str| ON_ROUTE.replace("name: protected", &format!("name: {name}"));
    keys(ON_ROUTE)
        + &format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: users, namespace: default}}
stringData: {{.htpasswd: 'ann:{{SHA}}{hash}'}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: users, namespace: default}}
spec:
  targetRefs: [{}]
  basicAuth: {{users: {{name: users}}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: tokens, namespace: default}}
spec:
  targetRefs: [{}]
  jwt: {{providers: [{{name: idp, issuer: idp, audiences: [aigw], localJWKS: {{type: Inline, inline: '{}'}}}}]}}
---
",
            on("by-password"),
            on("by-token"),
            jwks(),
        )
        + &route("by-password", "for-users")
        + &route("by-token", "for-tokens")
}

impl Scene {
    async fn new(backend: &Backend) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("file:{}", folder.path().join("keys.jsonl").display());
        let manager = Manager::new(crate::keys::open(&store));
        let grant = json!({ "name": "k", "organisation": "acme" });
        let key = manager.create(serde_json::from_value(grant).unwrap(), SystemTime::now()).await.unwrap();
        let own = key.key.expose_secret().to_owned();
        std::fs::write(folder.path().join("token"), ADMIN_TOKEN).unwrap();
        let socket = folder.path().join("keys.sock");
        let resources = resources(backend, &policies());
        let gateway = Setup::new()
            .await?
            .yaml(&resources)
            .arg("--log-level")
            .arg("debug")
            .arg("--keys")
            .arg(&store)
            .arg("--key-admin")
            .arg(format!("unix://{}", socket.display()))
            .arg("--key-admin-token-file")
            .arg(folder.path().join("token"))
            .start()
            .await;
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let mut answers = Vec::new();
        for shown in [&bearer, "Bearer wrong-token-of-the-key-admin"] {
            let request = post("/v1/keys", &[("authorization", shown)], r#"{"name":""}"#);
            answers.push(Peer::Unix(socket.clone()).send(request).await.text());
        }
        let token = token(&json!({ "iss": "idp", "aud": "aigw", "sub": "bob" }));
        let secrets = vec![
            ("the key of a client", SECRETS[0].to_owned()),
            ("the key of another client", SECRETS[1].to_owned()),
            ("the provider's key", SECRETS[3].to_owned()),
            ("a password", PASSWORD.to_owned()),
            ("a password as it is sent", STANDARD.encode(format!("ann:{PASSWORD}"))),
            ("the hash of a password", hash_of(PASSWORD)),
            ("the key of an issuer", URL_SAFE_NO_PAD.encode(KEY)),
            ("a token", token.rsplit_once('.').unwrap().1.to_owned()),
            ("the secret of a key", own[18..].to_owned()),
            ("the token of the key admin", ADMIN_TOKEN.to_owned()),
            ("a wrong key", "aigw-wrong-key-of-somebody".to_owned()),
        ];
        let mut scene = Self { gateway, resources, secrets, answers, _folder: folder };
        scene.ask(&own, &token).await;
        Some(scene)
    }

    /// Each kind of credential, right and wrong, and requests that go wrong besides.
    async fn ask(&mut self, own: &str, token: &str) {
        let acme = format!("Bearer {}", SECRETS[0]);
        let password = format!("Basic {}", STANDARD.encode(format!("ann:{PASSWORD}")));
        until("keys have come", async || self.status("free", &[("x-api-key", own)]).await == 200).await;
        for (model, shown, wanted) in [
            ("paid", acme.as_str(), 200),
            ("for-users", &password, 200),
            ("for-tokens", token, 200),
            ("paid", token, 401),
            ("for-users", &acme, 401),
            ("for-tokens", &password, 401),
            ("nothing", &acme, 401),
            ("nothing", token, 401),
        ] {
            let headers = [("x-api-key", own), ("authorization", shown)];
            assert_eq!(self.status(model, &headers).await, wanted, "{model}");
        }
        for headers in [
            &[("x-api-key", "aigw-wrong-key-of-somebody")][..],
            &[("authorization", "Bearer aigw-wrong-key-of-somebody"), ("x-api-key", own)],
            &[("x-api-key", own), ("x-api-key", SECRETS[0])],
        ] {
            assert_eq!(self.status("free", headers).await, 401);
        }
        // What is refused for another reason.
        let path = "/nowhere";
        let answer =
            self.gateway.peer().send(post(path, &[("x-api-key", own), ("authorization", &acme)], "{")).await;
        self.answers.push(answer.text());
        let answer =
            self.gateway.peer().send(post(CHAT, &[("x-api-key", own), ("authorization", &acme)], "{")).await;
        self.answers.push(answer.text());
    }

    async fn status(&mut self, model: &str, headers: &[(&str, &str)]) -> u16 {
        let answer = self.gateway.peer().send(post(CHAT, headers, body(model))).await;
        self.answers.push(format!("{:?} {}", answer.headers, answer.text()));
        answer.status.as_u16()
    }

    fn search(&self, place: &str, text: &str) {
        assert!(!text.is_empty(), "{place} says nothing");
        for (what, secret) in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{place} holds {what}");
        }
    }
}

fn hash_of(password: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_holds_what_clients_prove_themselves_with() {
    let backend = Backend::start(&[]).await;
    let Some(scene) = Scene::new(&backend).await else { return };
    told(&scene.gateway, "tenant=acme/-/k").await;
    scene.search("an answer", &scene.answers.join("\n"));
    for path in ["/metrics", "/config", "/health"] {
        scene.search(path, &scene.gateway.admin().send(get(path)).await.text());
    }
    let envoy = Peer::Unix(scene.gateway.runtime_dir().join("envoy.sock"));
    for path in [
        "/config_dump?include_eds",
        "/clusters",
        "/listeners?format=json",
        "/stats",
        "/certs",
        "/server_info",
    ] {
        scene.search(&format!("Envoy's {path}"), &envoy.send(get(path)).await.text());
    }
    scene.search("the log", &scene.gateway.lines().join("\n"));
    // The provider has got its own key, and nothing of a client's.
    for seen in backend.all() {
        let seen = format!("{seen:?}").replace(SECRETS[3], "");
        scene.search("what the provider is sent", &seen);
    }
    for (arguments, place) in
        [(["run", "--print-envoy"], "--print-envoy"), (["run", "--print-config"], "--print-config")]
    {
        scene.search(place, &printed(&scene.resources, &arguments));
    }
    let request = "model=paid header=authorization:key-of-acme-1b7f header=x-api-token:key-of-acme-1b7f";
    scene.search(
        "check",
        &printed(&scene.resources, &["check", "--request", "model=paid", "--output", "json"]),
    );
    scene.search("check", &printed(&scene.resources, &["check", "--request", request]));
    scene.gateway.stop().await;
}

/// What a command prints for these resources.
fn printed(resources: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.yaml");
    std::fs::write(&file, resources).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_aigw")).args(arguments).arg(&file).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn no_type_of_the_configuration_shows_a_secret_in_its_debug_form() {
    use ai_gateway::compile::{CompileOptions, RoutingSecret, Sockets, compile};
    let folder = std::path::PathBuf::from("/run/aigw");
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: None,
        listen_address: std::net::Ipv4Addr::LOCALHOST.into(),
        first_port: 1975,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets {
            extproc: folder.join("extproc.sock"),
            envoy_admin: folder.join("envoy.sock"),
            embedded: folder,
        },
    };
    let text = resources_at("127.0.0.1:9".parse().unwrap(), &policies());
    let (snapshot, findings) = ai_gateway::resources::Snapshot::parse(&text);
    assert!(findings.is_empty(), "{findings:#?}");
    let compiled = compile(&snapshot, &options);
    let (runtime, problems) = ai_gateway::runtime::Runtime::new(compiled.config.clone());
    assert!(problems.is_empty(), "{problems:?}");
    let key = ai_gateway::keys::NewKey::generate(&[3; 64]);
    let secret = key.text.expose_secret()[18..].to_owned();
    let record =
        ai_gateway::keys::Record::new(&key, ai_gateway::keys::Grant::named("k"), SystemTime::now()).unwrap();
    let own = format!(
        "{key:?} {record:?} {:?}",
        ai_gateway::keys::Presented::parse(key.text.expose_secret().as_bytes())
    );
    let hash = record.to_json();
    let hash = hash.split("sha256:").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let shown = [
        format!("{snapshot:?}"),
        format!("{compiled:?}"),
        format!("{runtime:?}"),
        format!("{options:?}"),
        own,
    ];
    let secrets = [
        SECRETS[0].to_owned(),
        SECRETS[1].to_owned(),
        SECRETS[3].to_owned(),
        hash_of(PASSWORD),
        URL_SAFE_NO_PAD.encode(KEY),
        secret,
        hash,
    ];
    for (index, text) in shown.iter().enumerate() {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{index} shows {secret}");
        }
    }
}

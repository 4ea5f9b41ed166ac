//! HTTPS listeners: which certificates they show, and what happens to those that cannot be shown.

use super::*;

/// A certificate for a name, and its key, PEM.
fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secret(namespace: &str, name: &str, (chain, key): &(String, String)) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: {chain:?}, tls.key: {key:?}}}\n"
    )
}

/// The listeners `http` and `https`, the latter with this `tls`, a route that both serve, and more.
fn with_listener(tls: &str, more: &str) -> String {
    let gateway = GATEWAY
        .replace("port: 80}]", &format!("port: 80}}, {{name: https, protocol: HTTPS, port: 443, {tls}}}]"));
    [&gateway, &route("r", &model_rule("m", "{name: good}")), &backend("good", ""), more].concat()
}

#[test]
fn keys_are_in_files_of_their_own_and_nowhere_else() {
    let (one, two) = (pair("a.example.com"), pair("b.example.com"));
    let tls = "tls: {certificateRefs: [{name: one}, {name: two}, {name: one}]}";
    let more = [secret("default", "one", &one), secret("default", "two", &two)].concat();
    let compiled = compile_clean(&with_listener(tls, &more));
    let socket = &compiled.envoy.listeners[1].listener["filter_chains"][0]["transport_socket"];
    let context = &socket["typed_config"]["common_tls_context"];
    assert_eq!(context["alpn_protocols"], serde_json::json!(["h2", "http/1.1"]));
    let sources = context["tls_certificate_sds_secret_configs"].as_array().expect("certificates");
    let names: Vec<_> = sources.iter().map(|source| &source["name"]).collect();
    assert_eq!(names, ["default/one", "default/two"]);
    let path = &sources[0]["sds_config"]["path_config_source"]["path"];
    assert_eq!(path, "/run/aigw/certificate-default+one.json");
    assert!(compiled.envoy.listeners[0].listener["filter_chains"][0]["transport_socket"].is_null());
    assert_eq!(compiled.listeners.iter().map(|listener| listener.tls).collect::<Vec<_>>(), [false, true]);

    let files = &compiled.envoy.certificates;
    assert_eq!(files.len(), 2);
    let content = files[0].content("7");
    let content: Value = serde_json::from_str(secrecy::ExposeSecret::expose_secret(&content)).expect("JSON");
    assert_eq!(content["version_info"], "7");
    assert_eq!(content["resources"][0]["tls_certificate"]["private_key"]["inline_string"], one.1);
    let middle = one.1.lines().nth(1).expect("a line of the key");
    for text in [
        compiled.envoy.bootstrap().to_string(),
        compiled.envoy.dynamic_bootstrap(std::path::Path::new("/run/aigw")).to_string(),
        format!("{:?}", compiled.envoy.files(std::path::Path::new("/run/aigw"))),
        format!("{compiled:?}"),
    ] {
        assert!(!text.contains(middle));
    }
}

#[test]
fn a_certificate_that_cannot_be_shown_takes_out_its_own_listener() {
    let good = pair("a.example.com");
    let (chain, key) = good.clone();
    let other = pair("b.example.com");
    let reference = "tls: {certificateRefs: [{name: cert}]}";
    let cases: [(&str, String, &str); 11] = [
        ("allowedRoutes: {}", String::new(), "needs a certificate"),
        ("tls: {mode: Passthrough}", String::new(), "cannot be routed by model"),
        ("tls: {}", String::new(), "needs a certificate"),
        (reference, String::new(), "there is no Secret default/cert"),
        (reference, key_secret("{other: x}"), "has no key `tls.crt`"),
        (
            reference,
            secret("default", "cert", &("x".to_owned(), key.clone())),
            "`tls.crt` of Secret default/cert has no certificate",
        ),
        (reference, secret("default", "cert", &(chain.clone(), "x".to_owned())), "has no private key"),
        (
            reference,
            secret("default", "cert", &(chain.clone(), other.1.clone())),
            "is not the key of the certificate",
        ),
        (
            reference,
            secret(
                "default",
                "cert",
                &("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), key),
            ),
            "has a certificate that cannot be read",
        ),
        (
            "tls: {certificateRefs: [{name: cert, namespace: vault}]}",
            secret("vault", "cert", &good),
            "add a ReferenceGrant to namespace `vault`",
        ),
        (
            "tls: {certificateRefs: [{name: cert, kind: ConfigMap}]}",
            String::new(),
            "a ConfigMap cannot hold a certificate",
        ),
    ];
    for (tls, more, words) in cases {
        let compiled = compile_text(&with_listener(tls, &more));
        let said = messages(&compiled);
        assert!(said.contains(words), "{tls}: {said}");
        assert!(said.contains("this listener is left out"), "{said}");
        assert!(compiled.diagnostics.has_errors());
        let served: Vec<_> = compiled.listeners.iter().map(|listener| listener.name.as_str()).collect();
        assert_eq!(served, ["http"], "{tls}");
        assert!(compiled.serves() && compiled.envoy.certificates.is_empty());
        for secret in [&chain, &good.1, &other.1] {
            assert!(!said.contains(secret.lines().nth(1).expect("a line")), "{said}");
        }
    }
}

fn key_secret(data: &str) -> String {
    format!("\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert}}\nstringData: {data}\n")
}

#[test]
fn a_grant_opens_another_namespace_and_http_takes_no_certificate() {
    let grant = "
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: vault}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]
  to: [{group: '', kind: Secret, name: cert}]
";
    let tls = "tls: {certificateRefs: [{name: cert, namespace: vault}]}";
    let more = [&*secret("vault", "cert", &pair("a.example.com")), grant].concat();
    let compiled = compile_clean(&with_listener(tls, &more));
    assert_eq!(compiled.envoy.certificates[0].secret, "vault/cert");

    let text = with_listener(tls, &more).replace("protocol: HTTPS", "protocol: HTTP");
    let compiled = compile_text(&text);
    assert!(
        messages(&compiled).contains("a listener of protocol HTTP speaks no TLS"),
        "{}",
        messages(&compiled)
    );
    assert_eq!(compiled.listeners.len(), 1);
}

#[test]
fn keys_that_envoy_does_not_use_are_told() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let params = rcgen::CertificateParams::new(["a.example.com".to_owned()]).expect("a name");
    let chain = params.self_signed(&key).expect("a certificate").pem();
    let more = secret("default", "cert", &(chain, key.serialize_pem()));
    let compiled = compile_text(&with_listener("tls: {certificateRefs: [{name: cert}]}", &more));
    assert!(messages(&compiled).contains("Ed25519"), "{}", messages(&compiled));
}

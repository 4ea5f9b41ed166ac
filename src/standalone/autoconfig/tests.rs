//! Environments in, documents that compile without a word out.

use std::net::Ipv4Addr;

use secrecy::ExposeSecret;
use serde_json::Value;

use super::*;
use crate::compile::{CompileOptions, Compiled, RoutingSecret, Sockets, compile};
use crate::resources::{Source, parse};

type Variables<'a> = &'a [(&'a str, &'a str)];

fn auto(variables: Variables<'_>) -> Result<AutoConfig, AutoConfigError> {
    AutoConfig::from_env(&|name| value(variables, name))
}

fn value(variables: Variables<'_>, name: &str) -> Option<String> {
    variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

/// Reads and compiles the document as a run would.
fn compiled(variables: Variables<'_>) -> Compiled {
    let document = auto(variables).expect("a document").document;
    let (snapshot, findings) = parse([Source::new(SOURCE, document)], &|name| value(variables, name));
    assert!(findings.is_empty(), "{}", findings.render(false));
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: Some("/etc/ssl/ca.crt".into()),
        listen_address: Ipv4Addr::LOCALHOST.into(),
        first_port: 1975,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets { extproc: "e".into(), envoy_admin: "a".into(), embedded: "b".into() },
    };
    let compiled = compile(&snapshot, &options);
    assert!(compiled.diagnostics.is_empty(), "{}", compiled.diagnostics.render(false));
    compiled
}

fn schema(variables: Variables<'_>) -> Value {
    compiled(variables).config.redacted()["backends"][0]["schema"].clone()
}

const KEY: &str = "sk-live-1234567890";

#[test]
fn openais_document() {
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_ORG_ID", "org-1"), ("OPENAI_PROJECT_ID", "proj-1")];
    insta::assert_snapshot!(auto(&variables).expect("a document").document);
    let compiled = compiled(&variables);
    let backend = &compiled.config.backends[0];
    let key = backend.auth.as_ref().and_then(|auth| auth.api_key.as_ref()).expect("a key");
    assert_eq!(key.key.expose_secret(), KEY);
    let set = &backend.header_mutation.as_ref().expect("edits").set;
    let set: Vec<_> = set.iter().map(|header| (header.name.as_str(), header.value.as_str())).collect();
    assert_eq!(set, [("openai-organization", "org-1"), ("openai-project", "proj-1")]);
}

#[test]
fn azures_document() {
    insta::assert_snapshot!(
        auto(&[
            ("AZURE_OPENAI_API_KEY", KEY),
            ("AZURE_OPENAI_ENDPOINT", "https://res.openai.azure.com/"),
            ("OPENAI_API_VERSION", "2025-01-01-preview"),
        ])
        .expect("a document")
        .document
    );
}

#[test]
fn anthropics_document() {
    insta::assert_snapshot!(auto(&[("ANTHROPIC_API_KEY", KEY)]).expect("a document").document);
}

#[test]
fn every_provider_compiles_with_its_kind_of_key() {
    let azure = [
        ("AZURE_OPENAI_API_KEY", KEY),
        ("AZURE_OPENAI_ENDPOINT", "https://res.openai.azure.com"),
        ("OPENAI_API_VERSION", "2025-01-01-preview"),
    ];
    for (variables, member) in [
        (&[("OPENAI_API_KEY", KEY)][..], "apiKey"),
        (&azure, "azureAPIKey"),
        (&[("ANTHROPIC_API_KEY", KEY)], "anthropicAPIKey"),
    ] {
        let document = compiled(variables).config.redacted();
        assert!(document["backends"][0]["auth"][member].is_object(), "{document:#}");
    }
    assert_eq!(schema(&azure)["version"], "2025-01-01-preview");
}

#[test]
fn the_path_of_the_base_url_becomes_the_prefix() {
    for (url, prefix) in [
        ("https://api.openai.com/v1", "v1"),
        ("https://api.openai.com/v1/", "v1"),
        ("http://localhost:11434", "v1"),
        ("https://openrouter.ai/api/v1", "api/v1"),
        ("https://x.example/openai/v1", "openai/v1"),
    ] {
        assert_eq!(schema(&[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", url)])["prefix"], prefix, "{url}");
    }
    for (url, prefix) in [
        ("https://api.anthropic.com", "v1"),
        ("https://api.anthropic.com/v1", "v1"),
        ("https://x.example/anthropic/", "anthropic/v1"),
    ] {
        let variables = [("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", url)];
        assert_eq!(schema(&variables)["prefix"], prefix, "{url}");
    }
}

#[test]
fn http_is_spoken_without_tls_and_addresses_are_addresses() {
    let destination = |url| {
        let compiled = compiled(&[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", url)]);
        let crate::compile::RuleFate::Forwarded(destinations) = &compiled.listeners[0].described[0].fate
        else {
            panic!("served")
        };
        (destinations[0].addresses.join(","), destinations[0].tls.clone())
    };
    assert_eq!(destination("http://127.0.0.1:8080/v1"), ("127.0.0.1:8080".to_owned(), None));
    assert_eq!(destination("http://[::1]/v1"), ("[::1]:80".to_owned(), None));
    let tls = Some("llm.example.com".to_owned());
    assert_eq!(destination("https://LLM.example.com/v1"), ("llm.example.com:443".to_owned(), tls));
}

#[test]
fn the_first_provider_counts_and_the_others_are_named() {
    let all = [("OPENAI_API_KEY", " "), ("ANTHROPIC_API_KEY", KEY), ("AZURE_OPENAI_API_KEY", "")];
    let summary = auto(&all).expect("a document").summary;
    assert_eq!(summary, "no files: requests go to https://api.anthropic.com with ANTHROPIC_API_KEY");
    let both = [("OPENAI_API_KEY", KEY), ("ANTHROPIC_API_KEY", KEY)];
    let summary = auto(&both).expect("a document").summary;
    assert!(
        summary.contains("api.openai.com/v1 with OPENAI_API_KEY (ANTHROPIC_API_KEY is set too"),
        "{summary}"
    );
}

#[test]
fn no_key_is_ever_in_what_can_be_printed() {
    let variables = [("OPENAI_API_KEY", KEY), ("ANTHROPIC_API_KEY", "sk-ant-secret")];
    let made = auto(&variables).expect("a document");
    assert!(!format!("{made:?}").contains(KEY));
    assert!(!format!("{made:?}").contains("sk-ant-secret"));
    assert!(!format!("{:?}", compiled(&variables)).contains(KEY));
}

#[test]
fn mistakes_are_explained() {
    let error = |variables: Variables<'_>| auto(variables).expect_err("refused").to_string();
    let nothing = error(&[("OPENAI_BASE_URL", "https://x.example")]);
    for word in ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"] {
        assert!(nothing.contains(word), "{nothing}");
    }
    let azure = error(&[("AZURE_OPENAI_API_KEY", KEY)]);
    assert!(azure.contains("AZURE_OPENAI_ENDPOINT is not"), "{azure}");
    let azure = error(&[("AZURE_OPENAI_API_KEY", KEY), ("AZURE_OPENAI_ENDPOINT", "https://a.example")]);
    assert!(azure.contains("OPENAI_API_VERSION is not"), "{azure}");
    for (url, words) in [
        ("api.openai.com", "neither https:// nor http://"),
        ("ftp://x", "neither https:// nor http://"),
        ("https://user:pass@x.example/v1", "password"),
        ("https://x.example/v1?a=b", "query"),
        ("https://", "URL"),
    ] {
        let error = error(&[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", url)]);
        assert!(error.contains(words) && error.contains("OPENAI_BASE_URL"), "{url}: {error}");
        assert!(!error.contains("pass@"), "{error}");
    }
}

//! How `aigw run` ends, and what it says when it cannot begin.

use http_body_util::BodyExt;
use tokio::net::TcpListener;

use crate::support::backend::Backend;
use crate::support::gateway::Setup;
use crate::support::http::post;
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_lets_a_stream_in_flight_end() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let resources =
        yaml::gateway("1Mi") + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let gateway = setup.yaml(resources).start().await;
    // Long enough to be under way when the interrupt comes, whenever that is.
    let knobs = [("x-testbackend-chunks", "20"), ("x-testbackend-pace", "100ms")];
    let response = gateway.peer().open(post(CHAT, &knobs, r#"{"model":"m","stream":true}"#)).await.unwrap();
    let mut body = response.into_body();
    let mut text = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    assert!(backend.counters().requests_active == 1, "the stream was over before the interrupt");
    gateway.interrupt();
    let addr = gateway.addr;
    // From then on nobody is let in, and yet what is in flight goes on to its end.
    let refused =
        until("new connections are refused", async || tokio::net::TcpStream::connect(addr).await.is_err());
    let ((), rest) = tokio::join!(refused, body.collect());
    text.extend_from_slice(&rest.expect("the whole stream").to_bytes());
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    gateway.ended().await;
    assert_eq!(backend.idle().await.completed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_names_the_option() {
    let Some(setup) = Setup::new().await else { return };
    let holder = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = holder.local_addr().unwrap().port();
    let backend = Backend::start(&[]).await;
    let resources =
        yaml::gateway("1Mi") + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let output = setup.arg("--listen").arg(format!("http={port}")).yaml(resources).output().await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains(&port.to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_field_is_named_with_its_line_and_the_nearest_name() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let resources =
        yaml::gateway("1Mi") + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let output = setup.yaml(resources.replace("backendRefs", "backendRef")).output().await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("backendRefs") && error.contains("1.yaml:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_envoy_configuration_is_valid() {
    let Some(setup) = Setup::new().await else { return };
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/basic/basic.yaml");
    let output = setup.file(example).arg("--print-envoy").output().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dir = tempfile::tempdir().unwrap();
    // The document is JSON or YAML; Envoy tells by the name, and JSON is YAML.
    let file = dir.path().join("envoy.yaml");
    std::fs::write(&file, &output.stdout).unwrap();
    let envoy = crate::support::envoy::binary().await.unwrap();
    let checked =
        std::process::Command::new(envoy).args(["--mode", "validate", "-c"]).arg(file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

//! The knobs as a client sees them, over real sockets.

use std::io::Read;
use std::net::SocketAddr;

use clap::Parser;
use http_body_util::Collected;
use hyper::client::conn::{http1, http2};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[expect(clippy::disallowed_methods, reason = "the test's runtime is the owner, and ends with the test")]
fn spawn(task: impl Future<Output: Send + 'static> + Send + 'static) {
    drop(tokio::spawn(task));
}

async fn backend(flags: &[&str]) -> (Handle, SocketAddr) {
    let args = Cli::parse_from([&["testbackend", "--listen=127.0.0.1:0"], flags].concat()).args;
    let handle = start(args.listen, args.options).await.unwrap();
    let addr = handle.local_addr().socket_addr().unwrap();
    (handle, addr)
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

async fn send(addr: SocketAddr, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
    let socket = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    spawn(connection);
    sender.send_request(request).await
}

async fn chat(addr: SocketAddr, headers: &[(&str, &str)], body: &str) -> (Parts2, Collected<Bytes>) {
    let response = send(addr, post("/v1/chat/completions", headers, body.to_owned())).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts, body.collect().await.unwrap())
}

type Parts2 = http::response::Parts;

const STREAM: &str = r#"{"model":"m","stream":true}"#;

/// The frames of an answer until its end or failure.
async fn frames(addr: SocketAddr, fault: &str, body: &str) -> (Vec<Bytes>, Option<hyper::Error>) {
    let request = post("/v1/chat/completions", &[("x-testbackend-fault", fault)], body.to_owned());
    let mut body = send(addr, request).await.unwrap().into_body();
    let mut frames = Vec::new();
    loop {
        match body.frame().await {
            None => return (frames, None),
            Some(Ok(frame)) => frames.push(frame.into_data().unwrap()),
            Some(Err(e)) => return (frames, Some(e)),
        }
    }
}

/// Waits until nothing is going on.
async fn idle(handle: &Handle) -> Counters {
    loop {
        let counters = handle.counters();
        if counters.requests_active == 0 && counters.connections_active == 0 {
            return counters;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_knobs_the_walkthroughs_answer_comes_back() {
    let (handle, addr) = backend(&["--id=one"]).await;
    let (head, body) = chat(addr, &[], r#"{"model":"m","messages":[]}"#).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["x-testbackend-id"], "one");
    assert_eq!(
        body.to_bytes(),
        r#"{"choices":[{"message":{"role":"assistant", "content":"I am inevitable."}}]}"#
    );
    let counters = idle(&handle).await;
    assert_eq!((counters.requests, counters.completed, counters.aborted), (1, 1, 0));
}

#[tokio::test]
async fn paths_and_methods() {
    let (_handle, addr) = backend(&[]).await;
    for (request, status) in [
        (Request::get("/health"), 200),
        (Request::get("/v1/models"), 200),
        (Request::get("/prefix/v1/chat/completions"), 405),
        (Request::get("/elsewhere"), 404),
        (Request::get("/testbackend/elsewhere"), 404),
    ] {
        let request = request.header("host", "test").body(Full::default()).unwrap();
        let path = request.uri().to_string();
        let response = send(addr, request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap();
    }
}

#[tokio::test]
async fn status_body_type_and_trailers() {
    let (_handle, addr) = backend(&["--status=503"]).await;
    let (head, body) = chat(addr, &[], "{}").await;
    assert_eq!(head.status, 503);
    assert_eq!(serde_json::from_slice::<Value>(&body.to_bytes()).unwrap()["error"]["type"], "server_error");

    let knobs = [
        ("x-testbackend-status", "201"),
        ("x-testbackend-body", "hello"),
        ("x-testbackend-content-type", "text/plain"),
        ("x-testbackend-trailers", "x-sum=5,x-more=6"),
        ("te", "trailers"),
    ];
    let (head, body) = chat(addr, &knobs, "not even JSON").await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (201, &HeaderValue::from_static("text/plain"))
    );
    let trailers = body.trailers().unwrap();
    assert_eq!((&trailers["x-sum"], &trailers["x-more"]), (&"5".parse().unwrap(), &"6".parse().unwrap()));
    assert_eq!(body.to_bytes(), "hello");
}

#[tokio::test]
async fn a_knob_that_is_not_understood_is_refused_by_name() {
    let (_handle, addr) = backend(&[]).await;
    let (head, body) = chat(addr, &[("x-testbackend-dealy", "1s")], "{}").await;
    assert_eq!(head.status, 400);
    assert!(String::from_utf8_lossy(&body.to_bytes()).contains("x-testbackend-dealy"));
    assert!(Cli::try_parse_from(["testbackend", "--fault=explode"]).is_err());
    assert!(Cli::try_parse_from(["testbackend", "--listen=nowhere"]).is_err());
    assert!(Cli::try_parse_from(["testbackend", "--tls-self-signed=x"]).is_err(), "needs --tls-ca-out");
}

#[tokio::test]
async fn echo_tells_what_was_received_and_requests_are_on_record() {
    let (handle, addr) = backend(&[]).await;
    let headers =
        [("x-testbackend-echo", "true"), ("authorization", "Bearer k"), ("x-twice", "a"), ("x-twice", "b")];
    let (_, body) = chat(addr, &headers, "any text").await;
    let echo: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["path"], "/v1/chat/completions");
    assert_eq!(echo["headers"]["authorization"], json!(["Bearer k"]));
    assert_eq!(echo["headers"]["x-twice"], json!(["a", "b"]));
    assert_eq!(echo["body"], "any text");
    assert_eq!(echo["tls"], Value::Null);

    let large = vec![b'x'; 100_000];
    send(addr, post("/v1/chat/completions", &[], large)).await.unwrap().into_body().collect().await.unwrap();
    let request =
        Request::get("/testbackend/requests?last=1").header("host", "test").body(Full::default()).unwrap();
    let listed = send(addr, request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["body_bytes"], 100_000);
    assert_eq!(listed[0]["body"].as_str().unwrap().len(), 64 * 1024);
    assert_eq!(listed[0]["body_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(listed[0]["outcome"], "completed");

    let request =
        Request::delete("/testbackend/requests").header("host", "test").body(Full::default()).unwrap();
    send(addr, request).await.unwrap();
    assert_eq!((handle.requests(9).len(), handle.counters().requests), (0, 0));
}

#[tokio::test]
async fn the_record_is_bounded() {
    let (handle, addr) = backend(&[]).await;
    let socket = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    spawn(connection);
    for _ in 0..300 {
        let response = sender.send_request(post("/v1/chat/completions", &[], "{}")).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let kept = handle.requests(usize::MAX);
    assert_eq!((kept.len(), kept[255].number), (256, 299));
    assert_eq!(handle.counters().requests, 300);
}

#[tokio::test]
async fn encoded_answers_decode_event_by_event() {
    let (_handle, addr) = backend(&[]).await;
    for encoding in ["gzip", "br"] {
        let headers = [("x-testbackend-encoding", "auto"), ("accept-encoding", encoding)];
        let (head, body) = chat(addr, &headers, STREAM).await;
        assert_eq!(head.headers["content-encoding"], encoding);
        let wire = body.to_bytes();
        let mut text = String::new();
        if encoding == "gzip" {
            flate2::read::GzDecoder::new(&*wire).read_to_string(&mut text).unwrap();
        } else {
            brotli_decompressor::Decompressor::new(&*wire, 4096).read_to_string(&mut text).unwrap();
        }
        assert!(text.starts_with("data: {") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test]
async fn a_reset_before_the_headers_and_one_after_two_events() {
    let (handle, addr) = backend(&[]).await;
    let request = post("/v1/chat/completions", &[("x-testbackend-fault", "reset")], STREAM);
    assert!(send(addr, request).await.is_err());
    let (frames, error) = frames(addr, "reset:2", STREAM).await;
    assert_eq!(frames.len(), 2);
    assert!(frames[1].starts_with(b"data: {"));
    assert!(error.is_some());
    assert_eq!(idle(&handle).await.faulted, 2);
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_close_is_not() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_handle, addr) = backend(&[]).await;
    for (fault, reset) in [("reset:1", true), ("close:1", false)] {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nx-testbackend-fault: {fault}\r\ncontent-length: {}\r\n\r\n{STREAM}",
            STREAM.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let end = socket.read_to_end(&mut got).await;
        assert_eq!(
            end.map_err(|e| e.kind()).err(),
            reset.then_some(io::ErrorKind::ConnectionReset),
            "{fault}"
        );
        let got = String::from_utf8_lossy(&got);
        assert!(got.contains("\"role\":\"assistant\"") && !got.ends_with("0\r\n\r\n"), "{got}");
    }
}

#[tokio::test]
async fn a_unary_answer_can_break_in_its_middle() {
    let (_handle, addr) = backend(&[]).await;
    let (frames, error) = frames(addr, "close:1", "{}").await;
    assert!(error.is_some());
    assert_eq!(frames.concat().len(), answer::INEVITABLE.len() / 2);
}

#[tokio::test]
async fn a_cut_ends_inside_an_event_as_if_whole() {
    let (handle, addr) = backend(&[]).await;
    let (frames, error) = frames(addr, "cut:2", STREAM).await;
    assert!(error.is_none());
    assert_eq!(frames.len(), 3);
    assert!(frames[2].starts_with(b"data: {") && !frames[2].ends_with(b"\n"));
    assert_eq!(idle(&handle).await.faulted, 1);
}

#[tokio::test]
async fn garbage_comes_between_the_events() {
    let (_handle, addr) = backend(&[]).await;
    let (frames, error) = frames(addr, "garbage:1", STREAM).await;
    assert!(error.is_none());
    let all = frames.concat();
    assert!(std::str::from_utf8(&all).is_err());
    assert!(all.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn an_endless_stream_goes_on_until_the_client_goes_and_then_stops() {
    let (handle, addr) = backend(&[]).await;
    let request = post("/v1/chat/completions", &[("x-testbackend-fault", "endless")], STREAM);
    let mut body = send(addr, request).await.unwrap().into_body();
    for _ in 0..100 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    let counters = idle(&handle).await;
    assert_eq!((counters.aborted, counters.completed, counters.faulted), (1, 0, 0));
    assert!(counters.chunks_sent >= 100);
    assert_eq!(handle.requests(1)[0].outcome, Outcome::Aborted);
    assert_eq!(handle.requests(1)[0].chunks_sent, counters.chunks_sent);
}

#[tokio::test]
async fn a_stalled_stream_stays_open_until_the_client_goes() {
    let (handle, addr) = backend(&[]).await;
    let request = post("/v1/chat/completions", &[("x-testbackend-fault", "stall:2")], STREAM);
    let mut body = send(addr, request).await.unwrap().into_body();
    let mut got = Vec::new();
    while got.windows(2).filter(|w| w == b"\n\n").count() < 2 {
        got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(handle.counters().requests_active, 1);
    drop(body);
    assert_eq!(idle(&handle).await.chunks_sent, 2);
}

#[tokio::test]
async fn http2_without_tls_and_over_tls_by_alpn() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let out = format!("--tls-ca-out={}", ca.display());
    for flags in [&[] as &[&str], &["--tls-self-signed=api.example.com,127.0.0.1", &out]] {
        let (handle, addr) = backend(flags).await;
        let socket = TcpStream::connect(addr).await.unwrap();
        let knobs = [("x-testbackend-trailers", "x-sum=5")];
        let request = post("http://api.example.com/v1/chat/completions", &knobs, STREAM);
        let response = if flags.is_empty() {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
            spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let socket = tls_client(&ca, &["h2"])
                .connect("api.example.com".try_into().unwrap(), socket)
                .await
                .unwrap();
            assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
            spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "5");
        assert!(body.to_bytes().ends_with(b"data: [DONE]\n\n"));
        let seen = handle.requests(1).remove(0);
        assert_eq!((&*seen.version, &*seen.authority), ("HTTP/2.0", "api.example.com"));
        assert_eq!(seen.tls.as_deref(), (!flags.is_empty()).then_some("api.example.com"));
    }
}

#[tokio::test]
async fn a_tls_client_that_does_not_know_the_authority_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    let flag = |path: &std::path::Path| format!("--tls-ca-out={}", path.display());
    let (_a, addr) = backend(&["--tls-self-signed=localhost", &flag(&ours)]).await;
    let (_b, _) = backend(&["--tls-self-signed=localhost", &flag(&other)]).await;
    for (ca, name, ok) in
        [(&ours, "localhost", true), (&other, "localhost", false), (&ours, "elsewhere", false)]
    {
        let socket = TcpStream::connect(addr).await.unwrap();
        let connected = tls_client(ca, &["http/1.1"]).connect(name.try_into().unwrap(), socket).await;
        assert_eq!(connected.is_ok(), ok, "{name}");
    }
}

fn tls_client(ca: &std::path::Path, alpn: &[&str]) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}

#[tokio::test]
async fn a_unix_socket_serves_and_shutdown_frees_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let handle = start(Listen::Unix(path.clone()), Options::default()).await.unwrap();
    let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    spawn(connection);
    let response = sender.send_request(post("/v1/chat/completions", &[], "{}")).await.unwrap();
    assert_eq!(response.status(), 200);
    handle.shutdown().await;
    assert!(!path.exists());

    let (handle, addr) = backend(&[]).await;
    handle.shutdown().await;
    let again = start(Listen::Tcp(addr), Options::default()).await.unwrap();
    assert_eq!(again.local_addr().socket_addr(), Some(addr));
}

/// Delay and pace are times that are waited on tokio's clock, so a stopped clock shows them without waiting.
#[tokio::test(start_paused = true)]
async fn delay_and_pace_wait_on_the_clock() {
    let (_handle, addr) = backend(&["--delay=10s"]).await;
    let start = tokio::time::Instant::now();
    chat(addr, &[("x-testbackend-pace", "1s"), ("x-testbackend-chunks", "5")], STREAM).await;
    // Role, five words, stop and the end mark: seven pauses.
    assert_eq!(start.elapsed().as_secs(), 17);
}

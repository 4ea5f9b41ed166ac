//! A provider in the outside world of the tests: HTTPS, with a certificate of an authority that pods trust.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::cluster::WORLD;
use super::spawn;

/// What is known of a request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) authorization: String,
    pub(crate) path: String,
    pub(crate) model: String,
    /// Names of headers that are the gateway's own affair.
    pub(crate) internal: Vec<String>,
}

/// Answers chat completions, and remembers who asked.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    /// PEM of the authority.
    pub(crate) authority: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    /// Serves under this name on port 443 of the outside world.
    pub(crate) async fn start(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the outside world");
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate");
        let this = Self { authority, seen: Arc::default() };
        let listener = TcpListener::bind(SocketAddr::from((WORLD, 443))).await.expect("port 443");
        spawn(this.clone().serve(listener, TlsAcceptor::from(Arc::new(config))));
        this
    }

    /// What came in since this was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().expect("seen"))
    }

    async fn serve(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((socket, _)) = listener.accept().await {
            let (this, acceptor) = (self.clone(), acceptor.clone());
            spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                let service = service_fn(move |request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.answer(request).await) }
                });
                // A client that goes away is no concern of the provider's.
                _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        let internal = head.headers.keys().map(|name| name.as_str().to_owned());
        self.seen.lock().expect("seen").push(Seen {
            authorization: authorization.unwrap_or_default().to_owned(),
            path: head.uri.path().to_owned(),
            model: model.clone(),
            internal: internal.filter(|name| name.starts_with("x-ai-eg-")).collect(),
        });
        let answer = serde_json::json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! How can I help?"},
                "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 11, "total_tokens": 20},
        });
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(answer.to_string()))).expect("an answer")
    }
}

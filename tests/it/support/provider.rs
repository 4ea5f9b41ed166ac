//! A provider whose every answer is the test's own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::spawn;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Parts,
}

impl Seen {
    /// The values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.head.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }
}

/// Speaks HTTP/1.1 until the test's runtime ends, and remembers every request.
pub(crate) struct Provider {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    /// On a free port of this machine.
    pub(crate) async fn start<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (seen, answer) = (Arc::default(), Arc::new(answer));
        let requests: Arc<Mutex<Vec<Seen>>> = Arc::clone(&seen);
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                    async move {
                        let (head, body) = request.into_parts();
                        // What comes after a broken body is the test's affair too.
                        _ = body.collect().await;
                        let seen = Seen { head };
                        requests.lock().expect("requests").push(seen.clone());
                        Ok::<_, Infallible>(answer(seen).await)
                    }
                });
                spawn(async move {
                    // A client that goes away is no concern of the provider's.
                    _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { addr, seen }
    }

    /// What came in last.
    pub(crate) fn last_seen(&self) -> Option<Seen> {
        self.seen.lock().expect("requests").last().cloned()
    }

    /// Everything that came in so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("requests").clone()
    }
}

/// An answer of JSON.
pub(crate) fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("an answer")
}

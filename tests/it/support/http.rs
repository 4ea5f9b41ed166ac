//! A client that does what it is told, over TCP and Unix sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::spawn;

/// Where a request is sent.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

impl Peer {
    async fn connect(&self) -> TokioIo<Box<dyn Socket>> {
        TokioIo::new(match self {
            Self::Tcp(addr) => Box::new(TcpStream::connect(addr).await.expect("connect")),
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.expect("connect")),
        })
    }

    /// Sends a request on a connection of its own and returns when the answer's headers are here. The connection lives as
    /// long as the answer.
    pub(crate) async fn open<B>(&self, request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let socket = self.connect().await;
        if request.version() == Version::HTTP_2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), socket).await?;
            spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) =
                http1::Builder::new().max_buf_size(4 << 20).handshake(socket).await?;
            spawn(connection);
            sender.send_request(request).await
        }
    }

    /// Sends a request and takes the whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        collect(self.open(request).await.expect("an answer")).await
    }
}

/// One HTTP/1.1 connection for several requests.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Peer {
    pub(crate) async fn keep(&self) -> Connection {
        let (sender, connection) = http1::handshake(self.connect().await).await.expect("a handshake");
        spawn(connection);
        Connection { sender }
    }
}

impl Connection {
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        self.sender.ready().await.expect("an open connection");
        collect(self.sender.send_request(request).await.expect("an answer")).await
    }
}

/// Takes the rest of an answer.
pub(crate) async fn collect(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body");
    let trailers = body.trailers().cloned();
    Answer {
        status: head.status,
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}

/// A POST of JSON.
pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request =
        Request::post(path).header("host", "localhost").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

/// A GET.
pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "localhost").body(Full::default()).expect("a request")
}

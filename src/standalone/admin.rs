//! Envoy's administration interface over its socket file: the few calls the runner needs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Far more than any answer asked for here, and far less than would hurt.
const ANSWER_LIMIT: usize = 8 << 20;

/// An administration call is answered in memory; one that takes longer has gone wrong.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Speaks to one Envoy.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    socket: PathBuf,
}

impl Admin {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether Envoy says that it serves.
    pub(super) async fn is_ready(&self) -> bool {
        matches!(self.call(Method::GET, "/ready").await, Ok((StatusCode::OK, _)))
    }

    /// Takes no new connections, and asks clients to leave after their current request.
    pub(super) async fn drain(&self) -> io::Result<()> {
        // A failed health check makes every answer carry `connection: close`, or GOAWAY, from now on.
        self.post("/healthcheck/fail").await?;
        self.post("/drain_listeners").await
    }

    /// Asks Envoy to end.
    pub(super) async fn quit(&self) -> io::Result<()> {
        self.post("/quitquitquit").await
    }

    /// How many requests are being served.
    pub(super) async fn active_requests(&self) -> io::Result<u64> {
        const NAME: &str = "http.http.downstream_rq_active";
        let value = self.statistic("Gauges", NAME).await?.and_then(|value| value.parse().ok());
        value.ok_or_else(|| io::Error::other(format!("Envoy's statistics lack {NAME}")))
    }

    /// A statistic that is a text, without its quotes; nothing while Envoy has no such.
    pub(super) async fn text(&self, name: &str) -> io::Result<Option<String>> {
        Ok(self.statistic("TextReadouts", name).await?.map(|text| text.trim_matches('"').to_owned()))
    }

    /// A counter; zero while Envoy has no such.
    pub(super) async fn number(&self, name: &str) -> io::Result<u64> {
        Ok(self.statistic("Counters", name).await?.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    async fn statistic(&self, kind: &str, name: &str) -> io::Result<Option<String>> {
        // As a regular expression, in a query: dots and slashes are the only special characters in these names.
        let expression = name.replace('.', "%5C.").replace('/', "%2F");
        let path = format!("/stats?type={kind}&filter=^{expression}$");
        let (_, body) = self.call(Method::GET, &path).await?;
        let text = String::from_utf8_lossy(&body);
        Ok(text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned())))
    }

    /// The address each listener is bound to, by the listener's name.
    pub(super) async fn listeners(&self) -> io::Result<Vec<(String, std::net::SocketAddr)>> {
        let (_, body) = self.call(Method::GET, "/listeners?format=json").await?;
        let document: serde_json::Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let statuses = document.get("listener_statuses").and_then(serde_json::Value::as_array);
        Ok(statuses.into_iter().flatten().filter_map(listener).collect())
    }

    /// The listeners that Envoy does not take as they are, by name, with what it says about them.
    pub(super) async fn refused_listeners(&self) -> io::Result<Vec<(String, String)>> {
        let (_, body) = self.call(Method::GET, "/config_dump?resource=dynamic_listeners").await?;
        let document: serde_json::Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let listeners = document.get("configs").and_then(serde_json::Value::as_array);
        Ok(listeners.into_iter().flatten().filter_map(refusal).collect())
    }

    async fn post(&self, path: &str) -> io::Result<()> {
        match self.call(Method::POST, path).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, body) => {
                let body = String::from_utf8_lossy(&body);
                Err(io::Error::other(format!("Envoy answered {path} with {status}: {}", body.trim())))
            }
        }
    }

    async fn call(&self, method: Method, path: &str) -> io::Result<(StatusCode, Bytes)> {
        tokio::time::timeout(CALL_TIMEOUT, self.exchange(method, path)).await?
    }

    async fn exchange(&self, method: Method, path: &str) -> io::Result<(StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "envoy-admin")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        // The connection lives as long as this call: nothing is spawned that could outlive it.
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                // All was read before the connection ended.
                Ok(()) => answer.await,
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

fn refusal(listener: &serde_json::Value) -> Option<(String, String)> {
    let reason = listener.get("error_state")?.get("details")?.as_str()?;
    Some((listener.get("name")?.as_str()?.to_owned(), reason.to_owned()))
}

fn listener(status: &serde_json::Value) -> Option<(String, std::net::SocketAddr)> {
    let address = status.get("local_address")?.get("socket_address")?;
    let ip = address.get("address")?.as_str()?.parse().ok()?;
    let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
    Some((status.get("name")?.as_str()?.to_owned(), std::net::SocketAddr::new(ip, port)))
}

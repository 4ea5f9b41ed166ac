//! One HTTP request at a time, to where tokens are given out: TLS by the system's certificates, by way of a proxy if asked.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::FetchError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may be.
const MAX_BODY: usize = 1 << 20;

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Sends requests. Clones share the certificates.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// A request to be sent.
#[derive(Default)]
pub(super) struct Request<'a> {
    pub(super) method: http::Method,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// The URL of a proxy.
    pub(super) proxy: Option<String>,
}

impl<'a> Request<'a> {
    /// Without body.
    pub(super) fn get(url: &'a str) -> Self {
        Self { url, ..Self::default() }
    }

    /// A form.
    pub(super) fn form(url: &'a str, fields: &[(&str, &str)]) -> Self {
        let content_type = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let body = form(fields).into();
        Self { method: http::Method::POST, url, headers: vec![content_type], body, proxy: None }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn by(mut self, proxy: Option<String>) -> Self {
        self.proxy = proxy;
        self
    }
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body of a good answer; else an error that tells what the other side says of it.
    pub(super) fn good(self, who: &str) -> Result<Bytes, FetchError> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        Err(FetchError(format!("{who} answered {}{}", self.status, reason(&self.body))))
    }

    /// A good answer, as JSON.
    pub(super) fn json(self, who: &str) -> Result<serde_json::Value, FetchError> {
        let body = self.good(who)?;
        // The parser's own message might quote what it read.
        serde_json::from_slice(&body).map_err(|_| FetchError(format!("what {who} answered is not JSON")))
    }
}

/// What an error's body says in the members and elements that are meant for people.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let members = serde_json::from_slice::<serde_json::Value>(body).ok();
    let member = |name: &str| {
        let value = members.as_ref()?.get(name)?;
        value.as_str().or_else(|| value.get("message")?.as_str()).map(str::to_owned)
    };
    let said: Vec<String> = ["error", "error_description", "Code", "Message", "message"]
        .into_iter()
        .filter_map(|name| member(name).or_else(|| super::element(&text, name).map(str::to_owned)))
        .collect();
    if said.is_empty() {
        return String::new();
    }
    let said: String =
        said.join(": ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    format!(" ({said})")
}

impl Client {
    /// Trusts these, and nobody else.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        Self { tls: Arc::new(OnceLock::from(Arc::new(configuration(roots)))) }
    }

    /// Sends a request and reads the answer. Redirects are not followed.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, FetchError> {
        let url = request.url.to_owned();
        let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or(url);
        match tokio::time::timeout(TIMEOUT, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(FetchError(format!("{host}: {error}"))),
            Err(_) => Err(FetchError(format!("{host} did not answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, request: Request<'_>) -> io::Result<Answer> {
        let uri: Uri = request.url.parse().map_err(|_| invalid("the URL cannot be read"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("the URL begins neither with https:// nor with http://")),
        };
        let host = uri.host().ok_or_else(|| invalid("the URL names no host"))?;
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let proxy = request.proxy.as_deref().map(Proxy::parse).transpose()?;
        let connection: Box<dyn Connection> = match (&proxy, https) {
            (None, false) => Box::new(connect(host, port).await?),
            (None, true) => Box::new(self.secure(connect(host, port).await?, host).await?),
            (Some(proxy), false) => Box::new(connect(&proxy.host, proxy.port).await?),
            (Some(proxy), true) => {
                let tunnel = proxy.tunnel(host, port).await?;
                Box::new(self.secure(tunnel, host).await?)
            }
        };
        let forwarded = proxy.as_ref().filter(|_| !https);
        // A proxy that forwards wants to know where to.
        let target = match forwarded {
            Some(_) => uri.to_string(),
            None => uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        };
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let mut message = http::Request::builder()
            .method(request.method)
            .uri(target)
            .header("host", authority)
            .header("accept", "application/json");
        for (name, value) in request.headers {
            message = message.header(name, value);
        }
        if let Some(login) = forwarded.and_then(|proxy| proxy.login.as_ref()) {
            message = message.header("proxy-authorization", login);
        }
        let message = message.body(Full::new(request.body)).map_err(|_| invalid("it cannot be sent"))?;
        converse(connection, message).await
    }

    async fn secure<C: Connection>(
        &self,
        connection: C,
        host: &str,
    ) -> io::Result<tokio_rustls::client::TlsStream<C>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| invalid("no certificate can be for that host"))?;
        let tls = Arc::clone(self.tls.get_or_init(|| Arc::new(tls())));
        TlsConnector::from(tls).connect(name, connection).await
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((bare, port)).await
}

async fn converse<C: Connection>(connection: C, message: http::Request<Full<Bytes>>) -> io::Result<Answer> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connection)).await.map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(message).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(io::Error::other)?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may be over before its last bytes are read.
        _ = connection => answer.await,
    }
}

/// Trusts whom the system trusts.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let file = openssl_probe::probe().cert_file;
    let certificates = file.and_then(|file| CertificateDer::pem_file_iter(file).ok());
    let usable = certificates.into_iter().flatten().filter_map(Result::ok);
    let (_, unusable) = roots.add_parsable_certificates(usable);
    if roots.is_empty() {
        tracing::error!(unusable, "the system's certificates cannot be found; SSL_CERT_FILE can name them");
    }
    configuration(roots)
}

fn configuration(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(clippy::expect_used, reason = "ring provides what TLS 1.2 and 1.3 need")]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows both versions");
    builder.with_root_certificates(roots).with_no_client_auth()
}

struct Proxy {
    host: String,
    port: u16,
    login: Option<String>,
}

impl Proxy {
    fn parse(url: &str) -> io::Result<Self> {
        let uri: Uri = url.parse().map_err(|_| invalid("the proxy's URL cannot be read"))?;
        if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
            return Err(invalid("the proxy's URL has to begin with http://"));
        }
        let host = uri.host().ok_or_else(|| invalid("the proxy's URL names no host"))?.to_owned();
        let login = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        let login = login.map(|(login, _)| format!("Basic {}", STANDARD.encode(login)));
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), login })
    }

    async fn tunnel(&self, host: &str, port: u16) -> io::Result<impl Connection + use<>> {
        let stream = connect(&self.host, self.port).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut message =
            http::Request::connect(format!("{host}:{port}")).header("host", format!("{host}:{port}"));
        if let Some(login) = &self.login {
            message = message.header("proxy-authorization", login);
        }
        let message = message.body(Full::<Bytes>::default()).map_err(|_| invalid("it cannot be sent"))?;
        // Polled on after the answer, the connection gives the stream to whoever upgrades.
        let mut connection = Box::pin(connection.with_upgrades());
        let answer = sender.send_request(message);
        tokio::pin!(answer);
        let mut over = false;
        let response = tokio::select! {
            biased;
            response = &mut answer => response,
            _ = &mut connection => {
                over = true;
                answer.await
            }
        };
        let response = response.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("the proxy answered {}", response.status().as_u16())));
        }
        let upgraded = hyper::upgrade::on(response);
        let upgraded = if over { upgraded.await } else { tokio::join!(upgraded, connection).0 };
        Ok(TokioIo::new(upgraded.map_err(io::Error::other)?))
    }
}

/// Whether `NO_PROXY` names the URL's host: by itself, by a domain it is in, or all at once.
pub(super) fn is_spared(url: &str, list: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let Some(host) = uri.as_ref().and_then(Uri::host) else { return false };
    list.split(',').map(|entry| entry.trim().trim_start_matches('.')).any(|entry| {
        let inside = || host.strip_suffix(entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        entry == "*" || !entry.is_empty() && inside()
    })
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        for (part, end) in [(*name, "="), (*value, "")] {
            for byte in part.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        text.push(byte.into())
                    }
                    _ => text.push_str(&format!("%{byte:02X}")),
                }
            }
            text.push_str(end);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spared_the_proxy_by_name_and_domain() {
        let url = "https://login.example.com/x";
        for list in ["login.example.com", "a, example.com", ".example.com", "*"] {
            assert!(is_spared(url, list), "{list}");
        }
        for list in ["", ",", "ample.com", "x.login.example.com"] {
            assert!(!is_spared(url, list), "{list}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            form(&[("a", "x y&="), ("scope", "https://h/.default")]),
            "a=x%20y%26%3D&scope=https%3A%2F%2Fh%2F.default"
        );
    }

    #[test]
    fn an_error_tells_what_is_meant_for_people() {
        for (body, told) in [
            (
                r#"{"error":"invalid_client","error_description":"no\nsuch","access_token":"hush"}"#,
                " (invalid_client: no such)",
            ),
            (r#"{"error":{"message":"denied"}}"#, " (denied)"),
            (
                "<E><Code>AccessDenied</Code><Message>no</Message><Token>hush</Token></E>",
                " (AccessDenied: no)",
            ),
            ("hush", ""),
        ] {
            let error = Answer { status: 401, body: body.into() }.good("it").unwrap_err();
            assert_eq!(error.to_string(), format!("it answered 401{told}"));
        }
        let error = Answer { status: 200, body: "hush".into() }.json("it").unwrap_err();
        assert!(!error.to_string().contains("hush"));
    }
}

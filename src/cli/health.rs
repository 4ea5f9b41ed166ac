//! `aigw healthcheck`: whether a running gateway serves, for containers and scripts.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How much of the answer is read.
const ANSWER_LIMIT: usize = 4096;

/// Options of `aigw healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0  the gateway serves
  1  it does not, or does not answer within a second
  2  the command line is wrong

Example:
  aigw healthcheck --url http://127.0.0.1:1064/health")]
pub(super) struct Options {
    /// Where /health is served
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:1064/health", value_parser = parse_url)]
    url: Uri,
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(_)) => Ok(url),
        _ => Err("write an address such as http://127.0.0.1:1064/health".to_owned()),
    }
}

/// Asks once. An error says why the gateway does not serve.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let url = options.url;
    match tokio::time::timeout(TIMEOUT, ask(&url)).await {
        Ok(answer) => answer.with_context(|| url.to_string()),
        Err(_) => bail!("{url}: no answer within {} s", TIMEOUT.as_secs()),
    }
}

async fn ask(url: &Uri) -> anyhow::Result<()> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/health", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header("host", authority).body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
        anyhow::Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    // The connection lives as long as this call: nothing is spawned that could outlive it.
    tokio::pin!(answer, connection);
    let (status, body) = tokio::select! {
        answer = &mut answer => answer?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    if status.is_success() {
        return Ok(());
    }
    bail!("{status}: {}", String::from_utf8_lossy(&body).trim().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert!(parse_url("http://127.0.0.1:1064/health").is_ok());
        assert!(parse_url("http://[::1]:1064").is_ok());
        for text in ["127.0.0.1:1064", "https://a.example", "/health", ""] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}

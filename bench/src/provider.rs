//! A fake provider that costs as little as possible: OpenAI chat completions, whole or as a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Asks for a pause between two events of a stream, in milliseconds.
pub const GAP: &str = "x-bench-gap-ms";

/// Asks for that many events instead of 200.
pub const EVENTS: &str = "x-bench-events";

/// Comes before the time at which an event of a stream with pauses was sent, in microseconds of Unix time.
pub const SENT: &str = "\"sent\":";

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench-model-2026-01-01","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":21,"completion_tokens":9,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;

const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench-model-2026-01-01\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";

const USAGE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench-model-2026-01-01\",\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":200,\"total_tokens\":221}}\n\n";

const DONE: &str = "data: [DONE]\n\n";

/// Serves until killed, on a free port that is printed first.
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(answer);
            // A client that leaves is none of our business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if memmem::find(&body, b"\"stream\":true").or(memmem::find(&body, b"\"stream\": true")).is_none() {
        let mut response = Response::new(BoxBody::new(Full::new(Bytes::from_static(ANSWER.as_bytes()))));
        response.headers_mut().insert(CONTENT_TYPE, json());
        return Ok(response);
    }
    let gap = number(&head.headers, GAP).map(|ms| {
        let mut interval = interval(Duration::from_millis(ms));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let events = Events {
        left: number(&head.headers, EVENTS).unwrap_or(200),
        usage: memmem::find(&body, b"\"include_usage\"").is_some(),
        done: false,
        gap,
        rested: false,
    };
    let mut response = Response::new(BoxBody::new(events));
    response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().unwrap_or_else(|_| json()));
    Ok(response)
}

fn json() -> hyper::header::HeaderValue {
    hyper::header::HeaderValue::from_static("application/json")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The events of one stream, each written by itself: a model does not batch its tokens.
struct Events {
    left: u64,
    usage: bool,
    done: bool,
    gap: Option<Interval>,
    rested: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 && !self.usage && self.done {
            return Poll::Ready(None);
        }
        let more = self.left > 0;
        if let Some(gap) = &mut self.gap {
            if more && gap.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
        } else if !std::mem::replace(&mut self.rested, true) {
            // hyper writes out what it has whenever the body has nothing ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.rested = false;
        let event = if self.left > 0 {
            self.left -= 1;
            if self.gap.is_some() { stamped() } else { Bytes::from_static(EVENT.as_bytes()) }
        } else if std::mem::take(&mut self.usage) {
            Bytes::from_static(USAGE.as_bytes())
        } else {
            self.done = true;
            Bytes::from_static(DONE.as_bytes())
        };
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

fn stamped() -> Bytes {
    let event =
        EVENT.replacen("\"created\":1700000000", &format!("\"created\":1700000000,{SENT}{}", now()), 1);
    event.into()
}

/// Microseconds of Unix time: the same clock for every process of this machine.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

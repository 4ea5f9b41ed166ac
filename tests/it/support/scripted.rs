//! Envoy's end of its conversation with a processor, message by message.

use std::path::PathBuf;

use ai_gateway::proto::ext_proc::external_processor_client::ExternalProcessorClient;
use ai_gateway::proto::ext_proc::processing_request::Request as Message;
use ai_gateway::proto::ext_proc::{
    HeaderMap, HeaderValue, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse,
};
use bytes::Bytes;
use http::Uri;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// The gateway that streams are opened for.
pub(crate) const AUTHORITY: &str = "http.gw.default";

/// A connection to a processor's socket, as Envoy opens one for the gateway [`AUTHORITY`]: once it is used, and again when there is
/// another processor.
pub(crate) fn channel(socket: PathBuf) -> Channel {
    let connect = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let origin: Uri = format!("http://{AUTHORITY}").parse().unwrap();
    let endpoint = Endpoint::from_static("http://unused").origin(origin);
    endpoint.connect_with_connector_lazy(tower::service_fn(connect))
}

/// Envoy's end of one stream. Dropping it resets the stream.
pub(crate) struct Envoy {
    sender: mpsc::UnboundedSender<ProcessingRequest>,
    replies: Streaming<ProcessingResponse>,
}

impl Envoy {
    pub(crate) async fn open(channel: Channel) -> Self {
        Self::try_open(channel).await.unwrap()
    }

    /// As [`Envoy::open`], of a processor that may not be there.
    pub(crate) async fn try_open(channel: Channel) -> Result<Self, Status> {
        let (sender, messages) = mpsc::unbounded_channel();
        let mut client = ExternalProcessorClient::new(channel);
        let replies = client.process(UnboundedReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { sender, replies })
    }

    pub(crate) async fn send(&mut self, message: Option<Message>) -> Result<ProcessingResponse, Status> {
        let request = ProcessingRequest { request: message, ..Default::default() };
        // The processor may have ended the stream; its status is what matters.
        let _ = self.sender.send(request);
        self.replies.message().await.map(|reply| reply.expect("a reply or a status, never a silent end"))
    }

    pub(crate) async fn request(&mut self, model: &str) -> ProcessingResponse {
        self.send(Some(headers(&[(":method", "POST"), (":path", "/v1/chat/completions")]))).await.unwrap();
        self.send(Some(request_body(json!({"model": model, "stream": true})))).await.unwrap()
    }
}

fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
    };
    HeaderMap { headers: headers.iter().map(header).collect() }
}

pub(crate) fn headers(headers: &[(&str, &str)]) -> Message {
    Message::RequestHeaders(HttpHeaders { headers: Some(header_map(headers)), end_of_stream: false })
}

pub(crate) fn response_headers(headers: &[(&str, &str)]) -> Message {
    Message::ResponseHeaders(HttpHeaders { headers: Some(header_map(headers)), end_of_stream: false })
}

pub(crate) fn request_body(body: Value) -> Message {
    Message::RequestBody(HttpBody { body: body.to_string().into(), end_of_stream: true })
}

pub(crate) fn response_body(body: impl Into<Bytes>, end_of_stream: bool) -> Message {
    Message::ResponseBody(HttpBody { body: body.into(), end_of_stream })
}

//! The do-nothing processor: what the protocol itself costs a processor in Rust that takes no pains.
//!
//! It does what every AI gateway must: reads `model`, sets two headers, has the route chosen anew, looks for usage in the
//! answer. Nothing is configured, accounted, logged or kept. It is served by tonic as tonic comes.

use std::borrow::Cow;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use ai_gateway::exchange::{MODEL_HEADER, ROUTING_HEADER};
use ai_gateway::proto::ext_proc::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
use ai_gateway::proto::ext_proc::header_value_option::HeaderAppendAction;
use ai_gateway::proto::ext_proc::processing_mode::{BodySendMode, HeaderSendMode};
use ai_gateway::proto::ext_proc::processing_request::Request as Message;
use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use ai_gateway::proto::ext_proc::{
    BodyResponse, CommonResponse, HeaderMutation, HeaderValue, HeaderValueOption, HeadersResponse,
    HttpHeaders, ProcessingMode, ProcessingRequest, ProcessingResponse, TrailersResponse,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use memchr::memmem;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Serves on that socket until killed; `key` is what the routes demand.
pub async fn serve(socket: &Path, key: &str) -> anyhow::Result<()> {
    let floor = ExternalProcessorServer::new(Floor { key: Arc::new(Bytes::copy_from_slice(key.as_bytes())) })
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(u32::MAX)
        .add_service(floor)
        .serve_with_incoming(UnixListenerStream::new(UnixListener::bind(socket)?))
        .await?;
    Ok(())
}

struct Floor {
    key: Arc<Bytes>,
}

#[tonic::async_trait]
impl ExternalProcessor for Floor {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let key = Arc::clone(&self.key);
        let replies = stream::unfold((request.into_inner(), key), |(mut inbound, key)| async move {
            let message = inbound.next().await?.ok()?;
            Some((reply(message, &key), (inbound, key)))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
}

fn reply(message: ProcessingRequest, key: &Bytes) -> Result<ProcessingResponse, Status> {
    let message = message.request.ok_or_else(|| Status::invalid_argument("empty"))?;
    let mut mode = None;
    let reply = match message {
        Message::RequestHeaders(_) => Reply::RequestHeaders(HeadersResponse::default()),
        Message::RequestBody(body) => {
            let peek: Peek<'_> = serde_json::from_slice(&body.body)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let model = Bytes::copy_from_slice(peek.model.as_bytes());
            let set_headers = vec![set(MODEL_HEADER, model), set(ROUTING_HEADER, key.clone())];
            let mutation = HeaderMutation { set_headers, remove_headers: Vec::new() };
            Reply::RequestBody(BodyResponse {
                response: Some(CommonResponse {
                    header_mutation: Some(mutation),
                    clear_route_cache: true,
                    ..CommonResponse::default()
                }),
            })
        }
        Message::RequestTrailers(_) => Reply::RequestTrailers(TrailersResponse::default()),
        Message::ResponseHeaders(headers) => {
            mode = Some(phases(&headers));
            Reply::ResponseHeaders(HeadersResponse::default())
        }
        Message::ResponseBody(body) => {
            std::hint::black_box(memmem::find(&body.body, b"\"usage\""));
            Reply::ResponseBody(BodyResponse::default())
        }
        Message::ResponseTrailers(_) => Reply::ResponseTrailers(TrailersResponse::default()),
    };
    Ok(ProcessingResponse { response: Some(reply), mode_override: mode, ..ProcessingResponse::default() })
}

/// The same phases as the gateway asks for.
fn phases(headers: &HttpHeaders) -> ProcessingMode {
    let headers = headers.headers.as_ref().map(|map| map.headers.as_slice()).unwrap_or_default();
    let is_stream =
        headers.iter().any(|header| header.key == "content-type" && header.raw_value == "text/event-stream");
    let body = if is_stream { BodySendMode::Streamed } else { BodySendMode::Buffered };
    ProcessingMode {
        response_header_mode: HeaderSendMode::Send.into(),
        response_body_mode: body.into(),
        response_trailer_mode: HeaderSendMode::Send.into(),
        ..ProcessingMode::default()
    }
}

fn set(name: &'static str, raw_value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: Bytes::from_static(name.as_bytes()),
            value: Bytes::new(),
            raw_value,
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

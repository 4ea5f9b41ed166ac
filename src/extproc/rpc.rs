//! The service on the wire: an HTTP/2 request in, the replies of one exchange out.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;

use http::uri::Authority;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::service::{Replies, Service};
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};

/// The path of the one method there is.
const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service {
    /// Whether requests to that path are for this service.
    pub(crate) fn has(path: &str) -> bool {
        path == PROCESS
    }

    /// The answer to an HTTP/2 request of its own.
    pub(crate) fn answer(&self, request: http::Request<Incoming>) -> Answer {
        let method = Process { service: self.clone(), authority: request.uri().authority().cloned() };
        Box::pin(async move {
            let limits = (Some(method.service.max_message()), Some(usize::MAX));
            let mut grpc = Grpc::new(Lean).apply_max_message_size_config(limits.0, limits.1);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

/// The call of one stream. The `:authority` Envoy opened it with names the gateway.
struct Process {
    service: Service,
    authority: Option<Authority>,
}

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Replies;
    type Future = Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let authority = self.authority.as_ref().map_or("", Authority::as_str);
        ready(Ok(Response::new(self.service.replies(authority, request.into_inner()))))
    }
}

/// Protobuf with little memory for each stream: most of its life a stream waits for a model, and thousands do at once.
#[derive(Debug, Clone, Copy)]
struct Lean;

impl Codec for Lean {
    type Encode = ProcessingResponse;
    type Decode = ProcessingRequest;
    type Encoder = ProstEncoder<ProcessingResponse>;
    type Decoder = ProstDecoder<ProcessingRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        // Most replies fit.
        ProstEncoder::new(BufferSettings::new(1024, 32 * 1024))
    }

    fn decoder(&mut self) -> Self::Decoder {
        // Nothing in advance: each message gets a buffer as long as it is, which its headers and body are slices of.
        ProstDecoder::new(BufferSettings::new(0, 32 * 1024))
    }
}

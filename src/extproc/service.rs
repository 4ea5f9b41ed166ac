//! The tonic service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::settle::{Guard, Settler};
use super::{decode, encode};
use crate::exchange::{Exchange, Phase, Settings};
use crate::proto::ext_proc::external_processor_server::ExternalProcessor;
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};
use crate::source::Slot;

/// Serves Envoy's external processing filter. An exchange keeps the runtime it began with until its end.
#[derive(Debug, Clone)]
pub struct Service {
    slot: Slot,
    settings: Arc<Settings>,
    settler: Settler,
}

impl Service {
    /// A service whose exchanges begin with the runtime that is in `slot` then, and leave their settlements with `settler`.
    pub fn new(slot: Slot, settings: Settings, settler: Settler) -> Self {
        Self { slot, settings: Arc::new(settings), settler }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Replies;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let authority = request.extensions().get::<Authority>().map(|authority| authority.0.as_str());
        let exchange = Exchange::new(
            self.slot.load(),
            authority.unwrap_or_default(),
            Arc::clone(&self.settings),
            Instant::now(),
        );
        let guard = self.settler.guard(exchange);
        Ok(Response::new(Box::pin(replies(request.into_inner(), guard))))
    }
}

/// The `:authority` Envoy opened the stream with; it names the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Authority(pub(crate) http::uri::Authority);

/// One reply for each message, for as long as Envoy sends some. A message that does not fit ends the stream with a status:
/// never with OK, because Envoy lets the rest of a body pass unprocessed after that.
fn replies(
    inbound: impl Stream<Item = Result<ProcessingRequest, Status>> + Send + Unpin + 'static,
    guard: Guard,
) -> impl Stream<Item = Result<ProcessingResponse, Status>> + Send {
    stream::unfold(Some((inbound, guard)), |state| async move {
        let (mut inbound, mut guard) = state?;
        // An error means that Envoy reset the stream: there is nobody left to answer.
        let Ok(message) = inbound.next().await? else { return None };
        match reply(message, &mut guard) {
            Ok(response) => Some((Ok(response), Some((inbound, guard)))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn reply(message: ProcessingRequest, guard: &mut Guard) -> Result<ProcessingResponse, Status> {
    let input = decode::input(message)
        .ok_or_else(|| Status::invalid_argument("a processing request without a request"))?;
    let phase = Phase::of(&input);
    let step = guard.handle(input).map_err(|violation| {
        tracing::warn!(%violation, "ending a processing stream");
        Status::failed_precondition(violation.to_string())
    })?;
    Ok(encode::response(phase, step))
}

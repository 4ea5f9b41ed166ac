//! One exchange a stream: the replies to Envoy's messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::Stream;
use tonic::{Status, Streaming};

use super::settle::{Guard, Settler};
use super::{decode, encode};
use crate::exchange::{Exchange, Phase, Settings};
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

    /// Begins an exchange: the replies to Envoy's messages. `authority` is the one Envoy opened the stream with; it names the
    /// gateway.
    pub(super) fn replies(&self, authority: &str, inbound: Streaming<ProcessingRequest>) -> Replies {
        let exchange = Exchange::new(self.slot.load(), authority, Arc::clone(&self.settings), Instant::now());
        Replies { inbound, guard: self.settler.guard(exchange), ended: false }
    }
}

/// One reply for each message, for as long as Envoy sends some. A message that does not fit ends the stream with a status:
/// never with OK, because Envoy lets the rest of a body pass unprocessed after that.
///
/// A type of its own rather than a combinator: one of these is kept for every request in flight, and a combinator would move
/// all of it at every message.
#[derive(Debug)]
pub(super) struct Replies {
    inbound: Streaming<ProcessingRequest>,
    guard: Guard,
    ended: bool,
}

impl Stream for Replies {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        // An error means that Envoy reset the stream: there is nobody left to answer.
        let Some(Ok(message)) = ready!(Pin::new(&mut this.inbound).poll_next(cx)) else {
            this.ended = true;
            this.guard.settle();
            return Poll::Ready(None);
        };
        let reply = reply(message, &mut this.guard);
        this.ended = reply.is_err();
        Poll::Ready(Some(reply))
    }
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

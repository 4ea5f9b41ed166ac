//! One exchange a stream: the replies to Envoy's messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use futures_util::Stream;
use tonic::{Status, Streaming};

use super::registry::Registry;
use super::settle::{Guard, Settler};
use super::{decode, encode, log};
use crate::exchange::{Attempt, Exchange, NoAnswer, Now, Phase, Settings, Step};
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};
use crate::runtime::Scope;
use crate::source::Slot;

/// Serves Envoy's external processing filter. An exchange keeps the runtime it began with until its end.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Slot,
    settings: Arc<Settings>,
    settler: Settler,
    registry: Arc<Registry>,
    max_message: usize,
}

impl Service {
    /// A service whose exchanges begin with the runtime that is in `slot` then, and leave their settlements with `settler`.
    /// `process` tells this process from the other processors of the same Envoys: a random number. A
    /// message longer than `max_message` bytes ends its stream.
    pub fn new(slot: Slot, settings: Settings, settler: Settler, process: u64, max_message: usize) -> Self {
        let (settings, registry) = (Arc::new(settings), Arc::new(Registry::new(process)));
        Self(Arc::new(Inner { slot, settings, settler, registry, max_message }))
    }

    /// How long a message may be, in bytes.
    pub(super) fn max_message(&self) -> usize {
        self.0.max_message
    }

    /// Begins a stream: the replies to Envoy's messages. `authority` is the one Envoy opened the stream with; it names the
    /// gateway.
    pub(super) fn replies(&self, authority: &str, inbound: Streaming<ProcessingRequest>) -> Replies {
        let scope = self.0.slot.load().and_then(|runtime| runtime.scope(authority));
        let log_shapes = self.0.settings.log_body_shapes;
        Replies { inbound, log_shapes, party: Party::Unknown(Arc::clone(&self.0), scope), ended: false }
    }
}

impl Inner {
    /// Whether the stream is the router's or an attempt's is told by its first message.
    fn begin(&self, first: &ProcessingRequest, scope: Option<Scope>, now: Now) -> Party {
        match decode::arrival(first) {
            Some(arrival) => {
                let handover = arrival.id.and_then(|id| self.registry.get(id));
                Party::Attempt(Box::new(Attempt::new(arrival, handover, scope, Arc::clone(&self.settings))))
            }
            None => {
                let mut exchange = Exchange::new(scope, self.registry.id(), Arc::clone(&self.settings), now);
                exchange.comes_from(decode::source(first));
                Party::Router(self.settler.guard(exchange, Arc::clone(&self.registry)))
            }
        }
    }
}

/// Who speaks on a stream.
#[derive(Debug)]
enum Party {
    /// Nothing has come yet.
    Unknown(Arc<Inner>, Option<Scope>),
    Router(Guard),
    Attempt(Box<Attempt>),
}

impl Party {
    fn reply(&mut self, message: ProcessingRequest, log_shapes: bool) -> Result<ProcessingResponse, Status> {
        let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
        if let Self::Unknown(service, scope) = self {
            let begun = service.begin(&message, scope.take(), now);
            *self = begun;
        }
        let input = decode::input(message)
            .ok_or_else(|| Status::invalid_argument("a processing request without a request"))?;
        log::message(&input, log_shapes);
        let phase = Phase::of(&input);
        let step = match self {
            Self::Router(guard) => guard.handle(input, now),
            Self::Attempt(attempt) => attempt.handle(input, now),
            Self::Unknown(..) => return Err(Status::internal("a stream that nobody speaks on")),
        };
        let step = step.map_err(|violation| {
            tracing::warn!(%violation, "ending a processing stream");
            Status::failed_precondition(violation.to_string())
        })?;
        let mut step = step;
        loop {
            step = match step {
                Step::Continue(change) => return Ok(encode::proceed(phase, change)),
                Step::Reply(reply) => return Ok(encode::answer(reply)),
                // There is no store yet.
                Step::Ask(_) => {
                    let answer = Err(NoAnswer::Away);
                    match self {
                        Self::Router(guard) => guard.answered(answer, now),
                        Self::Attempt(attempt) => attempt.answered(answer, now),
                        Self::Unknown(..) => return Err(Status::internal("a stream that nobody speaks on")),
                    }
                    .map_err(|violation| Status::failed_precondition(violation.to_string()))?
                }
            };
        }
    }

    /// Nothing more will come.
    fn end(&mut self) {
        if let Self::Router(guard) = self {
            guard.settle(Instant::now());
        }
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
    party: Party,
    ended: bool,
    log_shapes: bool,
}

impl Stream for Replies {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let message = match ready!(Pin::new(&mut this.inbound).poll_next(cx)) {
            Some(Ok(message)) => message,
            // Envoy reset the stream, and nobody reads this; or sent what cannot be read (too long, perhaps), and has to hear
            // of it.
            other => {
                this.ended = true;
                this.party.end();
                return Poll::Ready(other.map(|message| message.map(|_| ProcessingResponse::default())));
            }
        };
        let reply = this.party.reply(message, this.log_shapes);
        this.ended = reply.is_err();
        Poll::Ready(Some(reply))
    }
}

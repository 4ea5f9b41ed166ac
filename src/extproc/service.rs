//! One exchange a stream: the replies to Envoy's messages. Where quotas apply, a reply waits for their store; nothing else does.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use futures_util::Stream;
use tonic::{Status, Streaming};

use super::registry::Registry;
use super::settle::{AttemptGuard, Guard, Settler};
use super::{decode, encode, log};
use crate::exchange::{Attempt, Exchange, NoAnswer, Now, Phase, Settings, Step, Violation};
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};
use crate::quota::{Ask, Verdict};
use crate::quotastore::{Away, Desk, StoreError};
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

    /// The same service for another thread: its exchanges settle and ask for quotas from there, while it runs what is returned, and wake no
    /// other.
    pub(crate) fn beside(&self) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let Inner { slot, settings, settler, registry, max_message } = &*self.0;
        let (settler, driving) = settler.beside();
        let (slot, settings, registry) = (slot.clone(), Arc::clone(settings), Arc::clone(registry));
        (Self(Arc::new(Inner { slot, settings, settler, registry, max_message: *max_message })), driving)
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
        let party = Party::Unknown(Arc::clone(&self.0), scope);
        let desk = self.0.settler.desk().clone();
        Replies { inbound, log_shapes, party, desk, asking: None, ended: false }
    }
}

impl Inner {
    /// Whether the stream is the router's or an attempt's is told by its first message.
    fn begin(&self, first: &ProcessingRequest, scope: Option<Scope>, now: Now) -> Party {
        match decode::arrival(first) {
            Some(arrival) => {
                let handover = arrival.id.and_then(|id| self.registry.get(id));
                let elsewhere = handover.is_none();
                let mut attempt = Attempt::new(arrival, handover, scope, Arc::clone(&self.settings));
                if elsewhere {
                    attempt.reserves_as(self.registry.id(), self.settler.desk().ahead());
                }
                Party::Attempt(self.settler.attempt(attempt))
            }
            None => {
                let mut exchange = Exchange::new(scope, self.registry.id(), Arc::clone(&self.settings), now);
                exchange.comes_from(decode::source(first));
                exchange.has_shown(decode::tokens(first));
                exchange.store_is_ahead(self.settler.desk().ahead());
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
    Attempt(Box<AttemptGuard>),
}

impl Party {
    fn take(&mut self, message: ProcessingRequest, log_shapes: bool) -> Result<(Phase, Step), Status> {
        let now = now();
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
            Self::Attempt(guard) => guard.attempt.handle(input, now),
            Self::Unknown(..) => return Err(Status::internal("a stream that nobody speaks on")),
        };
        Ok((phase, step.map_err(failed)?))
    }

    /// Takes the answer of the store of quotas.
    fn answered(&mut self, answer: Result<Verdict, NoAnswer>) -> Result<Step, Status> {
        let step = match self {
            Self::Router(guard) => guard.answered(answer, now()),
            Self::Attempt(guard) => guard.attempt.answered(answer, now()),
            Self::Unknown(..) => return Err(Status::internal("a stream that nobody speaks on")),
        };
        step.map_err(failed)
    }

    /// Settles what an attempt leaves to be settled so far.
    fn settle(&mut self) {
        if let Self::Attempt(guard) = self {
            guard.settle();
        }
    }

    /// Nothing more will come.
    fn end(&mut self) {
        match self {
            Self::Router(guard) => guard.settle(Instant::now()),
            Self::Attempt(guard) => guard.end(),
            Self::Unknown(..) => {}
        }
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

fn failed(violation: Violation) -> Status {
    tracing::warn!(%violation, "ending a processing stream");
    Status::failed_precondition(violation.to_string())
}

/// A question to the store of quotas that is under way, and what it will be the reply to. Dropping it is no answer: what was asked for
/// is settled with the exchange.
struct Asking {
    phase: Phase,
    ask: Arc<Ask>,
    answer: Pin<Box<dyn Future<Output = Result<Verdict, Away>> + Send>>,
}

impl Asking {
    fn new(phase: Phase, ask: Arc<Ask>, desk: &Desk) -> Self {
        let desk = desk.clone();
        let asked = Arc::clone(&ask);
        Self { phase, ask, answer: Box::pin(async move { desk.reserve(asked).await }) }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("id", &self.ask.id).finish_non_exhaustive()
    }
}

/// The exchange's view of it.
fn no_answer(Away(error): Away) -> NoAnswer {
    match error {
        StoreError::Stale { now } => NoAnswer::Stale(now),
        error => {
            tracing::debug!(%error, "the store of quotas did not answer");
            NoAnswer::Away
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
    desk: Desk,
    /// Envoy's next message is not read before this is answered.
    asking: Option<Asking>,
    ended: bool,
    log_shapes: bool,
}

impl Replies {
    /// The reply that a step asks for; nothing where the store of quotas has to be asked first.
    fn reply(&mut self, phase: Phase, step: Step) -> Option<ProcessingResponse> {
        self.party.settle();
        match step {
            Step::Continue(change) => Some(encode::proceed(phase, change)),
            Step::Reply(reply) => Some(encode::answer(reply)),
            Step::Ask(ask) => {
                self.asking = Some(Asking::new(phase, ask, &self.desk));
                None
            }
        }
    }

    /// The next step: of the store's answer, or of Envoy's next message. Nothing at the end of the stream.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(Phase, Step), Status>>> {
        if let Some(asking) = &mut self.asking {
            let answer = ready!(asking.answer.as_mut().poll(cx));
            let Some(Asking { phase, ask, .. }) = self.asking.take() else { return Poll::Ready(None) };
            if matches!(answer, Ok(Verdict::Granted(_))) {
                self.desk.hold(&ask);
            }
            let step = self.party.answered(answer.map_err(no_answer));
            return Poll::Ready(Some(step.map(|step| (phase, step))));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
            Some(Ok(message)) => Some(self.party.take(message, self.log_shapes)),
            Some(Err(status)) => Some(Err(status)),
            None => None,
        })
    }
}

impl Stream for Replies {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match ready!(this.step(cx)) {
                Some(Ok((phase, step))) => {
                    if let Some(reply) = this.reply(phase, step) {
                        return Poll::Ready(Some(Ok(reply)));
                    }
                }
                // Envoy reset the stream, and nobody reads this; or sent what cannot be read (too long, perhaps) or does not
                // fit, and has to hear of it.
                end => {
                    this.ended = true;
                    this.party.end();
                    return Poll::Ready(end.and_then(Result::err).map(Err));
                }
            }
        }
    }
}

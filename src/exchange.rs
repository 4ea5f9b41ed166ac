//! L3. One request and its answer, as a state machine without I/O: an [`Input`] goes in, a [`Step`] comes out.
//!
//! ```text
//! RequestHeaders ─► AwaitBody ─► AwaitAnswer ─► Reading ─► over
//!       │               │  │ ▲        └► Passing ─► over       (nothing to read in this answer)
//!       │               │  ▼ │
//!       │               │ Asking ─► over                       (quotas apply: the store is asked)
//!       └───────────────┴► over                                (answered by the gateway itself)
//! ```
//!
//! Whatever the state, [`Exchange::settle`] yields the [`Settlement`] once and never again. A message that does not fit
//! the state is a [`Violation`]; the caller ends the stream with it, which makes Envoy fail the request.

mod attempt;
mod attempted;
mod gateway_key;
mod handover;
mod identity;
mod outgoing;
mod quota;
mod request;
mod response;
mod restore;
mod settlement;
mod told;

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

pub use self::attempt::{Arrival, Attempt, PROVED_KEY};
pub use self::handover::{ExchangeId, Handover, InvalidId};
use self::identity::Client;
pub use self::identity::{
    CHALLENGE, UNAUTHENTICATED, VERIFIED_TOKENS, unauthenticated, unauthenticated_body,
};
use self::outgoing::Expected;
pub use self::quota::{NoAnswer, Reservation};
use self::quota::{Question, Ruling};
use self::request::{Asked, Onward};
pub use self::request::{
    ENVOY_ORIGINAL_PATH_HEADER, INTERNAL_ID_HEADER, INTERNAL_ID_KEY, MODEL_HEADER, NO_ROUTE,
    ORIGINAL_PATH_HEADER, PROCESSED_HEADER, ROUTING_HEADER, ROUTING_KEY, matched_values,
};
pub use self::settlement::{Outcome, Settlement};
pub use self::told::{TOLD_KEY, Told};
use crate::endpoint::{Endpoint, Paths};
use crate::headers::{HeaderAttributes, Headers};
use crate::keys::Index;
use crate::mutation::{Change, LocalReply, Metadata};
use crate::quota::{Ask, Verdict};
use crate::runtime::{Proved, Rule, Scope, Served};
use crate::translate::Reader;

/// When something happens, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub monotonic: Instant,
    /// For signatures that hold a date.
    pub wall: SystemTime,
}

/// What all exchanges of a processor have in common, whatever the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which path is which endpoint.
    pub paths: Paths,
    /// Which request headers are told in telemetry.
    pub attributes: HeaderAttributes,
    /// Whether debug logs show bodies by their shape rather than by their length; see [`crate::redaction`].
    pub log_body_shapes: bool,
    /// The gateway's own keys, if it has any.
    pub keys: Option<Arc<Index>>,
    /// Whether they are asked for only where a gateway says so.
    pub keys_by_policy: bool,
}

impl Settings {
    /// The endpoint of a path, whatever its query.
    fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.paths.endpoint(path.split('?').next().unwrap_or_default())
    }
}

/// One message of Envoy.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names are those of Envoy's phases")]
pub enum Input {
    RequestHeaders { headers: Headers, end_of_stream: bool },
    RequestBody { body: Bytes, end_of_stream: bool },
    RequestTrailers,
    ResponseHeaders { headers: Headers, end_of_stream: bool },
    ResponseBody { body: Bytes, end_of_stream: bool },
    ResponseTrailers,
}

/// The kind of a message; a reply is of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of Envoy's phases")]
pub enum Phase {
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
}

impl Phase {
    /// The phase an input belongs to.
    pub fn of(input: &Input) -> Self {
        match input {
            Input::RequestHeaders { .. } => Self::RequestHeaders,
            Input::RequestBody { .. } => Self::RequestBody,
            Input::RequestTrailers => Self::RequestTrailers,
            Input::ResponseHeaders { .. } => Self::ResponseHeaders,
            Input::ResponseBody { .. } => Self::ResponseBody,
            Input::ResponseTrailers => Self::ResponseTrailers,
        }
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It goes on, changed as said.
    Continue(Change),
    /// The client gets this answer; nothing more goes to or comes from a provider.
    Reply(LocalReply),
    /// The store of quotas is to be asked this; what follows comes out of `answered`. The message waits until then.
    Ask(Arc<Ask>),
}

impl Default for Step {
    fn default() -> Self {
        Self::Continue(Change::default())
    }
}

/// A message that cannot come in this state, or an answer that cannot be processed. The stream has to end with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Envoy sent a phase out of order, or one that it was not asked for.
    #[error("{phase:?} while {state}")]
    OutOfOrder {
        /// What came.
        phase: Phase,
        /// What was waited for.
        state: &'static str,
    },
    /// An answer of the store that nobody waits for.
    #[error("an answer about quotas while {0}")]
    NotAsked(&'static str),
    /// An attempt goes to a backend that the configuration does not know. Nothing is sent to it.
    #[error("Envoy sends to backend {0:?}, which the configuration does not know")]
    UnknownBackend(String),
    /// The answer has to be rewritten but cannot be read.
    #[error("the answer cannot be rewritten: {0}")]
    Unreadable(String),
}

/// The client's side: the state machine of the stream that Envoy's listener opens. It keeps the runtime it began with until
/// the request is sent on.
#[derive(Debug)]
pub struct Exchange {
    scope: Option<Scope>,
    settings: Arc<Settings>,
    id: ExchangeId,
    state: State,
    /// The client's address, where Envoy tells it.
    source: Option<IpAddr>,
    /// What Envoy says of the client, where it says that in metadata.
    vouched: Proved,
    /// The store's time less ours, in milliseconds.
    ahead: i64,
    /// Taken when the exchange is settled; from then on nothing more is noted.
    account: Option<Box<Settlement>>,
}

#[derive(Debug)]
enum State {
    Start,
    AwaitBody(Box<Received>),
    Asking(Box<Asking>),
    AwaitAnswer(Box<Sent>),
    Reading(Box<Reading>),
    /// The answer needs nothing from us. It is not over until its end, but Envoy may not tell us of that.
    Passing,
    Over,
}

impl State {
    fn waiting_for(&self) -> &'static str {
        match self {
            Self::Start => "waiting for request headers",
            Self::AwaitBody(_) => "waiting for the request body",
            Self::Asking(_) => "waiting for the store of quotas",
            Self::AwaitAnswer(_) => "waiting for response headers",
            Self::Reading(_) => "waiting for the response body",
            Self::Passing => "letting the response pass",
            Self::Over => "the exchange is over",
        }
    }
}

/// A request whose body is still to come.
#[derive(Debug)]
struct Received {
    scope: Scope,
    endpoint: Endpoint,
    client: Client,
    headers: Headers,
}

/// A request that waits for the store of quotas.
#[derive(Debug)]
struct Asking {
    question: Question,
    rule: Arc<Rule>,
    asked: Asked,
    onward: Onward,
}

/// A request that went on.
#[derive(Debug)]
enum Sent {
    /// To a provider.
    Direct(Expected),
    /// To whichever backend Envoy tries.
    PerAttempt(Arc<Handover>),
}

/// An answer whose body is read.
#[derive(Debug)]
struct Reading {
    served: Arc<Served>,
    reader: Reader,
}

impl Exchange {
    /// An exchange that is served from `scope`. Without one, every request that would go to a provider is refused.
    pub fn new(scope: Option<Scope>, id: ExchangeId, settings: Arc<Settings>, now: Now) -> Self {
        let mut settlement = Settlement::new(now.monotonic);
        if let Some(Scope::Gateway(gateway)) = &scope {
            settlement.gateway = Some(Arc::clone(&gateway.name));
        }
        Self {
            scope,
            settings,
            id,
            state: State::Start,
            source: None,
            vouched: Proved::default(),
            ahead: 0,
            account: Some(Box::new(settlement)),
        }
    }

    /// The client's address, as Envoy found it. Keys that are bound to networks are refused without it.
    pub fn comes_from(&mut self, source: Option<IpAddr>) {
        self.source = source;
    }

    /// The payloads, in base64url, of tokens that Envoy has verified, as its own metadata says ([`VERIFIED_TOKENS`]).
    pub fn has_shown(&mut self, tokens: impl IntoIterator<Item = Bytes>) {
        self.vouched = Proved::by_tokens(tokens);
    }

    /// How far the clock of the store of quotas is ahead of ours, in milliseconds.
    pub fn store_is_ahead(&mut self, milliseconds: i64) {
        self.ahead = milliseconds;
    }

    /// Its name among those of all processors.
    pub fn id(&self) -> ExchangeId {
        self.id
    }

    /// What the attempts of this exchange need, once the request was sent on for them.
    pub fn handover(&self) -> Option<&Arc<Handover>> {
        match &self.state {
            State::AwaitAnswer(sent) => match &**sent {
                Sent::PerAttempt(handover) => Some(handover),
                Sent::Direct(_) => None,
            },
            _ => None,
        }
    }

    /// Takes one message; `now` is when it came.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<Step, Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, step) = match (state, input) {
            (State::Start, Input::RequestHeaders { headers, end_of_stream }) => {
                self.request_headers(headers, end_of_stream, now)
            }
            (State::AwaitBody(received), Input::RequestBody { body, .. }) => {
                self.request_body(*received, body, now)
            }
            (State::AwaitAnswer(sent), Input::RequestTrailers) => (State::AwaitAnswer(sent), Step::default()),
            (State::AwaitAnswer(sent), Input::ResponseHeaders { headers, end_of_stream }) => {
                self.response_headers(*sent, &headers, end_of_stream, now)
            }
            // Envoy answered before the request was complete (authentication, body too large): that answer passes.
            (State::Start | State::AwaitBody(_), Input::ResponseHeaders { headers, .. }) => {
                self.foreign_answer(&headers)
            }
            (State::Reading(reading), Input::ResponseBody { body, end_of_stream }) => {
                self.response_body(reading, body, end_of_stream, now.monotonic)?
            }
            (State::Reading(mut reading), Input::ResponseTrailers) => {
                self.response_trailers(&mut reading, now.monotonic)
            }
            (
                State::Passing,
                Input::ResponseBody { .. }
                | Input::ResponseTrailers
                | Input::RequestBody { .. }
                | Input::RequestTrailers,
            ) => (State::Passing, Step::default()),
            (state, input) => {
                let violation =
                    Violation::OutOfOrder { phase: Phase::of(&input), state: state.waiting_for() };
                if let State::AwaitAnswer(sent) = &state {
                    self.collect(sent);
                }
                self.set_outcome(Outcome::Violation);
                return Err(violation);
            }
        };
        self.state = next;
        Ok(step)
    }

    /// Takes the store's answer to the latest [`Step::Ask`].
    pub fn answered(&mut self, answer: Result<Verdict, NoAnswer>, now: Now) -> Result<Step, Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let State::Asking(mut asking) = state else {
            let violation = Violation::NotAsked(state.waiting_for());
            self.set_outcome(Outcome::Violation);
            return Err(violation);
        };
        let (next, step) = match asking.question.answered(answer) {
            Ruling::Again(ask) => (State::Asking(asking), Step::Ask(ask)),
            Ruling::Refused(reply, limit) => {
                self.note(|settlement| {
                    settlement.reservations.clear();
                    settlement.refused_by = limit;
                });
                self.reply(reply)
            }
            Ruling::Unknown(reply) => self.reply(reply),
            Ruling::Passed(passed) => {
                self.note(|settlement| {
                    settlement.reservations.iter_mut().for_each(|reservation| reservation.granted(&passed));
                });
                let Asking { rule, asked, onward, .. } = *asking;
                self.go_on(&rule, asked, onward, passed.ceiling, now)
            }
        };
        self.state = next;
        Ok(step)
    }

    /// Whether nothing more is expected.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The account of this exchange as of `now`, the first time this is called; an exchange that is not over counts as
    /// interrupted and is accounted with what was delivered so far.
    pub fn settle(&mut self, now: Instant) -> Option<Settlement> {
        let state = std::mem::replace(&mut self.state, State::Over);
        if let State::AwaitAnswer(sent) = &state {
            self.collect(sent);
        }
        let mut settlement = self.account.take()?;
        if let State::Reading(reading) = &state {
            settlement.read(reading.reader.report(), true);
        }
        self.state = state;
        settlement.close(now);
        Some(*settlement)
    }

    /// Takes over what attempts have asked the store of quotas to hold.
    fn collect(&mut self, sent: &Sent) {
        if let Sent::PerAttempt(handover) = sent {
            let left = handover.left();
            self.note(|settlement| {
                settlement.sent |= left.sent;
                settlement.clamped = left.clamped.or(settlement.clamped);
                settlement.refused_by = left.refused_by;
                settlement.reservations.extend(left.reservation);
            });
        }
    }

    fn note(&mut self, fact: impl FnOnce(&mut Settlement)) {
        if let Some(settlement) = &mut self.account {
            fact(settlement);
        }
    }

    fn set_outcome(&mut self, outcome: Outcome) {
        self.note(|settlement| settlement.outcome = outcome);
    }

    /// Ends the exchange with an answer of the gateway's own.
    fn reply(&mut self, reply: LocalReply) -> (State, Step) {
        self.scope = None;
        self.note(|settlement| {
            settlement.outcome = Outcome::Refused(reply.details);
            settlement.status = Some(reply.status);
        });
        (State::Over, Step::Reply(reply))
    }

    fn malformed(&mut self, details: &'static str, message: &str) -> (State, Step) {
        self.reply(outgoing::malformed(details, message))
    }

    /// The metadata of a finished exchange: costs, if there are any, and what they are about.
    fn closing_metadata(&self, served: &Served) -> Metadata {
        self.account.as_deref().map(|settlement| settlement.metadata(served)).unwrap_or_default()
    }
}

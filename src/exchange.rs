//! L3. One request and its answer, as a state machine without I/O: an [`Input`] goes in, a [`Step`] comes out.
//!
//! ```text
//! RequestHeaders ─► AwaitBody ─► AwaitAnswer ─► Reading ─► over
//!       │               │             └► Passing ─► over       (nothing to read in this answer)
//!       └───────────────┴► over                                (answered by the gateway itself)
//! ```
//!
//! Whatever the state, [`Exchange::settle`] yields the [`Settlement`] once and never again. A message that does not fit
//! the state is a [`Violation`]; the caller ends the stream with it, which makes Envoy fail the request.

mod request;
mod response;
mod settlement;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use self::request::{
    ENVOY_ORIGINAL_PATH_HEADER, MODEL_HEADER, NO_ROUTE, ORIGINAL_PATH_HEADER, ROUTING_HEADER, matched_values,
};
pub use self::settlement::{Outcome, Settlement};
use crate::endpoint::{Endpoint, Paths};
use crate::headers::{HeaderAttributes, Headers};
use crate::mutation::{Change, LocalReply, Metadata};
use crate::runtime::{Gateway, Rule, Runtime};
use crate::translate::{Pair, Reader};
use crate::wire::openai;

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
    /// The answer has to be rewritten but cannot be read.
    #[error("the answer cannot be rewritten: {0}")]
    Unreadable(String),
}

/// What all exchanges of a processor have in common, whatever the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which path is which endpoint.
    pub paths: Paths,
    /// Which request headers are told in telemetry.
    pub attributes: HeaderAttributes,
}

/// The state machine. It keeps the runtime it began with.
#[derive(Debug)]
pub struct Exchange {
    gateway: Option<Arc<Gateway>>,
    settings: Arc<Settings>,
    state: State,
    /// Taken when the exchange is settled; from then on nothing more is noted.
    account: Option<Box<Settlement>>,
}

#[derive(Debug)]
enum State {
    Start,
    AwaitBody(Box<Received>),
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
    gateway: Arc<Gateway>,
    endpoint: Endpoint,
    headers: Headers,
}

/// A request that went to a provider.
#[derive(Debug)]
struct Sent {
    endpoint: Endpoint,
    pair: Pair,
    rule: Arc<Rule>,
    /// The client asked for a stream.
    streaming: bool,
    /// The usage event of the stream was asked for by us alone, and is to be hidden.
    hide_usage: bool,
}

/// An answer whose body is read.
#[derive(Debug)]
struct Reading {
    rule: Arc<Rule>,
    reader: Reader,
}

impl Exchange {
    /// An exchange with the gateway that `authority` names. Without a runtime, or with a name that it does not know, every
    /// request that would go to a provider is refused.
    pub fn new(
        runtime: Option<Arc<Runtime>>,
        authority: &str,
        settings: Arc<Settings>,
        now: Instant,
    ) -> Self {
        let gateway = runtime.and_then(|runtime| runtime.gateway(authority));
        let mut settlement = Settlement::new(now);
        settlement.gateway = gateway.as_ref().map(|gateway| Arc::clone(&gateway.name));
        Self { gateway, settings, state: State::Start, account: Some(Box::new(settlement)) }
    }

    /// Takes one message; `now` is when it came.
    pub fn handle(&mut self, input: Input, now: Instant) -> Result<Step, Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, step) = match (state, input) {
            (State::Start, Input::RequestHeaders { headers, end_of_stream }) => {
                self.request_headers(headers, end_of_stream)
            }
            (State::AwaitBody(received), Input::RequestBody { body, .. }) => {
                self.request_body(*received, &body)
            }
            (State::AwaitAnswer(sent), Input::RequestTrailers) => (State::AwaitAnswer(sent), Step::default()),
            (State::AwaitAnswer(sent), Input::ResponseHeaders { headers, end_of_stream }) => {
                self.response_headers(*sent, &headers, end_of_stream)
            }
            // Envoy answered before the request was complete (authentication, body too large): that answer passes.
            (State::Start | State::AwaitBody(_), Input::ResponseHeaders { headers, .. }) => {
                self.foreign_answer(&headers)
            }
            (State::Reading(reading), Input::ResponseBody { body, end_of_stream }) => {
                self.response_body(reading, body, end_of_stream, now)?
            }
            (State::Reading(mut reading), Input::ResponseTrailers) => {
                self.response_trailers(&mut reading, now)
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
                self.set_outcome(Outcome::Violation);
                return Err(violation);
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
        let mut settlement = self.account.take()?;
        if let State::Reading(reading) = &self.state {
            settlement.read(reading.reader.report(), true);
        }
        settlement.close(now);
        Some(*settlement)
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
        self.gateway = None;
        self.note(|settlement| {
            settlement.outcome = Outcome::Refused(reply.details);
            settlement.status = Some(reply.status);
        });
        (State::Over, Step::Reply(reply))
    }

    fn malformed(&mut self, details: &'static str, message: &str) -> (State, Step) {
        self.reply(LocalReply::json(400, details, openai::error_body("BadRequest", 400, message)))
    }

    /// The metadata of a finished exchange: costs, if there are any, and what they are about.
    fn closing_metadata(&self, rule: &Rule) -> Metadata {
        self.account.as_deref().map(|settlement| settlement.metadata(rule)).unwrap_or_default()
    }
}

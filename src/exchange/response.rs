//! The provider's side of an exchange: what is read from an answer, and what the client gets of it.

use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::{Exchange, Outcome, Reading, Sent, State, Step, Violation};
use crate::headers::Headers;
use crate::mutation::{BodyChange, Change, ResponsePhases};
use crate::translate::{self, Answer};

impl Exchange {
    pub(super) fn response_headers(
        &mut self,
        sent: Sent,
        headers: &Headers,
        end_of_stream: bool,
    ) -> (State, Step) {
        let status = status(headers);
        let failed = !(200..300).contains(&status);
        self.note(|settlement| {
            settlement.status = Some(status);
            settlement.outcome = if failed { Outcome::ProviderError } else { Outcome::Interrupted };
        });
        if end_of_stream {
            if !failed {
                self.set_outcome(Outcome::Completed);
            }
            return (State::Over, Step::default());
        }
        let model = self.account.as_ref().and_then(|settlement| settlement.request_model.clone());
        let answer = Answer {
            pair: sent.pair,
            model: model.as_deref().unwrap_or_default(),
            // Until the wall clock comes in with each message.
            created: SystemTime::UNIX_EPOCH,
            endpoint: sent.endpoint,
            streaming: sent.streaming,
            hide_usage: sent.hide_usage,
            status,
        };
        let plan = translate::plan(&answer, headers);
        let change = Change { headers: plan.headers, phases: Some(plan.phases), ..Change::default() };
        let state = match plan.reader {
            Some(reader) => State::Reading(Box::new(Reading { rule: sent.rule, reader })),
            None => {
                if !failed {
                    self.set_outcome(Outcome::Completed);
                }
                State::Passing
            }
        };
        (state, Step::Continue(change))
    }

    pub(super) fn response_body(
        &mut self,
        mut reading: Box<Reading>,
        body: Bytes,
        end_of_stream: bool,
        now: Instant,
    ) -> Result<(State, Step), Violation> {
        if !body.is_empty() {
            self.chunk_came(now);
        }
        let body = self.read(&mut reading, body, end_of_stream)?;
        let mut change = Change { body, ..Change::default() };
        if !end_of_stream {
            return Ok((State::Reading(reading), Step::Continue(change)));
        }
        self.complete(&reading, now);
        change.metadata = self.closing_metadata(&reading.rule);
        Ok((State::Over, Step::Continue(change)))
    }

    /// Trailers end a body whose last chunk did not say that it was the last.
    pub(super) fn response_trailers(&mut self, reading: &mut Reading, now: Instant) -> (State, Step) {
        reading.reader.finish();
        self.complete(reading, now);
        let metadata = self.closing_metadata(&reading.rule);
        (State::Over, Step::Continue(Change { metadata, ..Change::default() }))
    }

    /// An answer of Envoy itself, given before the request was complete.
    pub(super) fn foreign_answer(&mut self, headers: &Headers) -> (State, Step) {
        let status = status(headers);
        self.note(|settlement| {
            settlement.status = Some(status);
            settlement.outcome = Outcome::AnsweredByEnvoy;
        });
        let change = Change { phases: Some(ResponsePhases::None), ..Change::default() };
        (State::Passing, Step::Continue(change))
    }

    fn read(&mut self, reading: &mut Reading, body: Bytes, end: bool) -> Result<BodyChange, Violation> {
        reading.reader.chunk(body, end).map_err(|error| {
            self.note(|settlement| {
                settlement.outcome = Outcome::Violation;
                settlement.read(reading.reader.report(), true);
            });
            Violation::Unreadable(error.to_string())
        })
    }

    fn complete(&mut self, reading: &Reading, now: Instant) {
        self.note(|settlement| {
            if settlement.outcome == Outcome::Interrupted {
                settlement.outcome = Outcome::Completed;
            }
            settlement.read(reading.reader.report(), false);
            settlement.completed = Some(now);
        });
    }

    fn chunk_came(&mut self, now: Instant) {
        self.note(|settlement| {
            settlement.first_chunk.get_or_insert(now);
        });
    }
}

fn status(headers: &Headers) -> u16 {
    headers.text(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
}

//! The provider's side of an exchange: what is read from an answer, and what the client gets of it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::attempted::{ATTEMPT_HEADER, Attempted};
use super::outgoing::Expected;
use super::{Exchange, Handover, Now, Outcome, Reading, Sent, State, Step, Violation};
use crate::endpoint::{Dialect, Endpoint};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, Change, PhaseOverride, ResponsePhases};
use crate::translate::{self, Pair};

impl Exchange {
    pub(super) fn response_headers(
        &mut self,
        sent: Sent,
        headers: &Headers,
        end_of_stream: bool,
        now: Now,
    ) -> (State, Step) {
        self.collect(&sent);
        let expected = match sent {
            Sent::Direct(expected) => expected,
            Sent::PerAttempt(ref handover) => match self.answering(handover, headers) {
                Answering::Provider(expected) => expected,
                Answering::Gateway(reason) => {
                    let status = status(headers);
                    self.note(|settlement| {
                        settlement.status = Some(status);
                        settlement.outcome = Outcome::Refused(reason);
                    });
                    return (State::Passing, pass_on(headers));
                }
                Answering::Envoy => return self.foreign_answer(headers),
            },
        };
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
            let mut change = Change::default();
            if headers.contains(ATTEMPT_HEADER) {
                change.headers.remove(ATTEMPT_HEADER);
            }
            self.tell_limits(expected.endpoint, headers, &mut change.headers, now);
            return (State::Over, Step::Continue(change));
        }
        let mut plan = translate::plan(&expected.answer(status, now.wall), headers);
        if headers.contains(ATTEMPT_HEADER) {
            plan.headers.remove(ATTEMPT_HEADER);
        }
        self.tell_limits(expected.endpoint, headers, &mut plan.headers, now);
        let change = Change {
            headers: plan.headers,
            phases: Some(PhaseOverride::Response(plan.phases)),
            ..Change::default()
        };
        let state = match plan.reader {
            Some(reader) => State::Reading(Box::new(Reading { served: expected.served, reader })),
            None => {
                if !failed {
                    self.set_outcome(Outcome::Completed);
                }
                State::Passing
            }
        };
        (state, Step::Continue(change))
    }

    /// Says what is left of the client's limits.
    fn tell_limits(&self, endpoint: Endpoint, answer: &Headers, edits: &mut HeaderEdits, now: Now) {
        if let Some(settlement) = &self.account {
            let elapsed = now.monotonic.saturating_duration_since(settlement.started).as_millis();
            let elapsed = u64::try_from(elapsed).unwrap_or(0);
            settlement.tell_limits(Dialect::of(endpoint), answer, elapsed, edits);
        }
    }

    /// Who gave this answer, and what it is like.
    fn answering(&mut self, handover: &Handover, headers: &Headers) -> Answering {
        let (latest, failed) = handover.result();
        // An attempt of another process is known by its word alone; it has made the answer one in the client's dialect.
        let word = headers.text(ATTEMPT_HEADER).and_then(|word| Attempted::parse(word, self.id));
        let told = word.as_ref().and_then(|word| word.tenant.clone());
        if let Some(tenant) = told.or_else(|| handover.tenant()) {
            self.note(|settlement| settlement.tenant = tenant);
        }
        let elsewhere = word.and_then(|word| {
            let served = word.served(handover)?;
            let model = served.backend.model_override.as_ref().unwrap_or(&handover.model);
            let expected = Expected {
                endpoint: handover.endpoint,
                pair: Pair::Same,
                streaming: handover.request.streaming,
                hide_usage: handover.usage.hide,
                model: Arc::clone(model),
                served,
            };
            Some((expected, word.refused))
        });
        if elsewhere.as_ref().is_some_and(|(_, refused)| refused.is_none()) {
            self.note(|settlement| settlement.sent = true);
        }
        let (expected, started, refused) = match (elsewhere, latest) {
            (Some((expected, refused)), _) => (expected, None, refused),
            (None, Some(taken)) => (taken.expected, Some(taken.started), taken.refused),
            (None, None) => {
                self.note(|settlement| settlement.failed = failed);
                return Answering::Envoy;
            }
        };
        self.note(|settlement| {
            settlement.failed = failed;
            settlement.served = Some(Arc::clone(&expected.served));
            settlement.request_model = Some(Arc::clone(&expected.model));
            settlement.started = started.unwrap_or(settlement.started);
        });
        match refused {
            Some(reason) => Answering::Gateway(reason),
            None => Answering::Provider(expected),
        }
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
        change.metadata = self.closing_metadata(&reading.served);
        Ok((State::Over, Step::Continue(change)))
    }

    /// Trailers end a body whose last chunk did not say that it was the last.
    pub(super) fn response_trailers(&mut self, reading: &mut Reading, now: Instant) -> (State, Step) {
        reading.reader.finish();
        self.complete(reading, now);
        let metadata = self.closing_metadata(&reading.served);
        (State::Over, Step::Continue(Change { metadata, ..Change::default() }))
    }

    /// An answer of Envoy itself, given before the request was complete.
    pub(super) fn foreign_answer(&mut self, headers: &Headers) -> (State, Step) {
        let status = status(headers);
        self.note(|settlement| {
            settlement.status = Some(status);
            settlement.outcome = Outcome::AnsweredByEnvoy;
        });
        (State::Passing, pass_on(headers))
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
            let report = reading.reader.report();
            if settlement.outcome == Outcome::Interrupted {
                settlement.outcome = if report.cut { Outcome::ProviderError } else { Outcome::Completed };
            }
            settlement.read(report, report.cut);
            settlement.completed = Some(now);
        });
    }

    fn chunk_came(&mut self, now: Instant) {
        self.note(|settlement| {
            settlement.first_chunk.get_or_insert(now);
        });
    }
}

/// Who gave an answer.
enum Answering {
    Provider(Expected),
    /// The gateway, in an attempt; the word says why.
    Gateway(&'static str),
    /// Envoy: no backend was tried.
    Envoy,
}

/// The rest of an answer passes by.
pub(super) fn pass() -> Step {
    let phases = Some(PhaseOverride::Response(ResponsePhases::None));
    Step::Continue(Change { phases, ..Change::default() })
}

/// As [`pass`], without what attempts say in `headers`, which is nobody else's business.
fn pass_on(headers: &Headers) -> Step {
    let mut edits = HeaderEdits::default();
    if headers.contains(ATTEMPT_HEADER) {
        edits.remove(ATTEMPT_HEADER);
    }
    let phases = Some(PhaseOverride::Response(ResponsePhases::None));
    Step::Continue(Change { headers: edits, phases, ..Change::default() })
}

pub(super) fn status(headers: &Headers) -> u16 {
    headers.text(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
}

//! Quotas in the course of an exchange: what is asked before a request is sent, what becomes of it, and what it did cost.
//!
//! ```text
//! Question::new ─► Step::Ask ─► the store ─► Question::answered ─► Ruling: it goes on (with a shorter answer), or the client is told why not
//!                                   the end, of any kind ─► Reservation::settle, once
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use super::settlement::Settlement;
use super::{ExchangeId, Now, Outcome};
use crate::endpoint::{Dialect, Endpoint};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::LocalReply;
use crate::quota::cap::Form;
use crate::quota::estimate::{Measure, prompt};
use crate::quota::{
    Ask, End, Estimate, EstimateBy, Facts, Grant, Limit, OnAway, Prepared, Reading, ReservationId, Selected,
    Settle, Used, Verdict, cap, headers, refusal,
};
use crate::runtime::Served;
use crate::usage::TokenUsage;

/// Why a store did not say whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is out of reach. The reservation may have been made all the same.
    Away,
    /// The windows that were named are over; by its clock it is so many milliseconds since the Unix epoch. Nothing was done.
    Stale(u64),
}

/// How often windows that are over are asked for anew.
const MAX_STALE: u32 = 2;

/// What is asked of the store for a request, and what follows from the answer.
#[derive(Debug)]
pub(super) struct Question {
    prepared: Prepared,
    endpoint: Endpoint,
    stale: u32,
}

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Ruling {
    /// The request goes on.
    Passed(Passed),
    /// The store is to be asked again.
    Again(Arc<Ask>),
    /// The client gets this answer; nothing is held. The limit that had no room, where there is one.
    Refused(LocalReply, Option<Arc<str>>),
    /// The client gets this answer, and nobody knows whether anything is held.
    Unknown(LocalReply),
}

/// How a request goes on.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// How long the answer may get, where the request has to say so, whatever is made of it.
    pub(super) ceiling: Option<u64>,
    /// What the buckets looked like then, and the store's time.
    pub(super) readings: Option<(Vec<Reading>, u64)>,
}

/// The store's time, in milliseconds since the Unix epoch, where it is ahead of ours by so many milliseconds.
pub(super) fn store_time(now: Now, ahead: i64) -> u64 {
    let since = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(ahead)
}

/// Which of an exchange's reservations one is: the router's, or that of an attempt, from 1.
pub(super) fn reservation_id(id: ExchangeId, part: u32) -> ReservationId {
    ReservationId { process: id.process, exchange: id.number, part }
}

/// A way in which a request may reach its provider: what decides how much it uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    /// Where its prompt is measured.
    pub(super) prompt: &'a [u8],
    /// What is sent.
    pub(super) body: &'a [u8],
    /// How that says how long the answer may get.
    pub(super) form: Form,
}

impl Question {
    /// What is to be asked for a request that will be sent in one of these ways: it holds what the most expensive may cost. `now` is in
    /// milliseconds since the Unix epoch by the store's clock.
    pub(super) fn new(
        selected: Selected,
        facts: &Facts<'_>,
        ways: &[Way<'_>],
        id: ReservationId,
        now: u64,
    ) -> Self {
        let measure = match selected.estimate_by() {
            EstimateBy::Bytes => Measure::Characters,
            EstimateBy::Tokenizer => Measure::Tokenizer,
        };
        let model = facts.sent_model.unwrap_or(facts.asked_model);
        let mut estimate = Estimate { prompt: 0, output: None, unsaid: false, answers: 1 };
        let mut least = 0;
        let mut prompts: Vec<&[u8]> = Vec::with_capacity(1);
        for way in ways {
            if !prompts.iter().any(|known| std::ptr::eq(*known, way.prompt)) {
                prompts.push(way.prompt);
            }
            let cap = cap::read(way.form, way.body);
            estimate.output = estimate.output.max(cap.output);
            estimate.unsaid |= cap.output.is_none();
            estimate.answers = estimate.answers.max(cap.answers);
            least = least.max(cap.least);
        }
        let measured = prompts.iter().map(|text| prompt(facts.endpoint, model, text, measure).tokens);
        estimate.prompt = measured.max().unwrap_or(0);
        let mut prepared = selected.prepare(facts, estimate, id, now);
        let output = &mut prepared.ask.output;
        // A lower one the provider would refuse.
        output.least = output.least.max(least).min(output.wanted);
        Self { prepared, endpoint: facts.endpoint, stale: 0 }
    }

    pub(super) fn ask(&self) -> Arc<Ask> {
        Arc::new(self.prepared.ask.clone())
    }

    /// What the exchange answers for from now on, whatever the store will say.
    pub(super) fn reservation(&self, served: Option<&Arc<Served>>, model: &Arc<str>) -> Reservation {
        Reservation {
            ask: self.ask(),
            limits: self.prepared.limits.clone(),
            prompt: self.prepared.estimate.prompt,
            served: served.cloned(),
            model: Arc::clone(model),
            readings: None,
        }
    }

    pub(super) fn answered(&mut self, answer: Result<Verdict, NoAnswer>) -> Ruling {
        let dialect = Dialect::of(self.endpoint);
        match answer {
            Ok(Verdict::Granted(Grant { output, readings, now })) => self.pass(output, Some((readings, now))),
            Ok(Verdict::Refused(refused)) => {
                let Prepared { ask, limits, .. } = &self.prepared;
                let limit = refusal::limit(&refused, limits).map(|limit| Arc::clone(&limit.name));
                Ruling::Refused(refusal::refused(dialect, ask, limits, &refused), limit)
            }
            Err(NoAnswer::Stale(now)) if self.stale < MAX_STALE => {
                self.stale += 1;
                self.prepared.move_to(now);
                Ruling::Again(self.ask())
            }
            Err(NoAnswer::Away | NoAnswer::Stale(_)) => match self.prepared.on_away {
                // What is not reserved is limited all the same: it will be charged.
                OnAway::Open => self.pass(self.prepared.ask.output.wanted, None),
                OnAway::Closed => Ruling::Unknown(refusal::unavailable(dialect)),
            },
        }
    }

    fn pass(&self, output: u64, readings: Option<(Vec<Reading>, u64)>) -> Ruling {
        let ceiling = (self.prepared.clamp && self.endpoint.generates_text()).then_some(output);
        Ruling::Passed(Passed { ceiling, readings })
    }
}

/// What an exchange has asked a store to hold: whatever comes of it, it is settled once.
#[derive(Debug, Clone)]
pub struct Reservation {
    ask: Arc<Ask>,
    limits: Vec<Arc<Limit>>,
    prompt: u64,
    /// Whom it was for, where that was known.
    served: Option<Arc<Served>>,
    model: Arc<str>,
    readings: Option<(Vec<Reading>, u64)>,
}

impl Reservation {
    /// What was asked.
    pub fn ask(&self) -> &Arc<Ask> {
        &self.ask
    }

    /// Tokens of the prompt, as estimated: a bound from above.
    pub fn prompt(&self) -> u64 {
        self.prompt
    }

    pub(super) fn granted(&mut self, passed: &Passed) {
        self.readings.clone_from(&passed.readings);
    }

    /// What it costs if the attempt that it was for came to nothing.
    pub(super) fn settle_in_vain(&self, end: End) -> Settle {
        self.settle(&TokenUsage::default(), end, None)
    }

    fn settle(&self, usage: &TokenUsage, end: End, settlement: Option<&Settlement>) -> Settle {
        let served = self.served.as_ref().or_else(|| settlement?.served.as_ref());
        let model = match (&self.served, settlement) {
            (None, Some(Settlement { request_model: Some(model), .. })) => model,
            _ => &self.model,
        };
        let estimated = settlement.filter(|settlement| settlement.estimated);
        // Where nobody has counted the prompt, it counts as long as it was taken for when it was let in: a limit holds only if no
        // guess is lower than what a provider may charge.
        let guessed = TokenUsage {
            input: Some(self.prompt),
            total: Some(self.prompt.saturating_add(usage.output.unwrap_or(0))),
            ..*usage
        };
        let usage =
            if estimated.is_some_and(|settlement| settlement.prompt_guessed) { &guessed } else { usage };
        let used = Used {
            usage,
            prompt: self.prompt,
            end,
            model,
            backend: served.map_or("", |served| &served.backend.name),
            route: served.map_or("", |served| &served.route),
        };
        // What is counted by what was delivered counts events that carry no token, too; no more can have been used than was held.
        let most = estimated.map(|settlement| settlement.clamped.unwrap_or(self.ask.output.wanted));
        let spent = self.ask.claims.iter().zip(&self.limits).map(|(claim, limit)| {
            let most = most.map_or(u64::MAX, |output| claim.bound.at(output));
            (claim.clone(), limit.cost(&used).min(most))
        });
        let spent = spent.collect();
        Settle { id: self.ask.id, spent }
    }
}

impl Settlement {
    /// What every reservation of this exchange did cost: to be told to the store, once.
    pub fn settles(&self) -> impl Iterator<Item = Settle> {
        let end = self.end();
        self.reservations.iter().map(move |reservation| reservation.settle(&self.usage, end, Some(self)))
    }

    /// How many times the prompt tokens that the provider counted had been estimated; nothing where one of the two is not known.
    pub fn prompt_estimate(&self) -> Option<f64> {
        let reservation = self.reservations.last().filter(|_| !self.estimated && self.succeeded())?;
        let counted = self.usage.input.filter(|counted| *counted > 0)?;
        Some(reservation.prompt() as f64 / counted as f64)
    }

    /// How it ended, as far as that matters for what it costs.
    fn end(&self) -> End {
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        match self.outcome {
            Outcome::Refused(_) => End::Unsent,
            _ if !self.sent => End::Unsent,
            _ if answered => End::Answered,
            _ if self.status.is_some() => End::Failed,
            _ => End::Abandoned,
        }
    }

    /// Says in an answer's headers what is left of the client's limits, in place of what the provider says of its own.
    pub(super) fn tell_limits(
        &self,
        dialect: Dialect,
        answer: &Headers,
        elapsed: u64,
        edits: &mut HeaderEdits,
    ) {
        if self.reservations.is_empty() {
            return;
        }
        for (name, _) in answer.iter() {
            if headers::PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
                && let Ok(name) = std::str::from_utf8(name)
            {
                edits.remove(name.to_owned());
            }
        }
        let granted = self.reservations.iter().filter_map(|reservation| {
            let (readings, now) = reservation.readings.as_ref()?;
            Some((reservation.limits.iter().zip(readings), *now))
        });
        let now = granted.clone().map(|(_, now)| now).max().unwrap_or(0).saturating_add(elapsed);
        for (name, value) in headers::headers(dialect, granted.flat_map(|(readings, _)| readings), now) {
            edits.remove.retain(|removed| removed != name);
            edits.set(name, value);
        }
        if let Some(clamped) = self.clamped {
            edits.set(headers::CLAMPED, clamped.to_string());
        }
    }
}

#[cfg(test)]
mod tests;

//! What is asked of a store, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::MAX_AMOUNT;

/// Names a reservation among those of all processors: it is made, renewed and settled under this name, each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ReservationId {
    /// Drawn at random when the process starts.
    pub process: u64,
    /// The exchange within the process.
    pub exchange: u64,
    /// Which of the exchange's reservations: 0 is the router's, others are those of attempts.
    pub part: u32,
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:x}", self.process, self.exchange, self.part)
    }
}

/// A bucket: what one limit counts for one subject (a tenant, a model, a header's value, …). Of the limit's id and a digest of the
/// subject, so that no text of a client's can collide with another's, or break out of a store's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct BucketKey {
    /// The limit's, the same for all its buckets: ASCII letters, digits, `.`, `/`, `-`, `_`, `:`.
    #[serde(with = "text")]
    pub limit: Arc<str>,
    /// 32 hexadecimal digits of a digest over the subject, or empty where the limit has one bucket only. Before them, with a dot between, may
    /// stand as many of whose subjects [`Claim::most_subjects`] counts.
    #[serde(with = "text")]
    pub subject: Arc<str>,
}

/// Shared texts as texts.
mod text {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// How long what is spent counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Window {
    /// Only what is held counts, nothing is spent: requests in flight.
    InFlight,
    /// From one moment to another, by the calendar or by whole multiples of a length. What is reserved in a window is charged
    /// to it. The store takes the first of the two that has not ended by its own clock.
    Aligned {
        /// When the window began, inclusive.
        start: u64,
        /// When it ends, exclusive; the next one starts.
        end: u64,
        /// When the next one ends.
        next_end: u64,
    },
    /// The time up to now of that length, at every moment. A store may let what is spent count longer by a sixtieth.
    Rolling {
        /// In milliseconds.
        length: u64,
    },
}

/// The part of a bound that grows with the answer: an answer of `n` tokens costs `ceil(n * numerator / denominator)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PerOutput {
    /// 0 where the answer's length does not matter. At most 10^9.
    pub numerator: u64,
    /// Never 0. At most 10^9.
    pub denominator: u64,
}

/// The most a request may cost by one limit's measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Bound {
    /// Whatever the answer.
    pub fixed: u64,
    /// By the answer's length.
    pub per_output: PerOutput,
}

impl Bound {
    /// A bound that the answer does not change.
    #[must_use]
    pub fn fixed(amount: u64) -> Self {
        Self { fixed: amount.min(MAX_AMOUNT), per_output: PerOutput { numerator: 0, denominator: 1 } }
    }

    /// The most it costs if the answer has at most `output` tokens; at most [`MAX_AMOUNT`].
    #[must_use]
    pub fn at(&self, output: u64) -> u64 {
        let PerOutput { numerator, denominator } = self.per_output;
        let output = u128::from(output.min(MAX_AMOUNT)) * u128::from(numerator);
        let output = output.div_ceil(u128::from(denominator.max(1)));
        let sum = u128::from(self.fixed).saturating_add(output).min(u128::from(MAX_AMOUNT));
        u64::try_from(sum).unwrap_or(MAX_AMOUNT)
    }
}

/// Whether a limit is held to before or after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// The bound is held from the start: the limit is never exceeded by what runs at the same time.
    Reserve,
    /// A request is let in as long as anything is left, and charged at its end.
    Record,
}

/// What becomes of a reservation whose holder neither renews nor settles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum OnExpiry {
    /// What is held counts as spent.
    Charge,
    /// What is held is given back.
    Refund,
}

/// One bucket a request has to pay into.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    /// Which bucket.
    pub bucket: BucketKey,
    /// How much there is in a window.
    pub amount: u64,
    /// The window.
    pub window: Window,
    /// The most the request may cost.
    pub bound: Bound,
    /// When the limit is held to.
    pub mode: Mode,
    /// Counted, but never a reason to refuse.
    pub shadow: bool,
    /// What happens if nobody settles.
    pub on_expiry: OnExpiry,
    /// Index into [`Ask::groups`].
    pub group: usize,
    /// How many buckets the limit may have in a window, where clients choose the subject: what comes after shares one more. Each that
    /// chooses, as the subject says, has as many and one more.
    pub most_subjects: Option<u32>,
}

/// How the claims of a group decide together. All of them are charged in any case. Shadow claims are no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// There has to be room in every bucket.
    All,
    /// There has to be room in at least one, if there are any (the mode `Shared` of a `QuotaPolicy`).
    Any,
}

/// How long an answer may get, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OutputCap {
    /// As asked for, or by default.
    pub wanted: u64,
    /// How far it may be lowered to what is left. As [`OutputCap::wanted`]: not at all.
    pub least: u64,
}

/// What is asked of a store: to hold the bounds of all claims, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Asked again under the same id, the answer is the same and nothing more is held.
    pub id: ReservationId,
    /// At least one; no two of the same bucket.
    pub claims: Vec<Claim>,
    /// What [`Claim::group`] points to.
    pub groups: Vec<Group>,
    /// How long the answer may get.
    pub output: OutputCap,
    /// How long it is held unless it is renewed.
    pub lease: Duration,
}

/// The state of a bucket after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// How much there is in a window.
    pub amount: u64,
    /// How much of it is spent.
    pub spent: u64,
    /// How much of it is held, by this reservation too.
    pub held: u64,
    /// When the window ends, or, of a rolling one, when something of what is spent stops counting at the latest. 0: never, as
    /// nothing is spent.
    pub resets_at: u64,
}

impl Reading {
    /// What is neither spent nor held.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.amount.saturating_sub(self.spent).saturating_sub(self.held)
    }
}

/// A reservation that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// How long the answer may get, in tokens: what was wanted, or what is left if it may be lowered.
    pub output: u64,
    /// Of each claim, in their order.
    pub readings: Vec<Reading>,
    /// The store's time.
    pub now: u64,
}

impl Grant {
    /// What a store grants where nothing is spent and nothing held: for whoever only wants to know how a request would go on.
    #[must_use]
    pub fn of_plenty(ask: &Ask) -> Self {
        let reading = |claim: &Claim| Reading { amount: claim.amount, spent: 0, held: 0, resets_at: 0 };
        Self { output: ask.output.wanted, readings: ask.claims.iter().map(reading).collect(), now: 0 }
    }
}

/// A reservation that was not made. Nothing is held by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the first claim that there was no room for.
    pub claim: usize,
    /// Of each claim, in their order.
    pub readings: Vec<Reading>,
    /// The store's time.
    pub now: u64,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There was room.
    Granted(Grant),
    /// There was not.
    Refused(Refusal),
}

/// The end of a reservation: what it did cost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Settle {
    /// Which one.
    pub id: ReservationId,
    /// The claims of its [`Ask`], each with what was spent: also more than its bound, and 0 where the request was free. They
    /// are needed where the store has lost the reservation, or was never reached.
    pub spent: Vec<(Claim, u64)>,
}

/// What a store did with a [`Settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// What was held is given back, and what was spent is charged.
    Done,
    /// It was settled before. Nothing changed.
    Before,
    /// There was no such reservation: what was spent is charged all the same.
    Unreserved,
}

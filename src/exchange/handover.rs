//! What the two streams of one exchange know of each other, where a request is sent attempt by attempt: the router's stream
//! leaves the request, an attempt's stream leaves what it made of it.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::identity::Client;
use super::outgoing::{Expected, Original, Usage};
use super::quota::{Passed, Reservation};
use crate::endpoint::{Endpoint, ModelRequest};
use crate::headers::Headers;
use crate::quota::{End, Quotas, Settle, Stage};
use crate::runtime::{Classic, Rule, Served, Tenancy};
use crate::tenant::Tenant;

/// Names an exchange among those of all processors. In text, two numbers of 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeId {
    /// Drawn at random when the process starts.
    pub process: u64,
    /// Counted within the process.
    pub number: u64,
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.process, self.number)
    }
}

/// The text is no [`ExchangeId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id of an exchange")]
pub struct InvalidId;

impl FromStr for ExchangeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = |text: &str| {
            let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(InvalidId)
        };
        let (process, rest) = text.split_once('-').ok_or(InvalidId)?;
        Ok(Self { process: number(process)?, number: number(rest)? })
    }
}

/// The request of an exchange, for the attempts to send it, and what the latest attempt did.
pub struct Handover {
    pub(super) endpoint: Endpoint,
    /// Who is asking, as far as it was known when the request was routed.
    pub(super) known: Client,
    /// Who clients are, and what they may use, in the edition of the configuration the rule was chosen from.
    pub(super) tenancy: Arc<Tenancy>,
    /// Who is asking, once an attempt has seen what is proved.
    pub(super) client: OnceLock<Client>,
    /// As the client sent them, but for the secrets by which it proves who it is.
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) request: ModelRequest,
    pub(super) model: Arc<str>,
    /// The client's own credentials end here, whatever a backend wants.
    pub(super) strip_credentials: bool,
    pub(super) usage: Usage,
    /// How long the answer may get, where the router's stream was granted so much.
    pub(super) ceiling: Option<u64>,
    pub(super) candidates: Candidates,
    /// What attempts have to ask for, if anything.
    pub(super) quota: Option<Limits>,
    pub(super) attempts: Mutex<Attempts>,
}

/// What attempts ask the store of quotas by.
pub(super) struct Limits {
    pub(super) quotas: Arc<Quotas>,
    /// Which part of them is theirs.
    pub(super) stage: Stage,
    /// `namespace/name` of the Gateway.
    pub(super) gateway: Arc<str>,
    pub(super) exchange: ExchangeId,
    /// The client's address.
    pub(super) source: Option<IpAddr>,
    /// The store's time less ours, in milliseconds.
    pub(super) ahead: i64,
}

/// Who may serve a request.
pub(super) enum Candidates {
    /// The backends of the rule that was chosen, in the edition of the configuration it was chosen from.
    OfRule(Arc<Rule>),
    /// Whomever Envoy chooses.
    Classic(Arc<Classic>),
}

/// What became of a request so far.
#[derive(Default)]
pub(super) struct Attempts {
    count: u32,
    latest: Option<Taken>,
    failed: Vec<Arc<Served>>,
    /// Of the attempt that is under way.
    reservation: Option<Reservation>,
    clamped: Option<u64>,
    /// The limit that had no room for the latest.
    refused_by: Option<Arc<str>>,
    /// Who has proved who it is, and may not use the model.
    forbidden: Option<Tenant>,
}

/// What the attempts leave to be settled.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) reservation: Option<Reservation>,
    pub(super) clamped: Option<u64>,
    pub(super) refused_by: Option<Arc<str>>,
    /// The latest went on to its backend.
    pub(super) sent: bool,
}

/// What an attempt did with a request.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// Who was asked, and what the answer will be like.
    pub(super) expected: Expected,
    /// The gateway answered in the provider's place; the word says why.
    pub(super) refused: Option<&'static str>,
    /// When the attempt began.
    pub(super) started: Instant,
}

impl Handover {
    pub(super) fn original(&self) -> Original<'_> {
        let Self { endpoint, headers, body, request, model, .. } = self;
        Original { endpoint: *endpoint, headers, body, request, model }
    }

    /// Held for as long as it takes to read or write a few words.
    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt: 1 is the first. What an earlier one asked of its backend came to nothing; what it had reserved is to be
    /// settled.
    pub(super) fn begin(&self) -> (u32, Option<Settle>) {
        let mut attempts = self.attempts();
        attempts.count = attempts.count.saturating_add(1);
        let mut end = End::Unsent;
        if let Some(before) = attempts.latest.take() {
            end = if before.refused.is_some() { End::Unsent } else { End::Failed };
            attempts.failed.push(before.expected.served);
        }
        (attempts.clamped, attempts.refused_by) = (None, None);
        (attempts.count, attempts.reservation.take().map(|reservation| reservation.settle_in_vain(end)))
    }

    /// Leaves what is asked of the store of quotas, before it is.
    pub(super) fn reserve(&self, reservation: Reservation) {
        self.attempts().reservation = Some(reservation);
    }

    /// Leaves how long the answer may get, where that was written into what the attempt sends.
    pub(super) fn clamped(&self, clamped: Option<u64>) {
        let mut attempts = self.attempts();
        attempts.clamped = clamped.or(attempts.clamped);
    }

    /// The store has answered: there was room.
    pub(super) fn granted(&self, passed: &Passed) {
        let mut attempts = self.attempts();
        if let Some(reservation) = &mut attempts.reservation {
            reservation.granted(passed);
        }
    }

    /// The store has answered: there was none, and nothing is held.
    pub(super) fn refused(&self, limit: Option<Arc<str>>) {
        let mut attempts = self.attempts();
        attempts.refused_by = limit;
        attempts.reservation = None;
    }

    /// Hands out what is to be settled.
    pub(super) fn left(&self) -> Left {
        let mut attempts = self.attempts();
        let sent = attempts.latest.as_ref().is_some_and(|taken| taken.refused.is_none());
        let Attempts { reservation, clamped, refused_by, .. } = &mut *attempts;
        Left { reservation: reservation.take(), clamped: *clamped, refused_by: refused_by.take(), sent }
    }

    /// Leaves what the attempt did. A later one takes its place.
    pub(super) fn take(&self, taken: Taken) {
        self.attempts().latest = Some(taken);
    }

    /// Leaves who has proved who it is, and was refused.
    pub(super) fn forbidden(&self, tenant: Tenant) {
        self.attempts().forbidden = Some(tenant);
    }

    /// Who is asking, as far as an attempt has seen it.
    pub(super) fn tenant(&self) -> Option<Tenant> {
        let admitted = self.client.get().map(|client| client.tenant.clone());
        admitted.or_else(|| self.attempts().forbidden.clone())
    }

    /// The latest attempt, and whose attempts failed before.
    pub(super) fn result(&self) -> (Option<Taken>, Vec<Arc<Served>>) {
        let mut attempts = self.attempts();
        (attempts.latest.clone(), std::mem::take(&mut attempts.failed))
    }
}

/// No content: it is the users' business.
impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover")
            .field("endpoint", &self.endpoint)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_and_nothing_else_is_one() {
        let id = ExchangeId { process: u64::MAX, number: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in
            ["", "-", "7-7", "+00000000000000f-0000000000000001", "000000000000000f-0000000000000001x"]
        {
            assert_eq!(text.parse::<ExchangeId>(), Err(InvalidId), "{text}");
        }
    }
}

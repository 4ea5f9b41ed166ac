//! Who leads: of several controllers only the one that holds a Lease writes.
//!
//! A holder renews its lease, and stops writing when it has not managed to for a while; others take a lease that has not been renewed for
//! longer than that. Times of other machines are not believed: whoever looks at a lease counts from when *it* saw the lease change, so clocks
//! may differ as they like as long as they run equally fast.

mod client;

use std::time::{Duration, Instant};

pub(super) use client::{Leadership, elect};

/// How long leadership lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// How long a lease counts after it was last seen renewed.
    pub(super) duration: Duration,
    /// For how long the holder goes on without having renewed it; shorter than [`Timing::duration`], so that it has stopped before
    /// anybody else begins.
    pub(super) deadline: Duration,
    /// How often it is renewed, and looked at.
    pub(super) retry: Duration,
}

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The API server's version of it.
    pub(super) version: String,
    /// Who holds it; empty if nobody does.
    pub(super) holder: String,
    /// How long its holder wants it to count.
    pub(super) duration: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no lease: make one.
    Create,
    /// Nobody holds it (any longer): take it.
    Take,
    /// Renew it.
    Renew,
    /// Somebody else holds it.
    Stand,
}

/// Whether this one leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known yet, or nothing any more.
    Unknown,
    /// It leads until then, unless it renews the lease.
    Leads(Instant),
    /// Somebody else does.
    Follows,
}

/// One that wants to lead. No I/O: it is told what was read and written, and when.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    timing: Timing,
    /// The version of the lease that was read last, and when it was first.
    seen: Option<(String, Instant)>,
    standing: Standing,
}

impl Candidate {
    /// `identity` is nobody else's, ever.
    pub(super) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, standing: Standing::Unknown }
    }

    /// What to do about the lease as it was read at `now`.
    pub(super) fn look(&mut self, record: Option<&Record>, now: Instant) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((version, since)) if *version == record.version => *since,
            _ => {
                self.seen = Some((record.version.clone(), now));
                now
            }
        };
        if record.holder == self.identity {
            return Step::Renew;
        }
        // A holder that asked for less time than we would take is still left ours: its clock may be slow, and so may its writes.
        let valid = record.duration.max(self.timing.duration);
        if record.holder.is_empty() || now.saturating_duration_since(since) >= valid {
            return Step::Take;
        }
        self.standing = Standing::Follows;
        Step::Stand
    }

    /// A write was answered with yes. `begun` is from before it was sent.
    pub(super) fn written(&mut self, version: String, begun: Instant) {
        self.seen = Some((version, begun));
        self.standing = Standing::Leads(begun + self.timing.deadline);
    }

    /// A write was answered with no: somebody else was quicker. Who that is will be seen.
    pub(super) fn beaten(&mut self) {
        if matches!(self.standing, Standing::Leads(_)) {
            self.standing = Standing::Unknown;
        }
    }

    /// Where it stands at `now`.
    pub(super) fn standing(&mut self, now: Instant) -> Standing {
        if matches!(self.standing, Standing::Leads(until) if until <= now) {
            self.standing = Standing::Unknown;
        }
        self.standing
    }
}

#[cfg(test)]
mod tests;

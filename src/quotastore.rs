//! L4. Where quotas are kept: in this process, or in Redis for many; and the [`Desk`] at which an exchange asks.
//!
//! ```text
//! exchange ─► Desk::reserve ─► a store: one atomic step, within the deadline ─► Verdict, or Away
//!             Desk::hold    ─► renewed in the background
//!             Desk::settle  ─► a queue ─► the store, in batches
//!                         └──► the journal on the disk, if there is one, until the store has been told
//! the memory store ─► a snapshot on the disk, if there is one, each second ─► the store of the next process
//! ```
//!
//! All stores do the same steps ([`ledger`](crate::quota::ledger)), and one suite of tests is run on all.

mod breaker;
mod desk;
mod journal;
mod memory;
mod record;
mod redis;
mod snapshot;
mod worker;

#[cfg(test)]
mod tests;

pub use self::desk::{Away, Desk, DeskOptions, Running};
pub use self::journal::{Journal, JournalError, JournalOptions, Sync, read_journal};
pub use self::memory::MemoryStore;
pub use self::redis::{InvalidPlace, RedisOptions, RedisPlace, RedisStore};
pub use self::snapshot::{
    Snapshot, SnapshotError, SnapshotOptions, resume_snapshot, snapshot_of, take_snapshot,
};
use crate::quota::{Ask, ReservationId, Settle, Settled, Verdict};

/// Why a store did not do what it was asked to. Nothing secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or does not answer as it should. What was asked may have been done.
    #[error("{0}")]
    Away(String),
    /// The windows that were named are over by the store's clock.
    #[error("the windows that were named are over; the store's time is {now}")]
    Stale {
        /// The store's time.
        now: u64,
    },
    /// The reservation has been settled before: nothing is held.
    #[error("the reservation has been settled before")]
    Ended,
    /// It makes no sense. Nothing was done.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is no room for more buckets or leases. Nothing was done.
    #[error("the store is full")]
    Full,
}

/// What a store answers an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether there was room.
    pub verdict: Verdict,
    /// How many claims were paid into a bucket that is shared, because their limit has as many as it may.
    pub overflowed: u64,
}

/// A place where quotas are kept. Each step is atomic.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process.
    Memory(MemoryStore),
    /// In Redis.
    Redis(RedisStore),
}

impl Store {
    /// Holds the bounds of all claims, or nothing. Asked again under the same id, the answer is the same and nothing more is held.
    pub async fn reserve(&self, ask: &Ask) -> Result<Answer, StoreError> {
        match self {
            Self::Memory(store) => store.reserve(ask),
            Self::Redis(store) => store.reserve(ask).await,
        }
    }

    /// Makes leases last so long from now, in milliseconds. Of each: whether it had not run out yet.
    pub async fn renew(&self, leases: &[(ReservationId, u64)]) -> Result<Vec<bool>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.renew(leases)),
            Self::Redis(store) => store.renew(leases).await,
        }
    }

    /// Ends a reservation, once and for all.
    pub async fn settle(&self, settle: &Settle) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(store) => store.settle(settle),
            Self::Redis(store) => store.settle(settle).await,
        }
    }

    /// Tells the store that the answers to these settlements have come: it need not remember them much longer.
    pub async fn confirm(&self, ids: &[ReservationId]) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => {
                store.confirm(ids);
                Ok(())
            }
            Self::Redis(store) => store.confirm(ids).await,
        }
    }

    /// Keeps it connected, until dropped.
    pub async fn connect(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(store) => store.connect().await,
        }
    }

    /// The same store for another thread: it answers while that runs [`Store::drive`], and wakes no other.
    fn beside(&self) -> Self {
        match self {
            Self::Memory(store) => Self::Memory(store.clone()),
            Self::Redis(store) => Self::Redis(store.beside()),
        }
    }

    /// Has what this handle is asked for done, until dropped.
    async fn drive(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(store) => store.drive().await,
        }
    }

    /// The store's time.
    pub async fn now(&self) -> Result<u64, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.now()),
            Self::Redis(store) => store.now().await,
        }
    }
}

/// What every store demands of the claims of one step.
fn check(claims: &[&crate::quota::Claim]) -> Result<(), StoreError> {
    if claims.is_empty() {
        return Err(StoreError::Malformed("nothing is claimed"));
    }
    let twice = claims.iter().enumerate().any(|(index, claim)| {
        claims.iter().take(index).any(|other| {
            let limit = claim.bucket.limit == other.bucket.limit && claim.window == other.window;
            // Those that come too late share a bucket.
            limit && (claim.most_subjects.is_some() || claim.bucket.subject == other.bucket.subject)
        })
    });
    if twice { Err(StoreError::Malformed("two claims are of the same bucket")) } else { Ok(()) }
}

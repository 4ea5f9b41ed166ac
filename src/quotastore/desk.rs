//! Where exchanges ask for what they need and leave what they did use.

mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::held::Held;
use super::{MemoryStore, Store, StoreError};
use crate::quota::{Ask, Settle, Verdict};

/// How often leases are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How many reservations are renewed or settled in one go.
const BATCH: usize = 256;

/// How a desk deals with its store.
#[derive(Debug, Clone)]
pub struct DeskOptions {
    /// How long an exchange waits for an answer, connecting included.
    pub deadline: Duration,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(50) }
    }
}

/// Nobody knows whether there is room. The reservation may have been made all the same, so [`Desk::settle`] is owed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub StoreError);

/// The store as exchanges see it. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    options: DeskOptions,
    /// The store's time less that of this machine, in milliseconds.
    offset: AtomicI64,
    held: Held,
}

/// What a desk does in the background.
#[derive(Debug)]
pub struct Running(Desk);

impl Desk {
    /// A desk before a store.
    pub fn new(store: Store, options: DeskOptions) -> (Self, Running) {
        let desk = Self(Arc::new(Inner { store, options, offset: AtomicI64::new(0), held: Held::default() }));
        (desk.clone(), Running(desk))
    }

    /// A desk before quotas in this process, as they are by default. Nothing is renewed in the background.
    pub fn memory() -> Self {
        Self::new(Store::Memory(MemoryStore::default()), DeskOptions::default()).0
    }

    /// The store's time, in milliseconds since the Unix epoch: what the windows of an [`Ask`] are named by. Learnt from its answers.
    pub fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.0.offset.load(Ordering::Relaxed))
    }

    /// How far the store's clock is ahead of this machine's, in milliseconds. Learnt from its answers.
    pub fn ahead(&self) -> i64 {
        self.0.offset.load(Ordering::Relaxed)
    }

    /// One atomic step: holds the bounds of all claims, or nothing. Takes no longer than the deadline.
    ///
    /// What is granted is held for the lease of the ask; [`Desk::hold`] keeps it. Whatever comes of it, and if the caller goes away
    /// while it waits too, [`Desk::settle`] is owed unless it is refused.
    ///
    /// # Errors
    /// The store did not say.
    pub async fn reserve(&self, ask: Arc<Ask>) -> Result<Verdict, Away> {
        let answer = timeout(self.0.options.deadline, self.0.store.reserve(&ask)).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Away("no answer in time".to_owned())));
        match answer {
            Ok(answer) => {
                self.learn(match &answer.verdict {
                    Verdict::Granted(grant) => grant.now,
                    Verdict::Refused(refusal) => refusal.now,
                });
                Ok(answer.verdict)
            }
            Err(error) => {
                if let StoreError::Stale { now } = error {
                    self.learn(now);
                }
                Err(Away(error))
            }
        }
    }

    /// Keeps what was granted from running out until it is settled.
    pub fn hold(&self, ask: &Arc<Ask>) {
        self.0.held.insert(ask.id, ask.lease);
    }

    /// Ends a reservation: exactly once, however often it is called for one id. Never waits. Also for reservations whose answer never
    /// came, with what they did cost: 0 where nothing was done.
    pub fn settle(&self, settle: Settle) {
        self.0.held.remove(settle.id);
        match &self.0.store {
            // No need to wait for anything.
            Store::Memory(store) => {
                if let Err(error) = store.settle(&settle) {
                    tracing::error!(%error, id = %settle.id, "a reservation cannot be settled");
                }
                store.confirm(&[settle.id]);
            }
        }
    }

    /// What the store's clock shows beyond this machine's.
    fn learn(&self, now: u64) {
        let ours = self.now().saturating_add_signed(self.0.offset.load(Ordering::Relaxed).saturating_neg());
        let offset = i64::try_from(i128::from(now) - i128::from(ours)).unwrap_or(0);
        self.0.offset.store(offset, Ordering::Relaxed);
    }
}

impl Running {
    /// Renews what is held until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(RENEW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.renew().await;
        }
    }
}

impl Desk {
    async fn renew(&self) {
        let due = self.0.held.due();
        for leases in due.chunks(BATCH) {
            if let Err(error) = self.0.store.renew(leases).await {
                tracing::debug!(%error, "leases were not renewed");
            }
        }
    }
}

//! Where exchanges ask for what they need and leave what they did use.

mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::held::Held;
use super::breaker::Breaker;
use super::{Journal, MemoryStore, Snapshot, Store, StoreError};
use crate::quota::{Ask, Settle, Verdict};

/// How often leases are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before what could not be settled is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How many reservations are renewed or settled in one go.
const BATCH: usize = 256;
/// How many ends of reservations may wait for the store. Beyond, they are given up: their leases run out.
const MOST_WAITING: usize = 1 << 20;

/// How a desk deals with its store.
#[derive(Debug, Clone)]
pub struct DeskOptions {
    /// How long an exchange waits for an answer, connecting included.
    pub deadline: Duration,
    /// How long the end waits for what has to be settled still.
    pub flush: Duration,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(50), flush: Duration::from_secs(3) }
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
    breaker: Breaker,
    settles: mpsc::UnboundedSender<Settle>,
    /// How many were sent there and are not delivered.
    unsettled: AtomicUsize,
    /// How many claims were paid into a bucket that is shared.
    overflowed: AtomicU64,
    /// How many were not, because too many wait.
    given_up: AtomicU64,
    /// What outlives this process.
    beside: Beside,
}

/// What is on the disk beside a store.
#[derive(Debug, Default)]
struct Beside {
    /// What waits for the store.
    journal: Option<Journal>,
    /// What a store in this process has.
    snapshot: Option<Snapshot>,
}

/// What a desk does in the background.
#[derive(Debug)]
pub struct Running {
    desk: Desk,
    settles: mpsc::UnboundedReceiver<Settle>,
}

impl Desk {
    /// A desk before a store.
    pub fn new(store: Store, options: DeskOptions) -> (Self, Running) {
        Self::with(store, options, Beside::default(), Vec::new())
    }

    /// A desk before a store, with a journal of what that has not been told of yet; `owed` is what came out of it, to be delivered first.
    pub fn journaled(
        store: Store,
        options: DeskOptions,
        (journal, owed): (Journal, Vec<Settle>),
    ) -> (Self, Running) {
        Self::with(store, options, Beside { journal: Some(journal), ..Beside::default() }, owed)
    }

    /// A desk before quotas in this process that a file follows.
    pub fn kept(store: MemoryStore, options: DeskOptions, snapshot: Snapshot) -> (Self, Running) {
        let beside = Beside { snapshot: Some(snapshot), ..Beside::default() };
        Self::with(Store::Memory(store), options, beside, Vec::new())
    }

    fn with(store: Store, options: DeskOptions, beside: Beside, owed: Vec<Settle>) -> (Self, Running) {
        let (settles, queue) = mpsc::unbounded_channel();
        let unsettled = AtomicUsize::new(owed.len());
        for settle in owed {
            // The other end is here.
            let _ = settles.send(settle);
        }
        let (offset, held, breaker) = (AtomicI64::new(0), Held::default(), Breaker::new(Instant::now()));
        let desk = Self(Arc::new(Inner {
            store,
            options,
            offset,
            held,
            breaker,
            settles,
            overflowed: AtomicU64::new(0),
            unsettled,
            given_up: AtomicU64::new(0),
            beside,
        }));
        (desk.clone(), Running { desk, settles: queue })
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
        if !self.0.breaker.lets(Instant::now()) {
            return Err(Away(StoreError::Away("the store did not answer lately".to_owned())));
        }
        let answer = timeout(self.0.options.deadline, self.0.store.reserve(&ask)).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Away("no answer in time".to_owned())));
        match answer {
            Err(StoreError::Away(_)) => self.0.breaker.failed(Instant::now()),
            _ => self.0.breaker.worked(),
        }
        match answer {
            Ok(answer) => {
                if answer.overflowed > 0 {
                    self.0.overflowed.fetch_add(answer.overflowed, Ordering::Relaxed);
                }
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
            // The queue is gone only after the process was told to stop without waiting.
            Store::Redis(_) => {
                if let Some(journal) = &self.0.beside.journal {
                    journal.owe(&settle);
                }
                if self.unsettled() >= MOST_WAITING {
                    // Not once for each: there are many.
                    if self.0.given_up.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
                        tracing::error!(
                            "too many ends of reservations wait for the store of quotas: leases run out"
                        );
                    }
                    return;
                }
                self.0.unsettled.fetch_add(1, Ordering::SeqCst);
                drop(self.0.settles.send(settle));
            }
        }
    }

    /// How many ends of reservations the store has not been told of.
    pub fn unsettled(&self) -> usize {
        self.0.unsettled.load(Ordering::SeqCst)
    }

    /// How many times a limit had as many subjects as it may tell apart, so that another one shared a bucket with all others that
    /// came too late.
    pub fn overflowed(&self) -> u64 {
        self.0.overflowed.load(Ordering::Relaxed)
    }

    /// How many ends of reservations are lost if this process ends before the store is back, or already: the journal could not take
    /// them, or too many waited.
    pub fn lost(&self) -> u64 {
        let journal = self.0.beside.journal.as_ref().map_or(0, Journal::lost);
        journal.saturating_add(self.0.given_up.load(Ordering::Relaxed))
    }

    /// How many times a file that follows quotas in this process could not be written.
    pub fn unwritten(&self) -> u64 {
        self.0.beside.snapshot.as_ref().map_or(0, Snapshot::failed)
    }

    /// What the store's clock shows beyond this machine's.
    fn learn(&self, now: u64) {
        let ours = self.now().saturating_add_signed(self.0.offset.load(Ordering::Relaxed).saturating_neg());
        let offset = i64::try_from(i128::from(now) - i128::from(ours)).unwrap_or(0);
        self.0.offset.store(offset, Ordering::Relaxed);
    }
}

impl Running {
    /// Connects, renews and settles until told to stop; then settles what was left, as far as that takes no longer than
    /// [`DeskOptions::flush`].
    pub async fn run(self, stop: CancellationToken) {
        let Self { desk, mut settles } = self;
        let mut batch = Vec::new();
        let store = desk.0.store.clone();
        let settling = async {
            loop {
                if batch.is_empty() && settles.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                if !desk.deliver(&mut batch).await {
                    sleep(RETRY).await;
                }
                if stop.is_cancelled() && batch.is_empty() && settles.is_empty() {
                    return;
                }
            }
        };
        let renewing = async {
            let mut ticks = interval(RENEW_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                desk.renew().await;
            }
        };
        let over = async {
            stop.cancelled().await;
            sleep(desk.0.options.flush).await;
        };
        let idle = async {
            stop.cancelled().await;
            // Whatever was sent before is taken first.
            while desk.unsettled() > 0 {
                sleep(RETRY / 10).await;
            }
        };
        tokio::select! {
            () = store.connect() => {}
            () = settling => {}
            () = renewing => {}
            () = idle => {}
            () = over => {}
        }
        if let Some(snapshot) = &desk.0.beside.snapshot {
            snapshot.written().await;
        }
        let left = desk.unsettled();
        if let Some(journal) = &desk.0.beside.journal {
            // All that is owed is written before this is answered.
            journal.paid(Vec::new()).await;
            if left > 0 {
                tracing::warn!(
                    left,
                    "the store of quotas was not told how reservations ended; the journal keeps that for the next start"
                );
            }
        } else if left > 0 {
            tracing::error!(left, "the store of quotas was not told how reservations ended; they run out");
        }
    }
}

impl Desk {
    /// Settles what the store takes, and keeps the rest. Says whether that was all.
    async fn deliver(&self, batch: &mut Vec<Settle>) -> bool {
        let done = join_all(batch.iter().map(|settle| self.0.store.settle(settle))).await;
        let mut done = done.into_iter();
        let mut settled = Vec::with_capacity(batch.len());
        batch.retain(|settle| match done.next() {
            Some(Err(StoreError::Away(reason))) => {
                tracing::debug!(reason, id = %settle.id, "a reservation is not settled yet");
                true
            }
            Some(Err(error)) => {
                tracing::error!(%error, id = %settle.id, "a reservation cannot be settled");
                settled.push(settle.id);
                false
            }
            Some(Ok(_)) | None => {
                settled.push(settle.id);
                false
            }
        });
        let told = settled.len();
        if told > 0 {
            // What may come out of the journal again has to be remembered.
            let settled = match &self.0.beside.journal {
                Some(journal) => journal.paid(settled).await,
                None => settled,
            };
            let _ = self.0.store.confirm(&settled).await;
        }
        self.0.unsettled.fetch_sub(told, Ordering::SeqCst);
        batch.is_empty()
    }

    async fn renew(&self) {
        let due = self.0.held.due();
        for leases in due.chunks(BATCH) {
            if let Err(error) = self.0.store.renew(leases).await {
                tracing::debug!(%error, "leases were not renewed");
            }
        }
    }
}

//! Where exchanges ask for what they need and leave what they did use.

mod held;

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::held::Held;
use super::breaker::Breaker;
use super::{Journal, MemoryStore, Snapshot, Store, StoreError};
use crate::quota::{Ask, ReservationId, Settle, Verdict};

/// How often leases are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How often the store is told what it need not remember any longer.
const CONFIRM_EVERY: Duration = Duration::from_millis(100);
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
pub struct Desk {
    inner: Arc<Inner>,
    store: Store,
    /// To whoever settles on this thread.
    settles: mpsc::UnboundedSender<Settle>,
}

#[derive(Debug)]
struct Inner {
    options: DeskOptions,
    /// The store's time less that of this machine, in milliseconds.
    offset: AtomicI64,
    held: Held,
    breaker: Breaker,
    /// To whoever settles last.
    settles: mpsc::UnboundedSender<Settle>,
    /// How many were sent to be settled and are not delivered.
    unsettled: AtomicUsize,
    /// What was delivered, and the store is to be told that nobody will ask for again.
    delivered: Mutex<Vec<Delivered>>,
    /// How many claims were paid into a bucket that is shared.
    overflowed: AtomicU64,
    /// How many were not, because too many wait.
    given_up: AtomicU64,
    /// What outlives this process.
    beside: Beside,
}

/// Reservations whose end was delivered.
#[derive(Debug)]
enum Delivered {
    /// They are settled once and for all.
    Forever(Vec<ReservationId>),
    /// The journal will say which of them are.
    Journaled(oneshot::Receiver<Vec<ReservationId>>),
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
        let inner = Arc::new(Inner {
            options,
            offset,
            held,
            breaker,
            settles: settles.clone(),
            overflowed: AtomicU64::new(0),
            unsettled,
            delivered: Mutex::default(),
            given_up: AtomicU64::new(0),
            beside,
        });
        let desk = Self { inner, store, settles };
        (desk.clone(), Running { desk, settles: queue })
    }

    /// A desk before quotas in this process, as they are by default. Nothing is renewed in the background.
    pub fn memory() -> Self {
        Self::new(Store::Memory(MemoryStore::default()), DeskOptions::default()).0
    }

    /// The same desk for another thread: what exchanges leave and ask for here goes to the store from there, while it runs what is
    /// returned, and wakes no other thread.
    pub fn beside(&self) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (settles, queue) = mpsc::unbounded_channel();
        let desk = Self { store: self.store.beside(), settles, inner: Arc::clone(&self.inner) };
        let driven = desk.store.clone();
        // Not in the future: what is left here is handed on even if that is never run.
        let mut till = Till { desk: desk.clone(), queue, batch: Vec::new() };
        let driving = async move {
            tokio::join!(driven.drive(), till.settle());
        };
        (desk, driving)
    }

    /// The store's time, in milliseconds since the Unix epoch: what the windows of an [`Ask`] are named by. Learnt from its answers.
    pub fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.inner.offset.load(Ordering::Relaxed))
    }

    /// How far the store's clock is ahead of this machine's, in milliseconds. Learnt from its answers.
    pub fn ahead(&self) -> i64 {
        self.inner.offset.load(Ordering::Relaxed)
    }

    /// One atomic step: holds the bounds of all claims, or nothing. Takes no longer than the deadline.
    ///
    /// What is granted is held for the lease of the ask; [`Desk::hold`] keeps it. Whatever comes of it, and if the caller goes away
    /// while it waits too, [`Desk::settle`] is owed unless it is refused.
    ///
    /// # Errors
    /// The store did not say.
    pub async fn reserve(&self, ask: Arc<Ask>) -> Result<Verdict, Away> {
        if !self.inner.breaker.lets(Instant::now()) {
            return Err(Away(StoreError::Away("the store did not answer lately".to_owned())));
        }
        let answer = timeout(self.inner.options.deadline, self.store.reserve(&ask)).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Away("no answer in time".to_owned())));
        match answer {
            Err(StoreError::Away(_)) => self.inner.breaker.failed(Instant::now()),
            _ => self.inner.breaker.worked(),
        }
        match answer {
            Ok(answer) => {
                if answer.overflowed > 0 {
                    self.inner.overflowed.fetch_add(answer.overflowed, Ordering::Relaxed);
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
        self.inner.held.insert(ask.id, ask.lease);
    }

    /// Ends a reservation: exactly once, however often it is called for one id. Never waits. Also for reservations whose answer never
    /// came, with what they did cost: 0 where nothing was done.
    pub fn settle(&self, settle: Settle) {
        self.inner.held.remove(settle.id);
        match &self.store {
            // No need to wait for anything.
            Store::Memory(store) => {
                if let Err(error) = store.settle(&settle) {
                    tracing::error!(%error, id = %settle.id, "a reservation cannot be settled");
                }
                store.confirm(&[settle.id]);
            }
            // The queue is gone only after the process was told to stop without waiting.
            Store::Redis(_) => {
                if let Some(journal) = &self.inner.beside.journal {
                    journal.owe(&settle);
                }
                if self.unsettled() >= MOST_WAITING {
                    // Not once for each: there are many.
                    if self.inner.given_up.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
                        tracing::error!(
                            "too many ends of reservations wait for the store of quotas: leases run out"
                        );
                    }
                    return;
                }
                self.inner.unsettled.fetch_add(1, Ordering::SeqCst);
                // Where nobody settles on this thread any more, another does.
                if let Err(SendError(settle)) = self.settles.send(settle) {
                    drop(self.inner.settles.send(settle));
                }
            }
        }
    }

    /// How many ends of reservations the store has not been told of.
    pub fn unsettled(&self) -> usize {
        self.inner.unsettled.load(Ordering::SeqCst)
    }

    /// How many times a limit had as many subjects as it may tell apart, so that another one shared a bucket with all others that
    /// came too late.
    pub fn overflowed(&self) -> u64 {
        self.inner.overflowed.load(Ordering::Relaxed)
    }

    /// How many ends of reservations are lost if this process ends before the store is back, or already: the journal could not take
    /// them, or too many waited.
    pub fn lost(&self) -> u64 {
        let journal = self.inner.beside.journal.as_ref().map_or(0, Journal::lost);
        journal.saturating_add(self.inner.given_up.load(Ordering::Relaxed))
    }

    /// How many times a file that follows quotas in this process could not be written.
    pub fn unwritten(&self) -> u64 {
        self.inner.beside.snapshot.as_ref().map_or(0, Snapshot::failed)
    }

    /// What the store's clock shows beyond this machine's.
    fn learn(&self, now: u64) {
        let ours =
            self.now().saturating_add_signed(self.inner.offset.load(Ordering::Relaxed).saturating_neg());
        let offset = i64::try_from(i128::from(now) - i128::from(ours)).unwrap_or(0);
        self.inner.offset.store(offset, Ordering::Relaxed);
    }
}

impl Running {
    /// Connects, renews and settles until told to stop; then settles what was left, as far as that takes no longer than
    /// [`DeskOptions::flush`].
    pub async fn run(self, stop: CancellationToken) {
        let Self { desk, settles } = self;
        let mut till = Till { desk: desk.clone(), queue: settles, batch: Vec::new() };
        let store = desk.store.clone();
        let confirming = async {
            let mut ticks = interval(CONFIRM_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                desk.confirm().await;
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
            sleep(desk.inner.options.flush).await;
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
            () = till.settle() => {}
            () = confirming => {}
            () = renewing => {}
            () = idle => {}
            () = over => {}
        }
        if let Some(snapshot) = &desk.inner.beside.snapshot {
            snapshot.written().await;
        }
        // Best effort: what is not told is remembered for a day.
        let _ = timeout(RETRY, desk.confirm()).await;
        let left = desk.unsettled();
        if let Some(journal) = &desk.inner.beside.journal {
            // All that is owed is written before this is answered.
            let _ = journal.paid(Vec::new()).await;
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
        let done = join_all(batch.iter().map(|settle| self.store.settle(settle))).await;
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
            let delivered = match &self.inner.beside.journal {
                Some(journal) => Delivered::Journaled(journal.paid(settled)),
                None => Delivered::Forever(settled),
            };
            self.delivered().push(delivered);
        }
        self.inner.unsettled.fetch_sub(told, Ordering::SeqCst);
        batch.is_empty()
    }

    fn delivered(&self) -> MutexGuard<'_, Vec<Delivered>> {
        self.inner.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the store what it need not remember any longer.
    async fn confirm(&self) {
        let delivered = std::mem::take(&mut *self.delivered());
        let mut settled = Vec::new();
        for ids in delivered {
            match ids {
                Delivered::Forever(ids) => settled.extend(ids),
                Delivered::Journaled(safe) => settled.extend(safe.await.unwrap_or_default()),
            }
        }
        for ids in settled.chunks(BATCH) {
            let _ = self.store.confirm(ids).await;
        }
    }

    async fn renew(&self) {
        let due = self.inner.held.due();
        for leases in due.chunks(BATCH) {
            if let Err(error) = self.store.renew(leases).await {
                tracing::debug!(%error, "leases were not renewed");
            }
        }
    }
}

/// Settles what a thread leaves to be settled. What is left when it is dropped goes to whoever settles last.
struct Till {
    desk: Desk,
    queue: mpsc::UnboundedReceiver<Settle>,
    batch: Vec<Settle>,
}

impl Till {
    async fn settle(&mut self) {
        loop {
            if self.batch.is_empty() && self.queue.recv_many(&mut self.batch, BATCH).await == 0 {
                return;
            }
            if !self.desk.deliver(&mut self.batch).await {
                sleep(RETRY).await;
            }
        }
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.queue.close();
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        for settle in self.batch.drain(..).chain(queued) {
            // Its other end is gone if this is the last.
            drop(self.desk.inner.settles.send(settle));
        }
    }
}

//! Keeps an index in step with its store.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::file::{FileStore, Stamp};
use super::redis::RedisStore;
use super::{Store, StoreError};
use crate::keys::Index;

/// How often a store is asked whether anything changed: half of the time within which a key that is taken back has to be refused.
/// Redis tells of changes besides; this is for when it could not, and shows that it is there.
const EVERY: Duration = Duration::from_millis(400);
/// The longest wait before a store that is away is tried again.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Keeps the index in step until dropped. `clock` is the one that [`Index::verify`] is given.
pub async fn follow(store: Store, index: &Index, clock: impl Fn() -> Instant) {
    let mut condition = Condition::default();
    let mut wait = Duration::ZERO;
    loop {
        let ended = match &store {
            Store::File(store) => follow_file(store, index, &clock, &mut condition).await,
            Store::Redis(store) => follow_redis(store, index, &clock, &mut condition).await,
        };
        let Err(error) = ended;
        index.lost(error.to_string());
        wait = if condition.failed(&error) { EVERY / 4 } else { (wait * 2).min(MAX_BACKOFF) };
        sleep(wait).await;
    }
}

/// Nothing is returned.
enum Never {}

/// Tells of changes of the store's condition, once each.
#[derive(Default)]
struct Condition {
    away: bool,
    ever: bool,
    problems: Vec<String>,
}

impl Condition {
    /// Whether it had been there.
    fn failed(&mut self, error: &StoreError) -> bool {
        let first = !self.away;
        self.away = true;
        match (first, self.ever) {
            (true, true) => {
                tracing::warn!(%error, "the store of keys is away; the keys that are known serve for --keys-stale-after");
            }
            (true, false) => {
                tracing::error!(%error, "the store of keys cannot be read; until it can, nobody with a key is let in");
            }
            (false, _) => tracing::debug!(%error, "the store of keys is away still"),
        }
        first
    }

    fn works(&mut self, keys: usize) {
        if self.away || !self.ever {
            tracing::info!(keys, "the keys are in step with their store");
        }
        self.away = false;
        self.ever = true;
    }

    fn problems(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.problems = problems;
    }
}

async fn follow_file(
    store: &FileStore,
    index: &Index,
    clock: impl Fn() -> Instant,
    condition: &mut Condition,
) -> Result<Never, StoreError> {
    let mut known: Option<Stamp> = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before = clock();
        if let Some((stamp, snapshot)) = store.newer(known.clone()).await? {
            known = Some(stamp);
            condition.problems(snapshot.problems);
            index.replace(snapshot.records);
        }
        index.confirm(before);
        condition.works(index.len());
    }
}

async fn follow_redis(
    store: &RedisStore,
    index: &Index,
    clock: impl Fn() -> Instant,
    condition: &mut Condition,
) -> Result<Never, StoreError> {
    // Before all else, so that no change is missed in between.
    let (mut changes, mut connection) = tokio::try_join!(store.subscribe(), store.connect())?;
    let mut changes = changes.on_message();
    let mut before = clock();
    let (mut version, snapshot) = store.scan(&mut connection).await?;
    condition.problems(snapshot.problems);
    index.replace(snapshot.records);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        loop {
            let news = store.changes(version, &mut connection).await?;
            if news.rewound {
                tracing::error!(
                    "the store of keys is older than it was: it lost changes, keys that were taken back may be valid again; all are read anew"
                );
                return Err(StoreError::Away("its version went back".to_owned()));
            }
            version = news.version;
            if !news.problems.is_empty() {
                condition.problems(news.problems);
            }
            index.remove(&news.gone);
            index.apply(news.records);
            if !news.more {
                break;
            }
        }
        index.confirm(before);
        condition.works(index.len());
        // Until something is new, or it is time to look.
        loop {
            tokio::select! {
                message = changes.next() => match message {
                    None => return Err(StoreError::Away("the connection ended".to_owned())),
                    Some(message) => {
                        let told: u64 = message.get_payload().unwrap_or(u64::MAX);
                        if told > version {
                            break;
                        }
                    }
                },
                _ = ticks.tick() => break,
            }
        }
        before = clock();
    }
}

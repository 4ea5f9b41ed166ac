//! What people do with keys: make, list, show, take back, put another in the place of one.

use std::time::{Duration, SystemTime};

use ring::rand::SecureRandom;
use secrecy::SecretString;

use super::{Store, StoreError, Write};
use crate::keys::{Grant, InvalidGrant, KeyId, NewKey, Record, Standing};

/// How often a change is tried that others get in the way of.
const TRIES: usize = 32;

/// Why a key was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// The store did not do it. After a store that did not answer it may have been done all the same.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Grant(#[from] InvalidGrant),
    /// There is no key of that id.
    #[error("there is no key {0}; `aigw key list` shows all")]
    NoSuchKey(KeyId),
    /// It is too late for another in its place.
    #[error("the key {0} is {1}, so nothing can take its place: make a new one")]
    Over(KeyId, &'static str),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A key that was made.
#[derive(Debug)]
pub struct Created {
    /// What is kept of it.
    pub record: Record,
    /// The key itself. It is nowhere else.
    pub key: SecretString,
}

/// Manages the keys of a store.
#[derive(Debug, Clone)]
pub struct Manager {
    store: Store,
    random: ring::rand::SystemRandom,
}

impl Manager {
    /// Manages the keys of that store.
    pub fn new(store: Store) -> Self {
        Self { store, random: ring::rand::SystemRandom::new() }
    }

    /// Makes a key.
    pub async fn create(&self, grant: Grant, now: SystemTime) -> Result<Created, ManageError> {
        let key = self.generate()?;
        let record = Record::new(&key, grant, now)?;
        self.store.write(vec![Write::new(record.clone())]).await?;
        Ok(Created { record, key: key.text })
    }

    /// All keys, the oldest first, and what is wrong with others.
    pub async fn list(&self) -> Result<(Vec<Record>, Vec<String>), ManageError> {
        let mut snapshot = self.store.all().await?;
        snapshot.records.sort_by_key(|record| (record.created, record.id));
        Ok((snapshot.records, snapshot.problems))
    }

    /// One key.
    pub async fn show(&self, id: KeyId) -> Result<Record, ManageError> {
        let held = self.store.get(id).await?;
        held.map(|held| held.record).ok_or(ManageError::NoSuchKey(id))
    }

    /// Takes a key back. To take it back again changes nothing.
    pub async fn revoke(&self, id: KeyId, now: SystemTime) -> Result<Record, ManageError> {
        for _ in 0..TRIES {
            let held = self.store.get(id).await?.ok_or(ManageError::NoSuchKey(id))?;
            let mut record = held.record.clone();
            record.revoke(now);
            if record == held.record {
                return Ok(record);
            }
            match self.store.write(vec![Write::instead(held, record.clone())]).await {
                Err(StoreError::Conflict) => {}
                done => return done.map(|()| record).map_err(Into::into),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Makes a key in the place of another one, which is good for `grace` still.
    pub async fn rotate(&self, id: KeyId, grace: Duration, now: SystemTime) -> Result<Created, ManageError> {
        for _ in 0..TRIES {
            let held = self.store.get(id).await?.ok_or(ManageError::NoSuchKey(id))?;
            match held.record.standing(now) {
                Standing::Active | Standing::Retiring => {}
                Standing::Revoked => return Err(ManageError::Over(id, "revoked")),
                Standing::Expired => return Err(ManageError::Over(id, "expired")),
            }
            let key = self.generate()?;
            let mut old = held.record.clone();
            let record = old.rotate(&key, now, grace);
            match self.store.write(vec![Write::instead(held, old), Write::new(record.clone())]).await {
                Err(StoreError::Conflict) => {}
                done => return done.map(|()| Created { record, key: key.text }).map_err(Into::into),
            }
        }
        Err(StoreError::Conflict.into())
    }

    fn generate(&self) -> Result<NewKey, ManageError> {
        let mut random = [0; 64];
        self.random.fill(&mut random).map_err(|_| ManageError::Random)?;
        Ok(NewKey::generate(&random))
    }
}

/// A duration such as `30d`, `12h`, `1h30m`, `45s` or `50ms`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let shown: String = text.chars().take(32).collect();
        format!("`{shown}` is no duration: write 30d, 12h, 1h30m, 45s or 50ms")
    };
    let mut sum = 0_u64;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        // In milliseconds; the first that fits.
        let units = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let found = units.iter().find_map(|(name, scale)| Some((unit.strip_prefix(name)?, *scale)));
        let (after, scale) = found.ok_or_else(wrong)?;
        sum = number.checked_mul(scale).and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(Duration::from_millis(sum))
}

//! L4. Where the records of keys are kept: a file on this machine, or Redis for many; and how every processor comes to hold all
//! of them.
//!
//! A request never asks a store: it asks the [`Index`](crate::keys::Index), which [`follow`] keeps in step. So a store that is
//! slow or away slows nobody down, and what its absence means is decided in one place, by the index.

mod file;
mod follow;
mod location;
mod manage;
mod redis;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use self::file::FileStore;
#[doc(hidden)]
pub use self::file::read_any;
pub use self::follow::follow;
pub use self::location::{InvalidLocation, Location};
pub use self::manage::{Created, ManageError, Manager, parse_duration};
pub use self::redis::RedisStore;
pub(crate) use self::redis::reason as redis_reason;
use crate::keys::{KeyId, Record};

/// Why a store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or cannot be used now.
    #[error("{0}")]
    Away(String),
    /// What was to be changed is no longer what it was. Nothing was changed.
    #[error("somebody else changed the key at the same time")]
    Conflict,
}

/// A record as it stands in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub record: Record,
    /// How it says so: what a [`Write`] is held to.
    text: String,
}

/// A record that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    after: Record,
    /// What has to be there for the write to happen; nothing: no record of that id.
    before: Option<String>,
}

impl Write {
    /// Writes the record of a new key.
    pub fn new(record: Record) -> Self {
        Self { after: record, before: None }
    }

    /// Puts `after` in the place of `before`, which has the same id.
    pub fn instead(before: Held, after: Record) -> Self {
        Self { after, before: Some(before.text) }
    }
}

/// All records of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Those that can be read, in no order.
    pub records: Vec<Record>,
    /// Why others cannot. Their keys are refused.
    pub problems: Vec<String>,
}

/// A place where records are kept. Each write is atomic and lasting before it is answered.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file on this machine.
    File(FileStore),
    /// Redis, or what speaks its protocol.
    Redis(Box<RedisStore>),
}

impl Store {
    /// The store at a place. Nothing is read or connected yet. `ca` is a file of certificates (PEM) to trust in the place of the
    /// system's, for `rediss://`.
    pub fn new(location: &Location, ca: Option<&Path>) -> Result<Self, StoreError> {
        match location {
            Location::File(path) => Ok(Self::File(FileStore::new(path.clone()))),
            Location::Redis(info) => Ok(Self::Redis(Box::new(RedisStore::new((**info).clone(), ca)?))),
        }
    }

    /// The record of that id, if there is one that can be read.
    pub async fn get(&self, id: KeyId) -> Result<Option<Held>, StoreError> {
        match self {
            Self::File(store) => store.get(id).await,
            Self::Redis(store) => store.get(id).await,
        }
    }

    /// All records.
    pub async fn all(&self) -> Result<Snapshot, StoreError> {
        match self {
            Self::File(store) => store.all().await,
            Self::Redis(store) => store.all().await,
        }
    }

    /// Writes all of them or, if one of them finds something else than it was to, none.
    pub async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.write(writes).await,
            Self::Redis(store) => store.write(&writes).await,
        }
    }
}

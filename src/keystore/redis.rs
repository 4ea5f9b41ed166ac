//! Keys in Redis, for any number of processors.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `{aigw-keys}:records` | hash | the record of each id, as JSON |
//! | `{aigw-keys}:version` | integer | counts changes of records |
//! | `{aigw-keys}:changed` | sorted set | each id by the version of its last change |
//! | `{aigw-keys}:changes` | channel | is told the version of every change |
//!
//! All have one hash tag, so that a cluster keeps them together. Records are written by one script ([`WRITE`]); what processors do
//! (`GET`, `HSCAN`, `HMGET`, `ZRANGEBYSCORE`, `SUBSCRIBE`) only reads, so that their user may be allowed no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSub};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline, RedisError, Script,
    TlsCertificates, cmd,
};
use tokio::sync::Mutex;

use super::{Held, Snapshot, StoreError, Write};
use crate::keys::{KeyId, Record};

const RECORDS: &str = "{aigw-keys}:records";
const VERSION: &str = "{aigw-keys}:version";
const CHANGED: &str = "{aigw-keys}:changed";
const CHANGES: &str = "{aigw-keys}:changes";

/// Puts records in the place of others, all of them or none, and tells of it.
///
/// KEYS: records, version, changed. ARGV: the channel, then for each record its id, what has to be there (nothing: an empty text)
/// and what is to be there. Returns the version after it, or 0 if something else was there. A script and no transaction: what is
/// written depends on what is there.
const WRITE: &str = r"
for i = 2, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
local version = 0
for i = 2, #ARGV, 3 do
  version = redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  redis.call('ZADD', KEYS[3], version, ARGV[i])
end
redis.call('PUBLISH', ARGV[1], version)
return version
";

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many records are asked for at once.
const PAGE: usize = 500;

/// Keys in a Redis.
#[derive(Clone)]
pub struct RedisStore {
    client: Arc<Client>,
    name: Arc<str>,
    /// For those who manage keys; made when it is needed, and anew when it failed.
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisStore({})", self.name)
    }
}

/// What changed after a version.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// All that was changed up to it is in.
    pub(super) version: u64,
    pub(super) records: Vec<Record>,
    /// Those whose records can no longer be read.
    pub(super) gone: Vec<KeyId>,
    pub(super) problems: Vec<String>,
    /// Whether there may be more.
    pub(super) more: bool,
    /// The store's version is lower than what was known: it is not the store that it was.
    pub(super) rewound: bool,
}

impl RedisStore {
    /// The store of that server. `ca` is a file of certificates to trust.
    pub(super) fn new(info: ConnectionInfo, ca: Option<&Path>) -> Result<Self, StoreError> {
        let name = format!("Redis at {}", info.addr());
        let client = client(info, ca).map_err(StoreError::Away)?;
        Ok(Self { client: Arc::new(client), name: name.into(), connection: Arc::default() })
    }

    pub(super) async fn get(&self, id: KeyId) -> Result<Option<Held>, StoreError> {
        let mut command = cmd("HGET");
        command.arg(RECORDS).arg(id.as_str());
        let mut connection = self.shared().await?;
        let text: Option<Vec<u8>> = self.done(command.query_async(&mut connection).await).await?;
        let Some(text) = text else { return Ok(None) };
        let wrong = |error: String| StoreError::Away(format!("{}: the key {id}: {error}", self.name));
        let record = Record::from_json(&text).map_err(|error| wrong(error.to_string()))?;
        let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Held { record, text }))
    }

    pub(super) async fn all(&self) -> Result<Snapshot, StoreError> {
        let mut connection = self.shared().await?;
        let scanned = self.scan(&mut connection).await;
        if scanned.is_err() {
            *self.connection.lock().await = None;
        }
        scanned.map(|(_, snapshot)| snapshot)
    }

    pub(super) async fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        let script = Script::new(WRITE);
        let mut call = script.key(RECORDS);
        call.key(VERSION).key(CHANGED).arg(CHANGES);
        for Write { after, before } in writes {
            call.arg(after.id.as_str()).arg(before.as_deref().unwrap_or_default()).arg(after.to_json());
        }
        let mut connection = self.shared().await?;
        let version: u64 = self.done(call.invoke_async(&mut connection).await).await?;
        if version == 0 { Err(StoreError::Conflict) } else { Ok(()) }
    }

    /// A connection of one's own.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| self.away(&error))
    }

    /// Told of every change from now on.
    pub(super) async fn subscribe(&self) -> Result<PubSub, StoreError> {
        let subscribing = async {
            let mut changes = self.client.get_async_pubsub().await?;
            changes.subscribe(CHANGES).await?;
            Ok(changes)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, subscribing).await {
            Ok(subscribed) => subscribed.map_err(|error: RedisError| self.away(&error)),
            Err(_) => Err(StoreError::Away(format!("{}: no answer to SUBSCRIBE", self.name))),
        }
    }

    /// All records, and the version they are of at least.
    pub(super) async fn scan(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(u64, Snapshot), StoreError> {
        // First: what changes from here on is asked for again.
        let version: Option<u64> = self.ask(cmd("GET").arg(VERSION), connection).await?;
        let mut records = BTreeMap::new();
        let mut problems = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = cmd("HSCAN");
            command.arg(RECORDS).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, page): (u64, Vec<(String, Vec<u8>)>) = self.ask(&command, connection).await?;
            for (id, text) in page {
                // The same one may come twice.
                match read(&id, &text) {
                    Ok(record) => drop(records.insert(record.id, record)),
                    Err((_, problem)) => problems.push(format!("{}: {problem}", self.name)),
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        problems.dedup();
        let records = records.into_values().collect();
        Ok((version.unwrap_or_default(), Snapshot { records, problems }))
    }

    /// What changed after `version`, the oldest changes first.
    pub(super) async fn changes(
        &self,
        version: u64,
        connection: &mut MultiplexedConnection,
    ) -> Result<Changes, StoreError> {
        let mut both = Pipeline::new();
        both.get(VERSION).cmd("ZRANGEBYSCORE").arg(CHANGED).arg(format!("({version}")).arg("+inf");
        both.arg("WITHSCORES").arg("LIMIT").arg(0).arg(PAGE);
        let answer = both.query_async(connection).await;
        let (newest, ids): (Option<u64>, Vec<(String, u64)>) = answer.map_err(|error| self.away(&error))?;
        let mut changes = Changes { version, ..Changes::default() };
        if newest.unwrap_or_default() < version {
            changes.rewound = true;
            return Ok(changes);
        }
        let Some((_, last)) = ids.last() else { return Ok(changes) };
        changes.version = *last;
        changes.more = ids.len() == PAGE;
        let mut command = cmd("HMGET");
        command.arg(RECORDS);
        for (id, _) in &ids {
            command.arg(id);
        }
        // What is newer than the version is asked for again, and no harm done.
        let texts: Vec<Option<Vec<u8>>> = self.ask(&command, connection).await?;
        for ((id, _), text) in ids.iter().zip(texts) {
            match read(id, &text.unwrap_or_default()) {
                Ok(record) => changes.records.push(record),
                Err((id, problem)) => {
                    changes.gone.extend(id);
                    changes.problems.push(format!("{}: {problem}", self.name));
                }
            }
        }
        Ok(changes)
    }

    async fn ask<T: FromRedisValue>(
        &self,
        command: &::redis::Cmd,
        connection: &mut MultiplexedConnection,
    ) -> Result<T, StoreError> {
        command.query_async(connection).await.map_err(|error| self.away(&error))
    }

    async fn shared(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        Ok(connection.insert(self.connect().await?).clone())
    }

    /// A connection that failed is not used again.
    async fn done<T>(&self, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                *self.connection.lock().await = None;
                Err(self.away(&error))
            }
        }
    }

    fn away(&self, error: &RedisError) -> StoreError {
        StoreError::Away(format!("{}: {}", self.name, reason(error)))
    }
}

/// What connects to that server. `ca` is a file of certificates (PEM) to trust in the place of the system's.
fn client(info: ConnectionInfo, ca: Option<&Path>) -> Result<Client, String> {
    let name = format!("Redis at {}", info.addr());
    let client = match ca {
        None => Client::open(info),
        Some(path) => {
            let root_cert =
                Some(std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?);
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
    };
    client.map_err(|error| format!("{name}: {}", reason(&error)))
}

/// The record of an entry; else its id, if it has one, and what is wrong.
fn read(id: &str, text: &[u8]) -> Result<Record, (Option<KeyId>, String)> {
    let known: Option<KeyId> = id.parse().ok();
    let shown: String = id.chars().take(32).filter(|c| !c.is_control()).collect();
    let wrong = |error: String| (known, format!("the key {shown:?}: {error}; it is refused"));
    match Record::from_json(text) {
        Ok(record) if Some(record.id) == known => Ok(record),
        Ok(record) => Err(wrong(format!("its record is that of {}", record.id))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// What went wrong, and what to do about it. Redis does not repeat what it was sent in what is read here.
pub(crate) fn reason(error: &RedisError) -> String {
    let hint = match error.code() {
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            " (name user and password: redis://USER:PASSWORD@HOST)"
        }
        Some("NOAUTH" | "WRONGPASS") => " (name user and password: redis://USER:PASSWORD@HOST)",
        // The latter of a command within a script.
        code if code == Some("NOPERM") || error.to_string().contains("user executing the script") => {
            " (the user's ACL does not allow it; README.md lists what is needed)"
        }
        Some("READONLY") => " (this is a replica: name the server that takes writes)",
        Some("OOM") => " (its memory is full)",
        _ if error.is_timeout() => " (no answer in time)",
        _ => "",
    };
    format!("{error}{hint}")
}

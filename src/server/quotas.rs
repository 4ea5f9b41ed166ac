//! Where the quotas of a processor are kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::keystore::{Location, parse_duration};
use crate::quotastore::{
    Desk, DeskOptions, Journal, JournalOptions, MemoryStore, RedisOptions, RedisPlace, RedisStore, Running,
    Store, Sync,
};

/// The longest that an exchange may be made to wait for a store.
const MAX_DEADLINE: Duration = Duration::from_secs(5);
/// In MiB.
const DEFAULT_JOURNAL: u64 = 64;

const REDIS: &str = "Keep quotas in this Redis, for all processors that name it: \
redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+unix:///SOCKET, \
redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE] or \
redis-cluster://[USER:PASSWORD@]HOST[:PORT],…; rediss in the place of redis is TLS \
[default: in this process, for as long as it runs]";

/// Where quotas are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct QuotaOptions {
    /// The Redis that quotas are kept in; in this process if none is named.
    #[arg(long, help = REDIS, value_name = "URL", env = "AIGW_REDIS", hide_env_values = true, value_parser = Location::unread)]
    pub redis: Option<SecretString>,
    /// The certificates to trust with rediss (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", env = "AIGW_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
    /// The certificate to show to a Redis that asks for one (PEM)
    #[arg(long, value_name = "FILE", env = "AIGW_REDIS_CERT", requires = "redis_key")]
    pub redis_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "AIGW_REDIS_KEY", requires = "redis_cert")]
    pub redis_key: Option<PathBuf>,
    /// What keys begin with, in braces: gateways with other ones do not touch each other's quotas in one Redis [default: aigw]
    #[arg(long, value_name = "NAME", env = "AIGW_REDIS_PREFIX")]
    pub redis_prefix: Option<String>,
    /// How many replicas have to have a reservation before a request is let in [default: 0]
    #[arg(long, value_name = "COUNT", env = "AIGW_REDIS_WAIT_REPLICAS")]
    pub redis_wait_replicas: Option<u32>,
    /// How long a request waits for Redis, connecting included, before its policies decide without it [default: 50ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "redis")]
    pub redis_deadline: Option<Duration>,
    /// Keep what Redis has not been told of in this folder, so that it survives the process: a folder of this process alone
    #[arg(long, value_name = "FOLDER", env = "AIGW_QUOTA_JOURNAL", requires = "redis")]
    pub quota_journal: Option<PathBuf>,
    /// When the disk is told to keep what is in the journal of quotas
    #[arg(long, value_name = "WHEN", default_value = "interval", requires = "quota_journal")]
    pub quota_journal_sync: Sync,
    /// How long the journal of quotas may get, in MiB. What does not fit waits in memory only
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_JOURNAL, requires = "quota_journal",
        value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub quota_journal_size: u64,
}

impl Default for QuotaOptions {
    fn default() -> Self {
        Self {
            redis: None,
            redis_ca: None,
            redis_cert: None,
            redis_key: None,
            redis_prefix: None,
            redis_wait_replicas: None,
            redis_deadline: None,
            quota_journal: None,
            quota_journal_sync: Sync::default(),
            quota_journal_size: DEFAULT_JOURNAL,
        }
    }
}

/// Opens what the options name. Nothing is connected yet.
pub(super) fn open(options: QuotaOptions) -> anyhow::Result<(Desk, Running)> {
    let Some(url) = &options.redis else {
        return Ok(Desk::new(Store::Memory(MemoryStore::default()), DeskOptions::default()));
    };
    // The text is not repeated: there may be a password in it.
    let place: RedisPlace = url.expose_secret().parse().context("--redis (AIGW_REDIS) cannot be used")?;
    let mut desk = DeskOptions::default();
    if let Some(deadline) = options.redis_deadline {
        if deadline.is_zero() || deadline > MAX_DEADLINE {
            anyhow::bail!(
                "--redis-deadline has to be more than nothing and at most 5s: every request may wait that long"
            );
        }
        desk.deadline = deadline;
    }
    let redis = RedisOptions {
        ca: options.redis_ca,
        identity: options.redis_cert.zip(options.redis_key),
        prefix: options.redis_prefix,
        replicas: options.redis_wait_replicas.unwrap_or_default(),
    };
    let store = RedisStore::open(place, &redis).context("--redis cannot be used")?;
    let store = Store::Redis(store);
    let Some(folder) = options.quota_journal else { return Ok(Desk::new(store, desk)) };
    let most = options.quota_journal_size.saturating_mul(1 << 20);
    let journal = Journal::open(&JournalOptions { folder, sync: options.quota_journal_sync, most })
        .context("--quota-journal cannot be used")?;
    if !journal.1.is_empty() {
        tracing::info!(
            owed = journal.1.len(),
            "Redis is told of reservations whose end an earlier process left in its journal"
        );
    }
    Ok(Desk::journaled(store, desk, journal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str, deadline: Option<Duration>) -> String {
        let redis = Some(url.to_owned().into());
        let options = QuotaOptions { redis, redis_deadline: deadline, ..QuotaOptions::default() };
        format!("{:#}", open(options).map(|_| ()).unwrap_err())
    }

    #[test]
    fn what_cannot_be_used_is_explained_without_its_password() {
        for url in [
            "geheim",
            "http://u:geheim@host",
            "file:geheim",
            "rediss://u:geheim@host/#insecure",
            "redis://u:geheim@",
            "redis-cluster://u:geheim@host/3",
            "redis-sentinel://u:geheim@host",
        ] {
            let problem = problem(url, None);
            assert!(
                problem.contains("redis://[USER:PASSWORD@]HOST") && !problem.contains("geheim"),
                "{problem}"
            );
        }
        assert!(problem("redis://host", Some(Duration::from_secs(60))).contains("at most 5s"));
        assert!(open(QuotaOptions::default()).is_ok());
    }
}

//! Where the quotas of a processor are kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::keystore::{Location, parse_duration};
use crate::quotastore::{
    Desk, DeskOptions, Journal, JournalOptions, MemoryStore, RedisOptions, RedisPlace, RedisStore, Running,
    Snapshot, SnapshotOptions, Store, Sync,
};

/// The longest that an exchange may be made to wait for a store.
const MAX_DEADLINE: Duration = Duration::from_secs(5);
/// How often a snapshot may be written, and how often it is.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// In MiB.
const DEFAULT_JOURNAL: u64 = 64;

const REDIS: &str = "Keep quotas in this Redis, for all processors that name it: \
redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+unix:///SOCKET, \
redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE] or \
redis-cluster://[USER:PASSWORD@]HOST[:PORT],…; rediss in the place of redis is TLS \
[default: in this process, for as long as it runs, or --quota-snapshot]";

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
    /// Keep quotas in this file, so that they survive the process: a file of this process alone. With --redis, Redis keeps them
    #[arg(long, value_name = "FILE", env = "AIGW_QUOTA_SNAPSHOT")]
    pub quota_snapshot: Option<PathBuf>,
    /// How often that file is written, if anything was used: what was used since is forgotten if the process is killed [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "quota_snapshot")]
    pub quota_snapshot_interval: Option<Duration>,
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
            quota_snapshot: None,
            quota_snapshot_interval: None,
        }
    }
}

/// Opens what the options name. Nothing is connected yet.
pub(super) fn open(options: QuotaOptions) -> anyhow::Result<(Desk, Running)> {
    let Some(url) = &options.redis else { return here(options) };
    if options.quota_snapshot.is_some() {
        anyhow::bail!(
            "--quota-snapshot (AIGW_QUOTA_SNAPSHOT) keeps the quotas of one process; with --redis (AIGW_REDIS) Redis keeps them: leave one of the two out"
        );
    }
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

/// Quotas in this process.
fn here(options: QuotaOptions) -> anyhow::Result<(Desk, Running)> {
    let (store, desk) = (MemoryStore::default(), DeskOptions::default());
    let Some(file) = options.quota_snapshot else { return Ok(Desk::new(Store::Memory(store), desk)) };
    let interval = options.quota_snapshot_interval.unwrap_or(DEFAULT_INTERVAL);
    if !INTERVALS.contains(&interval) {
        anyhow::bail!("--quota-snapshot-interval has to be at least 10ms and at most 1h");
    }
    let snapshot = Snapshot::open(SnapshotOptions { file, interval }, &store)
        .context("--quota-snapshot (AIGW_QUOTA_SNAPSHOT) cannot be used")?;
    Ok(Desk::kept(store, desk, snapshot))
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

    #[test]
    fn a_snapshot_is_of_quotas_in_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let quota_snapshot = Some(folder.path().join("quotas"));
        let here = QuotaOptions { quota_snapshot, ..QuotaOptions::default() };
        let redis = QuotaOptions { redis: Some("redis://host".to_owned().into()), ..here.clone() };
        let hasty = QuotaOptions { quota_snapshot_interval: Some(Duration::ZERO), ..here.clone() };
        let lost =
            QuotaOptions { quota_snapshot: Some(folder.path().join("no/quotas")), ..QuotaOptions::default() };
        for (options, reason) in [(redis, "leave one of the two out"), (hasty, "10ms"), (lost, "no/quotas")] {
            let problem = format!("{:#}", open(options).map(|_| ()).unwrap_err());
            assert!(problem.contains(reason), "{problem}");
        }
        let first = open(here.clone()).unwrap();
        let problem = format!("{:#}", open(here).map(|_| ()).unwrap_err());
        assert!(problem.contains("a file of its own"), "{problem}");
        drop(first);
    }
}

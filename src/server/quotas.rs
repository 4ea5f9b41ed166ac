//! Where the quotas of a processor are kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::keystore::{Location, parse_duration};
use crate::quotastore::{Desk, DeskOptions, MemoryStore, RedisStore, Running, Store};

/// The longest that an exchange may be made to wait for a store.
const MAX_DEADLINE: Duration = Duration::from_secs(5);

/// Where quotas are kept.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct QuotaOptions {
    /// Keep quotas in this Redis, for all processors that name it: redis://…, rediss://… (TLS) or redis+unix:///SOCKET
    /// [default: in this process, for as long as it runs]
    #[arg(long, value_name = "URL", env = "AIGW_REDIS", hide_env_values = true, value_parser = Location::unread)]
    pub redis: Option<SecretString>,
    /// The certificates to trust with rediss:// (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", env = "AIGW_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
    /// How long a request waits for Redis, connecting included, before its policies decide without it [default: 50ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "redis")]
    pub redis_deadline: Option<Duration>,
}

/// Opens what the options name. Nothing is connected yet.
pub(super) fn open(options: QuotaOptions) -> anyhow::Result<(Desk, Running)> {
    let QuotaOptions { redis, redis_ca, redis_deadline } = options;
    let Some(url) = redis else {
        return Ok(Desk::new(Store::Memory(MemoryStore::default()), DeskOptions::default()));
    };
    let Ok(Location::Redis(info)) = url.expose_secret().parse() else {
        // It is not repeated: there may be a password in it.
        anyhow::bail!(
            "--redis (AIGW_REDIS) names no Redis; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], the same with rediss:// for TLS, or redis+unix:///SOCKET"
        );
    };
    let mut desk = DeskOptions::default();
    if let Some(deadline) = redis_deadline {
        if deadline.is_zero() || deadline > MAX_DEADLINE {
            anyhow::bail!(
                "--redis-deadline has to be more than nothing and at most 5s: every request may wait that long"
            );
        }
        desk.deadline = deadline;
    }
    let store = RedisStore::new(*info, redis_ca.as_deref()).context("--redis cannot be used")?;
    Ok(Desk::new(Store::Redis(store), desk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str, deadline: Option<Duration>) -> String {
        let options =
            QuotaOptions { redis: Some(url.to_owned().into()), redis_ca: None, redis_deadline: deadline };
        open(options).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_explained_without_its_password() {
        for url in [
            "geheim",
            "http://u:geheim@host",
            "file:geheim",
            "rediss://u:geheim@host/#insecure",
            "redis://u:geheim@",
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

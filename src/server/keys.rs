//! The gateway's own keys in a processor: an index in step with the store, and a listener where keys are managed.

mod admin;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::Listen;
use super::listen::Listener;
use crate::keys::Index;
use crate::keystore::{Location, Manager, Store, follow, parse_duration};

/// The shortest token that the listener for managing keys takes.
const MIN_TOKEN: usize = 20;

/// From which store keys come, and where they can be managed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeyOptions {
    /// Where the gateway's own keys are (see `aigw key`): file:PATH, redis://…, rediss://… or redis+unix:///SOCKET
    #[arg(long, value_name = "STORE", env = "AIGW_KEYS", hide_env_values = true, value_parser = Location::unread)]
    pub keys: Option<SecretString>,
    /// The certificates to trust with rediss:// (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", env = "AIGW_KEYS_CA")]
    pub keys_ca: Option<PathBuf>,
    /// How long the keys that are known serve while their store is away. After that, who shows a key gets 503 [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "keys")]
    pub keys_stale_after: Option<Duration>,
    /// Where keys can be managed over HTTP, without TLS: name an address that only you can reach [default: nowhere]
    #[arg(long, value_name = "ADDRESS", requires_all = ["keys", "key_admin_token_file"])]
    pub key_admin: Option<Listen>,
    /// The file with the token that has to be shown there as `Authorization: Bearer …`: 20 characters at least
    #[arg(long, value_name = "FILE", requires = "key_admin")]
    pub key_admin_token_file: Option<PathBuf>,
}

/// What is to be served of keys.
pub(super) struct Keys {
    pub(super) index: Arc<Index>,
    store: Store,
    admin: Option<(Listener, SecretString)>,
}

impl Keys {
    /// Opens what the options name; nothing if they name no store.
    pub(super) fn open(options: KeyOptions) -> anyhow::Result<Option<Self>> {
        let KeyOptions { keys, keys_ca, keys_stale_after, key_admin, key_admin_token_file } = options;
        let Some(location) = keys else { return Ok(None) };
        let location: Location = location.expose_secret().parse().context("--keys cannot be used")?;
        let store = Store::new(&location, keys_ca.as_deref()).context("--keys cannot be used")?;
        let stale_after = keys_stale_after.unwrap_or(Duration::from_secs(600));
        let admin = match (key_admin, key_admin_token_file) {
            (Some(listen), Some(file)) => Some((listen.bind()?, token(&file)?)),
            (Some(_), None) => anyhow::bail!("--key-admin needs --key-admin-token-file"),
            (None, _) => None,
        };
        Ok(Some(Self { index: Arc::new(Index::new(stale_after)), store, admin }))
    }

    /// Where keys are managed.
    pub(super) fn listen(&self) -> Option<Listen> {
        self.admin.as_ref().map(|(listener, _)| listener.local().clone())
    }

    /// Keeps the index in step and serves the listener until dropped.
    pub(super) async fn run(self) {
        let Self { index, store, admin } = self;
        let following = follow(store.clone(), &index, Instant::now);
        match admin {
            None => following.await,
            Some((listener, token)) => {
                tracing::info!(listen = %listener.local(), "keys are managed here");
                tokio::join!(following, admin::serve(listener, token, Manager::new(store)));
            }
        }
    }
}

fn token(file: &Path) -> anyhow::Result<SecretString> {
    let named = || format!("--key-admin-token-file {} cannot be used", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    let token = text.trim();
    if token.len() < MIN_TOKEN || token.contains(char::is_whitespace) {
        anyhow::bail!(
            "{}: it has to hold one token of at least {MIN_TOKEN} characters, as `openssl rand -hex 32` makes",
            named()
        );
    }
    Ok(token.to_owned().into())
}

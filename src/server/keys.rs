//! The gateway's own keys in a processor: an index in step with the store, and a listener where keys are managed.

mod admin;

#[cfg(test)]
mod tests;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ServerConfig;
use secrecy::{ExposeSecret as _, SecretString};

use super::Listen;
use super::listen::Listener;
use super::tls;
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
    /// Ask for keys only on Gateways whose TenantPolicy has gatewayKey [default: on all whose TenantPolicy does not say otherwise]
    #[arg(long, requires = "keys")]
    pub keys_by_policy: bool,
    /// Where keys can be managed over HTTP: ADDRESS:PORT or unix:///SOCKET; beyond this machine only with TLS [default: nowhere]
    #[arg(long, value_name = "ADDRESS", requires_all = ["keys", "key_admin_token_file"])]
    pub key_admin: Option<Listen>,
    /// The file with the token that has to be shown there as `Authorization: Bearer …`: 20 characters at least
    #[arg(long, value_name = "FILE", requires = "key_admin")]
    pub key_admin_token_file: Option<PathBuf>,
    /// The certificate that is shown there, and those that vouch for it (PEM) [default: no TLS]
    #[arg(long, value_name = "FILE", requires_all = ["key_admin", "key_admin_tls_key"])]
    pub key_admin_tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "key_admin_tls_cert")]
    pub key_admin_tls_key: Option<PathBuf>,
}

/// What is to be served of keys.
pub(super) struct Keys {
    pub(super) index: Arc<Index>,
    pub(super) by_policy: bool,
    store: Store,
    admin: Option<Admin>,
}

/// A listener where keys are managed.
struct Admin {
    listener: Listener,
    token: SecretString,
    tls: Option<Arc<ServerConfig>>,
}

impl Admin {
    /// Opens it; nothing if none is wanted.
    fn open(options: &KeyOptions) -> anyhow::Result<Option<Self>> {
        let Some(listen) = &options.key_admin else { return Ok(None) };
        let Some(token_file) = &options.key_admin_token_file else {
            anyhow::bail!("--key-admin needs --key-admin-token-file");
        };
        let tls = match (&options.key_admin_tls_cert, &options.key_admin_tls_key) {
            (Some(certificate), Some(key)) => {
                let identity = tls::read(certificate, key).context("--key-admin-tls-cert cannot be used")?;
                Some(tls::config(identity, &[b"h2", b"http/1.1"])?)
            }
            (None, None) => None,
            _ => anyhow::bail!("--key-admin-tls-cert and --key-admin-tls-key go together"),
        };
        if tls.is_none() && listen.socket_addr().is_some_and(|addr| !addr.ip().is_loopback()) {
            anyhow::bail!(
                "--key-admin {listen}: whoever is on the way could read the token and the keys; \
                 name --key-admin-tls-cert and --key-admin-tls-key, or listen on 127.0.0.1, [::1] or unix:///SOCKET"
            );
        }
        let token = token(token_file)?;
        let listener = listen.bind()?;
        if let Listen::Unix(path) = listener.local() {
            // Envoy has no business there.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(Some(Self { listener, token, tls }))
    }
}

impl Keys {
    /// Opens what the options name; nothing if they name no store.
    pub(super) fn open(options: KeyOptions) -> anyhow::Result<Option<Self>> {
        let admin = Admin::open(&options)?;
        let KeyOptions { keys, keys_ca, keys_stale_after, keys_by_policy: by_policy, .. } = options;
        let Some(location) = keys else { return Ok(None) };
        let location: Location = location.expose_secret().parse().context("--keys cannot be used")?;
        let store = Store::new(&location, keys_ca.as_deref()).context("--keys cannot be used")?;
        let stale_after = keys_stale_after.unwrap_or(Duration::from_secs(600));
        Ok(Some(Self { index: Arc::new(Index::new(stale_after)), by_policy, store, admin }))
    }

    /// Where keys are managed.
    pub(super) fn listen(&self) -> Option<Listen> {
        self.admin.as_ref().map(|admin| admin.listener.local().clone())
    }

    /// Keeps the index in step and serves the listener until dropped.
    pub(super) async fn run(self) {
        let Self { index, by_policy: _, store, admin } = self;
        let following = follow(store.clone(), &index, Instant::now);
        match admin {
            None => following.await,
            Some(Admin { listener, token, tls }) => {
                tracing::info!(listen = %listener.local(), tls = tls.is_some(), "keys are managed here");
                tokio::join!(following, admin::serve(listener, tls, token, Manager::new(store)));
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

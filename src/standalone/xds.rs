//! Envoy's dynamic configuration: files that it reads again whenever they are replaced.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/xds_api>

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};

use super::admin::Admin;
use crate::compile::{EnvoyConfig, response};

/// Envoy parses and applies even tens of thousands of routes faster than this.
const APPLIED_WITHIN: Duration = Duration::from_secs(20);

/// How often Envoy is asked.
const POLL: Duration = Duration::from_millis(5);

/// What its main thread has applied, Envoy hands to its workers, each of which takes it up as soon as it is free.
const WORKERS_FOLLOW: Duration = Duration::from_millis(50);

/// Why Envoy does not run with a configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum XdsError {
    /// The files could not be written or Envoy could not be asked.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Envoy read it and refused it.
    #[error("Envoy refused {0}; what it wrote to standard error says why")]
    Refused(String),
    /// Nothing is known.
    #[error("Envoy did not take {0} within {time} s", time = APPLIED_WITHIN.as_secs())]
    Silent(String),
}

/// The files of one Envoy.
#[derive(Debug)]
pub(super) struct Xds {
    folder: PathBuf,
    version: u64,
    /// Digests of what stands in the files, by their names.
    written: BTreeMap<String, Vec<u8>>,
}

/// A file that has to be replaced. Some hold private keys.
struct Change {
    name: String,
    content: SecretString,
    digest: Vec<u8>,
}

impl Xds {
    /// Files in `folder`, none of them written yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, version: 0, written: BTreeMap::new() }
    }

    /// Writes all files, for an Envoy that is not running yet.
    pub(super) fn write(&mut self, config: &EnvoyConfig) -> io::Result<()> {
        for change in self.changed(config) {
            self.replace(change)?;
        }
        Ok(())
    }

    /// Replaces what differs, file by file, and returns once Envoy's workers run with all of it.
    pub(super) async fn apply(&mut self, config: &EnvoyConfig, admin: &Admin) -> Result<(), XdsError> {
        let changed = self.changed(config);
        let any = !changed.is_empty();
        let version = self.version.to_string();
        for change in changed {
            let subscription = subscription(config, &change.name);
            let is_new = !self.written.contains_key(&change.name);
            let refused = admin.number(&format!("{subscription}.update_rejected")).await?;
            self.replace(change)?;
            // A listener that is not there yet asks for its routes once it is; it does not serve before it has them.
            if !is_new {
                applied(admin, &subscription, &version, refused).await?;
            }
        }
        if any {
            sleep(WORKERS_FOLLOW).await;
        }
        Ok(())
    }

    /// The files whose content differs from what is there, in the order in which they have to be replaced.
    fn changed(&mut self, config: &EnvoyConfig) -> Vec<Change> {
        self.version += 1;
        let version = self.version.to_string();
        let certificates = config.certificates.iter().map(|file| Change {
            name: file.name.clone(),
            content: file.content(&version),
            digest: digest(&SHA256, file.resources.expose_secret().as_bytes()).as_ref().to_vec(),
        });
        let others = config.files(&self.folder).into_iter().map(|(name, resources)| Change {
            name,
            digest: digest(&SHA256, resources.as_bytes()).as_ref().to_vec(),
            content: SecretString::from(response(&version, &resources)),
        });
        let secrets = config.secrets.iter().map(|file| Change {
            name: file.name.clone(),
            content: file.content.clone(),
            digest: digest(&SHA256, file.content.expose_secret().as_bytes()).as_ref().to_vec(),
        });
        secrets
            .chain(certificates)
            .chain(others)
            .filter(|change| self.written.get(&change.name).is_none_or(|written| *written != change.digest))
            .collect()
    }

    /// Envoy watches for files that are moved to where they are wanted: it never reads half of one. Only this user can read
    /// them.
    fn replace(&mut self, change: Change) -> io::Result<()> {
        let Change { name, content, digest } = change;
        let draft = self.folder.join(format!(".{name}.draft"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content.expose_secret().as_bytes())?;
        drop(file);
        std::fs::rename(draft, self.folder.join(&name))?;
        self.written.insert(name, digest);
        Ok(())
    }
}

/// Where Envoy's statistics tell of a file.
fn subscription(config: &EnvoyConfig, file: &str) -> String {
    if let Some(certificate) = config.certificates.iter().find(|certificate| certificate.name == file) {
        return format!("sds.{}", certificate.secret);
    }
    match config.listeners.iter().find(|listener| listener.routes_file() == file) {
        Some(listener) => format!("http.http.rds.{}", listener.name),
        None if file == crate::compile::CLUSTERS_FILE => "cluster_manager.cds".to_owned(),
        None => "listener_manager.lds".to_owned(),
    }
}

async fn applied(admin: &Admin, subscription: &str, version: &str, refused: u64) -> Result<(), XdsError> {
    let started = Instant::now();
    loop {
        let in_force = admin.text(&format!("{subscription}.version_text")).await?;
        if in_force.as_deref() == Some(version) {
            return Ok(());
        }
        if admin.number(&format!("{subscription}.update_rejected")).await? > refused {
            let listeners = admin.refused_listeners().await?;
            let listeners: Vec<String> =
                listeners.iter().map(|(name, reason)| format!("listener {name} ({reason})")).collect();
            let what = if listeners.is_empty() { subscription.to_owned() } else { listeners.join(", ") };
            return Err(XdsError::Refused(what));
        }
        if started.elapsed() > APPLIED_WITHIN {
            return Err(XdsError::Silent(subscription.to_owned()));
        }
        sleep(POLL).await;
    }
}

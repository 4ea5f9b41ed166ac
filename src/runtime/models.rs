//! The models lists, rendered once.

use std::collections::HashMap;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config;
use crate::wire::openai::{ModelEntry, models_body};

/// The bodies of `GET /v1/models`, by host.
#[derive(Debug)]
pub struct ModelLists {
    all: Bytes,
    by_host: HashMap<String, Bytes>,
    unscoped: Bytes,
}

impl ModelLists {
    pub(super) fn new(models: &config::Models) -> Self {
        let config::Models { all, by_host, unscoped } = models;
        Self {
            all: body(all),
            by_host: by_host.iter().map(|(host, models)| (host.to_ascii_lowercase(), body(models))).collect(),
            unscoped: body(unscoped),
        }
    }

    /// The list for a request to that host (`host` or `host:port`): an exact name, then the longest `*.suffix` with exactly
    /// one more label, then the models that no host name scopes.
    pub fn body(&self, host: Option<&str>) -> Bytes {
        let Some(host) = host.filter(|_| !self.by_host.is_empty()) else { return self.all.clone() };
        let host = without_port(host).to_ascii_lowercase();
        let wildcard =
            || host.split_once('.').and_then(|(_, suffix)| self.by_host.get(&format!("*.{suffix}")));
        self.by_host.get(&host).or_else(wildcard).unwrap_or(&self.unscoped).clone()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colon of an IPv6 address stands inside brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn body(models: &[config::Model]) -> Bytes {
    let entry = |model: &config::Model| ModelEntry {
        id: model.name.clone(),
        created: OffsetDateTime::parse(&model.created_at, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp),
        object: "model",
        owned_by: model.owned_by.clone(),
    };
    models_body(&models.iter().map(entry).collect::<Vec<_>>())
}

//! The models lists, rendered once.

use std::collections::HashMap;

use bytes::Bytes;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::config;
use crate::wire::{anthropic, openai};

/// The models lists of a gateway, by host.
#[derive(Debug)]
pub struct ModelLists {
    all: List,
    by_host: HashMap<String, List>,
    unscoped: List,
}

/// One list in the dialects it can be asked for in.
#[derive(Debug, Clone)]
pub struct List {
    /// OpenAI's.
    pub openai: Bytes,
    /// Anthropic's.
    pub anthropic: Bytes,
    models: Vec<config::Model>,
}

impl List {
    /// The list of those that a client may see.
    #[must_use]
    pub fn of_those(&self, shown: impl Fn(&str) -> bool) -> Self {
        let models: Vec<_> = self.models.iter().filter(|model| shown(&model.name)).cloned().collect();
        list(&models)
    }
}

impl ModelLists {
    pub(super) fn new(models: &config::Models) -> Self {
        let config::Models { all, by_host, unscoped } = models;
        Self {
            all: list(all),
            by_host: by_host.iter().map(|(host, models)| (host.to_ascii_lowercase(), list(models))).collect(),
            unscoped: list(unscoped),
        }
    }

    /// The list for a request to that host (`host` or `host:port`): an exact name, then a `*.suffix` with exactly one more
    /// label, then the models that no host name scopes.
    pub fn of_host(&self, host: Option<&str>) -> &List {
        let Some(host) = host.filter(|_| !self.by_host.is_empty()) else { return &self.all };
        let host = without_port(host).to_ascii_lowercase();
        let wildcard =
            || host.split_once('.').and_then(|(_, suffix)| self.by_host.get(&format!("*.{suffix}")));
        self.by_host.get(&host).or_else(wildcard).unwrap_or(&self.unscoped)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colon of an IPv6 address stands inside brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn list(models: &[config::Model]) -> List {
    let created = |model: &config::Model| {
        OffsetDateTime::parse(&model.created_at, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let openai = models.iter().map(|model| openai::ModelEntry {
        id: model.name.clone(),
        created: created(model).unix_timestamp(),
        object: "model",
        owned_by: model.owned_by.clone(),
    });
    let anthropic = models.iter().map(|model| anthropic::ModelEntry {
        id: model.name.clone(),
        r#type: "model",
        display_name: model.name.clone(),
        created_at: created(model).to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default(),
    });
    List {
        openai: openai::models_body(&openai.collect::<Vec<_>>()),
        anthropic: anthropic::models_body(&anthropic.collect::<Vec<_>>()),
        models: models.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> config::Model {
        config::Model {
            name: name.into(),
            owned_by: "us".into(),
            created_at: "2026-01-01T01:00:00+01:00".into(),
        }
    }

    #[test]
    fn a_host_gets_its_own_list_then_its_wildcards_then_the_unscoped() {
        let lists = ModelLists::new(&config::Models {
            all: vec![model("all")],
            by_host: [
                ("A.example".to_owned(), vec![model("a")]),
                ("*.example".to_owned(), vec![model("any")]),
            ]
            .into(),
            unscoped: vec![model("rest")],
        });
        for (host, id) in [
            (Some("a.example:8080"), "a"),
            (Some("B.EXAMPLE"), "any"),
            (Some("c.b.example"), "rest"),
            (Some("[::1]:80"), "rest"),
            (None, "all"),
        ] {
            let list = &lists.of_host(host).openai;
            assert!(
                list.windows(id.len() + 2).any(|part| part == format!("\"{id}\"").as_bytes()),
                "{host:?}: {list:?}"
            );
        }
    }

    #[test]
    fn both_dialects_list_the_same() {
        let list = list(&[model("a"), model("b")]);
        let openai: serde_json::Value = serde_json::from_slice(&list.openai).unwrap();
        assert_eq!(openai["data"][1]["created"], 1_767_225_600);
        let anthropic: serde_json::Value = serde_json::from_slice(&list.anthropic).unwrap();
        assert_eq!(anthropic["data"][0]["created_at"], "2026-01-01T00:00:00Z");
        assert_eq!((&anthropic["first_id"], &anthropic["last_id"]), (&"a".into(), &"b".into()));
    }
}

//! Which limits a request falls under.

use std::sync::Arc;

use super::{FallsUnder, Question};
use crate::compile::Compiled;
use crate::config;
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::quota::{Facts, Limit, Stage};
use crate::runtime::Runtime;
use crate::tenant::Tenant;

/// Those of a request that a rule takes: of the request itself, then of its attempts at each backend. Where the question names no
/// tenant, nothing is known of the client, so that limits for some clients are told with the clients.
pub(super) fn of(
    compiled: &Compiled,
    runtime: &Arc<Runtime>,
    gateway: &config::Gateway,
    rule: &config::Rule,
    question: &Question,
    headers: &Headers,
) -> Vec<FallsUnder> {
    let nobody = Tenant::anonymous();
    let facts = Facts {
        tenant: question.tenant().unwrap_or(&nobody),
        key_quota: None,
        gateway: Some(&gateway.name),
        route: Some(&rule.route),
        backend: None,
        asked_model: question.model(),
        sent_model: None,
        headers,
        endpoint: question.endpoint().unwrap_or(Endpoint::ChatCompletions),
        source: None,
    };
    let quotas = runtime.quotas();
    let is_for_client =
        |limit: &&Arc<Limit>| question.tenant().is_none_or(|tenant| limit.selector.is_for(tenant));
    let mut found: Vec<FallsUnder> = quotas
        .candidates(Stage::Router, &facts)
        .filter(is_for_client)
        .map(|limit| falls_under(limit, None))
        .collect();
    let names = rule.attempts.iter().chain((!rule.backend.is_empty()).then_some(&rule.backend));
    for name in names {
        let Some(backend) = compiled.config.backends.iter().find(|backend| backend.name == *name) else {
            continue;
        };
        let model = backend.model_name_override.as_deref().unwrap_or_else(|| question.model());
        let facts = Facts { backend: Some(name), sent_model: Some(model), ..facts };
        let service = name.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        found.extend(
            quotas
                .candidates(Stage::Attempt, &facts)
                .filter(is_for_client)
                .map(|limit| falls_under(limit, Some(service.clone()))),
        );
    }
    found
}

fn falls_under(limit: &Arc<Limit>, backend: Option<String>) -> FallsUnder {
    let (name, allows) = (limit.name.to_string(), limit.to_string());
    FallsUnder { name, allows, backend, clients: limit.selector.who() }
}

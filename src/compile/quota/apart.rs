//! Rules whose backends have limits of their own: which of them serves has to be known.

use std::collections::BTreeSet;

use crate::config::{self, DimensionKind, QuotaLimit, QuotaTargetKind};

/// Whether limits make a difference between the backends of a rule, by their full names. Then Envoy has to choose one for each
/// attempt, even where one reply could serve all of them.
pub(crate) fn tells_apart(quotas: &[config::Quota], gateway: &str, route: &str, backends: &[&str]) -> bool {
    let services: BTreeSet<&str> = backends.iter().map(|name| service(name)).collect();
    let limits = || quotas.iter().flat_map(|quota| &quota.limits);
    services.len() > 1 && limits().any(|limit| makes_a_difference(limit, gateway, route, backends))
}

fn makes_a_difference(limit: &QuotaLimit, gateway: &str, route: &str, backends: &[&str]) -> bool {
    let for_all = limit.targets.is_empty()
        || limit.targets.iter().any(|target| match target.kind {
            QuotaTargetKind::Gateway => target.name == gateway,
            QuotaTargetKind::Route => target.name == route,
            QuotaTargetKind::Backend => false,
        });
    let is_meant = |backend: &&&str| {
        for_all
            || limit.targets.iter().any(|target| {
                target.kind == QuotaTargetKind::Backend
                    && (target.name == **backend || target.name == service(backend))
            })
    };
    let meant = backends.iter().filter(is_meant).count();
    let counts_by_backend = limit.per.iter().any(|per| per.by == DimensionKind::Backend)
        || limit.cel.as_deref().is_some_and(|expression| expression.contains("backend"));
    meant > 0 && (meant < backends.len() || counts_by_backend)
}

/// `namespace/name` of a backend's full name.
pub(super) fn service(full: &str) -> &str {
    full.match_indices('/').nth(1).and_then(|(at, _)| full.get(..at)).unwrap_or(full)
}

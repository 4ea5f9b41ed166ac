//! UsageLimits: limits of everything else than single backends.

use std::collections::BTreeSet;

use super::{MOST_SUBJECTS, backend_targets, unnamed};
use crate::config::{
    self, Compare, DimensionKind, HeaderMatchType, ModelOutput, ModelPrice, QuotaDimension, QuotaLimit,
    QuotaMetric, QuotaSource, QuotaTarget, QuotaTargetKind, QuotaTenant, QuotaTest, QuotaWindow, WindowKind,
};
use crate::diagnostics::{Diagnostics, suggest};
use crate::exchange::MODEL_HEADER;
use crate::resources::aigateway::{AIGatewayRoute, AIGatewayRouteRule};
use crate::resources::types::{Decimal, PolicyTargetReference};
use crate::resources::usage_limit::{
    LimitSpec, MatchedHeader, MatchedTenant, MatchedValue, Matching, Per, PriceOfModel, PriceTable,
    UsageLimit, WindowSpec, seconds,
};
use crate::resources::{Located, Snapshot};
use crate::tenant::naming::allows;

/// The fewest tokens an answer is cut to where a policy does not say.
const MINIMUM: u64 = 16;

/// All UsageLimits that are attached to something.
pub(super) fn compile(snapshot: &Snapshot, diagnostics: &mut Diagnostics) -> Vec<config::Quota> {
    let policies = snapshot.usage_limits.iter();
    policies.filter_map(|policy| quota(snapshot, policy, diagnostics)).collect()
}

fn quota(
    snapshot: &Snapshot,
    policy: &Located<UsageLimit>,
    diagnostics: &mut Diagnostics,
) -> Option<config::Quota> {
    let spec = &policy.spec;
    let mut targets: Vec<QuotaTarget> = Vec::new();
    for (index, target) in spec.target_refs.iter().enumerate() {
        for found in attached(snapshot, policy, &format!("spec.targetRefs[{index}]"), target, diagnostics) {
            if !targets.contains(&found) {
                targets.push(found);
            }
        }
    }
    if targets.is_empty() {
        return None;
    }
    let prices: Vec<ModelPrice> = spec.prices.iter().flat_map(|prices| &prices.models).map(price).collect();
    let currency = spec.prices.as_ref().map(|PriceTable { currency, .. }| currency.clone());
    if spec.limits.iter().any(|limit| limit.kind == QuotaMetric::Money) {
        unpriced(snapshot, policy, &targets, diagnostics);
    }
    let output = &spec.output;
    let outputs = output.models.iter().map(|of| ModelOutput { model: of.model.clone(), tokens: of.tokens });
    let usual = output.usual.map(|tokens| ModelOutput { model: "*".to_owned(), tokens });
    Some(config::Quota {
        policy: policy.id(),
        on_store_failure: spec.on_store_failure,
        on_error: spec.on_error,
        on_lease_expiry: spec.on_lease_expiry,
        estimate: spec.estimate,
        clamp: output.clamp.then(|| output.minimum.unwrap_or(MINIMUM)),
        outputs: outputs.chain(usual).collect(),
        currency: currency.unwrap_or_default(),
        prices,
        limits: spec.limits.iter().filter_map(|limit| compile_limit(policy, limit, &targets)).collect(),
    })
}

/// What a reference leads to; what is missing is an error, since what is to be limited is not.
fn attached(
    snapshot: &Snapshot,
    policy: &Located<UsageLimit>,
    field: &str,
    target: &PolicyTargetReference,
    diagnostics: &mut Diagnostics,
) -> Vec<QuotaTarget> {
    let (namespace, name) = (policy.namespace(), target.name.as_str());
    let named = |kind| vec![QuotaTarget { kind, name: format!("{namespace}/{name}") }];
    let (kind, found, names): (_, _, Vec<&str>) = match target.kind.as_str() {
        "Gateway" => {
            let found = snapshot.gateways.get(namespace, name).map(|_| named(QuotaTargetKind::Gateway));
            ("Gateway", found, snapshot.gateways.names_in(namespace).collect())
        }
        "AIServiceBackend" => {
            let found = snapshot.ai_service_backends.get(namespace, name);
            let found = found.map(|_| backend_targets(snapshot, namespace, name));
            ("AIServiceBackend", found, snapshot.ai_service_backends.names_in(namespace).collect())
        }
        _ => {
            let found =
                snapshot.ai_gateway_routes.get(namespace, name).map(|_| named(QuotaTargetKind::Route));
            ("AIGatewayRoute", found, snapshot.ai_gateway_routes.names_in(namespace).collect())
        }
    };
    found.unwrap_or_else(|| {
        let message = format!("there is no {kind} {namespace}/{name}, so that this limits nothing");
        let help = suggest(name, names.iter().copied());
        diagnostics.push(policy.error(&format!("{field}.name"), message).help(help));
        Vec::new()
    })
}

fn millionths(Decimal(millionths): Decimal) -> u64 {
    u64::try_from(millionths).unwrap_or(u64::MAX)
}

fn price(written: &PriceOfModel) -> ModelPrice {
    let PriceOfModel { model, input, cached_input, cache_creation_input, output } = written;
    ModelPrice {
        model: model.clone(),
        input: millionths(*input),
        cached_input: millionths(cached_input.unwrap_or(*input)),
        cache_creation_input: millionths(cache_creation_input.unwrap_or(*input)),
        output: millionths(*output),
    }
}

/// Nothing where the reader has refused it before.
fn compile_limit(
    policy: &Located<UsageLimit>,
    limit: &LimitSpec,
    targets: &[QuotaTarget],
) -> Option<QuotaLimit> {
    let LimitSpec { name, kind, cel, window, per, per_headers, max_subjects, matching, mode, shadow, .. } =
        limit;
    let dimensions = per.iter().map(|per| QuotaDimension { by: dimension(*per), name: None });
    let headers = per_headers
        .iter()
        .map(|name| QuotaDimension { by: DimensionKind::Header, name: Some(name.to_ascii_lowercase()) });
    let chosen = !per_headers.is_empty() || per.iter().any(|per| matches!(per, Per::Model | Per::Address));
    let Matching { tenants, key_quota, models, backend_models, headers: matched, networks } = matching;
    let source = unnamed(QuotaSource::Source, Compare::Exact, networks.clone(), false);
    Some(QuotaLimit {
        id: format!("u/{}/{}/{name}", policy.namespace(), policy.name()),
        name: format!("{}/{name}", policy.name()),
        targets: targets.to_vec(),
        tenants: tenants.iter().map(tenant).collect(),
        key_quota: key_quota.clone(),
        models: models.clone(),
        sent_models: backend_models.clone(),
        only_sent_model: None,
        except_sent_models: Vec::new(),
        tests: matched.iter().map(header).chain((!networks.is_empty()).then_some(source)).collect(),
        per: dimensions.chain(headers).collect(),
        metric: *kind,
        cel: cel.clone(),
        amount: limit.amount().ok()?,
        window: window.as_ref().map_or(Some(None), |window| compile_window(window).map(Some))?,
        mode: *mode,
        shadow: *shadow,
        any_of: None,
        most_subjects: max_subjects.or_else(|| chosen.then_some(MOST_SUBJECTS)),
    })
}

fn compile_window(window: &WindowSpec) -> Option<QuotaWindow> {
    let WindowSpec { every, calendar, time_zone, rolling } = window;
    let of = |kind, length: &str| {
        Some(QuotaWindow { kind, seconds: Some(seconds(length).ok()?), unit: None, time_zone: None })
    };
    if let Some(every) = every {
        return of(WindowKind::Fixed, every);
    }
    if let Some(rolling) = rolling {
        return of(WindowKind::Rolling, rolling);
    }
    let (kind, time_zone) = (WindowKind::Calendar, time_zone.clone());
    calendar.map(|unit| QuotaWindow { kind, seconds: None, unit: Some(unit), time_zone })
}

fn dimension(per: Per) -> DimensionKind {
    match per {
        Per::Organisation => DimensionKind::Organisation,
        Per::Team => DimensionKind::Team,
        Per::Key => DimensionKind::Key,
        Per::Model => DimensionKind::AskedModel,
        Per::BackendModel => DimensionKind::SentModel,
        Per::Backend => DimensionKind::Backend,
        Per::Route => DimensionKind::Route,
        Per::Gateway => DimensionKind::Gateway,
        Per::Address => DimensionKind::Source,
    }
}

fn tenant(tenant: &MatchedTenant) -> QuotaTenant {
    let MatchedTenant { organisation, team, key, anonymous } = tenant.clone();
    QuotaTenant { organisation, team, key, anonymous }
}

fn header(header: &MatchedHeader) -> QuotaTest {
    let MatchedHeader { name, kind, value, invert } = header;
    QuotaTest {
        what: QuotaSource::Header,
        name: Some(name.to_ascii_lowercase()),
        compare: match kind {
            MatchedValue::Exact => Compare::Exact,
            MatchedValue::Prefix => Compare::Prefix,
            MatchedValue::RegularExpression => Compare::RegularExpression,
            MatchedValue::Present => Compare::Present,
        },
        values: value.iter().cloned().collect(),
        invert: *invert,
    }
}

/// Warns of models that a limit of money does not count, as far as the routes name them.
fn unpriced(
    snapshot: &Snapshot,
    policy: &Located<UsageLimit>,
    targets: &[QuotaTarget],
    diagnostics: &mut Diagnostics,
) {
    let Some(prices) = &policy.spec.prices else { return };
    let has_price = |model: &str| prices.models.iter().any(|price| allows(&price.model, model));
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for route in &snapshot.ai_gateway_routes {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            missing.extend(models(route, index, rule, targets).into_iter().filter(|model| !has_price(model)));
        }
    }
    if !missing.is_empty() {
        let shown: Vec<&str> = missing.iter().take(5).map(String::as_str).collect();
        let more = missing.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message =
            format!("requests for `{}`{more} cost nothing: there is no price for that", shown.join("`, `"));
        let help = "add prices for these models, or one for `*`";
        diagnostics.push(policy.warning("spec.prices.models", message).help(help));
    }
}

/// The models that a rule asks its backends for, as far as it is limited and says so.
fn models(
    route: &Located<AIGatewayRoute>,
    index: usize,
    rule: &AIGatewayRouteRule,
    targets: &[QuotaTarget],
) -> Vec<String> {
    let (namespace, name) = (route.namespace(), route.name());
    let is_target =
        |kind, name: &str| targets.iter().any(|target| target.kind == kind && target.name == name);
    let parents = route.spec.parent_refs.iter();
    let mut parents =
        parents.map(|parent| format!("{}/{}", parent.namespace.as_deref().unwrap_or(namespace), parent.name));
    let whole = is_target(QuotaTargetKind::Route, &format!("{namespace}/{name}"))
        || parents.any(|parent| is_target(QuotaTargetKind::Gateway, &parent));
    let asked = || {
        let headers = rule.matches.iter().flat_map(|item| &item.headers);
        let named = headers.filter(|header| {
            header.kind == HeaderMatchType::Exact && header.name.eq_ignore_ascii_case(MODEL_HEADER)
        });
        named.map(|header| header.value.clone()).collect::<Vec<_>>()
    };
    let mut models = Vec::new();
    for (place, reference) in rule.backend_refs.iter().enumerate() {
        let service = format!("{namespace}/{}", reference.name);
        let full = format!("{service}/route/{name}/rule/{index}/ref/{place}");
        let is_backend = |name: &str| is_target(QuotaTargetKind::Backend, name);
        if whole || is_backend(&service) || is_backend(&full) {
            match reference.model_name_override.as_deref().filter(|model| !model.is_empty()) {
                Some(model) => models.push(model.to_owned()),
                None => models.extend(asked()),
            }
        }
    }
    models
}

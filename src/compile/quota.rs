//! QuotaPolicies and UsageLimits: how much requests may use.

mod apart;
mod published;
mod usage_limit;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{
    self, Compare, DimensionKind, QuotaDimension, QuotaLimit, QuotaMetric, QuotaMode, QuotaSource,
    QuotaTarget, QuotaTargetKind, QuotaTest, QuotaWindow, WindowKind,
};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::quota_policy::{
    ClientSelector, QuotaDefinition, QuotaPolicy, QuotaValue, SelectedMethod, SelectedPathType,
    SelectedSourceType, SelectedValue,
};
use crate::resources::{Located, Snapshot};

pub(super) use apart::tells_apart;
pub(super) use published::published;

/// How many subjects of a limit are told apart in a window where clients choose them.
const MOST_SUBJECTS: u32 = 10_000;

/// All limits. What cannot be attached to anything is left out and named.
pub(super) fn compile(snapshot: &Snapshot, diagnostics: &mut Diagnostics) -> Vec<config::Quota> {
    let mut quotas = policies(snapshot, diagnostics);
    quotas.extend(usage_limit::compile(snapshot, diagnostics));
    quotas
}

/// What the rules of routes call an AIServiceBackend. A route names backends of other namespaces as if they were of its own, so
/// that where this is not unambiguous, each use of the backend is named by itself.
fn names_of_backend(snapshot: &Snapshot, namespace: &str, name: &str) -> Vec<String> {
    let mut uses = Vec::new();
    let mut plain = true;
    for route in &snapshot.ai_gateway_routes {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            for (place, reference) in rule.backend_refs.iter().enumerate() {
                let real = reference.namespace.as_deref().unwrap_or_else(|| route.namespace());
                let (is, looks) = (
                    (real, reference.name.as_str()) == (namespace, name),
                    (route.namespace(), reference.name.as_str()) == (namespace, name),
                );
                plain &= is == looks;
                if is {
                    let (at, route) = (route.namespace(), route.name());
                    uses.push(format!("{at}/{name}/route/{route}/rule/{index}/ref/{place}"));
                }
            }
        }
    }
    if plain { vec![format!("{namespace}/{name}")] } else { uses }
}

fn backend_targets(snapshot: &Snapshot, namespace: &str, name: &str) -> Vec<QuotaTarget> {
    let names = names_of_backend(snapshot, namespace, name).into_iter();
    names.map(|name| QuotaTarget { kind: QuotaTargetKind::Backend, name }).collect()
}

/// Which policy counts for something that several speak of.
type First<'a, K> = BTreeMap<K, &'a Located<QuotaPolicy>>;

/// QuotaPolicies, in the order of their names: of several for one model of one backend the first counts.
fn policies(snapshot: &Snapshot, diagnostics: &mut Diagnostics) -> Vec<config::Quota> {
    let mut policies: Vec<_> = snapshot.quota_policies.iter().collect();
    policies.sort_by_key(|policy| (policy.namespace().to_owned(), policy.name().to_owned()));
    let own = own_models(&policies);
    let (mut services, mut models) = (First::new(), First::new());
    let mut quotas = Vec::new();
    for policy in policies {
        let mut limits = Vec::new();
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            let backend = (policy.namespace().to_owned(), target.name.clone());
            if snapshot.ai_service_backends.get(policy.namespace(), &target.name).is_none() {
                let message = format!(
                    "there is no AIServiceBackend {}/{}, so that this limits nothing",
                    policy.namespace(),
                    target.name
                );
                let help = suggest(&target.name, snapshot.ai_service_backends.names_in(policy.namespace()));
                diagnostics.push(policy.error(&format!("{field}.name"), message).help(help));
                continue;
            }
            if policy.spec.target_refs.iter().take(index).any(|other| other.name == target.name) {
                let message = format!("the backend {} is in the list twice", target.name);
                diagnostics.push(policy.warning(&field, message).help("remove one of them"));
                continue;
            }
            let targets = backend_targets(snapshot, policy.namespace(), &target.name);
            let bucket = format!("q/{}/{}", policy.namespace(), target.name);
            let place = Place { policy, backend: &target.name, bucket: &bucket, targets: &targets };
            if policy.spec.service_quota.is_some() {
                match services.get(&backend) {
                    Some(first) => place.late("spec.serviceQuota", "its serviceQuota", first, diagnostics),
                    None => {
                        services.insert(backend.clone(), policy);
                        limits.extend(place.service(own.get(&backend)));
                    }
                }
            }
            for (index, model) in policy.spec.per_model_quotas.iter().enumerate() {
                let field = format!("spec.perModelQuotas[{index}]");
                let key = (backend.clone(), model.model_name.clone());
                if let Some(first) = models.get(&key) {
                    let what = format!("its quota of model `{}`", model.model_name);
                    place.late(&format!("{field}.modelName"), &what, first, diagnostics);
                    continue;
                }
                models.insert(key, policy);
                limits.extend(place.model(&model.model_name, &model.quota));
            }
        }
        empty(policy, diagnostics);
        if !limits.is_empty() {
            let policy = policy.id();
            quotas.push(config::Quota { policy, limits, ..config::Quota::default() });
        }
    }
    quotas
}

/// What in a policy limits nothing.
fn empty(policy: &Located<QuotaPolicy>, diagnostics: &mut Diagnostics) {
    let spec = &policy.spec;
    if spec.target_refs.is_empty() {
        let help = "add targetRefs with the AIServiceBackend it is for";
        diagnostics.push(policy.warning("spec", "this policy applies to nothing").help(help));
    }
    if spec.service_quota.is_none() && spec.per_model_quotas.is_empty() {
        let help = "add serviceQuota or perModelQuotas";
        diagnostics.push(policy.warning("spec", "this policy limits nothing").help(help));
    }
    for (index, model) in spec.per_model_quotas.iter().enumerate() {
        if model.quota.bucket_rules.is_empty() && model.quota.default_bucket.is_none() {
            let message = format!(
                "the model `{}` has no bucket: it is not limited, and exempt from serviceQuota",
                model.model_name
            );
            let field = format!("spec.perModelQuotas[{index}].quota");
            diagnostics.push(policy.warning(&field, message).help("add defaultBucket or bucketRules"));
        }
    }
}

/// The models that have a quota of their own, by backend: `serviceQuota` is for the others.
fn own_models(policies: &[&Located<QuotaPolicy>]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut own: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for policy in policies {
        for target in &policy.spec.target_refs {
            let models = policy.spec.per_model_quotas.iter().map(|model| model.model_name.clone());
            let backend = (policy.namespace().to_owned(), target.name.clone());
            own.entry(backend).or_default().extend(models);
        }
    }
    own
}

/// A policy and one of its backends.
struct Place<'a> {
    policy: &'a Located<QuotaPolicy>,
    backend: &'a str,
    /// How names of its buckets begin.
    bucket: &'a str,
    targets: &'a [QuotaTarget],
}

impl Place<'_> {
    fn late(&self, field: &str, what: &str, first: &Located<QuotaPolicy>, diagnostics: &mut Diagnostics) {
        let message = format!("{what} has no effect on backend {}: {} comes first", self.backend, first.id());
        diagnostics
            .push(self.policy.warning(field, message).help("of several policies the first by name counts"));
    }

    fn limit(&self, name: &str, cost: Option<&String>, value: &QuotaValue) -> QuotaLimit {
        QuotaLimit {
            id: format!("{}/{name}", self.bucket),
            name: format!("{}/{name}", self.policy.name()),
            targets: self.targets.to_vec(),
            tenants: Vec::new(),
            key_quota: None,
            models: Vec::new(),
            sent_models: Vec::new(),
            only_sent_model: None,
            except_sent_models: Vec::new(),
            tests: Vec::new(),
            per: Vec::new(),
            metric: if cost.is_some() { QuotaMetric::Cel } else { QuotaMetric::TotalToken },
            cel: cost.cloned(),
            amount: value.limit,
            window: Some(QuotaWindow {
                kind: WindowKind::Fixed,
                seconds: Some(value.duration.seconds()),
                unit: None,
                time_zone: None,
            }),
            // Who moves over has written amounts for this: what a request may cost at most can be more than all there is.
            mode: self.policy.spec.admission.unwrap_or(QuotaMode::Record),
            shadow: false,
            any_of: None,
            most_subjects: None,
        }
    }

    fn service(&self, own: Option<&BTreeSet<String>>) -> Option<QuotaLimit> {
        let quota = self.policy.spec.service_quota.as_ref()?;
        let except_sent_models = own.into_iter().flatten().cloned().collect();
        let limit = self.limit("service", quota.cost_expression.as_ref(), &quota.quota);
        Some(QuotaLimit { except_sent_models, ..limit })
    }

    fn model(&self, model: &str, quota: &QuotaDefinition) -> Vec<QuotaLimit> {
        let any_of = Some(format!("{}/{model}", self.bucket));
        let limit = |name: &str, value| QuotaLimit {
            only_sent_model: Some(model.to_owned()),
            any_of: any_of.clone(),
            ..self.limit(&format!("{model}/{name}"), quota.cost_expression.as_ref(), value)
        };
        let rules = quota.bucket_rules.iter().enumerate().map(|(index, rule)| {
            let (tests, per) = selected(&rule.client_selectors);
            let most_subjects = (!per.is_empty()).then_some(MOST_SUBJECTS);
            let limit = limit(&format!("rule-{index}"), &rule.quota);
            QuotaLimit { tests, per, most_subjects, shadow: rule.shadow_mode, ..limit }
        });
        let default = quota.default_bucket.iter().map(|value| limit("default", value));
        rules.chain(default).collect()
    }
}

/// What all selectors test, and what buckets are told apart by.
fn selected(selectors: &[ClientSelector]) -> (Vec<QuotaTest>, Vec<QuotaDimension>) {
    let (mut tests, mut per) = (Vec::new(), Vec::new());
    for ClientSelector { headers, methods, path, query_params, source_cidr } in selectors {
        let mut named = |what, by, name: &str, kind, value: &Option<String>, invert| {
            let compare = match kind {
                SelectedValue::Exact => Compare::Exact,
                SelectedValue::RegularExpression => Compare::RegularExpression,
                SelectedValue::Distinct => {
                    per.push(QuotaDimension { by, name: Some(name.to_owned()) });
                    Compare::Present
                }
            };
            let values = value.iter().filter(|_| compare != Compare::Present).cloned().collect();
            tests.push(QuotaTest { what, name: Some(name.to_owned()), compare, values, invert });
        };
        for header in headers {
            let (what, by) = (QuotaSource::Header, DimensionKind::Header);
            let name = header.name.to_ascii_lowercase();
            named(what, by, &name, header.kind, &header.value, header.invert);
        }
        for parameter in query_params {
            let (what, by) = (QuotaSource::Parameter, DimensionKind::Parameter);
            named(what, by, &parameter.name, parameter.kind, &parameter.value, parameter.invert);
        }
        tests.extend(methods_test(methods));
        if let Some(path) = path {
            let compare = match path.kind {
                SelectedPathType::Exact => Compare::Exact,
                SelectedPathType::PathPrefix => Compare::Prefix,
                SelectedPathType::RegularExpression => Compare::RegularExpression,
            };
            tests.push(unnamed(QuotaSource::Path, compare, vec![path.value.clone()], path.invert));
        }
        if let Some(source) = source_cidr {
            if source.kind == SelectedSourceType::Distinct {
                per.push(QuotaDimension { by: DimensionKind::Source, name: None });
            }
            let values = vec![source.value.clone()];
            tests.push(unnamed(QuotaSource::Source, Compare::Exact, values, source.invert));
        }
    }
    (tests, per)
}

fn unnamed(what: QuotaSource, compare: Compare, values: Vec<String>, invert: bool) -> QuotaTest {
    QuotaTest { what, name: None, compare, values, invert }
}

/// Of several methods one is enough, also of several that are excluded: then only what all of them exclude is.
fn methods_test(methods: &[SelectedMethod]) -> Option<QuotaTest> {
    let words = |invert: bool| -> BTreeSet<&str> {
        methods.iter().filter(|method| method.invert == invert).map(|method| method.value.word()).collect()
    };
    let (wanted, excluded) = (words(false), words(true));
    let mut excluded = excluded.into_iter();
    let test = |words: Vec<&str>, invert| {
        let words = words.into_iter().map(str::to_owned).collect();
        Some(unnamed(QuotaSource::Method, Compare::Exact, words, invert))
    };
    match (excluded.next(), excluded.next()) {
        (None, _) if wanted.is_empty() => None,
        (None, _) => test(wanted.into_iter().collect(), false),
        (Some(only), None) if !wanted.contains(only) => test(vec![only], true),
        _ => None,
    }
}

//! QuotaPolicy of `aigateway.envoyproxy.io`: what AIServiceBackends may be used for; with the selectors of Envoy Gateway 1.8.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Report;
use super::types::LocalObjectReference;
use crate::config::QuotaMode;
use crate::cost::{Cost, CostKind};
use crate::keys::Network;
use crate::routing::Condition;

/// How much AIServiceBackends may be used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct QuotaPolicy {
    /// What is asked for.
    pub spec: QuotaPolicySpec,
}

/// See [`QuotaPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaPolicySpec {
    /// The AIServiceBackends it is for, each by itself.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-field-rules" = [[
        "self.all(target, target.kind == 'AIServiceBackend' && target.group == 'aigateway.envoyproxy.io')",
        "name AIServiceBackends of `aigateway.envoyproxy.io`"
    ]]))]
    pub target_refs: Vec<LocalObjectReference>,
    /// Whether its quotas are held to before or after a request; absent: after it, as upstream does. Not a field of upstream's.
    pub admission: Option<QuotaMode>,
    /// For all models of a backend together that have no quota of their own.
    pub service_quota: Option<ServiceQuota>,
    /// For single models.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub per_model_quotas: Vec<PerModelQuota>,
}

/// The quota of a backend.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceQuota {
    /// What a request costs, in CEL; absent means its tokens.
    pub cost_expression: Option<String>,
    /// How much there is.
    pub quota: QuotaValue,
}

/// The quota of a model.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerModelQuota {
    /// The model that the backend is asked for.
    #[schemars(length(min = 1))]
    pub model_name: String,
    /// Its buckets.
    pub quota: QuotaDefinition,
}

/// The buckets of a model: a request is charged to all that it falls under, and let in if one of them has room.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaDefinition {
    /// What a request costs, in CEL; absent means its tokens.
    pub cost_expression: Option<String>,
    /// How the buckets decide together.
    #[serde(default)]
    pub mode: QuotaBucketMode,
    /// What every request falls under.
    pub default_bucket: Option<QuotaValue>,
    /// What some requests fall under besides.
    #[serde(default)]
    pub bucket_rules: Vec<QuotaRule>,
}

/// How buckets decide together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuotaBucketMode {
    /// All are charged; room in one is enough.
    #[default]
    Shared,
}

/// A bucket for some requests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaRule {
    /// Which: those that meet all. None means all requests.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub client_selectors: Vec<ClientSelector>,
    /// How much there is.
    pub quota: QuotaValue,
    /// Counted, but never a reason to refuse.
    #[serde(default)]
    #[schemars(extend("x-crd" = {"default": null}))]
    pub shadow_mode: bool,
}

/// An amount and a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct QuotaValue {
    /// How much there is in each window.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    #[schemars(extend("x-crd" = {"format": null, "minimum": null, "maximum": null}))]
    pub limit: u64,
    /// How long a window is; windows begin at whole multiples, in UTC.
    pub duration: QuotaDuration,
}

/// Lengths of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum QuotaDuration {
    /// A second.
    #[serde(rename = "1s")]
    Second,
    /// A minute.
    #[serde(rename = "1m")]
    Minute,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A day.
    #[serde(rename = "1d")]
    Day,
}

impl QuotaDuration {
    /// Its length.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// Conditions on a request, all of which have to hold (`RateLimitSelectCondition`).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-rules" = [[
    "has(self.headers) || has(self.methods) || has(self.path) || has(self.queryParams) || has(self.sourceCIDR)",
    "there must be one of `headers`, `methods`, `path`, `queryParams` and `sourceCIDR`"
]]))]
pub struct ClientSelector {
    /// Headers, all of them.
    #[schemars(length(max = 64))]
    pub headers: Vec<SelectedHeader>,
    /// Methods, one of them.
    pub methods: Vec<SelectedMethod>,
    /// The path without its query.
    pub path: Option<SelectedPath>,
    /// Parameters of the query, all of them.
    #[schemars(length(max = 16))]
    pub query_params: Vec<SelectedParameter>,
    /// The client's address.
    #[serde(rename = "sourceCIDR")]
    pub source_cidr: Option<SelectedSource>,
}

/// A header.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SelectedHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: SelectedValue,
    /// With what; nothing for `Distinct`.
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// Only requests of which this does not hold.
    #[serde(default)]
    pub invert: bool,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectedValue {
    /// As they are.
    #[default]
    Exact,
    /// With an expression, in RE2's syntax.
    RegularExpression,
    /// Not at all: each value has a bucket of its own.
    Distinct,
}

/// A method.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SelectedMethod {
    /// Its name.
    pub value: Method,
    /// Any but this.
    #[serde(default)]
    pub invert: bool,
}

/// Methods of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are HTTP's")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Method {
    /// As it is on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// A path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SelectedPath {
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: SelectedPathType,
    /// With what.
    #[serde(default = "root")]
    #[schemars(length(max = 1024))]
    pub value: String,
    /// Any but this.
    #[serde(default)]
    pub invert: bool,
}

fn root() -> String {
    "/".to_owned()
}

/// How paths are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectedPathType {
    /// As they are.
    Exact,
    /// By how they begin.
    #[default]
    PathPrefix,
    /// With an expression, in RE2's syntax.
    RegularExpression,
}

/// A parameter of the query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SelectedParameter {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: SelectedValue,
    /// With what; nothing for `Distinct`.
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// Only requests of which this does not hold.
    #[serde(default)]
    pub invert: bool,
}

/// Addresses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SelectedSource {
    /// The network.
    #[schemars(length(min = 1, max = 256))]
    pub value: String,
    /// Whether each address of it has a bucket of its own.
    #[serde(rename = "type", default)]
    pub kind: SelectedSourceType,
    /// Addresses that are not of it.
    #[serde(default)]
    pub invert: bool,
}

/// How addresses are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectedSourceType {
    /// Not at all.
    #[default]
    Exact,
    /// Each has a bucket of its own.
    Distinct,
}

/// What must hold for a QuotaPolicy beyond its schema.
pub(super) fn check(spec: &QuotaPolicySpec, report: Report<'_>) {
    for (index, target) in spec.target_refs.iter().enumerate() {
        if (target.group.as_str(), target.kind.as_str()) != ("aigateway.envoyproxy.io", "AIServiceBackend") {
            let message = format!("this policy cannot apply to {} of `{}`", target.kind, target.group);
            let help = "name an AIServiceBackend of `aigateway.envoyproxy.io`; a UsageLimit can apply to Gateways and routes"
                .to_owned();
            report(&format!("spec.targetRefs[{index}].kind"), message, help);
        }
    }
    let service = spec.service_quota.iter().map(|quota| &quota.cost_expression);
    let service = service.map(|expression| ("spec.serviceQuota".to_owned(), expression));
    let models = spec.per_model_quotas.iter().enumerate();
    let models = models
        .map(|(index, model)| (format!("spec.perModelQuotas[{index}].quota"), &model.quota.cost_expression));
    for (field, expression) in service.chain(models) {
        if let Some(Err(error)) = expression.as_deref().map(|expression| Cost::new(CostKind::Cel(expression)))
        {
            let help = "token counts are unsigned: write numbers as 2u".to_owned();
            let message = format!("this cannot be computed: {error}");
            report(&format!("{field}.costExpression"), message, help);
        }
    }
    for (index, model) in spec.per_model_quotas.iter().enumerate() {
        let field = format!("spec.perModelQuotas[{index}]");
        let first = spec.per_model_quotas.iter().position(|other| other.model_name == model.model_name);
        if first.is_some_and(|first| first < index) {
            let message = format!("the model `{}` is in the list twice", model.model_name);
            let help = "make one quota of the two".to_owned();
            report(&format!("{field}.modelName"), message, help);
        }
        for (rule_index, rule) in model.quota.bucket_rules.iter().enumerate() {
            for (selector_index, selector) in rule.client_selectors.iter().enumerate() {
                let field =
                    format!("{field}.quota.bucketRules[{rule_index}].clientSelectors[{selector_index}]");
                check_selector(selector, &field, report);
            }
        }
    }
}

fn check_selector(selector: &ClientSelector, field: &str, report: Report<'_>) {
    let ClientSelector { headers, methods, path, query_params, source_cidr } = selector;
    if headers.is_empty()
        && methods.is_empty()
        && path.is_none()
        && query_params.is_empty()
        && source_cidr.is_none()
    {
        let message = "there must be one of `headers`, `methods`, `path`, `sourceCIDR` and `queryParams`";
        report(field, message.to_owned(), "leave `clientSelectors` out for all requests".to_owned());
    }
    for (index, header) in headers.iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        check_value(header.kind, header.value.as_deref(), header.invert, &field, report);
    }
    for (index, parameter) in query_params.iter().enumerate() {
        let field = format!("{field}.queryParams[{index}]");
        check_value(parameter.kind, parameter.value.as_deref(), parameter.invert, &field, report);
    }
    if let Some(SelectedPath { kind: SelectedPathType::RegularExpression, value, .. }) = path {
        check_expression(value, &format!("{field}.path.value"), report);
    }
    if let Some(source) = source_cidr
        && let Err(error) = Network::around(&source.value)
    {
        report(&format!("{field}.sourceCIDR.value"), error.to_string(), String::new());
    }
}

fn check_value(kind: SelectedValue, value: Option<&str>, invert: bool, field: &str, report: Report<'_>) {
    let value_field = format!("{field}.value");
    match (kind, value) {
        (SelectedValue::Distinct, Some(_)) => {
            let message = "`Distinct` goes with no value: each has a bucket of its own".to_owned();
            report(&value_field, message, "remove it, or the type".to_owned());
        }
        (SelectedValue::Distinct, None) if invert => {
            let message = "`Distinct` cannot be inverted".to_owned();
            report(&format!("{field}.invert"), message, "remove it, or the type".to_owned());
        }
        (SelectedValue::Distinct, None) | (SelectedValue::Exact, Some(_)) => {}
        (_, None) => {
            let help = "write it, or `type: Distinct` for a bucket for each value".to_owned();
            report(&value_field, "a value is missing".to_owned(), help);
        }
        (SelectedValue::RegularExpression, Some(value)) => check_expression(value, &value_field, report),
    }
}

pub(super) fn check_expression(expression: &str, field: &str, report: Report<'_>) {
    if let Err(error) = Condition::regex("x", expression) {
        report(
            field,
            error.reason,
            "write it in RE2's syntax; it is compared with the whole value".to_owned(),
        );
    }
}

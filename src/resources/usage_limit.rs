//! UsageLimit of `ext.aigateway.envoyproxy.io`, a group of this project's own: how much requests may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quota_policy::check_expression;
use super::rules::Report;
use super::types::{Decimal, HEADER_NAME, PolicyTargetReference};
use crate::config::{
    CalendarUnit, EstimateMethod, OnError, OnLeaseExpiry, OnStoreFailure, QuotaMetric, QuotaMode,
};
use crate::cost::{Cost, CostKind};
use crate::diagnostics::nearest;
use crate::keys::Network;
use crate::quota::{MAX_AMOUNT, MAX_LENGTH, MAX_PRICE, MIN_LENGTH, Zone};

/// How much requests may use.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct UsageLimit {
    /// What is asked for.
    pub spec: UsageLimitSpec,
}

/// See [`UsageLimit`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageLimitSpec {
    /// The Gateways, AIGatewayRoutes and AIServiceBackends whose requests it is for: all of them together, unless `per` tells
    /// them apart.
    #[schemars(length(min = 1, max = 16), extend("x-field-rules" = [
        ["self.all(target, (target.group == 'gateway.networking.k8s.io' && target.kind in ['Gateway', 'HTTPRoute']) \
          || (target.group == 'aigateway.envoyproxy.io' && target.kind in ['AIGatewayRoute', 'AIServiceBackend']))",
         "name a Gateway of `gateway.networking.k8s.io`, or an AIGatewayRoute or AIServiceBackend of `aigateway.envoyproxy.io`"],
        ["self.all(target, !has(target.sectionName))", "a limit is for a whole Gateway, route or backend: remove `sectionName`"],
    ]))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// What becomes of requests while the store is out of reach.
    #[serde(default)]
    pub on_store_failure: OnStoreFailure,
    /// What errors of the provider cost.
    #[serde(default)]
    pub on_error: OnError,
    /// What becomes of what a processor has reserved that is gone.
    #[serde(default)]
    pub on_lease_expiry: OnLeaseExpiry,
    /// How prompts are measured before they are sent.
    #[serde(default)]
    pub estimate: EstimateMethod,
    /// How long answers may get.
    #[serde(default)]
    pub output: OutputPolicy,
    /// What models cost.
    pub prices: Option<PriceTable>,
    /// The limits; all of them have to have room.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub limits: Vec<LimitSpec>,
}

/// How long answers may get.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-rules" = [["!has(self.minimum) || self.clamp", "`minimum` needs `clamp: true`"]]))]
pub struct OutputPolicy {
    /// Tokens, where a request does not say.
    #[serde(rename = "default")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub usual: Option<u64>,
    /// The same for single models; the first that fits counts.
    #[schemars(length(max = 256))]
    pub models: Vec<OutputOfModel>,
    /// A request that would not fit is asked for a shorter answer.
    pub clamp: bool,
    /// It is refused where the answer would be shorter than that, in tokens.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub minimum: Option<u64>,
}

/// How long answers of some models may get.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct OutputOfModel {
    /// The name, in which `*` stands for any text.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// Tokens.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub tokens: u64,
}

/// What models cost.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct PriceTable {
    /// What the currency is called.
    #[serde(default = "dollar")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub currency: String,
    /// Prices of models. A name without a star comes first, then the first that fits.
    #[schemars(length(min = 1, max = 1024))]
    pub models: Vec<PriceOfModel>,
}

/// What a million tokens of some models cost.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceOfModel {
    /// The name of the model that the backend is asked for, in which `*` stands for any text.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// Of the prompt.
    pub input: Decimal,
    /// Of the prompt, read from the provider's cache; absent: as others of the prompt.
    pub cached_input: Option<Decimal>,
    /// Of the prompt, written to the provider's cache; absent: as others of the prompt.
    pub cache_creation_input: Option<Decimal>,
    /// Of the answer.
    pub output: Decimal,
}

/// One limit.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.cel) == (self.type == 'CEL')", "type CEL needs `cel`, and no other type can have it"],
    ["has(self.window) != (self.type == 'InFlight')", "every type but InFlight needs a `window`, and InFlight has none"],
    ["self.type != 'InFlight' || self.mode != 'Record'", "what is in flight is counted before, or not at all: remove `mode`"],
]))]
pub struct LimitSpec {
    /// Its name among those of the policy. Clients are told it.
    #[schemars(length(min = 1, max = 63), regex(pattern = super::types::DNS_LABEL))]
    pub name: String,
    /// What it counts.
    #[serde(rename = "type")]
    pub kind: QuotaMetric,
    /// The expression, for `CEL`.
    #[schemars(length(min = 1))]
    pub cel: Option<String>,
    /// How much there is: `200k`, `1000000`; for `Money` in the currency, such as "25.00".
    pub amount: Decimal,
    /// How long what is spent counts. `InFlight` has none.
    pub window: Option<WindowSpec>,
    /// What each has an amount of its own.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub per: Vec<Per>,
    /// Headers of which each value has an amount of its own.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(min = 1, max = 256), regex(pattern = HEADER_NAME)))]
    pub per_headers: Vec<String>,
    /// How many of them are told apart in a window, where clients choose them; the others share one amount.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_subjects: Option<u32>,
    /// Which requests it is for.
    #[serde(default, rename = "match")]
    pub matching: Matching,
    /// Whether it is held to before or after a request.
    #[serde(default)]
    pub mode: QuotaMode,
    /// Counted, but never a reason to refuse.
    #[serde(default)]
    pub shadow: bool,
}

/// How long what is spent counts: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-rules" = [
    ["[has(self.every), has(self.calendar), has(self.rolling)].filter(given, given).size() == 1",
     "there must be exactly one of `every`, `calendar` and `rolling`"],
    ["!has(self.timeZone) || has(self.calendar)", "only the calendar has a time zone"],
]))]
pub struct WindowSpec {
    /// Windows of a length (`90s`, `5m`, `12h`, `7d`), which begin at its whole multiples in UTC.
    pub every: Option<String>,
    /// Windows of the calendar.
    pub calendar: Option<CalendarUnit>,
    /// The time zone of the calendar, of the IANA database; absent: UTC.
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// The last so much, at every moment.
    pub rolling: Option<String>,
}

/// What can have an amount of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Per {
    /// The tenant's organisation.
    Organisation,
    /// Its team.
    Team,
    /// Its key.
    Key,
    /// The model that the client asks for.
    Model,
    /// The model that the backend is asked for.
    BackendModel,
    /// The AIServiceBackend.
    Backend,
    /// The AIGatewayRoute.
    Route,
    /// The Gateway.
    Gateway,
    /// The client's address.
    Address,
}

/// Which requests a limit is for: those that meet everything that is named.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Matching {
    /// Who asks, one of these.
    #[schemars(length(max = 256))]
    pub tenants: Vec<MatchedTenant>,
    /// The quota that a key of the gateway's own names.
    #[schemars(length(min = 1, max = 128))]
    pub key_quota: Option<String>,
    /// The model that the client asks for, one of these; `*` stands for any text.
    #[schemars(length(max = 256))]
    pub models: Vec<String>,
    /// The model that the backend is asked for, one of these; `*` stands for any text.
    #[schemars(length(max = 256))]
    pub backend_models: Vec<String>,
    /// Headers, all of them.
    #[schemars(length(max = 16))]
    pub headers: Vec<MatchedHeader>,
    /// The client's address, of one of these networks.
    #[schemars(length(max = 256))]
    pub networks: Vec<String>,
}

/// Some tenants: those whose parts are these; a part that is absent may be any.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-rules" = [[
    "self.anonymous != (has(self.organisation) || has(self.team) || has(self.key))",
    "say which tenants: by `organisation`, `team` and `key`, or with `anonymous: true`"
]]))]
#[expect(missing_docs, reason = "the names are those of a tenant's parts")]
pub struct MatchedTenant {
    pub organisation: Option<String>,
    pub team: Option<String>,
    pub key: Option<String>,
    /// Requests that prove nothing instead.
    pub anonymous: bool,
}

/// A header.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-rules" = [[
    "has(self.value) != (self.type == 'Present')", "every type but Present needs a `value`, and Present has none"
]]))]
pub struct MatchedHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: MatchedValue,
    /// With what; nothing for `Present`.
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// Only requests of which this does not hold.
    #[serde(default)]
    pub invert: bool,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchedValue {
    /// As they are.
    #[default]
    Exact,
    /// By how they begin.
    Prefix,
    /// With an expression, in RE2's syntax.
    RegularExpression,
    /// By whether they are there.
    Present,
}

fn dollar() -> String {
    "USD".to_owned()
}

impl LimitSpec {
    /// How much there is, in the limit's own unit: money in millionths. The error is for people.
    pub fn amount(&self) -> Result<u64, String> {
        let Decimal(millionths) = self.amount;
        let amount = if self.kind == QuotaMetric::Money {
            millionths
        } else if millionths.is_multiple_of(1_000_000) {
            millionths / 1_000_000
        } else {
            return Err("this is not a whole number".to_owned());
        };
        let amount = u64::try_from(amount).ok().filter(|amount| *amount <= MAX_AMOUNT);
        amount.ok_or_else(|| "this is more than can be counted".to_owned())
    }
}

/// A length such as `90s`, `5m`, `12h` or `7d`, in seconds; several parts are added up. The error is for people.
pub fn seconds(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "write a length such as 90s, 5m, 12h or 7d";
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).ok_or(EXPECTED)?;
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        let (unit, tail) = tail.split_at_checked(1).ok_or(EXPECTED)?;
        let length = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(EXPECTED),
        };
        total = number.checked_mul(length).and_then(|part| total.checked_add(part)).ok_or(EXPECTED)?;
        rest = tail;
    }
    let bounds = MIN_LENGTH / 1_000..=MAX_LENGTH / 1_000;
    if text.is_empty() || total == 0 {
        Err(EXPECTED)
    } else if bounds.contains(&total) {
        Ok(total)
    } else {
        Err("a window is from one second to 366 days long; the calendar has longer ones")
    }
}

/// What must hold for a UsageLimit beyond its schema.
pub(super) fn check(spec: &UsageLimitSpec, report: Report<'_>) {
    for (index, target) in spec.target_refs.iter().enumerate() {
        check_target(target, &format!("spec.targetRefs[{index}]"), report);
    }
    if spec.output.minimum.is_some() && !spec.output.clamp {
        let help = "add `clamp: true`, or remove it".to_owned();
        report("spec.output.minimum", "no answer is asked to be shorter".to_owned(), help);
    }
    for (index, price) in spec.prices.iter().flat_map(|prices| &prices.models).enumerate() {
        let parts = [
            ("input", Some(price.input)),
            ("cachedInput", price.cached_input),
            ("cacheCreationInput", price.cache_creation_input),
            ("output", Some(price.output)),
        ];
        for (name, _) in
            parts.iter().filter(|(_, part)| part.is_some_and(|Decimal(part)| part > u128::from(MAX_PRICE)))
        {
            let message = format!("a million tokens cannot cost more than {}", MAX_PRICE / 1_000_000);
            let help = "take a larger unit of the currency".to_owned();
            report(&format!("spec.prices.models[{index}].{name}"), message, help);
        }
    }
    for (index, limit) in spec.limits.iter().enumerate() {
        let field = format!("spec.limits[{index}]");
        if spec.limits.iter().take(index).any(|other| other.name == limit.name) {
            let help = "give each limit of a policy a name of its own".to_owned();
            report(&format!("{field}.name"), format!("two limits have the name `{}`", limit.name), help);
        }
        check_limit(limit, spec.prices.is_some(), &field, report);
    }
}

fn check_target(target: &PolicyTargetReference, field: &str, report: Report<'_>) {
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("gateway.networking.k8s.io", "Gateway" | "HTTPRoute")
            | ("aigateway.envoyproxy.io", "AIGatewayRoute" | "AIServiceBackend")
    );
    if !known {
        let message = format!("this policy cannot apply to {} of `{}`", target.kind, target.group);
        let help = "name a Gateway of `gateway.networking.k8s.io`, or an AIGatewayRoute or AIServiceBackend of \
                    `aigateway.envoyproxy.io`";
        report(&format!("{field}.kind"), message, help.to_owned());
    }
    if target.section_name.is_some() {
        let message = "a limit is for a whole Gateway, route or backend".to_owned();
        let help = "remove it; `match` narrows a limit".to_owned();
        report(&format!("{field}.sectionName"), message, help);
    }
}

fn check_limit(limit: &LimitSpec, priced: bool, field: &str, report: Report<'_>) {
    if let Err(message) = limit.amount() {
        report(&format!("{field}.amount"), message, "only money has digits after the point".to_owned());
    }
    match (limit.kind, limit.cel.as_deref()) {
        (QuotaMetric::Cel, None) => {
            let help = "write an expression, such as `cel: input_tokens + 3u * output_tokens`".to_owned();
            report(&format!("{field}.cel"), "a limit of type CEL needs an expression".to_owned(), help);
        }
        (QuotaMetric::Cel, Some(expression)) => {
            if let Err(error) = Cost::new(CostKind::Cel(expression)) {
                let help = "token counts are unsigned: write numbers as 2u".to_owned();
                report(&format!("{field}.cel"), format!("this cannot be computed: {error}"), help);
            }
        }
        (_, Some(_)) => {
            let help = "write `type: CEL`, or remove it".to_owned();
            report(&format!("{field}.cel"), "an expression goes with type CEL".to_owned(), help);
        }
        (QuotaMetric::Money, None) if !priced => {
            let help = "add `prices` with the models' prices".to_owned();
            report(&format!("{field}.type"), "money needs prices".to_owned(), help);
        }
        _ => {}
    }
    check_window(limit, field, report);
    if limit.kind == QuotaMetric::InFlight && limit.mode == QuotaMode::Record {
        let message = "what is in flight is counted before, or not at all".to_owned();
        report(&format!("{field}.mode"), message, "remove it".to_owned());
    }
    let Matching { tenants, headers, networks, .. } = &limit.matching;
    for (index, tenant) in tenants.iter().enumerate() {
        let MatchedTenant { organisation, team, key, anonymous } = tenant;
        let named = [organisation, team, key].iter().any(|part| part.is_some());
        if named == *anonymous {
            let message = "say which tenants: by organisation, team and key, or with `anonymous: true`";
            let help = "a request that proves nothing has no tenant".to_owned();
            report(&format!("{field}.match.tenants[{index}]"), message.to_owned(), help);
        }
    }
    for (index, header) in headers.iter().enumerate() {
        let field = format!("{field}.match.headers[{index}].value");
        match (header.kind, header.value.as_deref()) {
            (MatchedValue::Present, Some(_)) => {
                report(
                    &field,
                    "`Present` goes with no value".to_owned(),
                    "remove it, or the type".to_owned(),
                );
            }
            (MatchedValue::Present, None) | (MatchedValue::Exact | MatchedValue::Prefix, Some(_)) => {}
            (_, None) => report(&field, "a value is missing".to_owned(), String::new()),
            (MatchedValue::RegularExpression, Some(value)) => check_expression(value, &field, report),
        }
    }
    for (index, network) in networks.iter().enumerate() {
        if let Err(error) = Network::around(network) {
            report(&format!("{field}.match.networks[{index}]"), error.to_string(), String::new());
        }
    }
}

fn check_window(limit: &LimitSpec, field: &str, report: Report<'_>) {
    let field = format!("{field}.window");
    let Some(window) = &limit.window else {
        if limit.kind != QuotaMetric::InFlight {
            let help = "add one, such as `window: {every: 1m}` or `window: {calendar: Month}`".to_owned();
            report(&field, "a window is missing: how long does what is spent count?".to_owned(), help);
        }
        return;
    };
    if limit.kind == QuotaMetric::InFlight {
        report(&field, "what is in flight has no window".to_owned(), "remove it".to_owned());
    }
    let WindowSpec { every, calendar, time_zone, rolling } = window;
    let given = [every.is_some(), calendar.is_some(), rolling.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = "there must be exactly one of `every`, `calendar` and `rolling`".to_owned();
        report(&field, message, String::new());
    }
    for (name, length) in [("every", every), ("rolling", rolling)] {
        if let Some(Err(error)) = length.as_deref().map(seconds) {
            report(&format!("{field}.{name}"), "this is no length of a window".to_owned(), error.to_owned());
        }
    }
    if let Some(zone) = time_zone {
        let field = format!("{field}.timeZone");
        if calendar.is_none() {
            let help = "add `calendar`, or remove it".to_owned();
            report(&field, "only the calendar has a time zone".to_owned(), help);
        } else if let Err(error) = Zone::named(zone) {
            let names = Zone::names();
            let near = nearest(zone, names.iter().map(String::as_str));
            let help = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            report(&field, error.to_string(), help);
        }
    }
}

#[cfg(test)]
mod tests;

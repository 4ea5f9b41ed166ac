//! Quotas: how much which requests may use.

use serde::{Deserialize, Serialize};

use super::CostType;

/// The limits of one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Quota {
    /// Kind, `namespace/name` of the policy, for logs and people.
    pub policy: String,
    /// What becomes of requests while the store is out of reach.
    pub on_store_failure: OnStoreFailure,
    /// What errors of the provider cost.
    pub on_error: OnError,
    /// What becomes of reservations that nobody ends.
    pub on_lease_expiry: OnLeaseExpiry,
    /// How prompts are measured before they are sent.
    pub estimate: EstimateMethod,
    /// The fewest tokens to which an answer may be cut so that it fits; absent: requests are refused instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamp: Option<u64>,
    /// How long answers may get where requests do not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<ModelOutput>,
    /// What the currency of the prices is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// What models cost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<ModelPrice>,
    /// The limits.
    pub limits: Vec<QuotaLimit>,
}

/// What becomes of requests while the store of quotas is out of reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnStoreFailure {
    /// They go on, and are charged once it is back.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// What a request costs that the provider answers with an error, or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnError {
    /// Nothing.
    #[default]
    Free,
    /// What it used, and its prompt where that is not known.
    Charge,
}

/// What becomes of what is reserved by a processor that is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnLeaseExpiry {
    /// It counts as spent.
    #[default]
    Charge,
    /// It is given back.
    Refund,
}

/// How a prompt is measured before it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum EstimateMethod {
    /// By its length.
    #[default]
    Bytes,
    /// By a tokenizer.
    Tokenizer,
}

/// How long answers of some models may get where requests do not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelOutput {
    /// A name, in which `*` stands for any text. The first that fits counts.
    pub model: String,
    /// Tokens.
    pub tokens: u64,
}

/// What some models cost: millionths of the currency for a million tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelPrice {
    /// A name, in which `*` stands for any text. A name without one comes first, then the first that fits.
    pub model: String,
    /// Tokens of the prompt that are none of the following.
    pub input: u64,
    /// Those read from the provider's cache.
    pub cached_input: u64,
    /// Those written to the provider's cache.
    pub cache_creation_input: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// How much of something the requests it is for may use in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaLimit {
    /// What its buckets are called in the store, with what it counts and its window; unique in the document.
    pub id: String,
    /// What clients are told it is called.
    pub name: String,
    /// What requests go through or to: one of these, or anything if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<QuotaTarget>,
    /// Who asks: one of these, or anybody if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<QuotaTenant>,
    /// The quota that the client's key has to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_quota: Option<String>,
    /// The model the client asks for: one of these, in which `*` stands for any text, or any if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The model the backend is asked for, in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_models: Vec<String>,
    /// The model the backend is asked for, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_sent_model: Option<String>,
    /// Models the backend is asked for and that the limit is not for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_sent_models: Vec<String>,
    /// All of them have to pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<QuotaTest>,
    /// What its buckets are told apart by; nothing: it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<QuotaDimension>,
    /// What it counts.
    pub metric: QuotaMetric,
    /// The expression, where that is [`QuotaMetric::Cel`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
    /// How much there is in a window: at most 2^53 - 1; money in millionths.
    pub amount: u64,
    /// The windows; absent for requests in flight, and for them only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<QuotaWindow>,
    /// Whether it is held to before or after a request.
    #[serde(default)]
    pub mode: QuotaMode,
    /// Counted, but never a reason to refuse.
    #[serde(default)]
    pub shadow: bool,
    /// It is one of those of that name, of which any one is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_of: Option<String>,
    /// How many buckets it may have in a window; what comes after shares one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_subjects: Option<u32>,
}

/// Something a limit is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaTarget {
    /// Its kind.
    pub kind: QuotaTargetKind,
    /// `namespace/name`.
    pub name: String,
}

/// Kinds that limits can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the kinds")]
pub enum QuotaTargetKind {
    Gateway,
    #[serde(rename = "AIGatewayRoute")]
    Route,
    #[serde(rename = "AIServiceBackend")]
    Backend,
}

/// Some tenants: those whose parts are these; a part that is absent may be any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are those of a tenant's parts")]
pub struct QuotaTenant {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Requests that prove nothing instead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

/// A test of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaTest {
    /// What is tested.
    pub what: QuotaSource,
    /// The name of the header or parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it is compared.
    #[serde(default)]
    pub compare: Compare,
    /// With what: one of these. Nothing for [`Compare::Present`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// It passes where it would not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
}

/// Parts of a request that can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of a request's parts")]
pub enum QuotaSource {
    Header,
    Method,
    /// Without the query.
    Path,
    /// Of the query.
    Parameter,
    /// The client's address; values are networks.
    Source,
}

/// How texts are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Byte for byte.
    #[default]
    Exact,
    /// By how it begins; paths by whole segments.
    Prefix,
    /// In RE2's syntax, over the whole value.
    RegularExpression,
    /// By whether it is there.
    Present,
}

/// What buckets are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaDimension {
    /// What.
    pub by: DimensionKind,
    /// The name of the header or parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Kinds of [`QuotaDimension`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of `quota::Dimension`")]
pub enum DimensionKind {
    Organisation,
    Team,
    Key,
    AskedModel,
    SentModel,
    Backend,
    Route,
    Gateway,
    Header,
    Parameter,
    Source,
}

/// What a limit counts. The first are those of costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the names are those of `CostType`")]
pub enum QuotaMetric {
    OutputToken,
    InputToken,
    CachedInputToken,
    CacheCreationInputToken,
    TotalToken,
    ReasoningToken,
    #[serde(rename = "CEL")]
    Cel,
    /// Requests, each one.
    Request,
    /// Money, in millionths of the currency.
    Money,
    /// Requests that have not ended yet.
    InFlight,
}

impl From<CostType> for QuotaMetric {
    fn from(cost: CostType) -> Self {
        match cost {
            CostType::OutputToken => Self::OutputToken,
            CostType::InputToken => Self::InputToken,
            CostType::CachedInputToken => Self::CachedInputToken,
            CostType::CacheCreationInputToken => Self::CacheCreationInputToken,
            CostType::TotalToken => Self::TotalToken,
            CostType::ReasoningToken => Self::ReasoningToken,
            CostType::Cel => Self::Cel,
        }
    }
}

/// How long what is spent counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaWindow {
    /// What kind of windows.
    pub kind: WindowKind,
    /// Their length, in seconds, where they are not the calendar's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The part of the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CalendarUnit>,
    /// The calendar's time zone, of the IANA database; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// Kinds of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowKind {
    /// One after the other, at whole multiples of their length.
    Fixed,
    /// One after the other, by the calendar.
    Calendar,
    /// The last so many seconds, at every moment.
    Rolling,
}

/// Parts of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the calendar")]
pub enum CalendarUnit {
    Minute,
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    Year,
}

/// When a limit is held to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum QuotaMode {
    /// The most a request may cost is held from its start, so that the limit is never exceeded.
    #[default]
    Reserve,
    /// Requests are let in as long as anything is left, and charged at their end.
    Record,
}

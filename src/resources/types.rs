//! Value types that several API groups share: references, durations, quantities, integer-or-string.

use std::{fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

#[cfg(test)]
mod tests;

/// A DNS subdomain: what object names and host names without wildcard look like.
pub const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS label: what namespaces look like.
pub const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A host name whose first label may be `*`.
pub const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// An API group: a DNS subdomain, or empty for the core group.
pub const API_GROUP: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A kind.
pub const API_KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// A kind, or empty for the field's own default.
pub const API_KIND_OR_EMPTY: &str = r"^$|^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// An HTTP header name (RFC 9110 token).
pub const HEADER_NAME: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";

/// A quantity of anything, fractions and negative ones included.
pub const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Refers to a Gateway (or another parent) that a route attaches to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// API group of the parent.
    #[serde(default = "gateway_group")]
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind of the parent.
    #[serde(default = "gateway_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Namespace of the parent; absent means that of the route.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// Name of the parent.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Narrows the attachment to the listener of this name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub section_name: Option<String>,
    /// Narrows the attachment to listeners on this port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Refers to a Secret (or another kind that holds one).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretObjectReference {
    /// API group; empty is the core group.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[serde(default = "secret_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; absent means that of the object that refers to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
}

/// Refers to something that takes requests: a Service unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [["has(self.port) || self.kind != 'Service' || self.group != ''", "a Service needs a `port`"]]))]
pub struct BackendObjectReference {
    /// API group; empty is the core group.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[serde(default = "service_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; absent means that of the object that refers to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// Port; needed for a Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Refers to an object of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// API group; empty is the core group.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a policy applies to, in the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// API group of the target.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind of the target.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Narrows the policy to a part of the target, such as a Gateway's listener.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub section_name: Option<String>,
}

/// Selects objects by their labels; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: std::collections::BTreeMap<String, String>,
    /// Further conditions.
    pub match_expressions: Vec<LabelExpression>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// What it is compared with; empty for the existence tests.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected. An empty selector selects everything.
    #[must_use]
    pub fn matches(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                match expression.operator {
                    LabelOperator::In => value.is_some_and(|v| expression.values.contains(v)),
                    LabelOperator::NotIn => value.is_none_or(|v| !expression.values.contains(v)),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// A Gateway API duration (GEP-2257), such as `1m30s`; millisecond resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayDuration(pub Duration);

impl FromStr for GatewayDuration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a duration such as 500ms, 30s or 1m30s";
        let mut total = Duration::ZERO;
        let mut rest = text;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at_checked(digits).ok_or(EXPECTED)?;
            let unit_length = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at_checked(unit_length).ok_or(EXPECTED)?;
            parts += 1;
            if !(1..=5).contains(&digits) || parts > 4 {
                return Err(EXPECTED);
            }
            let number: u64 = number.parse().map_err(|_| EXPECTED)?;
            total += match unit {
                "h" => Duration::from_secs(number * 3600),
                "m" => Duration::from_secs(number * 60),
                "s" => Duration::from_secs(number),
                "ms" => Duration::from_millis(number),
                _ => return Err(EXPECTED),
            };
            rest = tail;
        }
        if parts == 0 { Err(EXPECTED) } else { Ok(Self(total)) }
    }
}

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GatewayDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION, "format": "gateway-duration" })
    }
}

/// A Kubernetes quantity of something countable in whole units, such as bytes: `50Mi`, `1G`, `32768`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub u64);

impl FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a quantity such as 50Mi, 1G or 32768";
        let end = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = text.split_at_checked(end).ok_or(EXPECTED)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 20 || fraction.len() > 18 {
            return Err(EXPECTED);
        }
        let unit = quantity_unit(suffix).ok_or(EXPECTED)?;
        let parse = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>() };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| EXPECTED)?);
        let value = parse(whole).map_err(|_| EXPECTED)?.checked_mul(unit).ok_or("is too large")?;
        let part = parse(fraction).map_err(|_| EXPECTED)?.checked_mul(unit).ok_or("is too large")?;
        // Kubernetes rounds up to whole units.
        let total = value.checked_add(part.div_ceil(scale)).ok_or("is too large")?;
        u64::try_from(total).map(Self).map_err(|_| "is too large")
    }
}

fn quantity_unit(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?.parse::<u32>().ok().filter(|p| *p <= 18)?;
            10_u128.pow(power)
        }
    })
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => {
                u64::try_from(number).map(Self).map_err(|_| serde::de::Error::custom("must not be negative"))
            }
            IntOrString::String(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "format": "quantity" })
    }
}

/// A size of a buffer as Envoy Gateway's own kinds take it: whole, and not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferSize;

impl JsonSchema for BufferSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BufferSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "pattern": "^[1-9]+[0-9]*([EPTGMK]i|[EPTGMk])?$" })
    }
}

/// A number that is not negative, exact to six digits after the point, such as `200`, `1.5M` or `"25.00"`; in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(pub u128);

impl FromStr for Decimal {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a number such as 1000, 200k, 1.5M or \"25.00\"";
        const MILLIONTHS: u128 = 1_000_000;
        let end = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = text.split_at_checked(end).ok_or(EXPECTED)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || whole.len() > 20 || fraction.contains('.') || number.ends_with('.') {
            return Err(EXPECTED);
        }
        let unit = quantity_unit(suffix).ok_or(EXPECTED)?;
        if fraction.len() > 6 {
            return Err("has more than six digits after the point");
        }
        let parse = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>() };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| EXPECTED)?);
        let whole = parse(whole).map_err(|_| EXPECTED)?.checked_mul(MILLIONTHS).ok_or("is too large")?;
        let part = parse(fraction).map_err(|_| EXPECTED)? * (MILLIONTHS / scale);
        whole.checked_add(part).and_then(|sum| sum.checked_mul(unit)).map(Self).ok_or("is too large")
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IntOrString::deserialize(deserializer)?.to_string().parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Decimal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "format": "decimal",
            "minimum": 0,
            "pattern": r"^[0-9]{1,20}(\.[0-9]{1,6})?(k|[MGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$",
        })
    }
}

/// A number or a name, such as a Service's `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// The number.
    Int(i64),
    /// The name.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(name) => name.fmt(f),
        }
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

fn secret_kind() -> String {
    "Secret".to_owned()
}

fn service_kind() -> String {
    "Service".to_owned()
}

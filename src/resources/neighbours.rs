//! What stands beside our routes in a cluster and can get in their way, as far as that matters. Only objects that an API
//! server keeps are read; in files these kinds have no meaning.

use schemars::JsonSchema;
use serde::Deserialize;

use super::security_policy::TargetSelector;
use super::types::{ParentReference, PolicyTargetReference};

/// Adds filters to routes. A user's own takes the place of ours.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EnvoyExtensionPolicy {
    /// What is asked for.
    pub spec: EnvoyExtensionPolicySpec,
}

/// See [`EnvoyExtensionPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-open" = true))]
pub struct EnvoyExtensionPolicySpec {
    /// The one target (older form).
    pub target_ref: Option<PolicyTargetReference>,
    /// The targets.
    #[serde(default)]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Targets by label.
    #[serde(default)]
    pub target_selectors: Vec<TargetSelector>,
}

/// A route that is not ours.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct HTTPRoute {
    /// What is asked for.
    #[serde(default)]
    pub spec: HTTPRouteSpec,
}

/// See [`HTTPRoute`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-open" = true))]
pub struct HTTPRouteSpec {
    /// The Gateways it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Its host names; none is any.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<HTTPRouteRule>,
}

/// A rule of a route that is not ours.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-open" = true))]
pub struct HTTPRouteRule {
    /// What it takes; none is everything.
    pub matches: Vec<HTTPRouteMatch>,
}

/// What a rule takes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-open" = true))]
pub struct HTTPRouteMatch {
    /// The path; absent is every path.
    pub path: Option<HTTPPathMatch>,
    /// How many there are decides which match comes first.
    pub headers: Vec<HTTPRouteHeaderMatch>,
}

/// A header of a match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-open" = true))]
pub struct HTTPRouteHeaderMatch {
    /// Its name.
    pub name: String,
}

/// The path of a match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-open" = true))]
pub struct HTTPPathMatch {
    /// `Exact`, `PathPrefix`, `RegularExpression`.
    #[serde(rename = "type", default = "prefix")]
    pub kind: String,
    /// The path.
    #[serde(default = "root")]
    pub value: String,
}

fn prefix() -> String {
    "PathPrefix".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

//! Which address of a cluster is chosen.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::resources::traffic::ConsistentHashType;
use crate::resources::types::GatewayDuration;

/// Which address of a cluster is chosen.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.consistentHash) == (self.type == 'ConsistentHash')",
     "`consistentHash` goes with type ConsistentHash, and the type with it"],
    ["has(self.backendUtilization) == (self.type == 'BackendUtilization')",
     "`backendUtilization` goes with type BackendUtilization, and the type with it"],
    ["has(self.dynamicModule) == (self.type == 'DynamicModule')",
     "`dynamicModule` goes with type DynamicModule, and the type with it"],
    ["!has(self.slowStart) || !(self.type in ['ConsistentHash', 'DynamicModule', 'Random'])",
     "`slowStart` goes with types RoundRobin, LeastRequest and BackendUtilization only"],
    ["self.type != 'ConsistentHash' || !has(self.zoneAware) || !has(self.zoneAware.preferLocal)",
     "`zoneAware.preferLocal` cannot go with type ConsistentHash; `weightedZones` can"],
    ["self.type != 'BackendUtilization' || !has(self.zoneAware) || !has(self.zoneAware.preferLocal)",
     "`zoneAware.preferLocal` cannot go with type BackendUtilization; `weightedZones` can"],
    ["self.type != 'DynamicModule' || !has(self.zoneAware)", "`zoneAware` cannot go with type DynamicModule"],
    ["!has(self.zoneAware) || !has(self.zoneAware.preferLocal) || !has(self.zoneAware.weightedZones)",
     "there can be one of `zoneAware.preferLocal` and `zoneAware.weightedZones`"],
    ["self.type != 'DynamicModule' || !has(self.endpointOverride)",
     "`endpointOverride` cannot go with type DynamicModule"],
]))]
pub struct LoadBalancer {
    /// For type `BackendUtilization`.
    pub backend_utilization: Option<BackendUtilization>,
    /// For type `ConsistentHash`.
    pub consistent_hash: Option<ConsistentHash>,
    /// For type `DynamicModule`.
    pub dynamic_module: Option<DynamicModule>,
    /// Addresses that requests name themselves.
    pub endpoint_override: Option<EndpointOverride>,
    /// New addresses get their share bit by bit.
    pub slow_start: Option<SlowStart>,
    /// How.
    #[serde(rename = "type")]
    pub kind: LoadBalancerType,
    /// Addresses nearby come first.
    pub zone_aware: Option<ZoneAware>,
}

/// The ways to choose an address.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum LoadBalancerType {
    ConsistentHash,
    LeastRequest,
    Random,
    RoundRobin,
    BackendUtilization,
    DynamicModule,
}

/// Chooses by the load that addresses report.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendUtilization {
    /// How long a report is waited for before it counts.
    pub blackout_period: Option<GatewayDuration>,
    /// What errors count besides, in hundredths.
    #[schemars(range(min = 0))]
    pub error_utilization_penalty_percent: Option<i32>,
    /// Leaves the headers of the reports in answers.
    #[serde(default)]
    pub keep_response_headers: bool,
    /// The reported numbers that count.
    pub metric_names_for_computing_utilization: Option<Vec<String>>,
    /// How long a report counts.
    pub weight_expiration_period: Option<GatewayDuration>,
    /// How often shares are computed anew.
    pub weight_update_period: Option<GatewayDuration>,
}

/// What is hashed.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.header) == (self.type == 'Header')", "`header` goes with type Header, and the type with it"],
    ["has(self.headers) == (self.type == 'Headers')", "`headers` goes with type Headers, and the type with it"],
    ["has(self.cookie) == (self.type == 'Cookie')", "`cookie` goes with type Cookie, and the type with it"],
    ["has(self.queryParams) == (self.type == 'QueryParams')",
     "`queryParams` goes with type QueryParams, and the type with it"],
]))]
pub struct ConsistentHash {
    /// For type `Cookie`.
    pub cookie: Option<Cookie>,
    /// For type `Header`.
    pub header: Option<Named>,
    /// For type `Headers`.
    pub headers: Option<Vec<Named>>,
    /// For type `QueryParams`.
    pub query_params: Option<Vec<Named>>,
    /// How finely requests are spread: a prime.
    #[schemars(range(min = 2, max = 5_000_011))]
    #[serde(default = "table_size")]
    pub table_size: i64,
    /// What.
    #[serde(rename = "type")]
    pub kind: ConsistentHashType,
}

fn table_size() -> i64 {
    65_537
}

/// A cookie that is hashed, and made where it is missing.
#[derive(JsonSchema)]
pub struct Cookie {
    /// Its attributes.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Its name.
    pub name: String,
    /// How long it lives.
    pub ttl: Option<GatewayDuration>,
}

/// A header or parameter.
#[derive(JsonSchema)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A load balancer that is loaded into Envoy.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DynamicModule {
    /// What it is told.
    #[serde(default)]
    #[schemars(schema_with = "anything")]
    pub config: Option<serde_json::Value>,
    /// Its policy.
    #[schemars(length(min = 1, max = 253))]
    pub lb_policy_name: String,
    /// The module.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// Addresses that requests name themselves.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverride {
    /// Where.
    #[schemars(length(min = 1, max = 10))]
    pub extract_from: Vec<OverrideSource>,
}

/// Where a request names an address.
#[derive(JsonSchema)]
pub struct OverrideSource {
    /// In this header.
    pub header: Option<String>,
}

/// New addresses get their share bit by bit.
#[derive(JsonSchema)]
pub struct SlowStart {
    /// Within this time.
    pub window: GatewayDuration,
}

/// Addresses nearby come first.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneAware {
    /// Those of Envoy's own zone.
    pub prefer_local: Option<PreferLocal>,
    /// Zones by their shares.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["zone"]))]
    pub weighted_zones: Option<Vec<WeightedZone>>,
}

/// Addresses of Envoy's own zone come first.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferLocal {
    /// Whatever the zones' sizes.
    pub force: Option<ForceLocalZone>,
    /// If there are so many addresses at least.
    pub min_endpoints_threshold: Option<i64>,
    /// For so many hundredths of the requests.
    #[schemars(range(min = 0, max = 100))]
    pub percentage_enabled: Option<i32>,
}

/// Addresses of Envoy's own zone come first, whatever the zones' sizes.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForceLocalZone {
    /// If it has so many addresses at least.
    pub min_endpoints_in_zone_threshold: Option<i32>,
}

/// A zone's share.
#[derive(JsonSchema)]
pub struct WeightedZone {
    /// The share.
    pub weight: i32,
    /// The zone.
    pub zone: String,
}

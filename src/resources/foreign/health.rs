//! Which addresses of a cluster are left out.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::cluster_settings::HTTPStatus;
use crate::resources::types::{DNS_SUBDOMAIN, GatewayDuration};

/// Which addresses of a cluster are left out.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// By asking them.
    pub active: Option<ActiveHealthCheck>,
    /// If fewer than so many hundredths are healthy, all are used again.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<i32>,
    /// By how they answer.
    pub passive: Option<PassiveHealthCheck>,
}

/// Asks addresses whether they are well.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.http) == (self.type == 'HTTP')", "`http` goes with type HTTP, and the type with it"],
    ["has(self.tcp) == (self.type == 'TCP')", "`tcp` goes with type TCP, and the type with it"],
    ["!has(self.grpc) || self.type == 'GRPC'", "`grpc` goes with type GRPC only"],
]))]
pub struct ActiveHealthCheck {
    /// For type `GRPC`.
    pub grpc: Option<GRPCHealthCheck>,
    /// After how many answers an address is used again.
    #[schemars(range(min = 1))]
    #[serde(default = "one")]
    pub healthy_threshold: i32,
    /// For type `HTTP`.
    pub http: Option<HTTPHealthCheck>,
    /// The first question waits for a random part of this.
    pub initial_jitter: Option<GatewayDuration>,
    /// How often.
    #[schemars(extend("x-crd" = {"default": "3s"}))]
    pub interval: Option<GatewayDuration>,
    /// Where else than at the address itself.
    pub overrides: Option<HealthCheckOverrides>,
    /// For type `TCP`.
    pub tcp: Option<TCPHealthCheck>,
    /// How long an answer may take.
    #[schemars(extend("x-crd" = {"default": "1s"}))]
    pub timeout: Option<GatewayDuration>,
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: HealthCheckType,
    /// After how many failures an address is left out.
    #[schemars(range(min = 1))]
    #[serde(default = "three")]
    pub unhealthy_threshold: i32,
}

fn one() -> i32 {
    1
}

fn three() -> i32 {
    3
}

/// What addresses are asked.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum HealthCheckType {
    HTTP,
    TCP,
    GRPC,
}

/// gRPC's health service.
#[derive(JsonSchema)]
pub struct GRPCHealthCheck {
    /// The service that is asked about.
    pub service: Option<String>,
}

/// The request that tells whether an address is well.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPHealthCheck {
    /// What the answer has to hold.
    pub expected_response: Option<Payload>,
    /// The statuses that are well.
    pub expected_statuses: Option<Vec<HTTPStatus>>,
    /// Its host name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub hostname: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// Its path.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Statuses that count as failures, but not at once.
    pub retriable_statuses: Option<Vec<HTTPStatus>>,
}

/// What is sent or has to come.
#[derive(JsonSchema)]
#[schemars(extend("x-rules" = [
    ["has(self.text) == (self.type == 'Text')", "`text` goes with type Text, and the type with it"],
    ["has(self.binary) == (self.type == 'Binary')", "`binary` goes with type Binary, and the type with it"],
]))]
pub struct Payload {
    /// In base64, for type `Binary`.
    #[serde(default)]
    #[schemars(schema_with = "base64")]
    pub binary: Option<String>,
    /// For type `Text`.
    pub text: Option<String>,
    /// Which of the two.
    #[serde(rename = "type")]
    pub kind: PayloadType,
}

fn base64(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "byte" })
}

/// How a payload is written.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum PayloadType {
    Text,
    Binary,
}

/// Where health is asked for.
#[derive(JsonSchema)]
pub struct HealthCheckOverrides {
    /// At this port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// A connection, and perhaps some bytes.
#[derive(JsonSchema)]
pub struct TCPHealthCheck {
    /// What has to come.
    pub receive: Option<Payload>,
    /// What is sent.
    pub send: Option<Payload>,
}

/// Leaves out addresses that answer badly.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveHealthCheck {
    /// Whether one address may be left out whatever the percentage.
    #[serde(default)]
    pub always_eject_one_endpoint: bool,
    /// How long an address is left out the first time.
    #[schemars(extend("x-crd" = {"default": "30s"}))]
    pub base_ejection_time: Option<GatewayDuration>,
    /// How many 5xx in a row.
    #[serde(rename = "consecutive5XxErrors", default = "five")]
    pub consecutive_5xx_errors: i32,
    /// How many 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<i32>,
    /// How many failures to connect in a row, if counted apart.
    #[serde(default = "five")]
    pub consecutive_local_origin_failures: i32,
    /// From so many hundredths of failures an address is left out.
    #[schemars(range(min = 0, max = 100))]
    pub failure_percentage_threshold: Option<i32>,
    /// How often the counts are looked at.
    #[schemars(extend("x-crd" = {"default": "3s"}))]
    pub interval: Option<GatewayDuration>,
    /// At most so many hundredths of addresses are left out.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default = "ten")]
    pub max_ejection_percent: i32,
    /// Whether failures to connect are counted apart from bad answers.
    #[serde(default)]
    pub split_external_local_origin_errors: bool,
}

fn five() -> i32 {
    5
}

fn ten() -> i32 {
    10
}

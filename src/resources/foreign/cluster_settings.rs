//! How Envoy treats the servers behind a login, a set of keys or an authorization service (`ClusterSettings`).

use schemars::JsonSchema;

use super::{balancing::LoadBalancer, health::HealthCheck};
use crate::resources::traffic::{BackOff, DNSLookupFamily, RetryTrigger};
use crate::resources::types::{API_GROUP, API_KIND, BufferSize, DNS_LABEL, GatewayDuration};

/// How Envoy treats the servers of a cluster.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "!has(self.connection) || !has(self.connection.preconnect) || !has(self.connection.preconnect.predictivePercent) \
     || (has(self.loadBalancer) && self.loadBalancer.type in ['RoundRobin', 'Random'])",
    "`connection.preconnect.predictivePercent` needs a load balancer of type RoundRobin or Random"
]]))]
pub struct ClusterSettings {
    /// How much may be under way at once.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Connection settings.
    pub connection: Option<Connection>,
    /// How names are looked up.
    pub dns: Option<DNS>,
    /// Which addresses are left out.
    pub health_check: Option<HealthCheck>,
    /// HTTP/2 settings.
    pub http2: Option<HTTP2>,
    /// Which address is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Tells servers the client's address by the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// When another attempt is made.
    pub retry: Option<Retry>,
    /// Keeps idle connections alive.
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// How long things may take.
    pub timeout: Option<Timeout>,
}

/// How much may be under way at once.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Connections.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    #[serde(default = "breaker")]
    pub max_connections: i64,
    /// Requests.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    #[serde(default = "breaker")]
    pub max_parallel_requests: i64,
    /// Attempts after the first.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    #[serde(default = "breaker")]
    pub max_parallel_retries: i64,
    /// Requests that wait for a connection.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    #[serde(default = "breaker")]
    pub max_pending_requests: i64,
    /// Requests of one connection, all together.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub max_requests_per_connection: Option<i64>,
    /// Limits of each address by itself.
    pub per_endpoint: Option<EndpointBreaker>,
    /// Attempts after the first, as a part of all requests.
    pub retry_budget: Option<RetryBudget>,
}

fn breaker() -> i64 {
    1024
}

/// Limits of one address.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointBreaker {
    /// Connections.
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    #[serde(default = "breaker")]
    pub max_connections: i64,
}

/// How many of the requests may be attempts after the first.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// So many may be under way in any case.
    pub min_retry_concurrency: Option<i32>,
    /// The part of them.
    pub percent: Fraction,
}

/// A part of a whole.
#[derive(JsonSchema)]
#[schemars(extend("x-rules" = [["self.denominator >= self.numerator", "`numerator` must not be more than `denominator`"]]))]
pub struct Fraction {
    /// The whole.
    #[schemars(range(min = 1))]
    #[serde(default = "hundred")]
    pub denominator: i32,
    /// The part.
    #[schemars(range(min = 0))]
    pub numerator: i32,
}

fn hundred() -> i32 {
    100
}

/// Connection settings.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// How much of an answer is buffered at most, in bytes.
    pub buffer_limit: Option<BufferSize>,
    /// Connections made before they are needed.
    pub preconnect: Option<Preconnect>,
    /// The size of the socket's own buffers, in bytes.
    pub socket_buffer_limit: Option<BufferSize>,
}

/// Connections made before they are needed.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preconnect {
    /// For each request that is under way at an address, so many hundredths of a connection.
    #[schemars(range(min = 100, max = 300))]
    pub per_endpoint_percent: Option<i32>,
    /// The same for the whole cluster.
    #[schemars(range(min = 100))]
    pub predictive_percent: Option<i32>,
}

/// How names are looked up.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DNS {
    /// How often.
    pub dns_refresh_rate: Option<GatewayDuration>,
    /// Which addresses are asked for.
    pub lookup_family: Option<DNSLookupFamily>,
    /// Whether the answer's own time counts.
    pub respect_dns_ttl: Option<bool>,
}

/// HTTP/2 settings.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTP2 {
    /// Asks whether the other side is still there.
    pub connection_keepalive: Option<ConnectionKeepalive>,
    /// How much may be under way on a connection.
    pub initial_connection_window_size: Option<BufferSize>,
    /// How much of one request or answer may be under way.
    pub initial_stream_window_size: Option<BufferSize>,
    /// How many requests a connection may have at once.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[schemars(extend("x-crd" = {"maximum": 2_147_483_647}))]
    pub max_concurrent_streams: Option<i32>,
    /// Whether a bad message ends the connection or the stream.
    pub on_invalid_message: Option<String>,
}

/// Asks whether the other side of an HTTP/2 connection is still there.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "!(has(self.interval) && has(self.timeout)) || duration(self.interval) > duration(self.timeout)",
    "`timeout` must be shorter than `interval`"
]]))]
pub struct ConnectionKeepalive {
    /// After so long without traffic.
    pub idle_interval: Option<GatewayDuration>,
    /// How often.
    pub interval: Option<GatewayDuration>,
    /// By how much, in hundredths, the times vary.
    #[schemars(range(min = 0, max = 100))]
    pub interval_jitter: Option<i32>,
    /// How long an answer may take.
    pub timeout: Option<GatewayDuration>,
}

/// The PROXY protocol.
#[derive(JsonSchema)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyProtocolVersion,
}

/// Versions of the PROXY protocol.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

/// When another attempt is made.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// After how many attempts the next priority has its turn.
    pub num_attempts_per_priority: Option<i32>,
    /// How many attempts are made after the first.
    #[schemars(range(min = 0))]
    #[serde(default = "two")]
    pub num_retries: i32,
    /// Limits of an attempt.
    pub per_retry: Option<PerRetry>,
    /// After which failures.
    pub retry_on: Option<RetryOn>,
}

fn two() -> i32 {
    2
}

/// Limits of an attempt.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerRetry {
    /// How long it waits for its turn.
    pub back_off: Option<BackOff>,
    /// How long it may take.
    pub timeout: Option<GatewayDuration>,
}

/// After which failures another attempt is made.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryOn {
    /// The statuses that `retriable-status-codes` means.
    pub http_status_codes: Option<Vec<HTTPStatus>>,
    /// Kinds of failures.
    pub triggers: Option<Vec<RetryTrigger>>,
}

/// A status of HTTP.
pub struct HTTPStatus;

impl JsonSchema for HTTPStatus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HTTPStatus".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 100, "maximum": 599 })
    }
}

/// Keeps idle connections alive.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPKeepalive {
    /// How long a connection is idle before the first probe.
    pub idle_time: Option<GatewayDuration>,
    /// How long between probes.
    pub interval: Option<GatewayDuration>,
    /// How many unanswered probes end it.
    pub probes: Option<i32>,
}

/// How long things may take.
#[derive(JsonSchema)]
pub struct Timeout {
    /// HTTP.
    pub http: Option<HTTPTimeout>,
    /// Connections.
    pub tcp: Option<TCPTimeout>,
}

/// How long HTTP may take.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPTimeout {
    /// How long a connection without requests is kept.
    pub connection_idle_timeout: Option<GatewayDuration>,
    /// How long a connection is kept at most.
    pub max_connection_duration: Option<GatewayDuration>,
    /// How long an exchange may take, however it goes.
    pub max_stream_duration: Option<GatewayDuration>,
    /// How long an answer may take.
    pub request_timeout: Option<GatewayDuration>,
    /// How long an exchange may be silent.
    pub stream_idle_timeout: Option<GatewayDuration>,
}

/// How long a connection may take.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPTimeout {
    /// To be made.
    pub connect_timeout: Option<GatewayDuration>,
}

/// One of the servers of a cluster (`BackendRef`).
#[derive(JsonSchema)]
#[schemars(extend("x-rules" = [[
    "has(self.port) || self.kind != 'Service' || self.group != ''", "a Service needs a `port`"
]]))]
pub struct ClusterBackend {
    /// Used only while the others are unhealthy.
    pub fallback: Option<bool>,
    /// API group; empty is the core group.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    #[serde(default)]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    #[serde(default = "service_kind")]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; absent means that of the object that refers to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// Port; needed for a Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Share of the requests.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[serde(default = "one")]
    pub weight: i32,
}

fn service_kind() -> String {
    "Service".to_owned()
}

fn one() -> i32 {
    1
}

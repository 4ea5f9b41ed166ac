//! BackendTrafficPolicy of `gateway.envoyproxy.io` (Envoy Gateway 1.8): how Envoy treats the backends.

use schemars::JsonSchema;
use serde::Deserialize;

use super::security_policy::TargetSelector;
use super::types::{GatewayDuration, HEADER_NAME, PolicyTargetReference, Quantity};

/// How Envoy treats the backends of the routes it targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct BackendTrafficPolicy {
    /// What is asked for.
    pub spec: BackendTrafficPolicySpec,
}

/// See [`BackendTrafficPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "admissionControl", "bandwidthLimit", "compression", "compressor", "faultInjection", "httpUpgrade", "proxyProtocol",
    "rateLimit", "requestBuffer", "responseOverride", "routingType", "telemetry", "useClientProtocol"
]))]
pub struct BackendTrafficPolicySpec {
    /// The one Gateway or route it applies to (older form).
    pub target_ref: Option<PolicyTargetReference>,
    /// The Gateways and routes it applies to. An AIGatewayRoute is named as the HTTPRoute of the same name.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Targets by label: in a cluster only.
    #[serde(default)]
    pub target_selectors: Vec<TargetSelector>,
    /// Takes what this policy does not say from the next less specific one; absent means that the most specific policy
    /// counts alone.
    pub merge_type: Option<MergeType>,
    /// Which address of a backend is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// When another attempt is made.
    pub retry: Option<Retry>,
    /// Keeps idle connections alive.
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// Which addresses are left out.
    pub health_check: Option<HealthCheck>,
    /// How much may be under way at once; what it does not limit has no limit here.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How long things may take.
    pub timeout: Option<BackendTimeout>,
    /// Connection settings.
    pub connection: Option<BackendConnection>,
    /// How names are looked up.
    pub dns: Option<DNS>,
    /// HTTP/2 settings.
    pub http2: Option<HTTP2Settings>,
}

/// How a policy and a less specific one come together. Both ways give the same here: no field that has a meaning is a
/// list that could be merged by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum MergeType {
    StrategicMerge,
    JSONMerge,
}

/// Which address of a backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["endpointOverride", "weightedZones", "zoneAware"]))]
pub struct LoadBalancer {
    /// How.
    #[serde(rename = "type")]
    pub kind: LoadBalancerType,
    /// For [`LoadBalancerType::ConsistentHash`].
    pub consistent_hash: Option<ConsistentHash>,
    /// New addresses get their share bit by bit.
    pub slow_start: Option<SlowStart>,
}

/// The ways to choose an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum LoadBalancerType {
    ConsistentHash,
    LeastRequest,
    Random,
    RoundRobin,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["cookie", "queryParams"]))]
pub struct ConsistentHash {
    /// What.
    #[serde(rename = "type")]
    pub kind: ConsistentHashType,
    /// For [`ConsistentHashType::Header`].
    pub header: Option<HashedHeader>,
    /// For [`ConsistentHashType::Headers`].
    #[serde(default)]
    pub headers: Vec<HashedHeader>,
    /// How finely requests are spread: a prime.
    #[schemars(range(min = 2, max = 5_000_011))]
    pub table_size: Option<u32>,
}

/// What can be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ConsistentHashType {
    SourceIP,
    Header,
    Headers,
    Cookie,
    QueryParams,
}

/// A header that is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct HashedHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
}

/// New addresses get their share bit by bit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct SlowStart {
    /// Within this time.
    pub window: GatewayDuration,
}

/// When another attempt is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How many attempts are made after the first; two if absent.
    pub num_retries: Option<u32>,
    /// After how many attempts the backends of the next priority have their turn; if absent, each backend of the first
    /// priority has had one by then.
    #[schemars(range(min = 1))]
    pub num_attempts_per_priority: Option<u32>,
    /// After which failures; absent means Envoy Gateway's choice.
    pub retry_on: Option<RetryOn>,
    /// Limits of an attempt.
    pub per_retry: Option<PerRetry>,
}

/// After which failures another attempt is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryOn {
    /// Kinds of failures.
    pub triggers: Vec<RetryTrigger>,
    /// Statuses that `retriable-status-codes` means.
    #[schemars(inner(range(min = 100, max = 599)))]
    pub http_status_codes: Vec<u16>,
}

/// Kinds of failures, by the names that Envoy has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum RetryTrigger {
    #[serde(rename = "5xx")]
    FiveXx,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    RefusedStream,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

impl RetryTrigger {
    /// The name in files and in Envoy's `retry_on`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FiveXx => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::ConnectFailure => "connect-failure",
            Self::Retriable4xx => "retriable-4xx",
            Self::RefusedStream => "refused-stream",
            Self::RetriableStatusCodes => "retriable-status-codes",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Limits of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerRetry {
    /// How long it may take.
    pub timeout: Option<GatewayDuration>,
    /// How long it waits for its turn.
    pub back_off: Option<BackOff>,
}

/// How long an attempt waits: twice as long each time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackOff {
    /// At first.
    pub base_interval: Option<GatewayDuration>,
    /// At most.
    pub max_interval: Option<GatewayDuration>,
}

/// Keeps idle connections alive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPKeepalive {
    /// How many unanswered probes end a connection.
    pub probes: Option<u32>,
    /// How long it is idle before the first.
    pub idle_time: Option<GatewayDuration>,
    /// How long between them.
    pub interval: Option<GatewayDuration>,
}

/// Which addresses are left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// By asking them.
    pub active: Option<ActiveHealthCheck>,
    /// By how they answer requests.
    pub passive: Option<PassiveHealthCheck>,
    /// If fewer than this percentage are healthy, all are used again.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<u32>,
}

/// Asks addresses whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["grpc", "overrides", "tcp"]))]
pub struct ActiveHealthCheck {
    /// How long an answer may take; one second if absent.
    pub timeout: Option<GatewayDuration>,
    /// How often; every three seconds if absent.
    pub interval: Option<GatewayDuration>,
    /// The first question waits for a random part of this.
    pub initial_jitter: Option<GatewayDuration>,
    /// After how many failures an address is left out; three if absent.
    #[schemars(range(min = 1))]
    pub unhealthy_threshold: Option<u32>,
    /// After how many answers it is used again; one if absent.
    #[schemars(range(min = 1))]
    pub healthy_threshold: Option<u32>,
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: ActiveHealthCheckType,
    /// For [`ActiveHealthCheckType::HTTP`].
    pub http: Option<HTTPHealthCheck>,
}

/// What addresses are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ActiveHealthCheckType {
    /// A request.
    HTTP,
    /// Nothing: a connection is enough.
    TCP,
    /// gRPC's health service.
    GRPC,
}

/// The request that tells whether an address is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["expectedResponse"]))]
pub struct HTTPHealthCheck {
    /// Its host name.
    #[schemars(length(min = 1, max = 253))]
    pub hostname: Option<String>,
    /// Its path.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Its method; GET if absent.
    pub method: Option<HealthCheckMethod>,
    /// The statuses that are well; 200 if there are none.
    #[serde(default)]
    #[schemars(inner(range(min = 100, max = 599)))]
    pub expected_statuses: Vec<u16>,
}

/// Methods of health checks. CONNECT is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum HealthCheckMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

/// Leaves out addresses that answer requests badly (Envoy's outlier detection).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveHealthCheck {
    /// Whether failures to connect are counted apart from bad answers.
    pub split_external_local_origin_errors: Option<bool>,
    /// How often the counts are looked at.
    pub interval: Option<GatewayDuration>,
    /// How many failures to connect in a row, if counted apart.
    pub consecutive_local_origin_failures: Option<u32>,
    /// How many 502, 503 and 504 in a row; zero if absent, which is never.
    pub consecutive_gateway_errors: Option<u32>,
    /// How many 5xx in a row.
    #[serde(rename = "consecutive5XxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// How long an address is left out the first time.
    pub base_ejection_time: Option<GatewayDuration>,
    /// At most this percentage of addresses is left out.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<u32>,
    /// Whether one address may be left out whatever the percentage.
    pub always_eject_one_endpoint: Option<bool>,
    /// From this percentage of failures an address is left out.
    #[schemars(range(min = 0, max = 100))]
    pub failure_percentage_threshold: Option<u32>,
}

/// How much may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["perEndpoint", "retryBudget"]))]
pub struct CircuitBreaker {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests.
    pub max_parallel_requests: Option<u32>,
    /// Attempts after the first.
    pub max_parallel_retries: Option<u32>,
    /// Requests of one connection, all together.
    pub max_requests_per_connection: Option<u32>,
}

/// How long things may take towards a backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct BackendTimeout {
    /// Connections.
    pub tcp: Option<TCPTimeout>,
    /// HTTP.
    pub http: Option<HTTPTimeout>,
}

/// How long a connection may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TCPTimeout {
    /// To be made; ten seconds if absent.
    pub connect_timeout: Option<GatewayDuration>,
}

/// How long HTTP may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["streamIdleTimeout"]))]
pub struct HTTPTimeout {
    /// How long a connection without requests is kept.
    pub connection_idle_timeout: Option<GatewayDuration>,
    /// How long a connection is kept at most.
    pub max_connection_duration: Option<GatewayDuration>,
    /// How long a request may take, where its rule does not say.
    pub request_timeout: Option<GatewayDuration>,
    /// How long an answer may take, however it comes.
    pub max_stream_duration: Option<GatewayDuration>,
}

/// Connection settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["preconnect", "socketBufferLimit"]))]
pub struct BackendConnection {
    /// How much of an answer is buffered at most, in bytes.
    pub buffer_limit: Option<Quantity>,
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DNS {
    /// How often, where the answer's own time does not count.
    pub dns_refresh_rate: Option<GatewayDuration>,
    /// Whether the answer's own time counts; it does if absent.
    pub respect_dns_ttl: Option<bool>,
    /// Which addresses are asked for.
    pub lookup_family: Option<DNSLookupFamily>,
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum DNSLookupFamily {
    IPv4,
    IPv6,
    IPv4Preferred,
    IPv6Preferred,
    IPv4AndIPv6,
}

/// HTTP/2 settings, of clients' connections and of those to backends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["connectionKeepalive", "onInvalidMessage"]))]
pub struct HTTP2Settings {
    /// How much of one answer or request may be under way; from 65,535 bytes up to 2 GiB less one byte.
    pub initial_stream_window_size: Option<Quantity>,
    /// How much may be under way on a connection; the same range.
    pub initial_connection_window_size: Option<Quantity>,
    /// How many requests a connection may have at once.
    #[schemars(range(min = 1, max = 2_147_483_647_u32))]
    pub max_concurrent_streams: Option<u32>,
}

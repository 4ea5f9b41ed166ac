//! Kinds of `gateway.envoyproxy.io` (Envoy Gateway 1.8).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    gateway_api::WellKnownCaCertificates,
    security_policy::{ClientTLSSettings, TargetSelector},
    traffic::{HTTP2Settings, TCPKeepalive},
    types::{DNS_SUBDOMAIN, GatewayDuration, LocalObjectReference, PolicyTargetReference, Quantity},
};

/// Addresses outside the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Backend {
    /// What is asked for.
    pub spec: BackendSpec,
}

/// See [`Backend`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// How the addresses are found.
    #[serde(rename = "type", default)]
    pub kind: BackendType,
    /// The addresses; FQDNs are not mixed with others (checked when read).
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub endpoints: Vec<BackendEndpoint>,
    /// What is spoken to them: `gateway.envoyproxy.io/h2c`, `…/ws` or `…/wss`; none means HTTP/1.1.
    #[serde(default)]
    pub app_protocols: Vec<AppProtocol>,
    /// Used only while the other backends of a route are unhealthy.
    #[serde(default)]
    pub fallback: bool,
    /// Has Envoy speak TLS; a BackendTLSPolicy wins over it.
    pub tls: Option<BackendTLSSettings>,
}

/// How a Backend's addresses are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum BackendType {
    /// They are listed.
    #[default]
    Endpoints,
    /// The request's host is looked up.
    DynamicResolver,
}

/// What is spoken to a Backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AppProtocol {
    /// HTTP/2 without TLS.
    #[serde(rename = "gateway.envoyproxy.io/h2c")]
    H2c,
    /// WebSocket.
    #[serde(rename = "gateway.envoyproxy.io/ws")]
    Ws,
    /// WebSocket over TLS.
    #[serde(rename = "gateway.envoyproxy.io/wss")]
    Wss,
}

/// One address. Exactly one of `fqdn`, `ip` and `unix` is set (checked when read).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-accepted" = ["zone"]))]
pub struct BackendEndpoint {
    /// The host name sent to an `ip` or `unix` endpoint.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub hostname: Option<String>,
    /// A name that is looked up.
    pub fqdn: Option<FQDNEndpoint>,
    /// An IP address.
    pub ip: Option<IPEndpoint>,
    /// A Unix domain socket.
    pub unix: Option<UnixSocket>,
}

/// A name that is looked up, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct FQDNEndpoint {
    /// The name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub hostname: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// An IP address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct IPEndpoint {
    /// IPv4 or IPv6, without brackets.
    #[schemars(with = "String", extend("format" = "ip"))]
    pub address: std::net::IpAddr,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A Unix domain socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UnixSocket {
    /// Its path.
    #[schemars(length(min = 1, max = 108))]
    pub path: String,
}

/// How Envoy speaks TLS to a Backend.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "alpnProtocols", "ciphers", "clientCertificateRef", "ecdhCurves", "maxVersion", "minVersion", "signatureAlgorithms",
    "subjectAltNames"
]))]
pub struct BackendTLSSettings {
    /// ConfigMaps (or Secrets) that hold CA certificates in `ca.crt`.
    #[serde(default, rename = "caCertificateRefs")]
    #[schemars(length(max = 8))]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// Takes the CAs from the system instead.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,
    /// Accepts any certificate.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// Sent as SNI.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub sni: Option<String>,
}

/// How Envoy treats clients.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ClientTrafficPolicy {
    /// What is asked for.
    pub spec: ClientTrafficPolicySpec,
}

/// See [`ClientTrafficPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "clientIPDetection", "enableProxyProtocol", "grpc", "healthCheck", "http1", "http3", "proxyProtocol", "scheme"
]))]
pub struct ClientTrafficPolicySpec {
    /// The one Gateway it applies to (older form).
    pub target_ref: Option<PolicyTargetReference>,
    /// The Gateways it applies to.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Targets by label: in a cluster only.
    #[serde(default)]
    pub target_selectors: Vec<TargetSelector>,
    /// Connection settings.
    pub connection: Option<ClientConnection>,
    /// How long things may take.
    pub timeout: Option<ClientTimeout>,
    /// HTTP/2 settings.
    pub http2: Option<HTTP2Settings>,
    /// What becomes of unusual paths.
    pub path: Option<PathSettings>,
    /// What becomes of unusual headers.
    pub headers: Option<HeaderSettings>,
    /// Keeps idle connections alive.
    pub tcp_keepalive: Option<TCPKeepalive>,
    /// What clients have to show where TLS is spoken.
    pub tls: Option<ClientTLSSettings>,
}

/// How long things may take towards a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ClientTimeout {
    /// HTTP.
    pub http: Option<ClientHTTPTimeout>,
    /// Connections.
    pub tcp: Option<ClientTCPTimeout>,
}

/// How long HTTP may take towards a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientHTTPTimeout {
    /// How long a client may take to send its request.
    pub request_received_timeout: Option<GatewayDuration>,
    /// How long a connection without requests is kept.
    pub idle_timeout: Option<GatewayDuration>,
    /// How long a request may be silent, where its rule does not allow more.
    pub stream_idle_timeout: Option<GatewayDuration>,
}

/// Timeouts of connections that do not speak HTTP. None of them has a meaning for HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("x-not-served" = ["idleTimeout"]))]
pub struct ClientTCPTimeout {}

/// What becomes of unusual paths.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathSettings {
    /// What becomes of `%2F` and `%5C`; Envoy Gateway unescapes them and redirects, here they are kept if it is absent.
    pub escaped_slashes_action: Option<EscapedSlashesAction>,
    /// Leaves `//` alone, which is also what happens if it is absent.
    pub disable_merge_slashes: Option<bool>,
}

/// What becomes of `%2F` and `%5C` in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum EscapedSlashesAction {
    KeepUnchanged,
    RejectRequest,
    UnescapeAndForward,
    UnescapeAndRedirect,
}

/// What becomes of unusual headers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "disableRateLimitHeaders", "earlyRequestHeaders", "enableEnvoyHeaders", "lateResponseHeaders", "preserveXRequestID",
    "requestID", "xForwardedClientCert"
]))]
pub struct HeaderSettings {
    /// What becomes of names with underscores; they are allowed if it is absent.
    pub with_underscores_action: Option<WithUnderscoresAction>,
}

/// What becomes of header names with underscores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum WithUnderscoresAction {
    Allow,
    RejectRequest,
    DropHeader,
}

/// How Envoy treats a client's connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["maxAcceptPerSocketEvent", "socketBufferLimit"]))]
pub struct ClientConnection {
    /// How much of a request or an answer is buffered at most, in bytes.
    pub buffer_limit: Option<Quantity>,
    /// How many connections there may be.
    pub connection_limit: Option<ConnectionLimit>,
}

/// How many connections a listener may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["maxConnectionDuration", "maxRequestsPerConnection", "maxStreamDuration"]))]
pub struct ConnectionLimit {
    /// The number.
    #[schemars(range(min = 1))]
    pub value: u64,
    /// How long a connection above it is held before it is closed.
    pub close_delay: Option<GatewayDuration>,
}

/// How Envoy itself is run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EnvoyProxy {
    /// What is asked for.
    #[serde(default)]
    pub spec: EnvoyProxySpec,
}

/// See [`EnvoyProxy`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "backendTLS", "bootstrap", "concurrency", "dynamicModules", "extraArgs", "filterOrder", "geoIP", "ipFamily", "logging",
    "luaValidation", "mergeGateways", "preserveRouteOrder", "provider", "routingType", "shutdown"
]))]
pub struct EnvoyProxySpec {
    /// What it reports.
    pub telemetry: Option<ProxyTelemetry>,
}

/// What Envoy reports.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["metrics", "requestID", "tracing"]))]
pub struct ProxyTelemetry {
    /// The access logs.
    pub access_log: Option<ProxyAccessLog>,
}

/// The access logs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyAccessLog {
    /// Writes none.
    #[serde(default)]
    pub disable: bool,
    /// The logs; none means one in the default format to standard output.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub settings: Vec<ProxyAccessLogSetting>,
}

/// One access log.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyAccessLogSetting {
    /// What a line looks like; absent means Envoy Gateway's default.
    pub format: Option<ProxyAccessLogFormat>,
    /// CEL expressions of which one must hold for a line to be written; none means always.
    #[serde(default)]
    #[schemars(length(max = 10))]
    pub matches: Vec<String>,
    /// Where it is written.
    #[schemars(length(min = 1, max = 50))]
    pub sinks: Vec<ProxyAccessLogSink>,
    /// Whose log it is; absent means both.
    #[serde(rename = "type")]
    pub kind: Option<ProxyAccessLogType>,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyAccessLogType {
    /// What the listener refused.
    Listener,
    /// Requests.
    Route,
}

/// What a line looks like.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ProxyAccessLogFormat {
    /// Which of the fields is used; absent means whichever is set.
    #[serde(rename = "type")]
    pub kind: Option<ProxyAccessLogFormatType>,
    /// A line with command operators.
    pub text: Option<String>,
    /// A JSON object whose values have command operators.
    pub json: Option<BTreeMap<String, String>>,
}

/// The formats of access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyAccessLogFormatType {
    /// Plain text.
    Text,
    /// One JSON object a line.
    #[serde(rename = "JSON")]
    Json,
}

/// Where an access log is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["als", "openTelemetry"]))]
pub struct ProxyAccessLogSink {
    /// Which of the fields is used; absent means whichever is set.
    #[serde(rename = "type")]
    pub kind: Option<ProxyAccessLogSinkType>,
    /// A file.
    pub file: Option<FileAccessLog>,
}

/// The kinds of sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyAccessLogSinkType {
    /// A gRPC access log service.
    ALS,
    /// A file.
    File,
    /// An OpenTelemetry collector.
    OpenTelemetry,
}

/// An access log file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct FileAccessLog {
    /// Its path, such as `/dev/stdout`.
    #[schemars(length(min = 1))]
    pub path: String,
}

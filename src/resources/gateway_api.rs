//! Kinds of `gateway.networking.k8s.io` (Gateway API 1.5).
//!
//! `x-not-served` names fields that the API has and this project gives no meaning yet; `x-accepted` names fields that
//! have none on purpose and are passed over in silence.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::types::{
    API_GROUP, API_KIND, DNS_LABEL, DNS_SUBDOMAIN, HOSTNAME, LabelSelector, LocalObjectReference,
    PolicyTargetReference, SecretObjectReference,
};

/// Names the controller that serves the Gateways of this class.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct GatewayClass {
    /// What is asked for.
    pub spec: GatewayClassSpec,
}

/// See [`GatewayClass`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-accepted" = ["description"]))]
pub struct GatewayClassSpec {
    /// The controller.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// Further parameters: an EnvoyProxy that applies to all Gateways of the class.
    pub parameters_ref: Option<ParametersReference>,
}

/// Refers to a class's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParametersReference {
    /// API group.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace, for namespaced kinds.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
}

/// Where clients connect to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Gateway {
    /// What is asked for.
    pub spec: GatewaySpec,
}

/// See [`Gateway`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["addresses", "allowedListeners", "backendTLS", "defaultScope", "tls"]))]
pub struct GatewaySpec {
    /// Name of the GatewayClass.
    #[schemars(length(min = 1, max = 253))]
    pub gateway_class_name: String,
    /// The ports it listens on.
    #[schemars(length(min = 1, max = 64))]
    pub listeners: Vec<Listener>,
    /// How it is run.
    pub infrastructure: Option<GatewayInfrastructure>,
}

/// One port (and host name) a Gateway listens on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Unique in the Gateway; `sectionName` refers to it.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    /// Only requests for this host are taken; absent means any.
    #[schemars(length(min = 1, max = 253), regex(pattern = HOSTNAME))]
    pub hostname: Option<String>,
    /// The port clients use.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or a domain-prefixed name.
    #[schemars(length(min = 1, max = 255))]
    pub protocol: String,
    /// How TLS is spoken, for `HTTPS`.
    pub tls: Option<ListenerTLS>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// How TLS is spoken to clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["frontendValidation", "options"]))]
pub struct ListenerTLS {
    /// Who decrypts.
    #[serde(default)]
    pub mode: TLSMode,
    /// Secrets of type `kubernetes.io/tls`: `tls.crt` and `tls.key`. Envoy picks by the host name that the client asks for.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub certificate_refs: Vec<SecretObjectReference>,
}

/// Who decrypts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TLSMode {
    /// The gateway.
    #[default]
    Terminate,
    /// The backend.
    Passthrough,
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: RouteNamespaces,
    /// Of which kinds; empty means those that fit the protocol.
    #[schemars(length(max = 8))]
    pub kinds: Vec<RouteGroupKind>,
}

/// From which namespaces routes may attach.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteNamespaces {
    /// The rule.
    pub from: FromNamespaces,
    /// The namespaces, for [`FromNamespaces::Selector`].
    pub selector: Option<LabelSelector>,
}

/// A rule about namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    /// Any namespace.
    All,
    /// The namespaces that a label selector picks.
    Selector,
    /// The Gateway's own namespace.
    #[default]
    Same,
    /// No namespace.
    None,
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct RouteGroupKind {
    /// API group.
    #[serde(default = "group")]
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
}

/// How a Gateway is run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-accepted" = ["annotations", "labels"]))]
pub struct GatewayInfrastructure {
    /// Further parameters: an EnvoyProxy of the same namespace.
    pub parameters_ref: Option<LocalObjectReference>,
}

/// Has Envoy speak TLS to the backends it targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct BackendTLSPolicy {
    /// What is asked for.
    pub spec: BackendTLSPolicySpec,
}

/// See [`BackendTLSPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSPolicySpec {
    /// The Backends or Services it applies to.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// How the backend's certificate is checked.
    pub validation: BackendTLSPolicyValidation,
    /// Implementation-specific settings; none is known.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// How a backend's certificate is checked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSPolicyValidation {
    /// ConfigMaps (or Secrets) that hold CA certificates in `ca.crt`.
    #[serde(default, rename = "caCertificateRefs")]
    #[schemars(length(max = 8))]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// Takes the CAs from the system instead.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,
    /// Sent as SNI, and demanded of the certificate unless `subjectAltNames` are given.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub hostname: String,
    /// Names the certificate must have one of.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// Well-known sets of CA certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum WellKnownCaCertificates {
    /// Those of the operating system.
    System,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct SubjectAltName {
    /// Which of the two fields is set.
    #[serde(rename = "type")]
    pub kind: SubjectAltNameType,
    /// A DNS name.
    #[schemars(length(min = 1, max = 253), regex(pattern = HOSTNAME))]
    pub hostname: Option<String>,
    /// A URI.
    #[schemars(length(min = 1, max = 253))]
    pub uri: Option<String>,
}

/// The kinds of names in a certificate that can be demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SubjectAltNameType {
    /// A DNS name.
    Hostname,
    /// A URI.
    #[serde(rename = "URI")]
    Uri,
}

/// Lets objects of other namespaces refer to objects of this one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ReferenceGrant {
    /// What is asked for.
    pub spec: ReferenceGrantSpec,
}

/// See [`ReferenceGrant`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    #[schemars(length(min = 1, max = 16))]
    pub to: Vec<ReferenceGrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReferenceGrantFrom {
    /// API group of the referring object.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Its kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ReferenceGrantTo {
    /// API group of the object.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Its kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Its name; absent means all.
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

fn group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

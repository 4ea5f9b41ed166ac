//! What was applied before: the HTTPRoutes, rule by rule, with the routing key each demands.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{GATEWAY_LABEL, MANAGED_BY, MANAGED_BY_LABEL, objects};
use crate::exchange::ROUTING_HEADER;

/// The HTTPRoutes of ours that are in the cluster. Rules keep their place in them as long as they live: Envoy Gateway names
/// clusters by the place, and a cluster must not change its destination while a route still leads to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// By namespace and name.
    routes: BTreeMap<(String, String), Before>,
    /// How many each AIGatewayRoute has, by its namespace and name.
    counts: BTreeMap<(String, String), usize>,
}

/// An HTTPRoute of before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Before {
    /// The name of the Gateway's Service.
    pub(super) service: String,
    pub(super) rules: Vec<Value>,
}

impl Applied {
    /// From the HTTPRoutes that carry our label, as the API server or [`super::Programme`] has them; what is no HTTPRoute is
    /// passed over.
    pub fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut applied = Self::default();
        for object in objects {
            if let Some((name, route, before)) = read(object) {
                *applied.counts.entry((name.0.clone(), route)).or_default() += 1;
                applied.routes.insert(name, before);
            }
        }
        applied
    }

    /// An HTTPRoute.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Before> {
        self.routes.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// How many HTTPRoutes an AIGatewayRoute has.
    pub(super) fn count(&self, namespace: &str, route: &str) -> usize {
        self.counts.get(&(namespace.to_owned(), route.to_owned())).copied().unwrap_or_default()
    }

    /// Namespace and name of each HTTPRoute.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.routes.keys().map(|(namespace, name)| (namespace.as_str(), name.as_str()))
    }
}

/// Namespace and name of an HTTPRoute, the name of its AIGatewayRoute in the same namespace, and the rest.
fn read(mut object: Value) -> Option<((String, String), String, Before)> {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if object["kind"] != "HTTPRoute" || metadata["labels"][MANAGED_BY_LABEL] != MANAGED_BY {
        return None;
    }
    let name = (text(&metadata["namespace"])?, text(&metadata["name"])?);
    let route = text(&metadata["annotations"][objects::ROUTE_ANNOTATION])?;
    let service = text(&metadata["labels"][GATEWAY_LABEL])?;
    let rules = match object["spec"]["rules"].take() {
        Value::Array(rules) => rules,
        _ => Vec::new(),
    };
    Some((name, route, Before { service, rules }))
}

/// The routing key that a rule demands; the two that end an HTTPRoute have none.
pub(super) fn key(rule: &Value) -> Option<&str> {
    let headers = rule["matches"].as_array()?.first()?["headers"].as_array()?;
    headers.iter().find(|header| header["name"] == ROUTING_HEADER)?["value"].as_str()
}

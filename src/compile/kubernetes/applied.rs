//! What was applied before: the HTTPRoutes, rule by rule, with the routing key each demands.

use serde_json::Value;

use super::{GATEWAY_LABEL, MANAGED_BY, MANAGED_BY_LABEL, objects};
use crate::exchange::ROUTING_HEADER;

/// The HTTPRoutes of ours that are in the cluster. Rules keep their place in them as long as they live: Envoy Gateway names
/// clusters by the place, and a cluster must not change its destination while a route still leads to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    routes: Vec<Before>,
}

/// An HTTPRoute of before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Before {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The name of the AIGatewayRoute, in the same namespace.
    pub(super) route: String,
    /// The name of the Gateway's Service.
    pub(super) service: String,
    pub(super) rules: Vec<Value>,
}

impl Applied {
    /// From the HTTPRoutes that carry our label, as the API server or [`super::Programme`] has them; what is no HTTPRoute is
    /// passed over.
    pub fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        Self { routes: objects.into_iter().filter_map(Before::new).collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Before> {
        self.routes.iter()
    }
}

impl Before {
    fn new(mut object: Value) -> Option<Self> {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if object["kind"] != "HTTPRoute" || metadata["labels"][MANAGED_BY_LABEL] != MANAGED_BY {
            return None;
        }
        Some(Self {
            namespace: text(&metadata["namespace"])?,
            name: text(&metadata["name"])?,
            route: text(&metadata["annotations"][objects::ROUTE_ANNOTATION])?,
            service: text(&metadata["labels"][GATEWAY_LABEL])?,
            rules: match object["spec"]["rules"].take() {
                Value::Array(rules) => rules,
                _ => Vec::new(),
            },
        })
    }
}

/// The routing key that a rule demands; the two that end an HTTPRoute have none.
pub(super) fn key(rule: &Value) -> Option<&str> {
    let headers = rule["matches"].as_array()?.first()?["headers"].as_array()?;
    headers.iter().find(|header| header["name"] == ROUTING_HEADER)?["value"].as_str()
}

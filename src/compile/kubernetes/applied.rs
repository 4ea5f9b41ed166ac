//! What was applied before: the HTTPRoutes, rule by rule, with the routing keys each demands.

use serde_json::Value;

/// The HTTPRoutes of ours that are in the cluster. Rules keep their place in them as long as they live: Envoy Gateway names
/// clusters by the place, and a cluster must not change its destination while a route still leads to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    routes: Vec<Value>,
}

impl Applied {
    /// From the HTTPRoutes that carry our label, as the API server or [`super::Programme`] has them; what is no HTTPRoute is
    /// passed over.
    pub fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let ours = |object: &Value| {
            object["kind"] == "HTTPRoute"
                && object["metadata"]["labels"][super::MANAGED_BY_LABEL] == super::MANAGED_BY
        };
        Self { routes: objects.into_iter().filter(ours).collect() }
    }
}

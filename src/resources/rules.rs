//! Rules about several fields at once, which no schema can say.

use super::{
    aigateway::{AIGatewayRoute, AIServiceBackend},
    core::{ConfigMap, Deployment, Secret, Service},
    envoy_gateway::{Backend, ClientTrafficPolicy, EnvoyProxy},
    gateway_api::{BackendTLSPolicy, Gateway, GatewayClass, ReferenceGrant},
    security::BackendSecurityPolicy,
};

/// Takes a field, what is wrong with it, and what to do (may be empty).
pub(super) type Report<'a> = &'a mut dyn FnMut(&str, String, String);

/// What must hold for a kind beyond its schema.
pub(super) trait Rules {
    fn check(&self, _report: Report<'_>) {}
}

impl Rules for GatewayClass {}
impl Rules for Gateway {}
impl Rules for BackendTLSPolicy {}
impl Rules for ReferenceGrant {}
impl Rules for AIServiceBackend {}
impl Rules for ClientTrafficPolicy {}
impl Rules for EnvoyProxy {}
impl Rules for Secret {}
impl Rules for ConfigMap {}
impl Rules for Service {}
impl Rules for Deployment {}
impl Rules for AIGatewayRoute {}
impl Rules for BackendSecurityPolicy {}
impl Rules for Backend {}

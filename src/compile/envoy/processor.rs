//! Our filter: what it is on a listener and in front of a backend.

use serde_json::{Value, json};

use super::super::METADATA_NAMESPACE;
use super::PROCESSOR_CLUSTER;

/// What every instance of the filter has in common; each adds its mode.
pub(super) fn filter(authority: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {
            "envoy_grpc": { "cluster_name": PROCESSOR_CLUSTER, "authority": authority },
        },
        "failure_mode_allow": false,
        "allow_mode_override": true,
        "message_timeout": "10s",
        // `x-envoy-original-path` is set by the processor.
        "mutation_rules": { "allow_envoy": true },
        "metadata_options": { "receiving_namespaces": { "untyped": [METADATA_NAMESPACE] } },
    })
}

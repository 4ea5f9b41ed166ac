//! L0. The generated messages of the protocols spoken here. No logic lives here; only the edges use it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes,
    unused_qualifications
)]

/// Envoy's external processing protocol.
pub mod ext_proc {
    tonic::include_proto!("envoy.service.ext_proc.v3");
}

/// The gRPC health checking protocol.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// How a controller pushes configurations to processors.
pub mod config_stream {
    tonic::include_proto!("aigw.config.v1");
}

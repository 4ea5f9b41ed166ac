//! L0. The generated messages of Envoy's external processing protocol. No logic lives here; only `extproc` uses it.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes, unused_qualifications)]

tonic::include_proto!("envoy.service.ext_proc.v3");

pub use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

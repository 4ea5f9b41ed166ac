//! L5. The user's Kubernetes-style resources: text in, typed objects and findings out.
//!
//! ```text
//! files ─► load ─► Source ─► tree (YAML with places) ─► read (schema walk) ─► Snapshot
//!                                                         └► Diagnostics
//! ```
//!
//! The types are the schema: field names, defaults, ranges and patterns are declared once, on the Rust types, and the
//! walk of [`parse`] checks documents against what schemars derives from them. All problems of all documents are found in
//! one go; a document with an error is left out and the others stay.

pub mod admission;
pub mod aigateway;
pub mod core;
pub mod crd;
pub mod envoy_gateway;
pub mod foreign;
pub mod gateway_api;
pub mod load;
pub mod mcp;
pub mod neighbours;
pub mod quota_policy;
mod read;
mod rules;
mod schema;
pub mod security;
pub mod security_policy;
mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;
pub mod traffic;
mod tree;
pub mod types;
pub mod usage_limit;
mod variables;
mod walk;

pub use read::{Memory, Source, parse};
pub use snapshot::{Kind, Located, Metadata, Snapshot};

//! An Envoy AI gateway.
//!
//! ```text
//! client ──► Envoy ── headers/body ──► extproc::decode ─► Exchange (pure) ─► Step ─► extproc::encode ──► Envoy ──► provider
//!                                            reads Arc<Runtime> ┘   └─► Settlement ─► telemetry
//! YAML files ─► resources ─► compile (pure) ─► config::Config ─► Runtime ─► ArcSwap<Runtime>
//!                                 └► Envoy bootstrap ─► standalone ─► envoy process
//! ```
//!
//! Modules are listed bottom up. A module uses only modules of lower layers, of its own folder or, within L4 and L5, listed
//! before it; the test `layers` enforces it. Layers L0 to L3 do no I/O and read no clock: what they need comes in as arguments.

// L0: data and codecs
pub mod codec;
pub mod headers;
pub mod proto;
pub mod usage;
pub mod wire;

// L1: decisions
pub mod auth;
pub mod cost;
pub mod endpoint;
pub mod keys;
pub mod mutation;
pub mod quota;
pub mod redaction;
pub mod routing;
pub mod tenant;
pub mod translate;

// L2: configuration
pub mod config;
pub mod runtime;

// L3: the exchange
pub mod exchange;

// L4: edges
pub mod credentials;

pub mod keystore;

pub mod quotastore;

pub mod source;

pub mod extproc;

pub mod telemetry;

pub mod server;

pub mod testbackend;

// L5: control plane
pub mod diagnostics;

pub mod resources;

pub mod compile;

pub mod explain;

pub mod push;

pub mod standalone;

#[cfg(feature = "controller")]
pub mod controller;

pub mod cli;

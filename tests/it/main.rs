//! The integration tests: one binary, one module a concern.
//!
//! A test that does not find what it cannot do without reports itself skipped, by name. For tools (Envoy, Python) that is a
//! failure under `make test`, and for the data that is not part of the repository it is one in CI.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

mod autoconfig;
mod changes;
mod check;
mod classic;
mod crds;
mod credentials;
mod dialects;
mod ending;
mod envoy_validate;
mod errors;
mod extproc;
mod extproc_process;
mod failover;
mod https;
mod keys;
mod layers;
mod leaving;
mod matcher;
mod otlp;
mod policies;
mod push;
mod quota_away;
mod quota_estimate;
mod quota_exchange;
mod quota_journal;
mod quota_peers;
mod quota_snapshot;
mod quota_store;
mod recorded;
mod reload;
mod replay;
mod replicas;
mod sdk;
mod skew;
mod support;
mod tenants;
mod tokens;
mod traffic;
mod walkthrough;

//! The integration tests: one binary, one module a concern.
//!
//! What a test cannot do without (Envoy, Python, shared data) and does not find makes it report itself skipped, by name.
//! Under `make test` and in CI that is a failure.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

mod ending;
mod envoy_validate;
mod errors;
mod extproc;
mod layers;
mod leaving;
mod matcher;
mod otlp;
mod sdk;
mod skew;
mod support;
mod tokens;
mod traffic;
mod walkthrough;

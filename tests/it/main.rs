//! The integration tests: one binary, one module a concern.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

mod envoy_validate;
mod extproc;
mod layers;

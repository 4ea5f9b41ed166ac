//! The integration tests: one binary, one module a concern.

mod envoy_validate;
mod extproc;
#[cfg(test)]
mod layers;

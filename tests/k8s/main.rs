//! The control plane against a real API server, Envoy Gateway and Envoy: `make test-k8s`.
//!
//! Each test has a cluster of its own, in namespaces of its own ([`support::isolated`]), which end with it whatever happens.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

mod charts;
mod cluster;
mod controller;
mod crds;
#[expect(dead_code, reason = "some of it is for tests that follow")]
mod support;
mod walk;

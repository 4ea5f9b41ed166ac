//! The control plane against a real API server, Envoy Gateway and Envoy: `make test-k8s`.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

//! Quotas under killed, stalled and failed-over stores and processors: `make test-chaos`.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

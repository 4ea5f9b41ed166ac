//! Quotas under killed, stalled and failed-over stores and processors: `make test-chaos`.
//!
//! Four processors of their own, 64 clients that speak Envoy's protocol to them, a real Redis, and a provider stand-in. The test keeps an
//! account of its own of all that was let in and delivered ([`account`]), and holds it against the limits while they run, and against
//! what Redis counts once they have ended. `AIGW_CHAOS_SEEDS` says how many runs each test makes, `AIGW_CHAOS_SEED` the first seed.

// Tells clippy that all of this is tests, helpers included.
#![cfg(test)]

mod account;
mod clients;
mod faults;
mod processors;
mod proxy;
mod run;
mod support;
mod world;

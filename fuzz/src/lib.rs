//! What the fuzz targets do with their input, apart from the fuzzer: each is a function that panics where a property does not
//! hold. `fuzz_targets` has an executable for each, `examples/any.rs` one for all.

pub mod cel_cost;
pub mod config_cache;
pub mod encoding;
pub mod eventstream;
pub mod exchange;
pub mod filter_config;
pub mod json_edit;
pub mod json_members;
pub mod keys;
pub mod keys_file;
pub mod openai_usage;
pub mod quota_journal;
pub mod quota_snapshot;
pub mod request;
pub mod resources;
pub mod routing;
pub mod sse;
pub mod tenants;
pub mod translate_answer;
pub mod translate_request;

/// A target's function.
pub type Run = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Run); 20] = [
    ("cel_cost", cel_cost::run),
    ("config_cache", config_cache::run),
    ("encoding", encoding::run),
    ("eventstream", eventstream::run),
    ("exchange", exchange::run),
    ("filter_config", filter_config::run),
    ("json_edit", json_edit::run),
    ("json_members", json_members::run),
    ("keys", keys::run),
    ("keys_file", keys_file::run),
    ("openai_usage", openai_usage::run),
    ("quota_journal", quota_journal::run),
    ("quota_snapshot", quota_snapshot::run),
    ("request", request::run),
    ("resources", resources::run),
    ("routing", routing::run),
    ("sse", sse::run),
    ("tenants", tenants::run),
    ("translate_answer", translate_answer::run),
    ("translate_request", translate_request::run),
];

/// The function of the target of that name.
pub fn target(name: &str) -> Option<Run> {
    TARGETS.iter().find(|(target, _)| *target == name).map(|(_, run)| *run)
}

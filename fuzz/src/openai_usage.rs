//! A `usage` object.

use ai_gateway::usage::{MAX_COUNT, TokenUsage};

pub fn run(data: &[u8]) {
    let Some(usage) = TokenUsage::from_openai(data) else { return };
    let counts = usage.or_zero();
    for count in [
        counts.input,
        counts.cached_input,
        counts.cache_creation_input,
        counts.output,
        counts.total,
        counts.reasoning,
    ] {
        assert!(count <= MAX_COUNT);
    }
    let mut merged = TokenUsage::default();
    merged.merge(usage);
    merged.merge(TokenUsage::default());
    assert_eq!(merged, usage);
}

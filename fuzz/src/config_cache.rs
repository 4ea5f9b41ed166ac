//! The input is a file in which a processor keeps a configuration for a start without a controller.

use ai_gateway::source::read_cache_any;

pub fn run(data: &[u8]) {
    if let Some(written) = read_cache_any(data) {
        assert_eq!(read_cache_any(&written).as_ref(), Some(&written));
    }
}

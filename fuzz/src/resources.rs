//! A file of resources, compiled as far as it goes.

use ai_gateway::resources::Snapshot;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (_, findings) = Snapshot::parse(text);
    for finding in findings {
        assert!(!finding.message.is_empty());
        let _ = finding.render(false);
    }
}

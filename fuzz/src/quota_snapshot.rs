//! A snapshot of quotas, and records for one, a line each. Whatever the bytes are, nothing panics; what a store takes up, it keeps
//! as it is.

use ai_gateway::quotastore::{MemoryStore, resume_snapshot, snapshot_of, take_snapshot};
use serde_json::Value;

/// Late enough for windows to have begun before, and early enough for some not to have.
const NOW: u64 = 1_790_000_000_000;

pub fn run(data: &[u8]) {
    take_up(data);
    let lines = data.split(|byte| *byte == b'\n');
    let records: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    take_up(&snapshot_of(&records));
}

fn take_up(bytes: &[u8]) {
    let (store, next) = (store(), store());
    if resume_snapshot(&store, bytes) {
        let kept = take_snapshot(&store);
        assert!(resume_snapshot(&next, &kept), "what was written is read");
        assert_eq!(records(&take_snapshot(&next)), records(&kept));
    }
}

fn store() -> MemoryStore {
    MemoryStore::new(|| NOW, 1 << 10)
}

/// How often each byte is in it: records have no order.
fn records(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

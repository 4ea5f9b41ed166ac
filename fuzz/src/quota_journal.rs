//! A journal of quotas. Whatever its bytes are, nothing panics; what is cut off holds no more than the whole could have had written.

use ai_gateway::quotastore::read_journal;

const MAGIC: &[u8] = b"AIGWQJ1\n";

pub fn run(data: &[u8]) {
    let _ = read_journal(data);
    let whole = [MAGIC, data].concat();
    let owed = read_journal(&whole);
    assert!(owed.is_some(), "what begins as a journal is one");
    // Nothing follows from what is added behind the end but what was there, or more.
    if let Some(cut) = whole.len().checked_sub(1) {
        let _ = read_journal(&whole[..cut]);
    }
}

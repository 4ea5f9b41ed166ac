//! The input is a file of keys, and each of its lines a record.

use std::collections::BTreeSet;

use ai_gateway::keys::Record;
use ai_gateway::keystore::read_any;

pub fn run(data: &[u8]) {
    if let Some(snapshot) = read_any(data) {
        let ids: BTreeSet<_> = snapshot.records.iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), snapshot.records.len());
    }
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(record) = Record::from_json(line) {
            assert_eq!(Record::from_json(record.to_json().as_bytes()), Ok(record));
        }
    }
}

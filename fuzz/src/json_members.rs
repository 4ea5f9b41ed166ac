//! The first byte says how large chunks are, the second how much is captured; the rest is the document.

use ai_gateway::codec::json::{DocumentState, MemberScanner, members};
use serde_json::{Map, Value};

const KEYS: &[&str] = &["usage", "model", "a"];

fn scan(doc: &[u8], size: usize, capture: usize) -> (DocumentState, Vec<(Option<Vec<u8>>, bool)>) {
    let mut scanner = MemberScanner::new(KEYS, capture);
    for chunk in doc.chunks(size) {
        scanner.push(chunk);
    }
    let found = KEYS.iter().map(|key| (scanner.member(key).map(<[u8]>::to_vec), scanner.too_long(key)));
    (scanner.state(), found.collect())
}

pub fn run(data: &[u8]) {
    let [size, capture, doc @ ..] = data else { return };
    let capture = usize::from(*capture);
    let whole = scan(doc, doc.len().max(1), capture);
    assert_eq!(scan(doc, usize::from(*size).max(1), capture), whole);
    assert_eq!(scan(doc, 1, capture), whole);

    let (state, captured) = scan(doc, doc.len().max(1), usize::MAX);
    let found = members(doc, ["usage", "model", "a"]);
    assert_eq!(found.is_ok(), state == DocumentState::Complete);
    if let Ok(found) = found {
        for (captured, found) in captured.iter().zip(found) {
            assert_eq!(captured.0.as_deref(), found);
        }
        if let Ok(parsed) = serde_json::from_slice::<Map<String, Value>>(doc) {
            for (key, found) in KEYS.iter().zip(found) {
                let value =
                    found.map(|raw| serde_json::from_slice::<Value>(raw).expect("part of a valid document"));
                assert_eq!(value.as_ref(), parsed.get(*key));
            }
        }
    } else {
        assert!(serde_json::from_slice::<Map<String, Value>>(doc).is_err(), "a valid document was refused");
    }
}

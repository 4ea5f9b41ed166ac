//! Key, LF, value, LF, document.

use ai_gateway::codec::json::{remove_member, set_member, set_path};
use serde_json::{Map, Value};

pub fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (Some(key), Some(value), Some(doc)) = (parts.next(), parts.next(), parts.next()) else { return };
    let Ok(key) = std::str::from_utf8(key) else { return };
    let set = set_member(doc, key, value);
    let nested = set_path(doc, &[key, "x"], value);
    let removed = remove_member(doc, key);

    let Ok(mut parsed) = serde_json::from_slice::<Map<String, Value>>(doc) else { return };
    let read = |doc: Vec<u8>| serde_json::from_slice::<Map<String, Value>>(&doc);
    let without = read(removed.expect("an object")).expect("still valid");
    if let Ok(value) = serde_json::from_slice::<Value>(value) {
        let mut expected = parsed.clone();
        expected.insert(key.to_owned(), value.clone());
        assert_eq!(read(set.expect("an object")).expect("still valid"), expected);
        // One level deeper than the document, which may be one too many for the parser.
        if let Ok(nested) = read(nested.expect("an object")) {
            assert_eq!(nested[key]["x"], value);
        }
    }
    parsed.shift_remove(key);
    assert_eq!(without, parsed);
}

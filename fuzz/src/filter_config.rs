//! What a controller writes: a configuration, or the index of one in parts. A document that was read is the same when it is
//! written out and read again, and no part of a bundle lies outside of it.

use std::path::Component;

use ai_gateway::endpoint::{Endpoint, Paths, Prefixes};
use ai_gateway::source::{self, Index};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = source::parse(text) {
        let written = read.redacted();
        if let Ok(again) = source::parse(&written.to_string()) {
            assert_eq!(again.redacted(), written);
        }
    }
    if let Ok(index) = Index::parse(text) {
        for part in &index.parts {
            let file = part.file().expect("checked");
            let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
            assert!(file.components().all(inside), "{file:?}");
        }
    }
    if let Ok(prefixes) = text.parse::<Prefixes>() {
        // An endpoint's own path stays its own under no prefix of its family.
        let none = Prefixes { openai: String::new(), ..prefixes };
        assert_eq!(Paths::new("", &none).endpoint("/v1/chat/completions"), Some(Endpoint::ChatCompletions));
    }
}

//! How many tokens a prompt can be at most, before a provider has counted them.
//!
//! A text is bounded by what is known of public vocabularies, or measured by a tokenizer itself. Images, sound and files count by their
//! size, or as the largest a provider makes of one. What a provider adds by itself (results of its own tools, a conversation that it
//! has kept) nobody can know: it counts with an allowance, and the estimate says so.
//!
//! What holds: of a text, OpenAI's public tokenizers make no more tokens than are estimated for their models, gibberish, rare characters and
//! binary included (`text/tests.rs` looks for texts of which they do). For models whose tokenizer is not public it is held against those
//! that are, with a margin. Never is it more than a token a byte, which is the most that any tokenizer makes of a text that does not
//! rewrite it first. Not bounded are documents that hold more than their length tells (a PDF is compressed).

mod family;
mod media;
mod text;
mod vocabulary;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use self::family::Family;
use self::walk::{Mode, Tally};
use super::MAX_AMOUNT;
use crate::endpoint::Endpoint;

/// How texts are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Measure {
    /// By words, letters and characters that are known to be tokens: quick, and never less than a tokenizer counts.
    #[default]
    Characters,
    /// By the model's own tokenizer where it is public (OpenAI's), by the nearest one with a margin where not. Texts that are together longer
    /// than 256 KiB count by their characters from there on.
    Tokenizer,
}

/// A prompt's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prompt {
    /// In tokens: at least as many as the provider will count, but for what [`Prompt::open_ended`] says.
    pub tokens: u64,
    /// The provider adds to the prompt what is not in the request: the number holds an allowance for it, and may be exceeded.
    pub open_ended: bool,
}

/// Measures the prompt of a request that [`crate::endpoint::ModelRequest::read`] accepted, for the model that it will be served by. What
/// cannot be read counts as if each byte were a token.
pub fn prompt(endpoint: Endpoint, model: &str, body: &[u8], measure: Measure) -> Prompt {
    let family = Family::of(model);
    let mut tally = Tally::new(family, measure);
    let whole = |tokens: u64| Prompt { tokens: tokens.min(MAX_AMOUNT), open_ended: false };
    match endpoint {
        Endpoint::Models | Endpoint::AnthropicModels => return Prompt::default(),
        // A form is little more than its file.
        Endpoint::Transcriptions | Endpoint::Translations => return whole(media::sound(body.len() as u64)),
        Endpoint::Rerank => {
            return whole(rerank(body, family, measure).unwrap_or(body.len() as u64));
        }
        _ => {}
    }
    if tally.read(Mode::Request, body).is_err() {
        return whole(body.len() as u64);
    }
    Prompt { tokens: tally.tokens().min(MAX_AMOUNT), open_ended: tally.open_ended }
}

/// A reranker reads its query with each of the documents.
fn rerank(body: &[u8], family: Family, measure: Measure) -> Option<u64> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        query: Option<&'a RawValue>,
        #[serde(borrow)]
        documents: Option<&'a RawValue>,
    }
    let Request { query, documents } = serde_json::from_slice(body).ok()?;
    let tokens = |value: &RawValue| {
        let mut tally = Tally::new(family, measure);
        tally.read(Mode::Json, value.get().as_bytes()).ok()?;
        Some(tally.tokens())
    };
    let documents = documents?;
    let count = serde_json::from_str::<Vec<IgnoredAny>>(documents.get())
        .map(|list| list.len())
        .or_else(|_| {
            serde_json::from_str::<HashMap<String, IgnoredAny>>(documents.get()).map(|map| map.len())
        })
        .ok()? as u64;
    let query = query.map_or(Some(0), tokens)?;
    tokens(documents)?.checked_add(count.checked_mul(query.saturating_add(8))?)
}

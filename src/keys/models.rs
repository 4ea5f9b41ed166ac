//! Which models a key may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A model's name, or the beginning of names: `gpt-4o` is that model alone, `gpt-4o*` every one that begins so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern {
    text: String,
    prefix: bool,
}

/// Why a text is no [`ModelPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no models: write a model's name, or the beginning of names and `*` at the end, in at most 256 characters"
)]
pub struct InvalidPattern(String);

impl ModelPattern {
    /// Whether it takes that model.
    pub fn matches(&self, model: &str) -> bool {
        if self.prefix { model.starts_with(&self.text) } else { model == self.text }
    }
}

impl FromStr for ModelPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let (name, prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if text.is_empty() || text.len() > 256 || name.contains('*') || name.chars().any(char::is_control) {
            return Err(InvalidPattern(text.chars().take(64).collect()));
        }
        Ok(Self { text: name.to_owned(), prefix })
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.prefix { f.write_str("*") } else { Ok(()) }
    }
}

//! YAML text as a tree whose every node knows its place. Bounded in depth, size and alias expansion.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Error, NonFiniteFloatPolicy, Options, Spanned, budget, options};

/// What a document may nest; Kubernetes objects stay below 30.
const MAX_DEPTH: usize = 64;
/// How many values one document may hold, aliases expanded.
const MAX_NODES: usize = 200_000;

/// A value and its place; lines and columns count from one.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) value: Value,
}

/// A YAML value. It has no `Debug`, since it may hold secrets.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Pairs in the order they were written; keys may repeat.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and its place.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) name: String,
}

/// Why a document is no YAML, and where (zero if unknown).
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// The documents of a text, each with the number of lines before it.
///
/// A line that starts with `---` always ends a document, even inside scalars (YAML 1.2, 9.1.2), so the cut needs no
/// parser and an error in one document leaves the others readable. Comments and directives stay with what follows.
pub(super) fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut blank) = (0, 0, true);
    let (mut offset, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && !blank {
            parts.push((start_line, &text[start..offset]));
            (start, start_line, blank) = (offset, line_number, true);
        }
        let content = if marker { line[3..].trim() } else { line.trim() };
        // A byte order mark may precede the first line.
        let content = content.trim_start_matches('\u{feff}');
        blank &= content.is_empty() || content.starts_with('#') || content.starts_with('%');
        offset += line.len();
        line_number += 1;
    }
    if !blank {
        parts.push((start_line, &text[start..]));
    }
    parts
}

/// Reads one piece of [`documents`]. It usually is one document, but `...` may end several.
pub(super) fn parse(text: &str, lines_before: u32) -> Result<Vec<Node>, SyntaxError> {
    let roots: Vec<Spanned<Raw>> = serde_saphyr::from_multiple_with_options(text, limits())
        .map_err(|error| syntax_error(&error, lines_before))?;
    Ok(roots.into_iter().map(|root| place(root, lines_before)).collect())
}

fn limits() -> Options {
    options! {
        budget: budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_events: 2 * MAX_NODES, max_documents: 1000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        // Repeated keys are reported by the reader, which can name both places and go on.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn syntax_error(error: &Error, lines_before: u32) -> SyntaxError {
    let location = error.location();
    let message = error.without_snippet().to_string();
    // The message counts from the start of this piece; the place is given beside it.
    let message = message.find(" at line ").map_or(message.as_str(), |end| &message[..end]).to_owned();
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    SyntaxError {
        line: location.map_or(0, |at| number(at.line()).saturating_add(lines_before)),
        column: location.map_or(0, |at| number(at.column())),
        message,
    }
}

fn place(raw: Spanned<Raw>, lines_before: u32) -> Node {
    let (line, column) = position(&raw, lines_before);
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(items) => Value::List(items.into_iter().map(|item| place(item, lines_before)).collect()),
        Raw::Map(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| {
                    let (line, column) = position(&key, lines_before);
                    (Key { line, column, name: key.value }, place(value, lines_before))
                })
                .collect(),
        ),
    };
    Node { line, column, value }
}

fn position<T>(spanned: &Spanned<T>, lines_before: u32) -> (u32, u32) {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let at = &spanned.referenced;
    (number(at.line()).saturating_add(lines_before), number(at.column()))
}

/// The tree as serde-saphyr gives it.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(value)))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        i128::try_from(value).map(|value| Raw::Scalar(Value::Integer(value))).map_err(E::custom)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value)))
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Raw, E> {
        std::str::from_utf8(value).map(|text| Raw::Scalar(Value::Text(text.to_owned()))).map_err(E::custom)
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(Raw::Map(pairs))
    }
}

//! How long an answer may get, as a request says it, and as a policy lowers it: a few members of the body, edited in place.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_AMOUNT;
use crate::codec::json::{Edit, edit};
use crate::endpoint::Endpoint;

/// What a request says of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// How many tokens an answer may have, if the request says so.
    pub output: Option<u64>,
    /// How many answers the provider makes, at least one: those that it keeps to itself (`best_of`) are paid for too.
    pub answers: u64,
    /// The lowest value that the provider would take: [`lower`] refuses to go below.
    pub least: u64,
}

/// The body after [`lower`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// The new body; nothing where the client's own bytes will do.
    pub body: Option<Vec<u8>>,
    /// What was written, or stood there already: an answer has no more tokens than that.
    pub output: u64,
}

/// A cap that no provider would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer to this request cannot be limited to fewer than {least} tokens")]
pub struct TooLow {
    /// What would do.
    pub least: u64,
}

/// OpenAI's responses have to be allowed that many tokens.
const LEAST_RESPONSE: u64 = 16;
/// Anthropic's thinking has to be allowed that many tokens.
const LEAST_THINKING: u64 = 1024;

/// The members that say how long an answer may get, the one to be added first.
fn members(endpoint: Endpoint, model: &str) -> &'static [&'static str] {
    match endpoint {
        Endpoint::ChatCompletions if refuses_max_tokens(model) => &["max_completion_tokens", "max_tokens"],
        Endpoint::ChatCompletions => &["max_tokens", "max_completion_tokens"],
        Endpoint::Completions | Endpoint::Messages => &["max_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        _ => &[],
    }
}

/// Whether chats with a model are to be limited by the newer member: OpenAI's reasoning models refuse the older one, and all of
/// OpenAI's know the newer. Others may not.
fn refuses_max_tokens(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    !name.starts_with("gpt-oss")
        && ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|start| name.starts_with(start))
}

/// Reads what a request says of its answers. What is no number, or below zero, counts as not said. Of a member that is there twice the
/// larger value counts, because nobody knows which one the provider heeds.
pub fn read(endpoint: Endpoint, body: &[u8]) -> Cap {
    let said = Said::of(endpoint, body);
    let answers = said.answers.max(said.best_of).max(1).saturating_mul(said.prompts.max(1));
    let thinking = said.budget.map_or(1, |_| LEAST_THINKING + 1);
    let least = if endpoint == Endpoint::Responses { LEAST_RESPONSE } else { thinking };
    Cap { output: said.caps.iter().flatten().max().copied(), answers: answers.min(MAX_AMOUNT), least }
}

/// Makes a request say that no answer has more than `output` tokens. What says less stays; nothing else of the body is touched, but for a
/// budget of thinking that would not fit any more.
///
/// # Errors
/// When no provider would take it.
pub fn lower(endpoint: Endpoint, model: &str, body: &[u8], output: u64) -> Result<Lowered, TooLow> {
    let members = members(endpoint, model);
    let said = Said::of(endpoint, body);
    let Cap { least, .. } = read(endpoint, body);
    let in_force = said.caps.iter().flatten().copied().max().filter(|_| said.sound);
    if let Some(in_force) = in_force.filter(|in_force| *in_force <= output) {
        return Ok(Lowered { body: None, output: in_force });
    }
    if output < least {
        return Err(TooLow { least });
    }
    let Some(first) = members.first() else { return Ok(Lowered { body: None, output }) };
    let value = output.to_string();
    let mut paths: Vec<([&str; 2], usize, &str)> = Vec::new();
    let mut said_any = false;
    for member in members {
        let index = NAMES.iter().position(|name| name == member);
        let there =
            index.and_then(|index| said.caps.get(index).copied().zip(said.present.get(index).copied()));
        if let Some((cap, true)) = there {
            said_any = true;
            // One that is no number is written over: the provider might take it for no limit.
            if !said.sound || cap.is_none_or(|cap| cap > output) {
                paths.push(([*member, ""], 1, &value));
            }
        }
    }
    if !said_any {
        paths.push(([*first, ""], 1, &value));
    }
    let budget = output.saturating_sub(1).to_string();
    if said.budget.is_some_and(|budget| budget >= output) {
        paths.push((["thinking", "budget_tokens"], 2, &budget));
    }
    let edits: Vec<Edit<'_>> = paths
        .iter()
        .filter_map(|(path, length, value)| {
            Some(Edit { path: path.get(..*length)?, value: Some(value.as_bytes()) })
        })
        .collect();
    let body = edit(body, &edits).ok();
    Ok(Lowered { body, output })
}

/// The members that [`Said`] reads caps of.
const NAMES: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// What is read of a body, by the order of [`NAMES`].
#[derive(Debug, Default)]
struct Said {
    caps: [Option<u64>; 3],
    present: [bool; 3],
    /// Every cap that is there is one number, or null.
    sound: bool,
    answers: u64,
    best_of: u64,
    prompts: u64,
    /// Of thinking that is switched on with one.
    budget: Option<u64>,
}

impl Said {
    fn of(endpoint: Endpoint, body: &[u8]) -> Self {
        let mut said = serde_json::from_slice::<Self>(body).unwrap_or_default();
        if endpoint != Endpoint::Completions {
            (said.best_of, said.prompts) = (1, 1);
        }
        if !matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::ImageGenerations)
        {
            said.answers = 1;
        }
        if endpoint != Endpoint::Messages {
            said.budget = None;
        }
        let read = members(endpoint, "");
        for (index, name) in NAMES.iter().enumerate() {
            if !read.contains(name) {
                if let Some(cap) = said.caps.get_mut(index) {
                    *cap = None;
                }
                if let Some(present) = said.present.get_mut(index) {
                    *present = false;
                }
            }
        }
        said
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SaidVisitor)
    }
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
        let mut said = Said { sound: true, ..Said::default() };
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if let Some(index) = NAMES.iter().position(|name| *name == key) {
                let number = map.next_value::<Number>()?;
                let (Some(cap), Some(present)) = (said.caps.get_mut(index), said.present.get_mut(index))
                else {
                    continue;
                };
                said.sound &= !*present && number != Number::Other;
                *cap = (*cap).max(number.value());
                *present = true;
                continue;
            }
            match &*key {
                "n" => said.answers = said.answers.max(map.next_value::<Number>()?.value().unwrap_or(1)),
                "best_of" => {
                    said.best_of = said.best_of.max(map.next_value::<Number>()?.value().unwrap_or(1))
                }
                "prompt" => said.prompts = said.prompts.max(map.next_value::<Prompts>()?.0),
                "thinking" => said.budget = said.budget.max(map.next_value::<Thinking>()?.0),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(said)
    }
}

/// A value that should be a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Count(u64),
    Null,
    Other,
}

impl Number {
    fn value(self) -> Option<u64> {
        match self {
            Self::Count(count) => Some(count),
            Self::Null | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Number(number) => {
                // `as` saturates.
                let whole = number
                    .as_u64()
                    .or_else(|| number.as_f64().filter(|count| *count >= 0.0).map(|count| count as u64));
                whole.map_or(Self::Other, |count| Self::Count(count.min(MAX_AMOUNT)))
            }
            _ => Self::Other,
        })
    }
}

/// How many prompts a `prompt` is: a text, a list of texts, tokens, or a list of lists of tokens.
struct Prompts(u64);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Prompts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prompt")
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }
            fn visit_unit<E: Error>(self) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Prompts, E> {
                Ok(Prompts(0))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Prompts, E> {
                Ok(Prompts(0))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Prompts, E> {
                Ok(Prompts(0))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Prompts, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Prompts(1))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
                let mut sum = 0_u64;
                while let Some(Prompts(element)) = list.next_element()? {
                    // A list of tokens is one prompt, of whatever length.
                    sum = sum.saturating_add(element);
                }
                Ok(Prompts(sum.max(1)))
            }
        }
        deserializer.deserialize_any(Elements)
    }
}

/// The budget of thinking that is switched on.
struct Thinking(Option<u64>);

impl<'de> Deserialize<'de> for Thinking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.get("budget_tokens").and_then(serde_json::Value::as_u64)))
    }
}

#[cfg(test)]
mod tests;

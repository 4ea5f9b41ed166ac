//! How long an answer may get, as a request says it, and as a policy lowers it: a few members of the body, edited in place.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_AMOUNT;
use crate::codec::json::{Edit, edit};
use crate::endpoint::Endpoint;
use crate::translate::Pair;

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

/// The dialect in which a request says how long its answer may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenAI's chats.
    Chat,
    /// OpenAI's completions.
    Completion,
    /// OpenAI's responses.
    Response,
    /// Anthropic's messages.
    Messages,
    /// Bedrock's conversations.
    Converse,
    /// Pictures: how many, and nothing of their length.
    Images,
    /// One that does not say.
    Other,
}

impl Form {
    /// How a request to an endpoint says it once it is in its backend's terms.
    #[must_use]
    pub fn sent(endpoint: Endpoint, pair: Pair) -> Self {
        match pair {
            Pair::Same => endpoint.into(),
            Pair::ChatToAnthropic => Self::Messages,
            Pair::ChatToConverse => Self::Converse,
        }
    }

    /// The members that say how long an answer may get, the one to be added first.
    fn members(self, model: &str) -> &'static [Path] {
        match self {
            Self::Chat if refuses_max_tokens(model) => &[&["max_completion_tokens"], &["max_tokens"]],
            Self::Chat => &[&["max_tokens"], &["max_completion_tokens"]],
            Self::Completion | Self::Messages => &[&["max_tokens"]],
            Self::Response => &[&["max_output_tokens"]],
            Self::Converse => &[&["inferenceConfig", "maxTokens"]],
            Self::Images | Self::Other => &[],
        }
    }

    /// The member that says how much of it may be thoughts.
    fn budget(self) -> Option<Path> {
        match self {
            Self::Messages => Some(&["thinking", "budget_tokens"]),
            Self::Converse => Some(&["additionalModelRequestFields", "thinking", "budget_tokens"]),
            _ => None,
        }
    }
}

impl From<Endpoint> for Form {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::ChatCompletions => Self::Chat,
            Endpoint::Completions => Self::Completion,
            Endpoint::Responses => Self::Response,
            Endpoint::Messages => Self::Messages,
            Endpoint::ImageGenerations => Self::Images,
            _ => Self::Other,
        }
    }
}

/// The keys that lead to a member.
type Path = &'static [&'static str];

/// Whether chats with a model are to be limited by the newer member: OpenAI's reasoning models refuse the older one, and all of
/// OpenAI's know the newer. Others may not.
fn refuses_max_tokens(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    !name.starts_with("gpt-oss")
        && ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|start| name.starts_with(start))
}

/// Reads what a request says of its answers. What is no number, or below zero, counts as not said. Of a member that is there twice the
/// larger value counts, because nobody knows which one the provider heeds.
pub fn read(form: impl Into<Form>, body: &[u8]) -> Cap {
    let form = form.into();
    Said::of(form, body).cap(form)
}

/// Makes a request say that no answer has more than `output` tokens. What says less stays; nothing else of the body is touched, but for a
/// budget of thinking that would not fit any more.
///
/// # Errors
/// When no provider would take it.
pub fn lower(form: impl Into<Form>, model: &str, body: &[u8], output: u64) -> Result<Lowered, TooLow> {
    let form = form.into();
    let members = form.members(model);
    let said = Said::of(form, body);
    let in_force = said.caps.iter().flatten().copied().max().filter(|_| said.sound);
    if let Some(in_force) = in_force.filter(|in_force| *in_force <= output) {
        return Ok(Lowered { body: None, output: in_force });
    }
    let Cap { least, .. } = said.cap(form);
    if output < least {
        return Err(TooLow { least });
    }
    let Some(first) = members.first() else { return Ok(Lowered { body: None, output }) };
    let value = output.to_string();
    let mut edits: Vec<Edit<'_>> = Vec::new();
    let mut said_any = false;
    for path in members {
        let index = PATHS.iter().position(|known| known == path);
        let there =
            index.and_then(|index| said.caps.get(index).copied().zip(said.present.get(index).copied()));
        if let Some((cap, true)) = there {
            said_any = true;
            // One that is no number is written over: the provider might take it for no limit.
            if !said.sound || cap.is_none_or(|cap| cap > output) {
                edits.push(Edit { path, value: Some(value.as_bytes()) });
            }
        }
    }
    if !said_any {
        edits.push(Edit { path: first, value: Some(value.as_bytes()) });
    }
    let budget = output.saturating_sub(1).to_string();
    if let Some(path) = form.budget().filter(|_| said.budget.is_some_and(|budget| budget >= output)) {
        edits.push(Edit { path, value: Some(budget.as_bytes()) });
    }
    let body = edit(body, &edits).ok();
    Ok(Lowered { body, output })
}

/// The members that [`Said`] reads caps of.
const PATHS: [Path; 4] =
    [&["max_tokens"], &["max_completion_tokens"], &["max_output_tokens"], &["inferenceConfig", "maxTokens"]];
/// Where the last of them is.
const CONVERSE: usize = 3;

/// What is read of a body, by the order of [`PATHS`].
#[derive(Debug, Default)]
struct Said {
    caps: [Option<u64>; 4],
    present: [bool; 4],
    /// Every cap that is there is one number, or null.
    sound: bool,
    answers: u64,
    best_of: u64,
    prompts: u64,
    /// Of thinking that is switched on with one.
    budget: Option<u64>,
    /// The same, where Bedrock takes it.
    additional_budget: Option<u64>,
}

impl Said {
    fn of(form: Form, body: &[u8]) -> Self {
        let mut said = serde_json::from_slice::<Self>(body).unwrap_or_default();
        if form != Form::Completion {
            (said.best_of, said.prompts) = (1, 1);
        }
        if !matches!(form, Form::Chat | Form::Completion | Form::Images) {
            said.answers = 1;
        }
        said.budget = match form {
            Form::Messages => said.budget,
            Form::Converse => said.additional_budget,
            _ => None,
        };
        let read = form.members("");
        let places = PATHS.iter().zip(said.caps.iter_mut().zip(&mut said.present));
        for (_, (cap, present)) in places.filter(|(path, _)| !read.contains(path)) {
            (*cap, *present) = (None, false);
        }
        said
    }

    fn cap(&self, form: Form) -> Cap {
        let answers = self.answers.max(self.best_of).max(1).saturating_mul(self.prompts.max(1));
        let thinking = self.budget.map_or(1, |_| LEAST_THINKING + 1);
        let least = if form == Form::Response { LEAST_RESPONSE } else { thinking };
        Cap { output: self.caps.iter().flatten().max().copied(), answers: answers.min(MAX_AMOUNT), least }
    }

    fn note(&mut self, index: usize, number: Number) {
        if let (Some(cap), Some(present)) = (self.caps.get_mut(index), self.present.get_mut(index)) {
            self.sound &= !*present && number != Number::Other;
            *cap = (*cap).max(number.value());
            *present = true;
        }
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
            if let Some(index) = PATHS.iter().position(|path| *path == [&*key]) {
                said.note(index, map.next_value::<Number>()?);
                continue;
            }
            match &*key {
                "n" => said.answers = said.answers.max(map.next_value::<Number>()?.value().unwrap_or(1)),
                "best_of" => {
                    said.best_of = said.best_of.max(map.next_value::<Number>()?.value().unwrap_or(1))
                }
                "prompt" => said.prompts = said.prompts.max(map.next_value::<Prompts>()?.0),
                "thinking" => said.budget = said.budget.max(map.next_value::<Thinking>()?.0),
                "inferenceConfig" => {
                    if let Some(value) = map.next_value::<serde_json::Value>()?.get("maxTokens") {
                        said.note(CONVERSE, Number::of(value));
                    }
                }
                "additionalModelRequestFields" => {
                    let value = map.next_value::<serde_json::Value>()?;
                    said.additional_budget = value.get("thinking").and_then(budget);
                }
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
    fn of(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Number(number) => {
                // `as` saturates.
                let whole = number
                    .as_u64()
                    .or_else(|| number.as_f64().filter(|count| *count >= 0.0).map(|count| count as u64));
                whole.map_or(Self::Other, |count| Self::Count(count.min(MAX_AMOUNT)))
            }
            _ => Self::Other,
        }
    }

    fn value(self) -> Option<u64> {
        match self {
            Self::Count(count) => Some(count),
            Self::Null | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|value| Self::of(&value))
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
        serde_json::Value::deserialize(deserializer).map(|value| Self(budget(&value)))
    }
}

fn budget(thinking: &serde_json::Value) -> Option<u64> {
    thinking.get("budget_tokens")?.as_u64()
}

#[cfg(test)]
mod tests;

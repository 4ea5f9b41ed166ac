//! L0. Requests for chat completions, typed as far as other dialects have something of the kind. What is not named here is
//! not carried over.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::MalformedRequest;
use crate::wire::Text;

/// A request.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ChatRequest<'a> {
    pub messages: Vec<Message<'a>>,
    /// `max_completion_tokens`, or else the older `max_tokens`.
    pub max_tokens: Option<i64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub stop: Vec<Text<'a>>,
    pub tools: Vec<Tool<'a>>,
    pub tool_choice: Option<ToolChoice<'a>>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat<'a>>,
    pub reasoning_effort: Option<Text<'a>>,
    /// Anthropic's, which clients may add.
    pub thinking: Option<Thinking<'a>>,
    pub service_tier: Option<Text<'a>>,
}

/// One message.
#[derive(Debug)]
pub enum Message<'a> {
    /// Of role `system` or `developer`.
    System(Vec<TextPart<'a>>),
    /// Of role `user`.
    User(Vec<UserPart<'a>>),
    /// Of role `assistant`.
    Assistant(Assistant<'a>),
    /// Of role `tool`: the outcome of a call.
    Tool(ToolResult<'a>),
}

/// What the model said earlier.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Assistant<'a> {
    pub parts: Vec<AssistantPart<'a>>,
    pub tool_calls: Vec<ToolCall<'a>>,
}

/// A text, and whether a cache may keep what is before its end.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct TextPart<'a> {
    pub text: Text<'a>,
    pub cache_control: Option<CacheControl<'a>>,
}

/// A piece of a user's message.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum UserPart<'a> {
    Text(TextPart<'a>),
    Image {
        /// `https:` or `data:`.
        url: Text<'a>,
        cache_control: Option<CacheControl<'a>>,
    },
    File {
        /// A `data:` URL, where the file is in the request itself.
        data: Option<Text<'a>>,
        cache_control: Option<CacheControl<'a>>,
    },
    /// Sound or moving pictures: the part's `type`.
    Other(Text<'a>),
}

/// A piece of what the model said earlier.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum AssistantPart<'a> {
    Text(TextPart<'a>),
    Thinking { text: Text<'a>, signature: Option<Text<'a>>, cache_control: Option<CacheControl<'a>> },
    Redacted { data: Text<'a> },
}

/// A call that the model asked for.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolCall<'a> {
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub function: CalledFunction<'a>,
    #[serde(borrow)]
    pub cache_control: Option<CacheControl<'a>>,
}

/// What is called, and with what.
#[derive(Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct CalledFunction<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// A JSON object in a string.
    #[serde(borrow, default)]
    pub arguments: Text<'a>,
}

impl CalledFunction<'_> {
    /// The arguments as an object; none at all are an empty one.
    pub fn arguments(&self) -> Result<Value, MalformedRequest> {
        if self.arguments.trim().is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        match serde_json::from_str::<Value>(&self.arguments) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(MalformedRequest("function.arguments must be a JSON object".to_owned())),
        }
    }
}

/// What came of a call.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolResult<'a> {
    pub tool_call_id: Text<'a>,
    pub parts: Vec<TextPart<'a>>,
    /// The content came as one string rather than in parts.
    pub is_string: bool,
    /// The message's, or else that of its last part.
    pub cache_control: Option<CacheControl<'a>>,
}

/// A function that the model may call.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Tool<'a> {
    #[serde(borrow)]
    pub r#type: Option<Text<'a>>,
    #[serde(borrow)]
    pub function: Option<Function<'a>>,
    #[serde(borrow)]
    pub cache_control: Option<CacheControl<'a>>,
}

/// A function's signature.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Function<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// A JSON schema.
    pub parameters: Option<Value>,
    pub strict: Option<bool>,
    #[serde(borrow)]
    pub cache_control: Option<CacheControl<'a>>,
}

/// Which tool the model is to use.
#[derive(Debug)]
pub enum ToolChoice<'a> {
    /// `auto`, `none`, `required`, or a word of another dialect.
    Mode(Text<'a>),
    /// The function of that name.
    Function(Text<'a>),
}

/// How the answer is to look.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ResponseFormat<'a> {
    #[serde(borrow)]
    pub r#type: Text<'a>,
    pub json_schema: Option<JsonSchema>,
}

/// A schema that the answer is to follow.
#[derive(Debug, Deserialize)]
pub struct JsonSchema {
    /// The schema itself.
    pub schema: Option<Value>,
}

/// How much the model may think before it answers.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Thinking<'a> {
    #[serde(borrow)]
    pub r#type: Text<'a>,
    pub budget_tokens: Option<i64>,
    #[serde(borrow)]
    pub display: Option<Text<'a>>,
}

/// Anthropic's mark after which a prompt may be cached, which clients may add.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct CacheControl<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Text<'a>>,
    #[serde(borrow)]
    pub r#type: Text<'a>,
}

impl CacheControl<'_> {
    /// The only kind there is.
    pub fn is_ephemeral(&self) -> bool {
        &*self.r#type == "ephemeral"
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(borrow)]
    stop: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    parallel_tool_calls: Option<bool>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_effort: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<Text<'a>>,
}

impl<'a> ChatRequest<'a> {
    /// Reads a whole body. The error names the member that is wrong.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedRequest> {
        let members: Members<'a> =
            serde_json::from_slice(body).map_err(|error| MalformedRequest(error.to_string()))?;
        let messages = members.messages.unwrap_or_default();
        let messages = messages.into_iter().enumerate().map(|(index, raw)| {
            message(raw).map_err(|MalformedRequest(problem)| wrong(format!("messages[{index}]"), problem))
        });
        let tools = members.tools.unwrap_or_default();
        let tools = tools.into_iter().enumerate().map(|(index, raw)| read(format!("tools[{index}]"), raw));
        let response_format = optional("response_format", members.response_format)?;
        let thinking: Option<Thinking<'a>> = optional("thinking", members.thinking)?;
        if let Some(thinking) = &thinking {
            one_of("thinking.type", &thinking.r#type, &["enabled", "disabled", "adaptive"])?;
        }
        if let Some(ResponseFormat { r#type, .. }) = &response_format {
            one_of("response_format.type", r#type, &["text", "json_schema", "json_object"])?;
        }
        Ok(Self {
            messages: messages.collect::<Result<_, _>>()?,
            max_tokens: members.max_completion_tokens.or(members.max_tokens),
            temperature: members.temperature,
            top_p: members.top_p,
            stop: stop(members.stop)?,
            tools: tools.collect::<Result<_, _>>()?,
            tool_choice: members.tool_choice.map(tool_choice).transpose()?.flatten(),
            parallel_tool_calls: members.parallel_tool_calls,
            response_format,
            reasoning_effort: members.reasoning_effort,
            thinking,
            service_tier: members.service_tier,
        })
    }
}

fn wrong(place: impl Display, problem: impl Display) -> MalformedRequest {
    MalformedRequest(format!("{place}: {problem}"))
}

/// Reads a member. What is wrong inside of it is told without line and column, which would be those of the member alone.
fn read<'a, T: Deserialize<'a>>(place: impl Display, raw: &'a RawValue) -> Result<T, MalformedRequest> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let text = error.to_string();
        wrong(place, text.split(" at line ").next().unwrap_or(&text))
    })
}

fn optional<'a, T: Deserialize<'a>>(
    place: &str,
    raw: Option<&'a RawValue>,
) -> Result<Option<T>, MalformedRequest> {
    raw.filter(|raw| raw.get() != "null").map(|raw| read(place, raw)).transpose()
}

fn one_of(place: &str, value: &str, allowed: &[&str]) -> Result<(), MalformedRequest> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let shown: String = value.chars().take(40).collect();
    Err(wrong(place, format!("must be one of {}, not {shown:?}", allowed.join(", "))))
}

fn stop(raw: Option<&RawValue>) -> Result<Vec<Text<'_>>, MalformedRequest> {
    match raw {
        None => Ok(Vec::new()),
        Some(raw) if raw.get().starts_with('"') => Ok(vec![read("stop", raw)?]),
        Some(raw) => Ok(optional("stop", Some(raw))?.unwrap_or_default()),
    }
}

fn tool_choice(raw: &RawValue) -> Result<Option<ToolChoice<'_>>, MalformedRequest> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        function: Option<Name<'a>>,
    }
    #[derive(Deserialize)]
    struct Name<'a> {
        #[serde(borrow)]
        name: Text<'a>,
    }
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => Ok(Some(ToolChoice::Mode(read("tool_choice", raw)?))),
        _ => {
            let named: Named<'_> = read("tool_choice", raw)?;
            let function = named.function.ok_or_else(|| wrong("tool_choice.function", "is missing"))?;
            Ok(Some(ToolChoice::Function(function.name)))
        }
    }
}

mod message;

use message::message;

#[cfg(test)]
mod tests;

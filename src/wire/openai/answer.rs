//! L0. Answers to chat completions, in one document and as a stream of chunks. Members stand in the order in which other
//! gateways of this kind write them; those that say nothing are left out.

use serde::Serialize;
use serde_json::Value;

use crate::usage::TokenUsage;
use crate::wire::Text;

/// A whole answer.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Completion<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    pub choices: [Choice<'a>; 1],
    /// Seconds since 1970.
    pub created: u64,
    pub model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'a str>,
    /// Always `chat.completion`.
    pub object: &'static str,
    pub usage: Usage,
}

/// The only alternative there is.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Choice<'a> {
    pub finish_reason: &'static str,
    pub index: u32,
    pub message: Message<'a>,
}

/// What the model said.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    pub role: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thinking_blocks: Vec<ThinkingBlock<'a>>,
}

/// A call that the model asks for.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolCall<'a> {
    pub id: Text<'a>,
    pub function: CalledFunction<'a>,
    /// Always `function`.
    pub r#type: &'static str,
}

/// What is to be called, and with what.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct CalledFunction<'a> {
    /// A JSON object in a string, or a piece of it.
    pub arguments: Text<'a>,
    pub name: Text<'a>,
}

/// A thought with what proves to the provider later that it was the model's own.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum ThinkingBlock<'a> {
    Thinking {
        /// Always `thinking`.
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        thinking: Option<Text<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Text<'a>>,
    },
    Redacted {
        /// Always `redacted_thinking`.
        r#type: &'static str,
        data: Text<'a>,
    },
}

impl<'a> ThinkingBlock<'a> {
    /// A thought, or a piece of it.
    pub fn thinking(thinking: Option<Text<'a>>, signature: Option<Text<'a>>) -> Self {
        Self::Thinking { r#type: "thinking", thinking, signature }
    }

    /// A thought that only the provider can read.
    pub fn redacted(data: Text<'a>) -> Self {
        Self::Redacted { r#type: "redacted_thinking", data }
    }
}

/// One piece of a streamed answer.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Chunk<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    /// Empty in the chunk that tells the usage.
    pub choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "is_zero")]
    pub created: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'a str>,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A piece of the only alternative there is.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ChunkChoice<'a> {
    pub index: u32,
    pub delta: Delta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<&'static str>,
}

/// What a chunk adds.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[ToolCallDelta<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_blocks: Option<[ThinkingBlock<'a>; 1]>,
}

/// A piece of a call.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolCallDelta<'a> {
    pub index: u32,
    /// In a call's first piece.
    pub id: Option<&'a str>,
    pub function: CalledFunction<'a>,
    /// Always `function`.
    pub r#type: &'static str,
}

/// Tokens. Counts of zero are left out.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Usage {
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub completion_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptDetails>,
}

/// Of the answer's tokens.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct CompletionDetails {
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
}

/// Of the prompt's tokens.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct PromptDetails {
    #[serde(skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_creation_input_tokens: u64,
}

impl Usage {
    /// Counts without details.
    pub fn of(usage: &TokenUsage) -> Self {
        let counts = usage.or_zero();
        Self {
            prompt_tokens: counts.input,
            completion_tokens: counts.output,
            total_tokens: counts.total,
            completion_tokens_details: None,
            prompt_tokens_details: None,
        }
    }

    /// With what the provider's cache had to do with it, if it says anything about that.
    #[must_use]
    pub fn with_cache_if_any(self, usage: &TokenUsage) -> Self {
        if usage.cached_input.is_none() && usage.cache_creation_input.is_none() {
            return self;
        }
        self.with_cache(usage)
    }

    /// With what the provider's cache had to do with it.
    #[must_use]
    pub fn with_cache(mut self, usage: &TokenUsage) -> Self {
        let counts = usage.or_zero();
        self.prompt_tokens_details = Some(PromptDetails {
            cached_tokens: counts.cached_input,
            cache_creation_input_tokens: counts.cache_creation_input,
        });
        self
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The arguments of a call, as the string that clients parse: an object, be it an empty one.
pub fn arguments(input: Option<&Value>) -> String {
    input.filter(|input| !input.is_null()).map_or_else(|| "{}".to_owned(), Value::to_string)
}

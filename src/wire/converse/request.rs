//! L0. Requests.

use serde::Serialize;
use serde_json::Value;

use crate::wire::{Text, number};

/// A request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ConverseRequest<'a> {
    /// What only some models know.
    #[serde(skip_serializing_if = "AdditionalFields::is_empty")]
    pub additional_model_request_fields: AdditionalFields<'a>,
    pub inference_config: InferenceConfig<'a>,
    pub messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig<'a>>,
}

/// What Anthropic's models take besides.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the models")]
pub struct AdditionalFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking<'a>>,
}

impl AdditionalFields<'_> {
    fn is_empty(&self) -> bool {
        self.reasoning_config.is_none() && self.thinking.is_none()
    }
}

/// How much the model may think before it answers.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the models")]
pub struct Thinking<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<&'a str>,
    pub r#type: &'a str,
}

/// What all models know.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct InferenceConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub stop_sequences: &'a [Text<'a>],
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub top_p: Option<f64>,
}

/// One turn.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Message<'a> {
    pub content: Vec<Block<'a>>,
    pub role: &'static str,
}

/// One block of content.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum Block<'a> {
    Text(Text<'a>),
    Image(Image<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    ReasoningContent(ReasoningContent<'a>),
    CachePoint(CachePoint),
}

/// The end of what a cache may keep.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct CachePoint {
    pub r#type: &'static str,
}

impl CachePoint {
    /// The only kind there is.
    pub const DEFAULT: Self = Self { r#type: "default" };
}

/// An image.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Image<'a> {
    pub format: &'static str,
    pub source: ImageSource<'a>,
}

/// The image itself.
#[derive(Debug, Serialize)]
pub struct ImageSource<'a> {
    /// In base64.
    pub bytes: &'a str,
}

/// A call that the model asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolUse<'a> {
    pub name: Text<'a>,
    pub input: Value,
    pub tool_use_id: Text<'a>,
}

/// What came of a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolResult<'a> {
    pub content: Vec<Block<'a>>,
    /// Nothing, and written as `null`: OpenAI's dialect does not tell success from failure.
    pub status: Option<&'static str>,
    pub tool_use_id: Text<'a>,
}

/// A thought.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum ReasoningContent<'a> {
    ReasoningText {
        text: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signature: Option<Text<'a>>,
    },
    /// In base64.
    RedactedContent(Text<'a>),
}

/// Which of the provider's queues.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ServiceTier<'a> {
    pub r#type: &'a str,
}

/// What the model may call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice<'a>>,
    pub tools: Vec<Tool<'a>>,
}

/// Which tool the model is to use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum ToolChoice<'a> {
    Auto {},
    Any {},
    Tool { name: &'a str },
}

/// A tool that the model may use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum Tool<'a> {
    ToolSpec(ToolSpec<'a>),
    CachePoint(CachePoint),
}

/// A function's signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolSpec<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub description: &'a str,
    pub input_schema: InputSchema,
    pub name: &'a str,
}

/// What a tool takes.
#[derive(Debug, Serialize)]
pub struct InputSchema {
    /// A JSON schema.
    pub json: Value,
}

//! L0. Requests to Anthropic's messages API: <https://docs.anthropic.com/en/api/messages>. Members are written in the order in
//! which they are declared here, the order of Anthropic's own client libraries; some that receive them compare bytes.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::wire::openai::chat::CacheControl;
use crate::wire::{Text, number};

/// A request.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct MessagesRequest<'a> {
    pub max_tokens: i64,
    pub messages: Vec<Message<'a>>,
    /// Nothing where the model stands in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "OutputConfig::is_empty")]
    pub output_config: OutputConfig<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub stop_sequences: &'a [Text<'a>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

/// One turn.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Message<'a> {
    pub content: Vec<Block<'a>>,
    pub role: &'static str,
}

/// How the answer is to look, and how hard the model is to try.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<OutputFormat>,
}

impl OutputConfig<'_> {
    fn is_empty(&self) -> bool {
        self.effort.is_none() && self.format.is_none()
    }
}

/// A schema that the answer follows.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct OutputFormat {
    pub schema: Value,
    /// Always `json_schema`.
    pub r#type: &'static str,
}

/// One block of content.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are those of the API; `type` is always the variant's")]
pub enum Block<'a> {
    Text {
        text: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl<'a>>,
        r#type: &'static str,
    },
    /// An image or a document.
    Media {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl<'a>>,
        r#type: &'static str,
    },
    ToolUse {
        id: Text<'a>,
        input: Value,
        name: Text<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl<'a>>,
        r#type: &'static str,
    },
    ToolResult {
        tool_use_id: Text<'a>,
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Self>,
        r#type: &'static str,
    },
    Thinking {
        signature: Text<'a>,
        thinking: Text<'a>,
        r#type: &'static str,
    },
    RedactedThinking {
        data: Text<'a>,
        r#type: &'static str,
    },
}

/// Where an image or a document is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are those of the API; `type` is always the variant's")]
pub enum Source<'a> {
    Base64 { data: &'a str, media_type: &'a str, r#type: &'static str },
    Url { r#type: &'static str, url: &'a str },
}

/// How much the model may think before it answers.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Thinking<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Text<'a>>,
    pub r#type: Text<'a>,
}

/// Which tool the model is to use.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolChoice<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_parallel_tool_use: Option<bool>,
    pub r#type: &'static str,
}

/// A tool that the model may use.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Tool<'a> {
    pub input_schema: Map<String, Value>,
    pub name: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<CacheControl<'a>>,
}

//! L0. Answers, in one document and as the payloads of a stream's events.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::Text;

/// A whole answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ConverseAnswer<'a> {
    #[serde(borrow)]
    pub output: Output<'a>,
    #[serde(borrow)]
    pub stop_reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub service_tier: Option<ServiceTier<'a>>,
}

/// What the model said.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Output<'a> {
    #[serde(borrow)]
    pub message: Option<Message<'a>>,
}

/// One turn.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Message<'a> {
    #[serde(borrow, default)]
    pub content: Vec<Block<'a>>,
}

/// One block of content: one of the members.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Block<'a> {
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub tool_use: Option<ToolUse<'a>>,
    #[serde(borrow)]
    pub reasoning_content: Option<ReasoningBlock<'a>>,
}

/// A call that the model asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolUse<'a> {
    #[serde(borrow, default)]
    pub tool_use_id: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    pub input: Option<Value>,
}

/// A thought.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ReasoningBlock<'a> {
    #[serde(borrow)]
    pub reasoning_text: Option<ReasoningText<'a>>,
    /// In base64.
    #[serde(borrow)]
    pub redacted_content: Option<Text<'a>>,
}

/// A thought in words.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ReasoningText<'a> {
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub signature: Option<Text<'a>>,
}

/// Which of the provider's queues.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ServiceTier<'a> {
    #[serde(borrow, default)]
    pub r#type: Text<'a>,
}

/// One event of a stream. Members are there or not by the event's type.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Event<'a> {
    #[serde(borrow)]
    pub start: Option<Start<'a>>,
    #[serde(borrow)]
    pub delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub stop_reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub service_tier: Option<ServiceTier<'a>>,
    /// Of an exception.
    #[serde(borrow)]
    pub message: Option<Text<'a>>,
}

/// The beginning of a block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Start<'a> {
    #[serde(borrow)]
    pub tool_use: Option<ToolUse<'a>>,
}

/// A piece of a block: one of the members.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Delta<'a> {
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub tool_use: Option<ToolUseDelta<'a>>,
    #[serde(borrow)]
    pub reasoning_content: Option<ReasoningDelta<'a>>,
}

/// A piece of a call's arguments.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ToolUseDelta<'a> {
    #[serde(borrow, default)]
    pub input: Text<'a>,
}

/// A piece of a thought.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ReasoningDelta<'a> {
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub signature: Option<Text<'a>>,
    /// In base64.
    #[serde(borrow)]
    pub redacted_content: Option<Text<'a>>,
}

/// The body of an error.
#[derive(Debug, Deserialize)]
pub struct ErrorBody<'a> {
    /// Some of the service's errors write it with a capital letter.
    #[serde(borrow, alias = "Message")]
    pub message: Text<'a>,
}

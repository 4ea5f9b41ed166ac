//! L0. Answers of Anthropic's messages API, as far as another dialect has something of the kind:
//! <https://docs.anthropic.com/en/api/messages>, and for streams <https://docs.anthropic.com/en/docs/build-with-claude/streaming>.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::Text;

/// A whole answer, or in a stream the beginning of one.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Message<'a> {
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow)]
    pub model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub content: Vec<Block<'a>>,
    #[serde(borrow)]
    pub stop_reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub usage: Option<&'a RawValue>,
}

/// One block of content.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Block<'a> {
    #[serde(borrow)]
    pub r#type: Text<'a>,
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub thinking: Option<Text<'a>>,
    #[serde(borrow)]
    pub signature: Option<Text<'a>>,
    #[serde(borrow)]
    pub data: Option<Text<'a>>,
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    pub input: Option<Value>,
}

/// One event of a stream. Members are there or not by `type`.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Event<'a> {
    #[serde(borrow)]
    pub r#type: Text<'a>,
    #[serde(borrow)]
    pub message: Option<Message<'a>>,
    #[serde(borrow)]
    pub content_block: Option<Block<'a>>,
    #[serde(borrow)]
    pub delta: Option<Delta<'a>>,
    #[serde(borrow)]
    pub usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub error: Option<ErrorDetail<'a>>,
}

/// What an event adds.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct Delta<'a> {
    /// Nothing in the one that ends the message.
    #[serde(borrow)]
    pub r#type: Option<Text<'a>>,
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    #[serde(borrow)]
    pub thinking: Option<Text<'a>>,
    #[serde(borrow)]
    pub signature: Option<Text<'a>>,
    #[serde(borrow)]
    pub partial_json: Option<Text<'a>>,
    #[serde(borrow)]
    pub stop_reason: Option<Text<'a>>,
}

/// The body of an error.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ErrorBody<'a> {
    #[serde(borrow)]
    pub error: ErrorDetail<'a>,
}

/// What went wrong.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub struct ErrorDetail<'a> {
    #[serde(borrow, default)]
    pub r#type: Text<'a>,
    #[serde(borrow, default)]
    pub message: Text<'a>,
}

//! The answer in one document, and errors.

use super::finish_reason;
use crate::translate::ReadError;
use crate::translate::whole::{Context, Translated};
use crate::usage::AnthropicCounts;
use crate::wire::Text;
use crate::wire::anthropic::answer::{Block, ErrorBody, Message};
use crate::wire::openai::{self, answer};

/// The `type` of errors that are the provider's and not in its own form.
const BACKEND_ERROR: &str = "AnthropicBackendError";

/// The answer in OpenAI's terms.
pub(in crate::translate) fn answer(body: &[u8], context: &Context) -> Result<Translated, ReadError> {
    let message: Message<'_> = serde_json::from_slice(body).map_err(ReadError::answer)?;
    let counts = message.usage.and_then(|usage| AnthropicCounts::read(usage.get().as_bytes()));
    let usage = counts.unwrap_or_default().unified();
    let named = message.model.as_deref().filter(|model| !model.is_empty());
    let completion = answer::Completion {
        id: &message.id,
        choices: [answer::Choice {
            finish_reason: finish_reason(message.stop_reason.as_deref()),
            index: 0,
            message: said(&message.content),
        }],
        created: context.created,
        model: named.unwrap_or(&context.model),
        service_tier: None,
        object: "chat.completion",
        usage: answer::Usage {
            completion_tokens_details: Some(answer::CompletionDetails::default()),
            ..answer::Usage::of(&usage).with_cache(&usage)
        },
    };
    let body = serde_json::to_vec(&completion).map_err(ReadError::answer)?;
    Ok(Translated { body: body.into(), usage, model: named.map(str::to_owned) })
}

fn said<'a>(blocks: &'a [Block<'a>]) -> answer::Message<'a> {
    let mut message = answer::Message { role: "assistant", ..answer::Message::default() };
    for block in blocks {
        match &*block.r#type {
            "text" => {
                message.content.get_or_insert_default().push_str(block.text.as_deref().unwrap_or_default());
            }
            "thinking" => {
                let text = block.thinking.clone().unwrap_or_default();
                message.reasoning_content.get_or_insert_default().push_str(&text);
                let block = answer::ThinkingBlock::thinking(Some(text), block.signature.clone());
                message.thinking_blocks.push(block);
            }
            "redacted_thinking" => {
                let data = block.data.clone().unwrap_or_default();
                message.thinking_blocks.push(answer::ThinkingBlock::redacted(data));
            }
            "tool_use" => message.tool_calls.push(answer::ToolCall {
                id: block.id.clone().unwrap_or_default(),
                function: answer::CalledFunction {
                    arguments: answer::arguments(block.input.as_ref()).into(),
                    name: block.name.clone().unwrap_or_default(),
                },
                r#type: "function",
            }),
            // Blocks of tools that the provider runs itself have no counterpart.
            _ => {}
        }
    }
    message
}

/// An error in OpenAI's terms. What is not an error of Anthropic's own form is told as it is.
pub(in crate::translate) fn error(body: &[u8], context: &Context) -> Translated {
    let own = serde_json::from_slice::<ErrorBody<'_>>(body);
    let text = String::from_utf8_lossy(body);
    let (kind, message) = match &own {
        Ok(ErrorBody { error }) => (&*error.r#type, &*error.message),
        Err(_) => (BACKEND_ERROR, &*text),
    };
    Translated::error(openai::error_body(kind, context.status, message))
}

/// An error in the middle of a stream.
pub(super) fn error_event(kind: Option<&Text<'_>>, status: u16, message: &str) -> Vec<u8> {
    openai::error_event(kind.map_or(BACKEND_ERROR, |kind| kind), status, message)
}

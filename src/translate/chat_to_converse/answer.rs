//! The answer in one document, and errors.

use super::finish_reason;
use crate::translate::ReadError;
use crate::translate::whole::{Context, Translated};
use crate::usage::AnthropicCounts;
use crate::wire::converse::answer::{Block, ConverseAnswer, ErrorBody};
use crate::wire::openai::{self, answer};

/// The `type` of errors that are the provider's and do not say what they are.
pub(super) const BACKEND_ERROR: &str = "AWSBedrockBackendError";

/// The answer in OpenAI's terms.
pub(in crate::translate) fn answer(body: &[u8], context: &Context) -> Result<Translated, ReadError> {
    let converse: ConverseAnswer<'_> = serde_json::from_slice(body).map_err(ReadError::answer)?;
    let counts = converse.usage.and_then(|usage| AnthropicCounts::read_converse(usage.get().as_bytes()));
    let usage = counts.unwrap_or_default().unified();
    let message = converse.output.message;
    let completion = answer::Completion {
        id: &context.request_id,
        choices: [answer::Choice {
            finish_reason: finish_reason(converse.stop_reason.as_deref()),
            index: 0,
            message: said(message.as_ref().map(|message| &*message.content).unwrap_or_default()),
        }],
        created: context.created,
        model: &context.model,
        service_tier: converse.service_tier.as_ref().map(|tier| &*tier.r#type),
        object: "chat.completion",
        usage: answer::Usage::of(&usage).with_cache_if_any(&usage),
    };
    let body = serde_json::to_vec(&completion).map_err(ReadError::answer)?;
    Ok(Translated { body: body.into(), usage, model: None })
}

fn said<'a>(blocks: &'a [Block<'a>]) -> answer::Message<'a> {
    let mut message = answer::Message { role: "assistant", ..answer::Message::default() };
    for block in blocks {
        if let Some(text) = &block.text {
            message.content.get_or_insert_default().push_str(text);
        }
        if let Some(tool) = &block.tool_use {
            message.tool_calls.push(answer::ToolCall {
                id: tool.tool_use_id.clone(),
                function: answer::CalledFunction {
                    arguments: answer::arguments(tool.input.as_ref()).into(),
                    name: tool.name.clone(),
                },
                r#type: "function",
            });
        }
        let Some(reasoning) = &block.reasoning_content else { continue };
        if let Some(thought) = &reasoning.reasoning_text {
            let text = thought.text.clone().unwrap_or_default();
            message.reasoning_content.get_or_insert_default().push_str(&text);
            let block = answer::ThinkingBlock::thinking(Some(text), thought.signature.clone());
            message.thinking_blocks.push(block);
        }
        if let Some(data) = &reasoning.redacted_content {
            message.thinking_blocks.push(answer::ThinkingBlock::redacted(data.clone()));
        }
    }
    message
}

/// An error in OpenAI's terms. What is not an error of AWS's own form is told as it is.
pub(in crate::translate) fn error(body: &[u8], context: &Context) -> Translated {
    let text = String::from_utf8_lossy(body);
    let own = serde_json::from_slice::<ErrorBody<'_>>(body).ok().filter(|_| context.is_json);
    let (kind, message) = match &own {
        Some(error) => (context.error_type.as_deref(), &*error.message),
        None => (None, &*text),
    };
    let kind = kind.unwrap_or(BACKEND_ERROR);
    Translated::error(openai::error_body(kind, context.status, message))
}

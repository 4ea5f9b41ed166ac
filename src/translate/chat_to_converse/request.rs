//! The request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::headers::HeaderEdits;
use crate::translate::data_url::DataUrl;
use crate::translate::{Outgoing, RequestFacts, TranslateError, user_error};
use crate::wire::Text;
use crate::wire::converse::request::{
    AdditionalFields, Block, CachePoint, ConverseRequest, Image, ImageSource, InferenceConfig, InputSchema,
    Message, ReasoningContent, ServiceTier, Thinking, Tool, ToolChoice, ToolConfig, ToolResult, ToolSpec,
    ToolUse,
};
use crate::wire::openai::chat::{
    self, Assistant, AssistantPart, CacheControl, ChatRequest, TextPart, UserPart,
};
use crate::wire::sort_schema;

/// The request in Bedrock's terms.
pub(in crate::translate) fn request(facts: &RequestFacts<'_>) -> Result<Outgoing, TranslateError> {
    let chat = ChatRequest::parse(facts.body)
        .map_err(|error| TranslateError::Malformed(format!("malformed request: {error}")))?;
    let request = converse_request(facts, &chat)?;
    let body = serde_json::to_vec(&request).map_err(|error| TranslateError::Internal(error.to_string()))?;
    Ok(Outgoing { body: Some(body.into()), headers: HeaderEdits::default() })
}

fn converse_request<'a>(
    facts: &RequestFacts<'a>,
    chat: &'a ChatRequest<'a>,
) -> Result<ConverseRequest<'a>, TranslateError> {
    let (system, messages) = messages(&chat.messages)?;
    Ok(ConverseRequest {
        additional_model_request_fields: AdditionalFields {
            reasoning_config: chat.reasoning_effort.as_deref(),
            thinking: chat.thinking.as_ref().map(thinking),
        },
        inference_config: InferenceConfig {
            max_tokens: chat.max_tokens,
            stop_sequences: &chat.stop,
            temperature: chat.temperature,
            top_p: chat.top_p,
        },
        tool_config: tool_config(chat, facts.model, &messages),
        messages,
        system,
        service_tier: chat.service_tier.as_deref().map(|r#type| ServiceTier { r#type }),
    })
}

fn thinking<'a>(thinking: &'a chat::Thinking<'a>) -> Thinking<'a> {
    let r#type = &*thinking.r#type;
    let enabled = r#type == "enabled";
    Thinking {
        budget_tokens: thinking.budget_tokens.filter(|_| enabled),
        display: thinking.display.as_deref().filter(|_| r#type != "disabled"),
        r#type,
    }
}

/// The tools. Functions only: what else a client may name runs at OpenAI.
fn tool_config<'a>(
    chat: &'a ChatRequest<'a>,
    model: &str,
    messages: &[Message<'a>],
) -> Option<ToolConfig<'a>> {
    let mut tools = Vec::new();
    for tool in &chat.tools {
        let is_function = tool.r#type.as_deref().is_none_or(|kind| kind == "function");
        let Some(function) = tool.function.as_ref().filter(|_| is_function) else { continue };
        let mut schema = function
            .parameters
            .clone()
            .unwrap_or_else(|| Value::Object(Map::from_iter([("type".to_owned(), "object".into())])));
        sort_schema(&mut schema);
        tools.push(Tool::ToolSpec(ToolSpec {
            description: function.description.as_deref().unwrap_or_default(),
            input_schema: InputSchema { json: schema },
            name: &function.name,
        }));
        if is_cached(function.cache_control.as_ref().or(tool.cache_control.as_ref())) {
            tools.push(Tool::CachePoint(CachePoint::DEFAULT));
        }
    }
    if tools.is_empty() {
        return None;
    }
    let tool_choice = match &chat.tool_choice {
        None => None,
        Some(chat::ToolChoice::Function(name)) => Some(ToolChoice::Tool { name }),
        Some(chat::ToolChoice::Mode(mode)) => match &**mode {
            "auto" => Some(ToolChoice::Auto {}),
            "required" | "any" => Some(ToolChoice::Any {}),
            // Bedrock cannot be told not to call: tools that it does not know it does not call. It must know them, though,
            // where the conversation has calls.
            "none" if !messages.iter().any(has_tools) => return None,
            "none" => None,
            // Anthropic's models can be told the name of a tool.
            name => {
                (model.contains("anthropic") && model.contains("claude")).then_some(ToolChoice::Tool { name })
            }
        },
    };
    Some(ToolConfig { tool_choice, tools })
}

fn has_tools(message: &Message<'_>) -> bool {
    message.content.iter().any(|block| matches!(block, Block::ToolUse(_) | Block::ToolResult(_)))
}

fn is_cached(cache_control: Option<&CacheControl<'_>>) -> bool {
    cache_control.is_some_and(CacheControl::is_ephemeral)
}

type Conversation<'a> = (Vec<Block<'a>>, Vec<Message<'a>>);

fn messages<'a>(chat: &'a [chat::Message<'a>]) -> Result<Conversation<'a>, TranslateError> {
    let (mut system, mut messages) = (Vec::new(), Vec::<Message<'a>>::new());
    // The outcomes of calls that were made at once go back at once.
    let mut after_result = false;
    for (index, message) in chat.iter().enumerate() {
        let place = |member: String| format!("messages[{index}].{member}");
        let is_result = matches!(message, chat::Message::Tool(_));
        match message {
            chat::Message::System(parts) => parts.iter().for_each(|part| text(part, &mut system)),
            chat::Message::User(parts) => {
                let mut content = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    user(part, || place(format!("content[{index}]")), &mut content)?;
                }
                messages.push(Message { content, role: "user" });
            }
            chat::Message::Assistant(assistant) => {
                let content = said(assistant, place)?;
                if !content.is_empty() {
                    messages.push(Message { content, role: "assistant" });
                }
            }
            chat::Message::Tool(result) => {
                let texts = result.parts.iter().map(|part| Block::Text(part.text.clone()));
                let result = Block::ToolResult(ToolResult {
                    content: texts.collect(),
                    status: None,
                    tool_use_id: result.tool_call_id.clone(),
                });
                match messages.last_mut().filter(|_| after_result) {
                    Some(message) => message.content.push(result),
                    None => messages.push(Message { content: vec![result], role: "user" }),
                }
            }
        }
        after_result = is_result;
    }
    Ok((system, messages))
}

fn text<'a>(part: &TextPart<'a>, out: &mut Vec<Block<'a>>) {
    out.push(Block::Text(part.text.clone()));
    cache_point(part.cache_control.as_ref(), out);
}

fn cache_point(cache_control: Option<&CacheControl<'_>>, out: &mut Vec<Block<'_>>) {
    if is_cached(cache_control) {
        out.push(Block::CachePoint(CachePoint::DEFAULT));
    }
}

fn user<'a>(
    part: &'a UserPart<'a>,
    place: impl Fn() -> String,
    out: &mut Vec<Block<'a>>,
) -> Result<(), TranslateError> {
    match part {
        UserPart::Text(part) => text(part, out),
        UserPart::Image { url, cache_control } => {
            let Some(DataUrl { media_type, base64: bytes }) = DataUrl::parse(url) else {
                let problem = "must be a data: URL in base64; Bedrock does not fetch images";
                return user_error(format!("{}.image_url.url", place()), problem);
            };
            let format = match media_type {
                "image/png" => "png",
                "image/jpeg" => "jpeg",
                "image/gif" => "gif",
                "image/webp" => "webp",
                _ => {
                    let problem = "Bedrock takes image/png, image/jpeg, image/gif and image/webp";
                    return user_error(format!("{}.image_url.url", place()), problem);
                }
            };
            out.push(Block::Image(Image { format, source: ImageSource { bytes } }));
            cache_point(cache_control.as_ref(), out);
        }
        // Leaving it out would answer another question than the one that was asked.
        UserPart::File { .. } => return user_error(place(), "files cannot be sent to Bedrock"),
        UserPart::Other(kind) => {
            return user_error(place(), &format!("{} cannot be sent to Bedrock", &**kind));
        }
    }
    Ok(())
}

fn said<'a>(
    assistant: &'a Assistant<'a>,
    place: impl Fn(String) -> String,
) -> Result<Vec<Block<'a>>, TranslateError> {
    let mut blocks = Vec::new();
    for (index, part) in assistant.parts.iter().enumerate() {
        match part {
            // Bedrock refuses empty texts.
            AssistantPart::Text(part) if part.text.is_empty() => {}
            AssistantPart::Text(part) => text(part, &mut blocks),
            AssistantPart::Thinking { text, signature, cache_control } => {
                let (text, signature) = (text.clone(), signature.clone());
                blocks.push(Block::ReasoningContent(ReasoningContent::ReasoningText { text, signature }));
                cache_point(cache_control.as_ref(), &mut blocks);
            }
            AssistantPart::Redacted { data } => {
                if STANDARD.decode(&**data).is_err() {
                    return user_error(place(format!("content[{index}].redactedContent")), "must be base64");
                }
                let data = Text(data.0.clone());
                blocks.push(Block::ReasoningContent(ReasoningContent::RedactedContent(data)));
            }
        }
    }
    for (index, call) in assistant.tool_calls.iter().enumerate() {
        let place = || place(format!("tool_calls[{index}]"));
        let Some(tool_use_id) = call.id.clone().filter(|id| !id.is_empty()) else {
            return user_error(format!("{}.id", place()), "is missing");
        };
        let mut input = call.function.arguments().or_else(|error| user_error(place(), &error.0))?;
        input.sort_all_objects();
        let name = call.function.name.clone();
        blocks.push(Block::ToolUse(ToolUse { name, input, tool_use_id }));
    }
    Ok(blocks)
}

//! The request.

use serde_json::{Map, Value};

use crate::headers::HeaderEdits;
use crate::translate::data_url::DataUrl;
use crate::translate::{Outgoing, RequestFacts, TranslateError, user_error};
use crate::wire::anthropic::request::{
    Block, Message, MessagesRequest, OutputConfig, OutputFormat, Source, Thinking, Tool, ToolChoice,
};
use crate::wire::openai::chat::{
    self, Assistant, AssistantPart, CacheControl, ChatRequest, TextPart, ToolResult, UserPart,
};
use crate::wire::sort_schema;
use crate::wire::{Text, anthropic};

/// Anthropic wants a limit, OpenAI does not: as much as the smallest of its models can say.
const DEFAULT_MAX_TOKENS: i64 = 4096;
/// Parts of the names of models that can follow a schema.
const FOLLOW_SCHEMAS: [&str; 11] = [
    "opus-4-5",
    "sonnet-4-5",
    "haiku-4-5",
    "opus-4-6",
    "sonnet-4-6",
    "opus-4-7",
    "opus-4-8",
    "sonnet-5",
    "fable-5",
    "mythos-5",
    "mythos-preview",
];
/// Parts of the names of models that can be told how hard to try.
const TAKE_EFFORT: [&str; 9] = [
    "opus-4-5",
    "opus-4-6",
    "opus-4-7",
    "opus-4-8",
    "sonnet-4-6",
    "sonnet-5",
    "fable-5",
    "mythos-5",
    "mythos-preview",
];

/// The request in Anthropic's terms.
pub(in crate::translate) fn request(facts: &RequestFacts<'_>) -> Result<Outgoing, TranslateError> {
    let chat = ChatRequest::parse(facts.body)
        .map_err(|error| TranslateError::Malformed(format!("malformed request: {error}")))?;
    let request = messages_request(facts, &chat)?;
    let body = serde_json::to_vec(&request).map_err(|error| TranslateError::Internal(error.to_string()))?;
    let mut headers = HeaderEdits::default();
    headers.set("anthropic-version", anthropic::VERSION);
    Ok(Outgoing { body: Some(body.into()), headers })
}

fn messages_request<'a>(
    facts: &RequestFacts<'a>,
    chat: &'a ChatRequest<'a>,
) -> Result<MessagesRequest<'a>, TranslateError> {
    if chat.temperature.is_some_and(|temperature| !(0.0..=1.0).contains(&temperature)) {
        return user_error("temperature", "Anthropic's models take one from 0.0 to 1.0");
    }
    let model = facts.model.to_ascii_lowercase();
    let knows = |list: &[&str]| list.iter().any(|name| model.contains(name));
    let thinking = chat.thinking.as_ref();
    let tools = tools(&chat.tools)?;
    let (system, messages) = messages(&chat.messages)?;
    Ok(MessagesRequest {
        // Thoughts count, and need room beside the answer.
        max_tokens: chat.max_tokens.unwrap_or_else(|| {
            let thoughts = thinking.and_then(|thinking| thinking.budget_tokens).unwrap_or(0).max(0);
            DEFAULT_MAX_TOKENS.saturating_add(thoughts)
        }),
        messages,
        model: Some(facts.model),
        temperature: chat.temperature,
        top_p: chat.top_p,
        output_config: OutputConfig {
            effort: effort(chat)?.filter(|_| knows(&TAKE_EFFORT)),
            format: format(chat).filter(|_| knows(&FOLLOW_SCHEMAS)),
        },
        stop_sequences: &chat.stop,
        system,
        thinking: thinking.map(|thinking| Thinking {
            budget_tokens: thinking.budget_tokens,
            display: thinking.display.clone(),
            r#type: thinking.r#type.clone(),
        }),
        tool_choice: if tools.is_empty() { None } else { tool_choice(chat)? },
        tools,
        stream: facts.streaming,
    })
}

fn effort<'a>(chat: &'a ChatRequest<'_>) -> Result<Option<&'a str>, TranslateError> {
    match chat.reasoning_effort.as_deref() {
        Some(effort @ ("low" | "medium" | "high" | "xhigh" | "max")) => Ok(Some(effort)),
        Some(_) => user_error("reasoning_effort", "Anthropic's models take low, medium, high, xhigh or max"),
        None => Ok(None),
    }
}

/// A schema to follow. That an answer is to be JSON of any shape cannot be told to Anthropic's models but in words.
fn format(chat: &ChatRequest<'_>) -> Option<OutputFormat> {
    let format = chat.response_format.as_ref().filter(|format| &*format.r#type == "json_schema")?;
    let mut schema = format.json_schema.as_ref()?.schema.clone()?;
    sort_schema(&mut schema);
    Some(OutputFormat { schema, r#type: "json_schema" })
}

fn tools<'a>(tools: &'a [chat::Tool<'a>]) -> Result<Vec<Tool<'a>>, TranslateError> {
    let tools = tools.iter().enumerate().map(|(index, tool)| {
        let function = tool.function.as_ref();
        let function = function.filter(|_| tool.r#type.as_deref().is_none_or(|kind| kind == "function"));
        let Some(function) = function else {
            return user_error(format!("tools[{index}].type"), "Anthropic's models take functions only");
        };
        Ok(Tool {
            input_schema: input_schema(function.parameters.as_ref()),
            name: function.name.clone(),
            description: function.description.clone().filter(|text| !text.is_empty()),
            strict: function.strict == Some(true),
            cache_control: ephemeral(function.cache_control.as_ref().or(tool.cache_control.as_ref())),
        })
    });
    tools.collect()
}

/// The schema of a tool's input, which is always an object: what it holds first, then the rest.
fn input_schema(parameters: Option<&Value>) -> Map<String, Value> {
    let mut schema = parameters.cloned().unwrap_or_default();
    sort_schema(&mut schema);
    let Value::Object(mut members) = schema else {
        return Map::from_iter([("type".to_owned(), "object".into())]);
    };
    let mut ordered = Map::new();
    for name in ["properties", "required"] {
        if let Some(value) = members.shift_remove(name).filter(|value| !value.is_null()) {
            ordered.insert(name.to_owned(), value);
        }
    }
    let kind = members.shift_remove("type").unwrap_or_else(|| "object".into());
    ordered.insert("type".to_owned(), kind);
    ordered.extend(members);
    ordered
}

fn tool_choice<'a>(chat: &'a ChatRequest<'a>) -> Result<Option<ToolChoice<'a>>, TranslateError> {
    let choice = |r#type, name| {
        let disable_parallel_tool_use = Some(chat.parallel_tool_calls == Some(false));
        Ok(Some(ToolChoice { name, disable_parallel_tool_use, r#type }))
    };
    match &chat.tool_choice {
        // That calls are to come one by one can only be said together with a choice.
        None if chat.parallel_tool_calls == Some(false) => choice("auto", None),
        None => Ok(None),
        Some(chat::ToolChoice::Function(name)) => choice("tool", Some(name.clone())),
        Some(chat::ToolChoice::Mode(mode)) => match &**mode {
            "auto" => choice("auto", None),
            "required" | "any" => choice("any", None),
            "none" => Ok(Some(ToolChoice { name: None, disable_parallel_tool_use: None, r#type: "none" })),
            _ => user_error("tool_choice", "must be auto, none, required or a function"),
        },
    }
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
            chat::Message::System(parts) => system.extend(joined(parts)),
            chat::Message::User(parts) => {
                let parts = parts.iter().enumerate();
                let content = parts.map(|(index, part)| user(part, || place(format!("content[{index}]"))));
                messages.push(Message { content: content.collect::<Result<_, _>>()?, role: "user" });
            }
            chat::Message::Assistant(assistant) => {
                let content = said(assistant, place)?;
                if !content.is_empty() {
                    messages.push(Message { content, role: "assistant" });
                }
            }
            chat::Message::Tool(result) => match messages.last_mut().filter(|_| after_result) {
                Some(message) => message.content.push(tool_result(result)),
                None => messages.push(Message { content: vec![tool_result(result)], role: "user" }),
            },
        }
        after_result = is_result;
    }
    Ok((system, messages))
}

fn text<'a>(text: Text<'a>, cache_control: Option<&CacheControl<'a>>) -> Block<'a> {
    Block::Text { text, cache_control: ephemeral(cache_control), r#type: "text" }
}

fn ephemeral<'a>(cache_control: Option<&CacheControl<'a>>) -> Option<CacheControl<'a>> {
    cache_control.filter(|cache_control| cache_control.is_ephemeral()).cloned()
}

/// A system message as one text.
fn joined<'a>(parts: &'a [TextPart<'a>]) -> Option<Block<'a>> {
    let cache_control = parts.iter().rev().find_map(|part| part.cache_control.as_ref());
    let joined = match parts {
        [part] => part.text.clone(),
        parts => parts.iter().map(|part| &*part.text).collect::<String>().into(),
    };
    (!joined.is_empty()).then(|| text(joined, cache_control))
}

fn user<'a>(part: &'a UserPart<'a>, place: impl Fn() -> String) -> Result<Block<'a>, TranslateError> {
    match part {
        UserPart::Text(part) => Ok(text(part.text.clone(), part.cache_control.as_ref())),
        UserPart::Image { url, cache_control } => {
            let (source, r#type) = media(url, || format!("{}.image_url.url", place()))?;
            Ok(Block::Media { source, cache_control: ephemeral(cache_control.as_ref()), r#type })
        }
        UserPart::File { data: Some(data), cache_control } => {
            let (source, r#type) = media(data, || format!("{}.file.file_data", place()))?;
            Ok(Block::Media { source, cache_control: ephemeral(cache_control.as_ref()), r#type })
        }
        UserPart::File { data: None, .. } => user_error(
            place(),
            "Anthropic's models take files as file_data only: the file must be in the request",
        ),
        UserPart::Other(kind) => user_error(place(), &format!("Anthropic's models do not take {}", &**kind)),
    }
}

/// Where an image or a document is, and which of both it is.
fn media<'a>(url: &'a str, place: impl Fn() -> String) -> Result<(Source<'a>, &'static str), TranslateError> {
    if !DataUrl::is(url) {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let is_document = path.to_ascii_lowercase().ends_with(".pdf");
        return Ok((Source::Url { r#type: "url", url }, if is_document { "document" } else { "image" }));
    }
    let Some(DataUrl { media_type, base64: data }) = DataUrl::parse(url) else {
        return user_error(place(), "must be a data: URL in base64");
    };
    let kind = match media_type {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => "image",
        "application/pdf" => "document",
        _ => {
            let problem =
                "Anthropic's models take image/jpeg, image/png, image/gif, image/webp and application/pdf";
            return user_error(place(), problem);
        }
    };
    Ok((Source::Base64 { data, media_type, r#type: "base64" }, kind))
}

fn said<'a>(
    assistant: &'a Assistant<'a>,
    place: impl Fn(String) -> String,
) -> Result<Vec<Block<'a>>, TranslateError> {
    let parts = assistant.parts.iter().filter_map(|part| match part {
        // Anthropic refuses empty texts, and thoughts that nobody vouches for.
        AssistantPart::Text(part) => {
            (!part.text.is_empty()).then(|| text(part.text.clone(), part.cache_control.as_ref()))
        }
        AssistantPart::Thinking { text, signature, .. } => {
            let signature = signature.clone().filter(|signature| !signature.is_empty())?;
            Some(Block::Thinking { signature, thinking: text.clone(), r#type: "thinking" })
        }
        AssistantPart::Redacted { data } => {
            Some(Block::RedactedThinking { data: data.clone(), r#type: "redacted_thinking" })
        }
    });
    let mut blocks: Vec<_> = parts.collect();
    for (index, call) in assistant.tool_calls.iter().enumerate() {
        let place = || place(format!("tool_calls[{index}]"));
        let Some(id) = call.id.clone().filter(|id| !id.is_empty()) else {
            return user_error(format!("{}.id", place()), "is missing");
        };
        let mut input = call.function.arguments().or_else(|error| user_error(place(), &error.0))?;
        input.sort_all_objects();
        let cache_control = ephemeral(call.cache_control.as_ref());
        let name = call.function.name.clone();
        blocks.push(Block::ToolUse { id, input, name, cache_control, r#type: "tool_use" });
    }
    Ok(blocks)
}

fn tool_result<'a>(result: &'a ToolResult<'a>) -> Block<'a> {
    let failed = |text: &str| {
        // Most results are no JSON: do not parse what cannot be an object.
        text.trim_start().starts_with('{')
            && serde_json::from_str::<Map<String, Value>>(text)
                .is_ok_and(|object| object.contains_key("error"))
    };
    let is_error = result.is_string && result.parts.iter().any(|part| failed(&part.text));
    let parts = result.parts.iter().filter(|part| !part.text.is_empty());
    Block::ToolResult {
        tool_use_id: result.tool_call_id.clone(),
        is_error,
        cache_control: ephemeral(result.cache_control.as_ref()),
        content: parts.map(|part| text(part.text.clone(), None)).collect(),
        r#type: "tool_result",
    }
}

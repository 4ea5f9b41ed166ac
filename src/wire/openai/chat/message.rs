//! Messages, by their role.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Assistant, AssistantPart, CacheControl, MalformedRequest, Message, TextPart, ToolCall, ToolResult,
    UserPart, read, wrong,
};
use crate::wire::Text;

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    tool_call_id: Option<Text<'a>>,
    #[serde(borrow)]
    cache_control: Option<CacheControl<'a>>,
    /// What translated answers carry, so that clients can send it back.
    #[serde(borrow)]
    thinking_blocks: Option<Vec<Part<'a>>>,
}

/// One part of a message, whatever its role.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    signature: Option<Text<'a>>,
    #[serde(borrow, alias = "redactedContent")]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    image_url: Option<ImageUrl<'a>>,
    #[serde(borrow)]
    file: Option<File<'a>>,
    #[serde(borrow)]
    cache_control: Option<CacheControl<'a>>,
}

#[derive(Deserialize)]
struct ImageUrl<'a> {
    #[serde(borrow)]
    url: Text<'a>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    file_data: Option<Text<'a>>,
}

type Read<T> = Result<T, MalformedRequest>;

/// Reads one message.
pub(super) fn message(raw: &RawValue) -> Read<Message<'_>> {
    let members: Members<'_> = serde_json::from_str(raw.get()).map_err(|error| {
        let text = error.to_string();
        MalformedRequest(text.split(" at line ").next().unwrap_or(&text).to_owned())
    })?;
    let Some(role) = &members.role else { return Err(wrong("role", "is missing")) };
    match &**role {
        "system" | "developer" => Ok(Message::System(texts(members.content)?.0)),
        "user" => Ok(Message::User(parts(members.content)?.0.into_iter().map(user).collect::<Read<_>>()?)),
        "assistant" => assistant(members),
        "tool" => {
            let tool_call_id = members.tool_call_id.ok_or_else(|| wrong("tool_call_id", "is missing"))?;
            let (parts, is_string) = texts(members.content)?;
            let last = || parts.last().and_then(|part| part.cache_control.clone());
            let cache_control = members.cache_control.or_else(last);
            Ok(Message::Tool(ToolResult { tool_call_id, parts, is_string, cache_control }))
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(wrong("role", format!("must be user, assistant, system, developer or tool, not {shown:?}")))
        }
    }
}

/// The parts of a content, and whether it was a string.
fn parts(content: Option<&RawValue>) -> Read<(Vec<(usize, Part<'_>)>, bool)> {
    let Some(raw) = content.filter(|raw| raw.get() != "null") else {
        return Err(wrong("content", "is missing"));
    };
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text = read("content", raw)?;
            Ok((vec![(0, Part::text(text))], true))
        }
        Some(b'[') => {
            let raw: Vec<&RawValue> = read("content", raw)?;
            let parts = raw.into_iter().enumerate();
            let parts = parts.map(|(index, raw)| Ok((index, read(format!("content[{index}]"), raw)?)));
            Ok((parts.collect::<Read<_>>()?, false))
        }
        _ => Err(wrong("content", "must be a string or an array of parts")),
    }
}

impl<'a> Part<'a> {
    fn text(text: Text<'a>) -> Self {
        Self {
            r#type: Some("text".into()),
            text: Some(text),
            refusal: None,
            thinking: None,
            signature: None,
            data: None,
            image_url: None,
            file: None,
            cache_control: None,
        }
    }
}

fn texts(content: Option<&RawValue>) -> Read<(Vec<TextPart<'_>>, bool)> {
    let (parts, is_string) = parts(content)?;
    let texts = parts.into_iter().map(|(index, part)| match part {
        Part { r#type: Some(kind), text: Some(text), cache_control, .. } if &*kind == "text" => {
            Ok(TextPart { text, cache_control })
        }
        _ => Err(wrong(format!("content[{index}]"), "must be a text part")),
    });
    Ok((texts.collect::<Read<_>>()?, is_string))
}

fn user((index, part): (usize, Part<'_>)) -> Read<UserPart<'_>> {
    let place = |name: &str| format!("content[{index}].{name}");
    let Part { r#type, text, image_url, file, cache_control, .. } = part;
    let Some(kind) = r#type else { return Err(wrong(place("type"), "is missing")) };
    Ok(match &*kind {
        "text" => {
            let text = text.ok_or_else(|| wrong(place("text"), "is missing"))?;
            UserPart::Text(TextPart { text, cache_control })
        }
        "image_url" => {
            let url = image_url.ok_or_else(|| wrong(place("image_url"), "is missing"))?.url;
            UserPart::Image { url, cache_control }
        }
        "file" => UserPart::File { data: file.and_then(|file| file.file_data), cache_control },
        "input_audio" | "audio_url" | "video_url" => UserPart::Other(kind),
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(wrong(place("type"), format!("{shown:?} is unknown")));
        }
    })
}

fn assistant(members: Members<'_>) -> Read<Message<'_>> {
    let Members { content, refusal, tool_calls, thinking_blocks, .. } = members;
    let raw_parts = match content.filter(|raw| raw.get() != "null") {
        None => Vec::new(),
        // Some clients send the one part without its array.
        Some(raw) if raw.get().starts_with('{') => vec![(0, read("content", raw)?)],
        Some(raw) => parts(Some(raw))?.0,
    };
    let said = |(_, part): &(usize, Part<'_>)| {
        part.r#type.as_ref().is_some_and(|kind| matches!(&**kind, "thinking" | "redacted_thinking"))
    };
    // A client that sends its thoughts both ways means them once.
    let thoughts = thinking_blocks.unwrap_or_default();
    let thoughts = if raw_parts.iter().any(said) { Vec::new() } else { thoughts };
    let thoughts = thoughts.into_iter().enumerate();
    let mut parts = thoughts.chain(raw_parts).map(assistant_part).collect::<Read<Vec<_>>>()?;
    parts.extend(refusal.map(|text| AssistantPart::Text(TextPart { text, cache_control: None })));
    Ok(Message::Assistant(Assistant { parts, tool_calls: tool_calls.unwrap_or_default() }))
}

fn assistant_part((index, part): (usize, Part<'_>)) -> Read<AssistantPart<'_>> {
    let missing = |name: &str| wrong(format!("content[{index}].{name}"), "is missing");
    let Part { r#type, text, refusal, thinking, signature, data, cache_control, .. } = part;
    let Some(kind) = r#type else { return Err(missing("type")) };
    Ok(match &*kind {
        "text" => AssistantPart::Text(TextPart { text: text.ok_or_else(|| missing("text"))?, cache_control }),
        "refusal" => {
            AssistantPart::Text(TextPart { text: refusal.ok_or_else(|| missing("refusal"))?, cache_control })
        }
        "thinking" => {
            let text = text.or(thinking).ok_or_else(|| missing("text"))?;
            AssistantPart::Thinking { text, signature, cache_control }
        }
        "redacted_thinking" => {
            AssistantPart::Redacted { data: data.ok_or_else(|| missing("redactedContent"))? }
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(wrong(format!("content[{index}].type"), format!("{shown:?} is unknown")));
        }
    })
}

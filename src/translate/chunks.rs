//! OpenAI's chunks, as they are written from the streams of other dialects.

use crate::wire::Text;
use crate::wire::openai::answer::{
    CalledFunction, Chunk, ChunkChoice, Delta, ThinkingBlock, ToolCallDelta, Usage,
};

/// Writes the chunks of one answer.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The answer's id; left out where empty.
    pub(super) id: String,
    /// The model that answers.
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The tier that the provider says it served in.
    pub(super) service_tier: Option<String>,
    /// Who speaks is said in every chunk, rather than in the first alone.
    role_in_every_chunk: bool,
    /// The client was told who speaks.
    named_role: bool,
    /// Calls that have begun.
    tools: u32,
    /// A call is open, and whether any of its arguments came.
    open: Option<bool>,
}

/// The beginning of a call.
#[derive(Debug)]
pub(super) struct Tool<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// The first piece of them, often nothing.
    pub(super) arguments: &'a str,
}

impl Chunks {
    pub(super) fn new(model: &str, created: u64) -> Self {
        Self {
            id: String::new(),
            model: model.to_owned(),
            created,
            service_tier: None,
            role_in_every_chunk: false,
            named_role: false,
            tools: 0,
            open: None,
        }
    }

    pub(super) fn with_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub(super) fn with_role_in_every_chunk(mut self) -> Self {
        self.role_in_every_chunk = true;
        self
    }

    /// A chunk with one delta.
    pub(super) fn delta(&self, delta: Delta<'_>, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        self.write(&[ChunkChoice { index: 0, delta, finish_reason }], None, out);
    }

    /// The chunk that tells the usage and nothing else.
    pub(super) fn usage(&self, usage: Usage, out: &mut Vec<u8>) {
        self.write(&[], Some(usage), out);
    }

    fn role(&mut self) -> Option<&'static str> {
        let named = std::mem::replace(&mut self.named_role, true);
        (!named || self.role_in_every_chunk).then_some("assistant")
    }

    /// The end of what the model says, as an empty text.
    pub(super) fn last(&mut self, finish_reason: &'static str, out: &mut Vec<u8>) {
        let delta = Delta { content: Some(""), role: self.role(), ..Delta::default() };
        self.delta(delta, Some(finish_reason), out);
    }

    /// A piece of the answer's text.
    pub(super) fn content(&mut self, content: &str, out: &mut Vec<u8>) {
        let delta = Delta { content: Some(content), role: self.role(), ..Delta::default() };
        self.delta(delta, None, out);
    }

    /// A piece of a thought; an empty one is not worth a chunk.
    pub(super) fn thought(&mut self, thought: &str, out: &mut Vec<u8>) {
        if thought.is_empty() {
            return;
        }
        let delta = Delta { role: self.role(), reasoning_content: Some(thought), ..Delta::default() };
        self.delta(delta, None, out);
    }

    /// What proves a thought, or one that cannot be read.
    pub(super) fn block(&mut self, block: ThinkingBlock<'_>, out: &mut Vec<u8>) {
        let delta = Delta { role: self.role(), thinking_blocks: Some([block]), ..Delta::default() };
        self.delta(delta, None, out);
    }

    /// The beginning of a call.
    pub(super) fn tool_begins(&mut self, tool: &Tool<'_>, out: &mut Vec<u8>) {
        self.tool_ends(out);
        self.open = Some(!tool.arguments.is_empty());
        let index = self.tools;
        self.tools = self.tools.saturating_add(1);
        let function = CalledFunction { arguments: tool.arguments.into(), name: tool.name.into() };
        self.tool(index, Some(tool.id), function, out);
    }

    /// A piece of the arguments of the call that is open.
    pub(super) fn arguments(&mut self, piece: &str, out: &mut Vec<u8>) {
        let Some(some) = self.open.as_mut().filter(|_| !piece.is_empty()) else { return };
        *some = true;
        let function = CalledFunction { arguments: piece.into(), name: Text::default() };
        self.tool(self.tools.saturating_sub(1), None, function, out);
    }

    /// The end of the call that is open, if one is. One without arguments has an empty object of them: clients parse them.
    pub(super) fn tool_ends(&mut self, out: &mut Vec<u8>) {
        if self.open == Some(false) {
            self.arguments("{}", out);
        }
        self.open = None;
    }

    fn tool(&mut self, index: u32, id: Option<&str>, function: CalledFunction<'_>, out: &mut Vec<u8>) {
        let call = ToolCallDelta { index, id, function, r#type: "function" };
        let delta = Delta { role: self.role(), tool_calls: Some([call]), ..Delta::default() };
        self.delta(delta, None, out);
    }

    fn write(&self, choices: &[ChunkChoice<'_>], usage: Option<Usage>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.id,
            choices,
            created: self.created,
            model: &self.model,
            service_tier: self.service_tier.as_deref(),
            object: "chat.completion.chunk",
            usage,
        };
        out.extend_from_slice(b"data: ");
        // Writing to memory cannot fail, and every member can be written.
        _ = serde_json::to_writer(&mut *out, &chunk);
        out.extend_from_slice(b"\n\n");
    }
}

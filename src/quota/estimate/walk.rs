//! A walk over a request: what of it reaches the model, and as what.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Measure;
use super::family::{Extras, Family, contains};
use super::{media, text};

/// What is measured so far.
#[derive(Debug)]
pub(super) struct Tally {
    family: Family,
    extras: Extras,
    measure: Measure,
    /// How many bytes the tokenizer may still be given.
    tokenized: usize,
    /// Of texts, in sixteenths of a token.
    sixteenths: u64,
    /// Of everything else.
    others: u64,
    has_tools: bool,
    /// See [`super::Prompt::open_ended`].
    pub(super) open_ended: bool,
}

/// The tokenizer takes about a millisecond for each 16 KiB.
const MAX_TOKENIZED: usize = 256 * 1024;
/// What a provider's own tool, or a conversation that it has kept, may add. It may add more.
const ALLOWANCE: u64 = 16_384;

/// What a model that is told how to think is told in addition.
const REASONING: u64 = 64;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The request itself.
    Request,
    /// Text, messages, parts of them; numbers are tokens.
    Content,
    /// Shown to the model as JSON, or nearly.
    Json,
    /// The list of tools.
    Tools,
    /// One of them.
    Tool,
    Image,
    Sound,
    /// A file in base64, or an object that holds one.
    File,
    /// Anthropic's `source` of an image or a document.
    Source,
    /// Readable by the provider alone.
    Sealed,
    /// The provider has it.
    Elsewhere,
    /// How the model is to think.
    Reasoning,
    /// Nothing the model sees.
    Unseen,
}

impl Tally {
    pub(super) fn new(family: Family, measure: Measure) -> Self {
        Self {
            family,
            extras: family.extras(false),
            measure,
            tokenized: MAX_TOKENIZED,
            sixteenths: 0,
            others: 0,
            has_tools: false,
            open_ended: false,
        }
    }

    pub(super) fn read(&mut self, mode: Mode, json: &[u8]) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Walk { tally: self, mode }.deserialize(&mut deserializer)
    }

    pub(super) fn tokens(&self) -> u64 {
        let tools = if self.has_tools { self.extras.tools } else { 0 };
        let fixed = self.extras.request + tools;
        self.sixteenths.div_ceil(16).saturating_add(self.others).saturating_add(fixed)
    }

    fn add(&mut self, tokens: u64) {
        self.others = self.others.saturating_add(tokens);
    }

    fn text(&mut self, text: &str) {
        let sixteenths = match self.measure {
            Measure::Tokenizer if text.len() <= self.tokenized => {
                self.tokenized -= text.len();
                let (tokenizer, tenths) = self.family.tokenizer();
                let digits = text.bytes().filter(u8::is_ascii_digit).count() as u64;
                // Of three digits, which are one token here, others make three.
                let alone = if tenths > 10 { digits * 9 } else { 0 };
                (tokenizer.count(text) as u64 * tenths * 16).div_ceil(10) + alone
            }
            _ => text::sixteenths(text, self.family.costs()),
        };
        self.sixteenths = self.sixteenths.saturating_add(sixteenths);
    }

    fn elsewhere(&mut self) {
        self.open_ended = true;
        self.add(ALLOWANCE);
    }

    /// A text, as what it is here.
    fn string(&mut self, mode: Mode, value: &str) {
        match mode {
            Mode::Request | Mode::Content | Mode::Tools => self.text(value),
            Mode::Json | Mode::Tool => {
                self.text(value);
                self.sixteenths = self.sixteenths.saturating_add(16 + text::escapes(value));
            }
            Mode::Image => self.add(self.extras.image),
            Mode::Sound => self.add(media::sound(media::decoded(value.len()))),
            Mode::File | Mode::Source => self.file(value),
            Mode::Sealed => self.add(media::sealed(value.len() as u64)),
            Mode::Elsewhere => self.elsewhere(),
            Mode::Reasoning => self.add(REASONING),
            Mode::Unseen => {}
        }
    }

    /// A file: in a data URL, or bare base64.
    fn file(&mut self, value: &str) {
        let (kind, data) = match value.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
            Some((kind, data)) => (kind, data),
            None => ("", value),
        };
        self.blob(kind, data);
    }

    fn blob(&mut self, kind: &str, data: &str) {
        let bytes = media::decoded(data.len());
        if kind.starts_with("text/") {
            self.sixteenths = self.sixteenths.saturating_add(media::plain(data, self.family.costs()));
        } else if kind.starts_with("image/") {
            self.add(self.extras.image);
        } else if kind.starts_with("audio/") {
            self.add(media::sound(bytes));
        } else {
            self.add(media::pages(bytes));
        }
    }
}

/// Adds what it walks over to a tally.
struct Walk<'t> {
    tally: &'t mut Tally,
    mode: Mode,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.mode == Mode::Unseen {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.tally.string(self.mode, value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.number(1);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.number(1);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(u64::from(value.checked_ilog10().unwrap_or(0)) + 1);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(u64::from(value.unsigned_abs().checked_ilog10().unwrap_or(0)) + 2);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        // Whole numbers too large for 64 bits may be written out: 309 digits at most.
        let digits = value.abs().log10().max(0.0) as u64;
        self.number(if digits > 17 { digits + 24 } else { 24 });
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Walk { tally, mode } = self;
        let mode = if mode == Mode::Tools { Mode::Tool } else { mode };
        loop {
            if matches!(mode, Mode::Json) {
                tally.sixteenths += 16;
            }
            if list.next_element_seed(Walk { tally: &mut *tally, mode })?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.mode {
            Mode::Request => self.request(map),
            Mode::Content => self.content(map),
            Mode::Source | Mode::Sound | Mode::Image | Mode::File => self.holder(map),
            Mode::Tool => self.tool(map),
            Mode::Reasoning => self.reasoning(map),
            Mode::Elsewhere => {
                self.tally.elsewhere();
                self.skip(map)
            }
            _ => self.json(map),
        }
    }
}

impl Walk<'_> {
    /// A number of that many digits, or a word of JSON's.
    fn number(self, digits: u64) {
        match self.mode {
            Mode::Content => self.tally.add(1),
            Mode::Json | Mode::Tool => self.tally.add(digits),
            _ => {}
        }
    }

    fn request<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { tally, .. } = self;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "model" {
                // A model whose images cost twelve times what others' do.
                let model: Option<Cow<'_, str>> = map.next_value()?;
                let model = model.as_deref().unwrap_or_default();
                if contains(model, "4o-mini") {
                    tally.extras = tally.family.extras(true);
                }
                // These search by themselves.
                if contains(model, "compound") {
                    tally.elsewhere();
                }
                continue;
            }
            let mode = member(&key);
            if matches!(&*key, "output_config" | "output_format" | "response_format") {
                // The form of the answer is explained to the model.
                tally.add(tally.extras.tools.min(200));
            }
            map.next_value_seed(Walk { tally: &mut *tally, mode })?;
        }
        Ok(())
    }

    fn content<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { tally, .. } = self;
        tally.add(tally.extras.part);
        let mut is_image = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "type" {
                let kind = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text);
                is_image = kind.is_some_and(|kind| kind == "image");
                continue;
            }
            if key == "detail" {
                let detail = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text);
                // How coarse an image is seen is believed where it stands within the image.
                tally.add(tally.extras.image_seen(detail.as_deref()).saturating_sub(tally.extras.image));
                continue;
            }
            let mode = if is_image && key == "source" { Mode::Image } else { part(&key) };
            map.next_value_seed(Walk { tally: &mut *tally, mode })?;
        }
        Ok(())
    }

    /// An object around something that is no text. Its members may come in any order.
    fn holder<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { tally, mode } = self;
        let (mut kind, mut data, mut detail) = (None, None, None::<Cow<'de, str>>);
        let mut remote = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "media_type" | "format" | "mime_type" => {
                    kind = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text)
                }
                "data" | "file_data" => {
                    data = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text)
                }
                "detail" => detail = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text),
                "url" | "file_id" | "file_url" => {
                    map.next_value::<IgnoredAny>()?;
                    remote = true;
                }
                "filename" | "title" => {
                    map.next_value_seed(Walk { tally: &mut *tally, mode: Mode::Content })?
                }
                // Anthropic's documents may be made of parts.
                "content" => map.next_value_seed(Walk { tally: &mut *tally, mode: Mode::Content })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let (kind, data): (Cow<'de, str>, Option<Cow<'de, str>>) = (kind.unwrap_or_default(), data);
        match (mode, data) {
            (Mode::Image, _) => tally.add(tally.extras.image_seen(detail.as_deref())),
            (Mode::Sound, Some(data)) if matches!(&*kind, "wav" | "pcm16" | "pcm") => {
                tally.add(media::samples(media::decoded(data.len())));
            }
            (Mode::Sound, data) => tally.add(media::sound(media::decoded(data.map_or(0, |data| data.len())))),
            // Anthropic gives plain text as it is.
            (_, Some(data)) if &*kind == "text/plain" && mode == Mode::Source => tally.text(&data),
            (_, Some(data)) if kind.is_empty() => tally.file(&data),
            (_, Some(data)) => tally.blob(&kind, &data),
            (_, None) if remote => tally.elsewhere(),
            (_, None) => {}
        }
        Ok(())
    }

    fn tool<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { tally, .. } = self;
        tally.has_tools = true;
        tally.add(tally.extras.tool);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "type" {
                let kind = map.next_value::<Option<Lenient<'de>>>()?.and_then(Lenient::text);
                // The others are the provider's own.
                if !kind.is_none_or(|kind| matches!(&*kind, "function" | "custom" | "namespace")) {
                    tally.elsewhere();
                }
                continue;
            }
            tally.text(&key);
            let mode = if key == "cache_control" { Mode::Unseen } else { Mode::Json };
            map.next_value_seed(Walk { tally: &mut *tally, mode })?;
        }
        Ok(())
    }

    fn reasoning<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.tally.add(REASONING);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            map.next_value::<IgnoredAny>()?;
            // The prompt is read several times.
            if key == "mode" {
                self.tally.elsewhere();
            }
        }
        Ok(())
    }

    fn skip<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn json<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { tally, .. } = self;
        tally.sixteenths += 16;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            tally.text(&key);
            tally.sixteenths += 24;
            map.next_value_seed(Walk { tally: &mut *tally, mode: Mode::Json })?;
        }
        Ok(())
    }
}

/// A text, or anything else, which is nothing.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Lenient<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

impl<'a> Lenient<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

/// What a member of a request is. What is not known may be for the model.
fn member(key: &str) -> Mode {
    match key {
        "messages" | "input" | "prompt" | "suffix" | "instructions" | "system" => Mode::Content,
        "tools" | "functions" => Mode::Tools,
        "reasoning" | "reasoning_effort" => Mode::Reasoning,
        // `models`: whichever of those, wherever.
        "models"
        | "previous_response_id"
        | "conversation"
        | "mcp_servers"
        | "web_search_options"
        | "plugins" => Mode::Elsewhere,
        "model"
        | "stream"
        | "stream_options"
        | "stream_format"
        | "temperature"
        | "top_p"
        | "top_k"
        | "min_p"
        | "n"
        | "best_of"
        | "max_tokens"
        | "max_completion_tokens"
        | "max_output_tokens"
        | "max_tool_calls"
        | "stop"
        | "stop_sequences"
        | "seed"
        | "user"
        | "metadata"
        | "store"
        | "service_tier"
        | "logprobs"
        | "top_logprobs"
        | "logit_bias"
        | "presence_penalty"
        | "frequency_penalty"
        | "repetition_penalty"
        | "parallel_tool_calls"
        | "modalities"
        | "audio"
        | "encoding_format"
        | "dimensions"
        | "echo"
        | "truncation"
        | "include"
        | "background"
        | "safety_identifier"
        | "prompt_cache_key"
        | "prompt_cache_retention"
        | "verbosity"
        | "reasoning_format"
        | "thinking"
        | "container"
        | "cache_control"
        | "inference_geo"
        | "provider"
        | "transforms"
        | "route"
        | "preset"
        | "context_management"
        | "moderation"
        | "size"
        | "quality"
        | "style"
        | "voice"
        | "speed" => Mode::Unseen,
        _ => Mode::Json,
    }
}

/// What a member of a message, or of a part of one, is.
fn part(key: &str) -> Mode {
    match key {
        "role" | "status" | "index" | "cache_control" | "logprobs" => Mode::Unseen,
        "image_url" => Mode::Image,
        "input_audio" => Mode::Sound,
        "file" | "file_data" => Mode::File,
        "file_id" | "file_url" | "container_id" | "audio" => Mode::Elsewhere,
        "source" => Mode::Source,
        "encrypted_content" | "encrypted_index" | "signature" | "data" => Mode::Sealed,
        "content" | "text" | "thinking" | "summary" | "output" | "tool_calls" | "function"
        | "function_call" | "name" | "refusal" | "reasoning_content" | "message" => Mode::Content,
        _ => Mode::Json,
    }
}

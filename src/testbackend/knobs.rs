//! What an answer looks like: by flag for every request, by `x-testbackend-*` header for one.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::encode::Encoding;

const PREFIX: &str = "x-testbackend-";

/// Everything that can be turned. Each field is a flag `--field-name` and a request header `x-testbackend-field-name`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "What an answer looks like (each also as request header x-testbackend-<name>)")]
pub struct Knobs {
    /// The status code
    #[arg(long, value_name = "CODE", value_parser = parse_status)]
    pub status: Option<StatusCode>,
    /// Wait this long before the answer's headers: `250ms`, `2s`, `100us`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub delay: Option<Duration>,
    /// Answer with exactly this text
    #[arg(long, value_name = "TEXT", conflicts_with = "body_base64")]
    pub body: Option<String>,
    /// Answer with exactly these bytes
    #[arg(long, value_name = "BASE64")]
    pub body_base64: Option<Base64>,
    /// The answer's content-type
    #[arg(long, value_name = "TYPE", value_parser = parse_header_value)]
    pub content_type: Option<HeaderValue>,
    /// What the assistant says
    #[arg(long, value_name = "TEXT")]
    pub content: Option<String>,
    /// The tokens reported, `prompt=9,completion=11,cached=0,cache-creation=0,reasoning=0` or any of them. Where none
    /// are named 9 and 11 are reported, but by a chat's plain answer none
    #[arg(long, value_name = "LIST")]
    pub usage: Option<Usage>,
    /// Into how many pieces an answer is cut: content events of a stream, or equal parts of any other body
    #[arg(long, value_name = "N")]
    pub chunks: Option<u32>,
    /// Wait this long between the pieces
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub pace: Option<Duration>,
    /// Report the usage so far in every event of a stream, as some providers do
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub usage_every_chunk: Option<bool>,
    /// Answer with what was received: method, path, headers, body
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub echo: Option<bool>,
    /// Compress the answer, each piece flushed: `gzip`, `br`, `identity`, or `auto` for what accept-encoding prefers
    #[arg(long, value_name = "ENCODING")]
    pub encoding: Option<Encoding>,
    /// Trailers, `name=value,name=value`; over HTTP/1.1 only clients that say `te: trailers` get them
    #[arg(long, value_name = "LIST")]
    pub trailers: Option<Trailers>,
    /// What goes wrong: `reset`, `close`, `cut`, `garbage`, `stall`, each with `:N` for "after N pieces", or `endless`
    #[arg(long, value_name = "FAULT")]
    pub fault: Option<Fault>,
}

impl Knobs {
    /// These knobs with those that the request's headers turn.
    ///
    /// # Errors
    /// A sentence that names the header: it is unknown or its value is not understood.
    pub(super) fn with_headers(&self, headers: &HeaderMap) -> Result<Self, String> {
        let mut knobs = self.clone();
        for (name, value) in headers {
            let Some(knob) = name.as_str().strip_prefix(PREFIX) else { continue };
            let text = value.to_str().map_err(|_| format!("{name}: not printable ASCII"))?;
            knobs.turn(knob, text).map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(knobs)
    }

    fn turn(&mut self, knob: &str, text: &str) -> Result<(), String> {
        match knob {
            "status" => self.status = Some(parse_status(text)?),
            "delay" => self.delay = Some(parse_time(text)?),
            "body" => self.body = Some(text.to_owned()),
            "body-base64" => self.body_base64 = Some(text.parse()?),
            "content-type" => self.content_type = Some(parse_header_value(text)?),
            "content" => self.content = Some(text.to_owned()),
            "usage" => self.usage = Some(text.parse()?),
            "chunks" => self.chunks = Some(parse_number(text)?),
            "pace" => self.pace = Some(parse_time(text)?),
            "usage-every-chunk" => self.usage_every_chunk = Some(parse_bool(text)?),
            "echo" => self.echo = Some(parse_bool(text)?),
            "encoding" => self.encoding = Some(text.parse()?),
            "trailers" => self.trailers = Some(text.parse()?),
            "fault" => self.fault = Some(text.parse()?),
            _ => return Err("there is no such knob; see `aigw testbackend --help`".to_owned()),
        }
        Ok(())
    }

    /// The exact body that was asked for.
    pub(super) fn raw_body(&self) -> Option<Bytes> {
        match (&self.body_base64, &self.body) {
            (Some(bytes), _) => Some(bytes.0.clone()),
            (None, Some(text)) => Some(Bytes::from(text.clone())),
            (None, None) => None,
        }
    }
}

/// What a stream or answer suffers. The number is how many pieces of the body pass first; 0 is "before the headers",
/// where that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset (TCP RST).
    Reset(u32),
    /// The connection is closed without the body's end (TCP FIN).
    Close(u32),
    /// Half of the next piece is sent, and then the body ends as if it were whole.
    Cut(u32),
    /// Bytes that are neither UTF-8 nor an event come in between.
    Garbage(u32),
    /// Nothing more is sent, and the connection stays open.
    Stall(u32),
    /// The pieces are repeated until the client goes.
    Endless,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, after) = match text.split_once(':') {
            Some((kind, after)) => (kind, parse_number(after)?),
            None => (text, 0),
        };
        match kind {
            "reset" => Ok(Self::Reset(after)),
            "close" => Ok(Self::Close(after)),
            "cut" => Ok(Self::Cut(after)),
            "garbage" => Ok(Self::Garbage(after)),
            "stall" => Ok(Self::Stall(after)),
            "endless" if !text.contains(':') => Ok(Self::Endless),
            _ => Err(format!(
                "`{text}` is not one of reset, close, cut, garbage, stall (each with `:N`) and endless"
            )),
        }
    }
}

/// Token counts as an OpenAI provider reports them: `prompt` includes `cached` and `cache_creation`, `completion`
/// includes `reasoning`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer.
    pub completion: u64,
    /// Prompt tokens read from a cache.
    pub cached: u64,
    /// Prompt tokens written to a cache.
    pub cache_creation: u64,
    /// Answer tokens spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// What is reported where nothing else was asked for.
    pub(super) const DEFAULT: Self =
        Self { prompt: 9, completion: 11, cached: 0, cache_creation: 0, reasoning: 0 };
}

impl FromStr for Usage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut usage = Self::default();
        for (name, value) in pairs(text) {
            let count = value.parse().map_err(|_| format!("`{name}={value}`: the count is not a number"))?;
            match name {
                "prompt" => usage.prompt = count,
                "completion" => usage.completion = count,
                "cached" => usage.cached = count,
                "cache-creation" => usage.cache_creation = count,
                "reasoning" => usage.reasoning = count,
                _ => {
                    return Err(format!(
                        "`{name}` is not one of prompt, completion, cached, cache-creation, reasoning"
                    ));
                }
            }
        }
        Ok(usage)
    }
}

/// Header fields sent after the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers(pub HeaderMap);

impl FromStr for Trailers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs(text) {
            let name = name.parse::<HeaderName>().map_err(|_| format!("`{name}` is not a header name"))?;
            map.append(name, parse_header_value(value)?);
        }
        Ok(Self(map))
    }
}

/// Bytes given as base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Bytes);

impl FromStr for Base64 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        STANDARD.decode(text).map(|bytes| Self(bytes.into())).map_err(|e| format!("not base64: {e}"))
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter(|item| !item.trim().is_empty()).map(|item| {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        (name.trim(), value.trim())
    })
}

fn parse_status(text: &str) -> Result<StatusCode, String> {
    // 1xx are not final answers.
    let status = text.parse::<StatusCode>().ok().filter(|status| status.as_u16() >= 200);
    status.ok_or_else(|| format!("`{text}` is not a status code from 200 to 999"))
}

fn parse_header_value(text: &str) -> Result<HeaderValue, String> {
    text.parse().map_err(|_| format!("`{text}` is not a header value"))
}

fn parse_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is not `true` or `false`"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let make = match unit {
        "us" => Duration::from_micros,
        "ms" => Duration::from_millis,
        "s" => Duration::from_secs,
        _ => return Err(format!("`{text}` is not a time such as `250ms`, `2s` or `100us`")),
    };
    // A day is more than any test waits, and keeps the sum of two times in range.
    match number.parse().map(make) {
        Ok(time) if time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err(format!("`{text}` is not a time from 0us to 86400s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_header_turns_each_knob_over_the_flag() {
        let flags =
            Knobs { status: Some(StatusCode::ACCEPTED), content: Some("kept".into()), ..Knobs::default() };
        let knobs = flags
            .with_headers(&headers(&[
                ("x-testbackend-status", "503"),
                ("x-testbackend-delay", "250ms"),
                ("x-testbackend-body-base64", "aGk="),
                ("x-testbackend-content-type", "text/plain"),
                ("x-testbackend-usage", "prompt=1, completion=2,cached=3,cache-creation=4,reasoning=5"),
                ("x-testbackend-chunks", "7"),
                ("x-testbackend-pace", "2s"),
                ("x-testbackend-usage-every-chunk", "true"),
                ("x-testbackend-echo", "false"),
                ("x-testbackend-encoding", "br"),
                ("x-testbackend-trailers", "a=1,b=2"),
                ("x-testbackend-fault", "cut:3"),
                ("x-other", "ignored"),
            ]))
            .unwrap();
        let expected = Knobs {
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            delay: Some(Duration::from_millis(250)),
            body: None,
            body_base64: Some(Base64(Bytes::from_static(b"hi"))),
            content_type: Some(HeaderValue::from_static("text/plain")),
            content: Some("kept".into()),
            usage: Some(Usage { prompt: 1, completion: 2, cached: 3, cache_creation: 4, reasoning: 5 }),
            chunks: Some(7),
            pace: Some(Duration::from_secs(2)),
            usage_every_chunk: Some(true),
            echo: Some(false),
            encoding: Some(Encoding::Brotli),
            trailers: Some(Trailers(headers(&[("a", "1"), ("b", "2")]))),
            fault: Some(Fault::Cut(3)),
        };
        assert_eq!(knobs, expected);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, value) in [
            ("status", "99"),
            ("status", "100"),
            ("delay", "5"),
            ("delay", "99999999s"),
            ("delay", "99999999999999999999s"),
            ("body-base64", "?"),
            ("usage", "prompt=many"),
            ("usage", "total=1"),
            ("chunks", "-1"),
            ("echo", "yes"),
            ("encoding", "zip"),
            ("trailers", "a b=1"),
            ("fault", "explode"),
            ("fault", "endless:3"),
            ("fault", "reset:x"),
            ("nonsense", "1"),
        ] {
            let header = format!("x-testbackend-{name}");
            let error = Knobs::default().with_headers(&headers(&[(&header, value)])).unwrap_err();
            assert!(error.starts_with(&format!("{header}: ")), "{error}");
        }
    }
}

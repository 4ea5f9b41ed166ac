//! L0. Content encodings of answers: <https://www.rfc-editor.org/rfc/rfc9110#section-8.4>.

use std::fmt;
use std::io::{self, BufRead, Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::MultiGzDecoder;

/// How much is decoded at once, in bytes.
const PIECE: usize = 16 << 10;

/// Why an encoded body cannot be read. After any error the decoder accepts nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what their encoding says, or go on after its end.
    #[error("the body is not valid {0}")]
    Malformed(Encoding),
    /// The body ended within its encoding.
    #[error("the {0} body ends too early")]
    Truncated(Encoding),
    /// One push decodes to more bytes than allowed.
    #[error("a piece of the body decodes to more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// The encodings that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952, of any number of members.
    Gzip,
    /// RFC 7932.
    Brotli,
}

impl Encoding {
    /// The encoding that a `content-encoding` header names; an empty one is none. `None` if it is not known here, as
    /// several at once are not.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        match value.trim_ascii() {
            b"" => Some(Self::Identity),
            name if name.eq_ignore_ascii_case(b"identity") => Some(Self::Identity),
            name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
                Some(Self::Gzip)
            }
            name if name.eq_ignore_ascii_case(b"br") => Some(Self::Brotli),
            _ => None,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        })
    }
}

/// Decodes one body that arrives in pieces. Every byte is decoded once, whatever the pieces are.
pub struct Decoder {
    kind: Kind,
    limit: usize,
    failure: Option<DecodeError>,
}

enum Kind {
    Identity,
    Gzip { decoder: Box<MultiGzDecoder<Pushed>>, empty: bool },
    Brotli { state: Box<Brotli>, progress: Progress },
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was pushed: an empty body needs no decoding.
    Empty,
    Inside,
    Ended,
}

impl Decoder {
    /// A decoder for the encoding a `content-encoding` header names, or `None` if that is unknown. One push may decode to
    /// `limit` bytes at most: what a hostile body can cost.
    #[must_use]
    pub fn new(content_encoding: &[u8], limit: usize) -> Option<Self> {
        Encoding::from_header(content_encoding).map(|encoding| Self::with_encoding(encoding, limit))
    }

    /// A decoder for an encoding; see [`Decoder::new`].
    #[must_use]
    pub fn with_encoding(encoding: Encoding, limit: usize) -> Self {
        let kind = match encoding {
            Encoding::Identity => Kind::Identity,
            Encoding::Gzip => {
                Kind::Gzip { decoder: Box::new(MultiGzDecoder::new(Pushed::default())), empty: true }
            }
            Encoding::Brotli => {
                let alloc = StandardAlloc::default;
                // Strict: windows of up to 16 MiB, which is what the encoding has over HTTP.
                let state = BrotliState::new_strict(alloc(), alloc(), alloc());
                Kind::Brotli { state: Box::new(state), progress: Progress::Empty }
            }
        };
        Self { kind, limit, failure: None }
    }

    /// The encoding that is decoded.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self.kind {
            Kind::Identity => Encoding::Identity,
            Kind::Gzip { .. } => Encoding::Gzip,
            Kind::Brotli { .. } => Encoding::Brotli,
        }
    }

    /// Appends what `input` decodes to. On an error `out` has what was decoded before it.
    ///
    /// # Errors
    /// When the input is not in the encoding or decodes to more than the limit. A push after an error fails the same way.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.push_with(input, |piece| out.extend_from_slice(piece))
    }

    /// As [`Decoder::push`], for callers that only look at the decoded bytes: they get them in small pieces, and nothing
    /// is kept.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn push_with(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if input.is_empty() {
            return Ok(());
        }
        let mut budget = Budget { left: self.limit, sink: &mut sink };
        let result = match &mut self.kind {
            Kind::Identity => budget.give(input),
            Kind::Gzip { decoder, empty } => {
                *empty = false;
                decoder.get_mut().push(input);
                gzip(decoder, &mut budget)
            }
            Kind::Brotli { state, progress } => brotli(state, progress, input, &mut budget),
        };
        result.map_err(|problem| self.fail(problem))
    }

    /// Says whether the body was complete.
    ///
    /// # Errors
    /// When it ended within its encoding, or an earlier push failed. A body without a single byte is complete.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let result = match &mut self.kind {
            Kind::Identity | Kind::Gzip { empty: true, .. } => Ok(()),
            Kind::Gzip { decoder, .. } => {
                decoder.get_mut().ended = true;
                gzip(decoder, &mut Budget { left: 0, sink: &mut |_| () })
            }
            Kind::Brotli { progress: Progress::Inside, .. } => Err(Problem::Truncated),
            Kind::Brotli { .. } => Ok(()),
        };
        result.map_err(|problem| self.fail(problem))
    }

    fn fail(&mut self, problem: Problem) -> DecodeError {
        let failure = match problem {
            Problem::Malformed => DecodeError::Malformed(self.encoding()),
            Problem::Truncated => DecodeError::Truncated(self.encoding()),
            Problem::TooLarge => DecodeError::TooLarge { limit: self.limit },
        };
        self.failure = Some(failure);
        failure
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("encoding", &self.encoding()).field("failure", &self.failure).finish()
    }
}

enum Problem {
    Malformed,
    Truncated,
    TooLarge,
}

/// Where decoded bytes go, as long as there are not too many.
struct Budget<'a> {
    left: usize,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl Budget<'_> {
    fn give(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let within = &piece[..piece.len().min(self.left)];
        self.left -= within.len();
        (self.sink)(within);
        if within.len() < piece.len() { Err(Problem::TooLarge) } else { Ok(()) }
    }
}

fn gzip(decoder: &mut MultiGzDecoder<Pushed>, budget: &mut Budget<'_>) -> Result<(), Problem> {
    let mut buffer = [0; PIECE];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => budget.give(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Problem::Truncated),
            Err(_) => return Err(Problem::Malformed),
        }
    }
}

fn brotli(
    state: &mut Brotli,
    progress: &mut Progress,
    input: &[u8],
    budget: &mut Budget<'_>,
) -> Result<(), Problem> {
    if *progress == Progress::Ended {
        return Err(Problem::Malformed);
    }
    *progress = Progress::Inside;
    let mut buffer = [0; PIECE];
    let (mut input_left, mut input_at) = (input.len(), 0);
    loop {
        let (mut room, mut written, mut total) = (PIECE, 0, 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut input_at,
            input,
            &mut room,
            &mut written,
            &mut buffer,
            &mut total,
            state,
        );
        budget.give(&buffer[..written])?;
        match result {
            BrotliResult::NeedsMoreInput => return Ok(()),
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess => {
                *progress = Progress::Ended;
                return if input_left == 0 { Ok(()) } else { Err(Problem::Malformed) };
            }
            BrotliResult::ResultFailure => return Err(Problem::Malformed),
        }
    }
}

/// The input of the gzip decoder: what was pushed and not consumed so far.
#[derive(Debug, Default)]
struct Pushed {
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Pushed {
    fn push(&mut self, input: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(input);
    }
}

impl BufRead for Pushed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.bytes.len() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.bytes.len().min(self.at + amount);
    }
}

impl Read for Pushed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;

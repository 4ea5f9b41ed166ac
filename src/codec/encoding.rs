//! L0. Content encodings of answers: <https://www.rfc-editor.org/rfc/rfc9110#section-8.4>.

use std::fmt;
use std::io::{self, Write};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::MultiGzDecoder;

/// How much brotli output is decoded at once, in bytes.
const PIECE: usize = 16 << 10;

/// How much gzip input is decoded at once, in bytes. Deflate makes at most 1,032 bytes of one, so that this bounds what is
/// held to about half a megabyte.
const GZIP_PIECE: usize = 512;

/// Why an encoded body cannot be read. After any error the decoder accepts nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what their encoding says, or go on after its end.
    #[error("the body is not valid {0}")]
    Malformed(Encoding),
    /// The body ended within its encoding, or its last checksum is wrong.
    #[error("the {0} body ends too early or is damaged")]
    Incomplete(Encoding),
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
    Gzip { decoder: Box<MultiGzDecoder<Decoded>>, empty: bool },
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
                Kind::Gzip { decoder: Box::new(MultiGzDecoder::new(Decoded::default())), empty: true }
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
                gzip(decoder, input, &mut budget)
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
            Kind::Gzip { decoder, .. } => decoder.try_finish().map_err(|_| Problem::Incomplete),
            Kind::Brotli { progress: Progress::Inside, .. } => Err(Problem::Incomplete),
            Kind::Brotli { .. } => Ok(()),
        };
        result.map_err(|problem| self.fail(problem))
    }

    fn fail(&mut self, problem: Problem) -> DecodeError {
        let failure = match problem {
            Problem::Malformed => DecodeError::Malformed(self.encoding()),
            Problem::Incomplete => DecodeError::Incomplete(self.encoding()),
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
    Incomplete,
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

fn gzip(decoder: &mut MultiGzDecoder<Decoded>, input: &[u8], budget: &mut Budget<'_>) -> Result<(), Problem> {
    let mut pieces = input.chunks(GZIP_PIECE).peekable();
    while let Some(piece) = pieces.next() {
        decoder.get_mut().left = budget.left;
        let mut result = decoder.write_all(piece);
        if pieces.peek().is_none() {
            // Decoded bytes that are ready may not wait for more input.
            result = result.and_then(|()| decoder.flush());
        }
        let decoded = decoder.get_mut();
        budget.give(&decoded.bytes)?;
        decoded.bytes.clear();
        if decoded.too_large {
            return Err(Problem::TooLarge);
        }
        result.map_err(|_| Problem::Malformed)?;
    }
    Ok(())
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

/// The output of the gzip decoder that was not handed on so far.
#[derive(Debug, Default)]
struct Decoded {
    bytes: Vec<u8>,
    /// How many more bytes are allowed.
    left: usize,
    too_large: bool,
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let within = bytes.len().min(self.left);
        self.bytes.extend_from_slice(&bytes[..within]);
        self.left -= within;
        if within < bytes.len() {
            self.too_large = true;
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(within)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The bytes of an answer with its content encoding taken off.

use bytes::Bytes;

use crate::codec::encoding::{DecodeError, Decoder};

/// As many decoded bytes as one chunk may become. Past that, a chunk is a bomb rather than an answer.
const MAX_DECODED_CHUNK: usize = 64 * 1024 * 1024;

/// Takes the content encoding off chunk by chunk.
#[derive(Debug)]
pub(super) enum Decoding {
    /// There is none.
    Identity,
    /// There is one that can be read.
    Compressed(Box<Decoder>),
    /// There is one that cannot be read.
    Unknown,
    /// The encoding turned out to be broken; nothing more is read.
    Broken,
}

impl Decoding {
    /// By the value of `content-encoding`; empty means none.
    pub(super) fn of(coding: &str) -> Self {
        if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
            return Self::Identity;
        }
        Decoder::new(coding.as_bytes(), MAX_DECODED_CHUNK)
            .map_or(Self::Unknown, |decoder| Self::Compressed(Box::new(decoder)))
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Self::Compressed(_))
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// The decoded bytes, for readers that can do without: nothing where they cannot be read.
    pub(super) fn lenient(&mut self, chunk: &Bytes) -> Option<Bytes> {
        match self {
            Self::Identity => Some(chunk.clone()),
            Self::Compressed(decoder) => {
                let text = push(decoder, chunk).ok();
                if text.is_none() {
                    *self = Self::Broken;
                }
                text
            }
            Self::Unknown | Self::Broken => None,
        }
    }

    /// The decoded bytes, for readers whose output takes the place of the chunk; `end` demands that the encoding is
    /// complete. What cannot be decoded at all passes as it is.
    pub(super) fn strict(&mut self, chunk: &Bytes, end: bool) -> Result<Bytes, DecodeError> {
        let Self::Compressed(decoder) = self else { return Ok(chunk.clone()) };
        let text = push(decoder, chunk)?;
        if end {
            decoder.finish()?;
        }
        Ok(text)
    }
}

fn push(decoder: &mut Decoder, chunk: &Bytes) -> Result<Bytes, DecodeError> {
    let mut text = Vec::with_capacity(chunk.len().saturating_mul(4));
    decoder.push(chunk, &mut text)?;
    Ok(text.into())
}

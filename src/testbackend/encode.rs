//! Compression of an answer, piece by piece: what went in before a flush can be decoded before the next piece comes.

use std::io::{self, Write};
use std::str::FromStr;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A content-encoding to answer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// The first of gzip and br that the request's accept-encoding names.
    Auto,
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "identity" => Ok(Self::Identity),
            "gzip" => Ok(Self::Gzip),
            "br" => Ok(Self::Brotli),
            "auto" => Ok(Self::Auto),
            _ => Err(format!("`{text}` is not one of gzip, br, identity, auto")),
        }
    }
}

/// A running encoder.
pub(super) enum Encoder {
    Identity,
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    pub(super) fn new(encoding: Encoding, accept: &str) -> Self {
        match encoding {
            Encoding::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::fast()))),
            Encoding::Brotli => {
                Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 4, 20)))
            }
            Encoding::Identity => Self::Identity,
            Encoding::Auto => {
                let first =
                    accept.split(',').filter_map(|item| match item.split(';').next().map(str::trim) {
                        Some("gzip") => Some(Encoding::Gzip),
                        Some("br") => Some(Encoding::Brotli),
                        _ => None,
                    });
                Self::new(first.into_iter().next().unwrap_or(Encoding::Identity), "")
            }
        }
    }

    /// The value of the content-encoding header, where there is one.
    pub(super) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip(_) => Some("gzip"),
            Self::Brotli(_) => Some("br"),
        }
    }

    /// The piece encoded and flushed.
    pub(super) fn push(&mut self, piece: Bytes) -> io::Result<Bytes> {
        match self {
            Self::Identity => Ok(piece),
            Self::Gzip(encoder) => {
                encoder.write_all(&piece)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Brotli(encoder) => {
                encoder.write_all(&piece)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
        }
    }

    /// What belongs after the last piece.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Identity => Ok(Bytes::new()),
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Brotli(encoder) => Ok(encoder.into_inner().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_can_be_read_as_they_come_and_the_whole_is_valid() {
        for (encoding, decode) in [
            (
                Encoding::Gzip,
                (|b| Box::new(flate2::read::MultiGzDecoder::new(b))) as fn(&[u8]) -> Box<dyn Read + '_>,
            ),
            (Encoding::Brotli, |b| Box::new(brotli_decompressor::Decompressor::new(b, 4096))),
        ] {
            let mut encoder = Encoder::new(encoding, "");
            let mut wire = encoder.push(Bytes::from_static(b"data: one\n\n")).unwrap().to_vec();
            let mut early = [0; 11];
            decode(&wire).read_exact(&mut early).unwrap();
            assert_eq!(&early, b"data: one\n\n", "{encoding:?}");
            wire.extend(encoder.push(Bytes::from_static(b"data: two\n\n")).unwrap());
            wire.extend(encoder.finish().unwrap());
            let mut all = String::new();
            decode(&wire).read_to_string(&mut all).unwrap();
            assert_eq!(all, "data: one\n\ndata: two\n\n", "{encoding:?}");
        }
    }

    #[test]
    fn auto_takes_the_first_it_can_from_accept_encoding() {
        let name = |accept| Encoder::new(Encoding::Auto, accept).name();
        assert_eq!(name("zstd, br;q=0.5, gzip"), Some("br"));
        assert_eq!(name("gzip, deflate"), Some("gzip"));
        assert_eq!(name("deflate"), None);
        assert_eq!(name(""), None);
    }
}

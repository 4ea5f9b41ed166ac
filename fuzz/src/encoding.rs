//! The first byte chooses the encoding, the second how large chunks are; the rest is the body.

use ai_gateway::codec::encoding::{DecodeError, Decoder, Encoding};

const LIMIT: usize = 1 << 16;

fn decode(encoding: Encoding, body: &[u8], size: usize) -> (Vec<u8>, Result<(), DecodeError>) {
    let mut decoder = Decoder::with_encoding(encoding, LIMIT);
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        let before = out.len();
        let result = decoder.push(chunk, &mut out);
        assert!(out.len() - before <= LIMIT);
        if result.is_err() {
            return (out, result);
        }
    }
    let result = decoder.finish();
    (out, result)
}

pub fn run(data: &[u8]) {
    let [encoding, size, body @ ..] = data else { return };
    let encoding = if encoding % 2 == 0 { Encoding::Gzip } else { Encoding::Brotli };
    let (whole, result) = decode(encoding, body, body.len().max(1));
    let (chunked, chunked_result) = decode(encoding, body, usize::from(*size).max(1));
    if result.is_ok() {
        assert_eq!((&chunked, chunked_result), (&whole, Ok(())));
    } else {
        // How far it gets before an error depends on the chunks, and so does the limit, which is one of each push.
        assert!(chunked.starts_with(&whole) || whole.starts_with(&chunked));
    }
}

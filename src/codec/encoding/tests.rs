use std::io::Write;

use flate2::Compression;
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

/// What [`text`] returns, compressed by the reference implementation of brotli with a window of 18 bits.
const BROTLI: &[u8] = &[
    0x13, 0x7b, 0x01, 0xf8, 0x8d, 0xd3, 0x1d, 0xb5, 0x28, 0xaa, 0xa7, 0x51, 0x2a, 0x88, 0xe8, 0x34, 0x48,
    0xcc, 0x5e, 0x9f, 0x14, 0x64, 0x14, 0xda, 0xd2, 0x02, 0x11, 0x32, 0xa1, 0xa9, 0xd9, 0x48, 0x3b, 0x01,
];

fn text() -> Vec<u8> {
    b"data: {\"usage\":1}\n\n".repeat(20)
}

fn gzip_of(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Brotli with the text stored as it is (RFC 7932, section 9.2): window of 16 bits, uncompressed meta-blocks, an empty
/// last one.
fn stored_brotli_of(text: &[u8]) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![false];
    let push = |bits: &mut Vec<bool>, value: usize, count: usize| {
        bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
    };
    for block in text.chunks(1 << 16) {
        // Not last, length in 4 nibbles, uncompressed.
        push(&mut bits, 0, 1);
        push(&mut bits, 0, 2);
        push(&mut bits, block.len() - 1, 16);
        push(&mut bits, 1, 1);
        while !bits.len().is_multiple_of(8) {
            bits.push(false);
        }
        for byte in block {
            push(&mut bits, usize::from(*byte), 8);
        }
    }
    push(&mut bits, 0b11, 2);
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |value, bit| value << 1 | u8::from(*bit))).collect()
}

fn decode(encoding: &str, chunks: &[&[u8]], limit: usize) -> (Vec<u8>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(encoding.as_bytes(), limit).expect("a known encoding");
    let mut out = Vec::new();
    let result = chunks.iter().try_for_each(|chunk| decoder.push(chunk, &mut out));
    (out, result.and_then(|()| decoder.finish()))
}

#[test]
fn headers_name_encodings() {
    for (header, encoding) in [
        ("", Some(Encoding::Identity)),
        ("identity", Some(Encoding::Identity)),
        ("gzip", Some(Encoding::Gzip)),
        (" GZip ", Some(Encoding::Gzip)),
        ("x-gzip", Some(Encoding::Gzip)),
        ("br", Some(Encoding::Brotli)),
        ("zstd", None),
        ("deflate", None),
        ("gzip, br", None),
    ] {
        assert_eq!(Encoding::from_header(header.as_bytes()), encoding, "{header}");
        assert_eq!(Decoder::new(header.as_bytes(), 1).map(|decoder| decoder.encoding()), encoding);
    }
}

#[test]
fn compressed_brotli() {
    for cut in 0..=BROTLI.len() {
        assert_eq!(decode("br", &[&BROTLI[..cut], &BROTLI[cut..]], LIMIT), (text(), Ok(())));
    }
}

#[test]
fn gzip_members_are_joined_wherever_the_cut_is() {
    let named = GzBuilder::new().filename("name").comment("comment").extra("extra");
    let mut encoder = named.write(Vec::new(), Compression::best());
    encoder.write_all(b"second").unwrap();
    let body = [gzip_of(b"first "), encoder.finish().unwrap(), gzip_of(b"")].concat();
    for cut in 0..=body.len() {
        let (out, result) = decode("gzip", &[&body[..cut], &body[cut..]], LIMIT);
        assert_eq!((&out[..], result), (&b"first second"[..], Ok(())), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(decode("gzip", &bytes, LIMIT), (b"first second".to_vec(), Ok(())));
}

#[test]
fn an_incomplete_tail_is_an_error_at_the_end_only() {
    for (encoding, body) in [("gzip", gzip_of(b"hello")), ("br", BROTLI.to_vec())] {
        for end in 1..body.len() {
            let mut decoder = Decoder::new(encoding.as_bytes(), LIMIT).unwrap();
            assert_eq!(decoder.push(&body[..end], &mut Vec::new()), Ok(()), "{encoding} {end}");
            assert_eq!(
                decoder.finish(),
                Err(DecodeError::Incomplete(decoder.encoding())),
                "{encoding} {end}"
            );
        }
    }
}

#[test]
fn an_empty_body_is_complete() {
    for encoding in ["", "gzip", "br"] {
        assert_eq!(decode(encoding, &[], LIMIT), (Vec::new(), Ok(())));
        assert_eq!(decode(encoding, &[b"", b""], LIMIT), (Vec::new(), Ok(())));
    }
}

#[test]
fn what_is_flushed_comes_out_at_once() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut decoder = Decoder::new(b"gzip", LIMIT).unwrap();
    for round in 0..50_usize {
        // Longer than any window or buffer of the decoder from time to time.
        let text = format!("data: {round}\n\n").repeat(1 + round * 200);
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.flush().unwrap();
        let sent = std::mem::take(encoder.get_mut());
        let mut out = Vec::new();
        decoder.push(&sent, &mut out).unwrap();
        assert_eq!(out.len(), text.len(), "round {round}");
        assert!(out == text.as_bytes());
    }
}

#[test]
fn garbage_is_malformed_and_stays_so() {
    let good = gzip_of(b"hello");
    let trailing = [&good[..], b"x-------------------"].concat();
    let mut flipped = good.clone();
    flipped[10] ^= 0xff;
    for body in [&b"this is not gzip"[..], &trailing, &flipped] {
        let mut decoder = Decoder::new(b"gzip", LIMIT).unwrap();
        let failure = DecodeError::Malformed(Encoding::Gzip);
        assert_eq!(decoder.push(body, &mut Vec::new()), Err(failure));
        assert_eq!(decoder.push(&good, &mut Vec::new()), Err(failure));
        assert_eq!(decoder.finish(), Err(failure));
    }
    let mut damaged = good;
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    assert_eq!(decode("gzip", &[&damaged], LIMIT).1, Err(DecodeError::Incomplete(Encoding::Gzip)));

    for body in [&[BROTLI, b"x"].concat()[..], &[0xff; 64]] {
        assert_eq!(decode("br", &[body], LIMIT).1, Err(DecodeError::Malformed(Encoding::Brotli)));
    }
}

#[test]
fn one_push_never_yields_more_than_the_limit() {
    let zeros = vec![0; 100_000];
    for (encoding, body) in [("gzip", gzip_of(&zeros)), ("br", stored_brotli_of(&zeros)), ("", zeros.clone())]
    {
        let (out, result) = decode(encoding, &[&body], 99_999);
        assert_eq!((out.len(), result), (99_999, Err(DecodeError::TooLarge { limit: 99_999 })), "{encoding}");
        assert_eq!(decode(encoding, &[&body], 100_000), (zeros.clone(), Ok(())), "{encoding}");
    }
}

#[test]
fn lookers_get_small_pieces() {
    let zeros = vec![0; 50 << 20];
    let mut decoder = Decoder::new(b"gzip", usize::MAX).unwrap();
    let (mut total, mut largest) = (0, 0);
    decoder
        .push_with(&gzip_of(&zeros), |piece| {
            total += piece.len();
            largest = largest.max(piece.len());
        })
        .unwrap();
    assert_eq!(total, zeros.len());
    assert!(largest <= 1 << 20, "{largest}");
}

proptest! {
    #[test]
    fn the_split_into_chunks_never_matters(text in prop::collection::vec(any::<u8>(), 0..100), size in 1_usize..20) {
        for (encoding, body) in [("gzip", gzip_of(&text)), ("br", stored_brotli_of(&text)), ("identity", text.clone())] {
            for cut in 0..=body.len() {
                let (out, result) = decode(encoding, &[&body[..cut], &body[cut..]], LIMIT);
                prop_assert_eq!((&out, result), (&text, Ok(())));
            }
            let chunks: Vec<&[u8]> = body.chunks(size).collect();
            let (out, result) = decode(encoding, &chunks, LIMIT);
            prop_assert_eq!((&out, result), (&text, Ok(())));
        }
    }

    #[test]
    fn hostile_bodies_end_in_an_error_or_within_the_limit(
        body in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::option::of((0_usize..30, any::<u8>())),
    ) {
        for encoding in ["gzip", "br"] {
            let mut body = body.clone();
            if let Some((at, byte)) = damage {
                body = if encoding == "gzip" { gzip_of(&body) } else { stored_brotli_of(&body) };
                let at = at % body.len();
                body[at] = byte;
            }
            let whole = decode(encoding, &[&body], 4096);
            prop_assert!(whole.0.len() <= 4096);
            let (bytes, _) = decode(encoding, &body.chunks(1).collect::<Vec<_>>(), 4096);
            prop_assert!(bytes.starts_with(&whole.0) || whole.0.starts_with(&bytes));
        }
    }
}

//! What is no text, or is not written as one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::text::{self, Costs};

/// Tokens of a sound in a compressed format. The fewest bytes a second that speech is sent in are 1,000, and the most tokens a second
/// that a provider counts are 32.
pub(super) fn sound(bytes: u64) -> u64 {
    bytes / 31 + 64
}

/// Tokens of a sound as samples, of which there are at least 8,000 bytes a second.
pub(super) fn samples(bytes: u64) -> u64 {
    bytes / 240 + 64
}

/// Tokens of a document of pages. A page takes 5 KiB or more, and is read as a text and as an image; and who says that it is a document may send
/// a text. Only a document that was made to deceive holds more than its length tells.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes + 5_000
}

/// Sixteenths of a token of a plain text in base64. What is none is bounded by its bytes.
pub(super) fn plain(base64: &str, costs: &Costs) -> u64 {
    const PIECE: usize = 4096;
    let mut piece = [0; PIECE / 4 * 3];
    // Each piece may break one token and one character.
    let measured = |text: &[u8], more| text::sixteenths(str::from_utf8(text).ok()?, costs).checked_add(more);
    let of = |letters: &[u8]| {
        let whole = letters.len() as u64 * 16;
        let Ok(length) = STANDARD_NO_PAD.decode_slice(letters, &mut piece) else { return whole };
        let text = piece.get(..length).unwrap_or_default();
        let broken = |byte: &&u8| (0x80..0xc0).contains(*byte);
        let start = text.iter().take(3).take_while(broken).count();
        let end =
            text.iter().rev().take(4).position(|byte| *byte >= 0xc0).map_or(length, |last| length - last - 1);
        measured(text.get(start..end.max(start)).unwrap_or_default(), 16 * 8).unwrap_or(length as u64 * 16)
    };
    base64.trim_end_matches('=').as_bytes().chunks(PIECE).map(of).sum::<u64>() + 16
}

/// Tokens of what only a provider can read, such as reasoning that it hands out under a seal.
pub(super) fn sealed(bytes: u64) -> u64 {
    bytes / 3 + 16
}

/// The length of what base64 of that length holds.
pub(super) fn decoded(base64: usize) -> u64 {
    base64 as u64 / 4 * 3 + 3
}

//! What is no text, by its length in bytes.

/// Tokens of a sound in a compressed format. The fewest bytes a second that speech is sent in are 1,000, and the most tokens a second
/// that a provider counts are 32.
pub(super) fn sound(bytes: u64) -> u64 {
    bytes / 31 + 64
}

/// Tokens of a sound as samples, of which there are at least 8,000 bytes a second.
pub(super) fn samples(bytes: u64) -> u64 {
    bytes / 240 + 64
}

/// Tokens of a document of pages. A page takes 5 KiB or more, and is read as a text and as an image.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes / 4 * 3 + 5_000
}

/// Tokens of a plain text whose characters are not looked at.
pub(super) fn plain(bytes: u64) -> u64 {
    bytes / 8 * 5 + 16
}

/// Tokens of what only a provider can read, such as reasoning that it hands out under a seal.
pub(super) fn sealed(bytes: u64) -> u64 {
    bytes / 3 + 16
}

/// The length of what base64 of that length holds.
pub(super) fn decoded(base64: usize) -> u64 {
    base64 as u64 / 4 * 3 + 3
}

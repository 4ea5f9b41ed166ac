//! What of OpenAI's two public vocabularies the measure of texts rests on. It was taken out of them, and a test takes it out again and
//! compares; the vocabularies themselves are a hundred times as large and stay unread where nothing asks for a tokenizer.

use std::sync::LazyLock;

#[cfg(test)]
pub(super) mod tests;

/// Words of three letters and more that are one token of both vocabularies, alone and after a space, and that a punctuation mark
/// before them does not break.
const WORDS: &str = include_str!("vocabulary/words.txt");
/// The tables, one after another.
const TABLES: &[u8; TABLES_LENGTH] = include_bytes!("vocabulary/tables.bin");

/// A space, capitals, small letters.
const ALPHABET: usize = 53;
const TRIPLES: usize = (ALPHABET * ALPHABET * ALPHABET).div_ceil(8);
const PAIRS: usize = (ALPHABET * ALPHABET).div_ceil(8);
/// Two bits a character: of three bytes and fewer, and of the plane's part that has emoji.
const LENGTHS: usize = (0x1_0000 + 0x1000) / 4;
/// 128 by 128 characters.
const BLOCK: usize = 128 * 128 / 8;
/// Scripts of which pairs of letters are known: Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai.
const BLOCKS: [u32; 6] = [0x380, 0x400, 0x580, 0x600, 0x900, 0xe00];
/// In a block's table, the row of what stands after a space. The character that it belonged to is hardly ever written.
const AFTER_SPACE: usize = 127;
const OWN: usize = LENGTHS + BLOCKS.len() * BLOCK;
const TABLES_LENGTH: usize = TRIPLES + PAIRS + 2 * OWN;

/// The letters that a word of the list has.
const SHORTEST: usize = 3;
const LONGEST: usize = 16;
/// Slots for words: some three times as many as there are.
const SLOTS: usize = 1 << 15;

/// One of the vocabularies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    O200k,
    Cl100k,
}

impl Vocabulary {
    fn own(self) -> usize {
        TRIPLES + PAIRS + self as usize * OWN
    }

    /// How many tokens a character is, alone or after a space or punctuation mark: one to four.
    pub(super) fn length(self, character: char) -> u64 {
        let index = match character as u32 {
            code @ ..=0xffff => code as usize,
            code @ 0x1_f000..=0x1_ffff => (code - 0xf000) as usize,
            _ => return 4,
        };
        let byte = TABLES.get(self.own() + index / 4).copied().unwrap_or(u8::MAX);
        u64::from(byte >> (index % 4 * 2) & 3) + 1
    }

    /// Whether a letter is one token with what stands before it, a letter of the same script or a space, and both are alone.
    pub(super) fn joins(self, before: char, letter: char) -> bool {
        let Some((block, column)) = place(letter) else { return false };
        let row = match place(before) {
            Some((other, row)) if other == block && row != AFTER_SPACE => row,
            None if before == ' ' => AFTER_SPACE,
            _ => return false,
        };
        bit(self.own() + LENGTHS + block * BLOCK, row * 128 + column)
    }
}

/// Which block a character is in, and where.
fn place(character: char) -> Option<(usize, usize)> {
    let code = character as u32;
    let block = BLOCKS.iter().position(|start| *start == code & !127)?;
    Some((block, (code & 127) as usize))
}

/// The place of an ASCII letter, or of the space, among those that pairs and triples are made of.
pub(super) fn letter(byte: u8) -> usize {
    match byte {
        b'A'..=b'Z' => usize::from(byte - b'A') + 1,
        b'a'..=b'z' => usize::from(byte - b'a') + 27,
        _ => 0,
    }
}

/// Whether two letters are a token of both vocabularies.
pub(super) fn is_pair(a: usize, b: usize) -> bool {
    bit(TRIPLES, a * ALPHABET + b)
}

/// Whether three letters are a token of both vocabularies.
pub(super) fn is_triple(a: usize, b: usize, c: usize) -> bool {
    bit(0, (a * ALPHABET + b) * ALPHABET + c)
}

fn bit(start: usize, index: usize) -> bool {
    TABLES.get(start + index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// Whether letters are one token of both vocabularies, alone, after a space and, with one more for it, after a punctuation mark.
pub(super) fn is_word(letters: &[u8]) -> bool {
    static FOUND: LazyLock<Box<[u128]>> = LazyLock::new(index);
    let Some(word) = packed(letters) else { return false };
    let slots = FOUND.iter().cycle().skip(slot(word));
    slots.take_while(|found| **found != 0).any(|found| *found == word)
}

/// The words, each where its hash says or after it; the rest are zeros, so that every search ends.
fn index() -> Box<[u128]> {
    let mut slots = vec![0; SLOTS].into_boxed_slice();
    for word in WORDS.lines().filter_map(|word| packed(word.as_bytes())) {
        let free = (0..SLOTS).map(|step| (slot(word) + step) % SLOTS).find(|slot| slots[*slot] == 0);
        if let Some(free) = free {
            slots[free] = word;
        }
    }
    slots
}

/// The letters of a word as one number, if there are as many as words of the list have.
fn packed(letters: &[u8]) -> Option<u128> {
    if !(SHORTEST..=LONGEST).contains(&letters.len()) {
        return None;
    }
    let mut bytes = [0; LONGEST];
    bytes[..letters.len()].copy_from_slice(letters);
    Some(u128::from_le_bytes(bytes))
}

/// The list is fixed, so nobody can make its words clash.
fn slot(word: u128) -> usize {
    let mixed = (word as u64 ^ ((word >> 64) as u64).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 49) as usize
}

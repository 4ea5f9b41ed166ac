//! How many tokens a text can be at most, in one pass and without a tokenizer.
//!
//! It rests on two properties of byte-pair encoders. A word that is in the vocabulary is one token; and of two tokens that stand side by
//! side, no third is made of both, or the encoder had joined them. So the tables of [`super::vocabulary`] say which words are one
//! token, and bound into how many pieces any other letters can fall: not one letter beside another that it makes a token with. A character
//! that is not ASCII counts as what it is alone. A text is never more tokens than it has bytes.

use super::vocabulary::{self, Vocabulary};

/// How a family's tokens come of those of a vocabulary.
#[derive(Debug)]
pub(super) struct Costs {
    vocabulary: Vocabulary,
    /// What is one token there, in sixteenths of a token here.
    token: u64,
    /// How many digits are one token.
    digits: u64,
    /// A word of the list within a longer run of letters (`getName`), in sixteenths in addition: some vocabularies do not cut there.
    inner: u64,
    /// One more space, tab or line feed of several, in sixteenths.
    blank: u64,
    /// A letter of the Indic and South East Asian scripts, at least, in sixteenths.
    brahmic: u64,
}

impl Costs {
    pub(super) const O200K: Self =
        Self { vocabulary: Vocabulary::O200k, token: 16, digits: 3, inner: 0, blank: 1, brahmic: 0 };
    pub(super) const CL100K: Self =
        Self { vocabulary: Vocabulary::Cl100k, token: 16, digits: 3, inner: 8, blank: 1, brahmic: 0 };
    /// As many again by half, and each digit for itself.
    pub(super) const ANTHROPIC: Self =
        Self { vocabulary: Vocabulary::Cl100k, token: 24, digits: 1, inner: 8, blank: 3, brahmic: 36 };
    pub(super) const OTHER: Self =
        Self { vocabulary: Vocabulary::Cl100k, token: 20, digits: 1, inner: 8, blank: 3, brahmic: 0 };

    /// So many tokens of the vocabulary, of so many bytes.
    fn of(&self, tokens: u64, bytes: usize) -> u64 {
        (tokens * self.token).min(bytes as u64 * 16)
    }

    /// A character that is not ASCII, and whether it is a token together with the one before it.
    fn character(&self, before: char, character: char, chained: bool) -> (u64, bool) {
        let bytes = character.len_utf8();
        let whole = match character {
            // Of these other vocabularies have hardly any.
            '\u{300}'..='\u{36f}' | '\u{ff10}'..='\u{ff5a}' | '\u{10000}'.. => self.token > 16,
            _ => false,
        };
        if whole {
            return (bytes as u64 * 16, false);
        }
        let alone = self.of(self.vocabulary.length(character), bytes);
        if self.brahmic > 0 && matches!(character, '\u{900}'..='\u{109f}') {
            return (alone.max(self.brahmic), false);
        }
        let joins = self.vocabulary.joins(before, character);
        // Of three letters in a row, each of which makes a token with the next, at most two are tokens. A neighbour that is several
        // tokens itself may tear one, so that two are not enough to be sure.
        let saves = joins && chained;
        (if saves { alone.min(self.token * 11 / 16) } else { alone }, joins)
    }
}

/// Texts beyond that length are not looked at: each byte is a token.
const MAX_READ: usize = 4 * 1024 * 1024;

/// The most tokens a text can be, in sixteenths.
pub(super) fn sixteenths(text: &str, costs: &Costs) -> u64 {
    let read = &text[..text.floor_char_boundary(MAX_READ)];
    let bytes = read.as_bytes();
    let (mut total, mut at) = (0, 0);
    // What stands before.
    let mut before = '\n';
    // Whether that is a token together with what is before it.
    let mut chained = false;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let (cost, taken) = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {
                let letters = &rest[..run(rest, u8::is_ascii_alphabetic)];
                let follows = rest.get(letters.len()).is_some_and(|next| !next.is_ascii());
                let cost = match before {
                    '\'' => after_apostrophe(letters, costs),
                    _ if follows || !before.is_ascii() => pieces(letters, before == ' ', costs),
                    _ => word(letters, before == ' ', costs),
                };
                (cost, letters.len())
            }
            b'0'..=b'9' => {
                let digits = run(rest, u8::is_ascii_digit);
                ((digits as u64).div_ceil(costs.digits) * 16, digits)
            }
            b' ' | b'\t' | b'\n' => {
                let same = run(rest, |next| *next == byte);
                match rest.get(same) {
                    // Of several the last goes with what follows.
                    _ if same > 1 => (16 + (same as u64 - 1) * costs.blank, same - 1),
                    Some(next)
                        if byte == b' ' && (next.is_ascii_alphabetic() || next.is_ascii_punctuation()) =>
                    {
                        (0, 1)
                    }
                    _ => (16, 1),
                }
            }
            0..0x80 => (16, 1),
            _ => {
                let Some(character) = read[at..].chars().next() else { break };
                let cost;
                (cost, chained) = costs.character(before, character, chained);
                before = character;
                (cost, character.len_utf8())
            }
        };
        total += cost;
        at += taken;
        if byte.is_ascii() {
            (before, chained) = (char::from(byte), false);
        }
    }
    (total + (text.len() - read.len()) as u64 * 16).min(text.len() as u64 * 16)
}

/// What a text is longer by, in sixteenths, if it is shown as JSON writes it.
pub(super) fn escapes(text: &str) -> u64 {
    let more = |byte: u8| match byte {
        b'"' | b'\\' | b'\t' | b'\n' | b'\r' => 16,
        0..0x20 => 64,
        _ => 0,
    };
    text.bytes().map(more).sum()
}

/// How many bytes of a kind stand at the start.
fn run(bytes: &[u8], wanted: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().position(|byte| !wanted(byte)).unwrap_or(bytes.len())
}

/// Whether another word begins with the second of two letters.
fn is_inner(pair: &[u8]) -> bool {
    matches!(pair, [first, second] if first.is_ascii_lowercase() && second.is_ascii_uppercase())
}

/// Letters whose neighbours may tear them: none is a word for sure.
fn pieces(letters: &[u8], spaced: bool, costs: &Costs) -> u64 {
    costs.of(most_pieces(letters, spaced), letters.len() + usize::from(spaced))
}

/// Letters after an apostrophe, which may begin with an abbreviation that is cut off.
fn after_apostrophe(letters: &[u8], costs: &Costs) -> u64 {
    let starts = |start: &[u8]| letters.get(..start.len()).is_some_and(|of| of.eq_ignore_ascii_case(start));
    let short = [&b"s"[..], b"t", b"m", b"d", b"re", b"ve", b"ll"].into_iter().find(|start| starts(start));
    let (short, rest) = letters.split_at(short.map_or(0, <[u8]>::len));
    pieces(letters, false, costs).max(pieces(short, false, costs) + pieces(rest, false, costs))
}

/// A run of letters, with the space before it.
fn word(letters: &[u8], spaced: bool, costs: &Costs) -> u64 {
    if vocabulary::is_word(letters) {
        return costs.token;
    }
    // Words of the list within it, and what is between them.
    let (mut total, mut start, mut end) = (0, 0, 0);
    for part in letters.chunk_by(|first, second| !is_inner(&[*first, *second])) {
        if part.len() < letters.len() && vocabulary::is_word(part) {
            if start < end {
                total += pieces(&letters[start..end], spaced && start == 0, costs) + costs.inner;
            }
            total += costs.token + costs.inner;
            start = end + part.len();
        }
        end += part.len();
    }
    if start < end { total + pieces(&letters[start..end], spaced && start == 0, costs) } else { total }
}

/// The most tokens that letters can be.
fn most_pieces(letters: &[u8], spaced: bool) -> u64 {
    const NEVER: i32 = i32::MIN / 2;
    /// The most tokens up to a letter, if the last of them is one letter long, or two, or more.
    type Most = [i32; 3];
    let most = |most: Most| most[0].max(most[1]).max(most[2]);
    let unless = |joined: bool, tokens: i32| if joined { NEVER } else { tokens };
    let mut behind: [Most; 3] = [[NEVER, NEVER, 0], [NEVER; 3], [NEVER; 3]];
    // The two before, and whether they are of one word.
    let (mut first, mut second) = (None, None);
    let mut previous = b' ';
    let space = spaced.then_some(&b' ');
    for letter in space.into_iter().chain(letters) {
        let third = vocabulary::letter(*letter);
        if is_inner(&[previous, *letter]) {
            (first, second) = (None, None);
        }
        let pair = second.is_some_and(|second| vocabulary::is_pair(second, third));
        let triple = match (first, second) {
            (Some(first), Some(second)) => vocabulary::is_triple(first, second, third),
            _ => false,
        };
        let [one, two, three] = behind;
        let here = [
            1 + unless(pair, one[0]).max(unless(triple, one[1])).max(one[2]),
            1 + unless(triple, two[0]).max(two[1]).max(two[2]),
            one[2].max(1 + most(three)),
        ];
        behind = [here, one, two];
        (first, second, previous) = (second, Some(third), *letter);
    }
    u64::from(most(behind[0]).unsigned_abs())
}

#[cfg(test)]
mod tests;

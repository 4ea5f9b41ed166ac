//! How many tokens a text can be at most, by the kinds of its characters, in one pass.
//!
//! The numbers were fitted to OpenAI's tokenizers over prose, code, JSON and a dozen scripts, such that no ordinary text is under-estimated;
//! `tests` holds them to it. Letters without sense are counted as what they are: runs without vowels, or with many consonants in a
//! row, are cut into pieces of two. Rare Han characters take up to twice what is counted here.

/// What characters cost, in sixteenths of a token.
#[derive(Debug)]
pub(super) struct Costs {
    /// A word of up to four letters.
    word: u64,
    /// Each further letter.
    letter: u64,
    /// How many digits are one token.
    digits: u64,
    /// A punctuation mark.
    mark: u64,
    /// A letter of a European or Semitic alphabet, or with an accent.
    alphabetic: u64,
    /// A character of the Indic and South East Asian scripts.
    brahmic: u64,
    /// Han, kana, hangul.
    east_asian: u64,
    /// Symbols, arrows, typographic punctuation.
    symbol: u64,
    /// Two bytes of UTF-8, rarely seen.
    rare_two: u64,
    /// Three bytes, rarely seen.
    rare_three: u64,
    /// Four bytes: emoji, and what is rarer.
    four: u64,
}

impl Costs {
    pub(super) const O200K: Self = Self {
        word: 17,
        letter: 6,
        digits: 3,
        mark: 16,
        alphabetic: 9,
        brahmic: 12,
        east_asian: 18,
        symbol: 24,
        rare_two: 42,
        rare_three: 34,
        four: 48,
    };
    pub(super) const CL100K: Self = Self {
        word: 17,
        letter: 6,
        digits: 3,
        mark: 16,
        alphabetic: 22,
        brahmic: 24,
        east_asian: 24,
        symbol: 28,
        rare_two: 40,
        rare_three: 50,
        four: 52,
    };
    /// As many again by half, and each digit for itself.
    pub(super) const ANTHROPIC: Self = Self {
        word: 24,
        letter: 8,
        digits: 1,
        mark: 22,
        alphabetic: 26,
        brahmic: 36,
        east_asian: 32,
        symbol: 36,
        rare_two: 48,
        rare_three: 60,
        four: 64,
    };
    pub(super) const OTHER: Self = Self {
        word: 20,
        letter: 7,
        digits: 1,
        mark: 18,
        alphabetic: 24,
        brahmic: 32,
        east_asian: 28,
        symbol: 32,
        rare_two: 44,
        rare_three: 54,
        four: 64,
    };

    /// The most a text of so many bytes can cost, whatever it says.
    fn most(bytes: usize) -> u64 {
        (bytes as u64).saturating_mul(16)
    }
}

/// Texts beyond that length are not looked at: each two bytes are a token.
const MAX_READ: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lower,
    Upper,
    Digit,
    Space,
    Line,
    Mark,
    Alphabetic,
    Brahmic,
    EastAsian,
    Symbol,
    RareTwo,
    RareThree,
    Four,
}

fn kind(character: char) -> Kind {
    match character {
        'a'..='z' => Kind::Lower,
        'A'..='Z' => Kind::Upper,
        '0'..='9' => Kind::Digit,
        ' ' | '\t' => Kind::Space,
        '\n' | '\r' => Kind::Line,
        '\0'..='\u{7f}' => Kind::Mark,
        '\u{530}'..='\u{58f}' | '\u{700}'..='\u{7ff}' => Kind::RareTwo,
        '\u{80}'..='\u{7ff}' => Kind::Alphabetic,
        '\u{900}'..='\u{fff}' | '\u{1e00}'..='\u{1fff}' => Kind::Brahmic,
        '\u{2000}'..='\u{2fff}' => Kind::Symbol,
        '\u{3000}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{ff00}'..='\u{ffef}' => Kind::EastAsian,
        '\u{800}'..='\u{ffff}' => Kind::RareThree,
        _ => Kind::Four,
    }
}

/// The most tokens a text can be, in sixteenths.
pub(super) fn sixteenths(text: &str, costs: &Costs) -> u64 {
    let read = &text[..text.floor_char_boundary(MAX_READ)];
    let mut total = 0;
    let mut rest = read.chars();
    while let Some(first) = rest.next() {
        let kind_of_first = kind(first);
        total += match kind_of_first {
            Kind::Lower | Kind::Upper => word(first, &mut rest, costs),
            Kind::Digit => (1 + run(&mut rest, Kind::Digit)).div_ceil(costs.digits) * 16,
            Kind::Space => match run(&mut rest, Kind::Space) {
                // A number stands for itself; anything else takes the space before it along.
                0 if rest.clone().next().is_none_or(|next| kind(next) == Kind::Digit) => 16,
                0 => 0,
                more => 17 + more,
            },
            Kind::Line => 14 + run(&mut rest, Kind::Line),
            Kind::Mark => costs.mark,
            Kind::Alphabetic => costs.alphabetic,
            Kind::Brahmic => costs.brahmic,
            Kind::EastAsian => costs.east_asian,
            Kind::Symbol => costs.symbol,
            Kind::RareTwo => costs.rare_two,
            Kind::RareThree => costs.rare_three,
            Kind::Four => costs.four,
        };
    }
    total.min(Costs::most(read.len())) + (text.len() - read.len()) as u64 * 8
}

/// How many more of a kind follow; they are taken.
fn run(rest: &mut std::str::Chars<'_>, wanted: Kind) -> u64 {
    let mut count = 0;
    while rest.clone().next().is_some_and(|next| kind(next) == wanted) {
        rest.next();
        count += 1;
    }
    count
}

/// A run of letters, up to where a capital follows a small letter.
fn word(first: char, rest: &mut std::str::Chars<'_>, costs: &Costs) -> u64 {
    let is_vowel = |letter: char| matches!(letter.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y');
    let (mut length, mut vowels) = (1_u64, u64::from(is_vowel(first)));
    let (mut consonants, mut longest) = (1 - vowels, 0);
    let mut previous = kind(first);
    let mut capitals = previous == Kind::Upper;
    while let Some(next) = rest.clone().next() {
        let kind = kind(next);
        if !(kind == Kind::Lower || (kind == Kind::Upper && previous == Kind::Upper)) {
            break;
        }
        rest.next();
        length += 1;
        if is_vowel(next) {
            (vowels, consonants) = (vowels + 1, 0);
        } else {
            consonants += 1;
            longest = longest.max(consonants);
        }
        capitals &= kind == Kind::Upper;
        previous = kind;
    }
    if capitals && length > 1 {
        16 + (length - 1) * 10
    } else if length > 24 || longest >= 4 {
        length * 9 + 6
    } else if length > 1 && vowels == 0 {
        length * 11 + 8
    } else {
        costs.word + length.saturating_sub(4) * costs.letter
    }
}

use std::collections::{BTreeSet, HashSet};

use bpe_openai::Tokenizer;

use super::*;

fn vocabularies() -> [(&'static Tokenizer, HashSet<&'static [u8]>); 2] {
    [bpe_openai::o200k_base(), bpe_openai::cl100k_base()].map(|tokenizer| {
        let tokens = (0..tokenizer.bpe.num_tokens()).map(|id| tokenizer.bpe.token_bytes(id as u32));
        (tokenizer, tokens.collect())
    })
}

/// Punctuation marks that a tokenizer takes together with the word after them. An apostrophe may be an abbreviation's.
pub(in super::super) fn marks() -> impl Iterator<Item = char> {
    ('!'..='~').filter(|mark| mark.is_ascii_punctuation() && *mark != '\'').chain(['\t'])
}

/// The words of the list.
pub(in super::super) fn words_of_the_list() -> impl Iterator<Item = &'static str> {
    WORDS.lines()
}

fn words() -> String {
    let [(o200k, a), (cl100k, b)] = vocabularies();
    let is_word = |word: &&[u8]| {
        (SHORTEST..=LONGEST).contains(&word.len())
            && word.iter().all(u8::is_ascii_alphabetic)
            && b.contains(*word)
            && [&a, &b].iter().all(|tokens| tokens.contains(&[b" ", *word].concat()[..]))
    };
    let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
    let words: BTreeSet<String> = a.iter().copied().filter(is_word).map(text).collect();
    let whole = |word: &String| {
        marks().all(|mark| {
            let text = format!("{mark}{word}");
            o200k.count(&text) <= 2 && cl100k.count(&text) <= 2
        })
    };
    words.into_iter().filter(whole).map(|word| word + "\n").collect()
}

fn tables() -> Vec<u8> {
    let mut table = vec![0; TABLES_LENGTH];
    let vocabularies = vocabularies();
    let mut set = |start: usize, index: usize, bits: u8| table[start + index / 8] |= bits << (index % 8);
    let alphabet: Vec<u8> = [b' '].into_iter().chain(b'A'..=b'Z').chain(b'a'..=b'z').collect();
    let is_token = |text: &[u8]| vocabularies.iter().all(|(_, tokens)| tokens.contains(text));
    for (a, first) in alphabet.iter().enumerate() {
        for (b, second) in alphabet.iter().enumerate() {
            set(TRIPLES, a * ALPHABET + b, u8::from(is_token(&[*first, *second])));
            for (c, third) in alphabet.iter().enumerate() {
                set(0, (a * ALPHABET + b) * ALPHABET + c, u8::from(is_token(&[*first, *second, *third])));
            }
        }
    }
    for (vocabulary, (tokenizer, tokens)) in
        [Vocabulary::O200k, Vocabulary::Cl100k].into_iter().zip(&vocabularies)
    {
        let own = vocabulary.own();
        for character in ('\0'..='\u{ffff}').chain('\u{1f000}'..='\u{1ffff}') {
            let code = character as usize;
            let index = if code > 0xffff { code - 0xf000 } else { code };
            let alone = tokenizer.count(&character.to_string());
            let after = |mark: char| tokenizer.count(&format!("{mark}{character}")) - 1;
            let emoji = code > 0xffff;
            let marks = marks().filter(|_| emoji).chain([' ']).map(after);
            set(own, index * 2, u8::try_from(marks.fold(alone, usize::max) - 1).unwrap());
        }
        for (number, start) in BLOCKS.into_iter().enumerate() {
            for (row, column) in (0..128).flat_map(|row| (0..128).map(move |column| (row, column))) {
                let [before, letter] = [row, column].map(|at| char::from_u32(start + at).unwrap());
                let before = if row as usize == AFTER_SPACE { ' ' } else { before };
                let text = format!("{before}{letter}");
                let alone = text.chars().all(|letter| tokenizer.count(&letter.to_string()) == 1);
                let joined = alone && tokens.contains(text.as_bytes());
                set(own + LENGTHS + number * BLOCK, (row * 128 + column) as usize, u8::from(joined));
            }
        }
    }
    table
}

/// With `UPDATE_VOCABULARY` it writes them.
#[test]
fn the_tables_are_what_the_vocabularies_say() {
    let (words, tables) = (words(), tables());
    if std::env::var_os("UPDATE_VOCABULARY").is_some() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/quota/estimate/vocabulary");
        std::fs::write(format!("{folder}/words.txt"), &words).unwrap();
        std::fs::write(format!("{folder}/tables.bin"), &tables).unwrap();
        return;
    }
    assert!(words == WORDS, "run this test with UPDATE_VOCABULARY=1");
    assert!(tables == TABLES, "run this test with UPDATE_VOCABULARY=1");
}

#[test]
fn every_word_of_the_list_is_found_and_nothing_else() {
    assert!(WORDS.lines().count() < SLOTS / 2);
    for word in WORDS.lines() {
        assert!(is_word(word.as_bytes()), "{word}");
        assert!(!is_word(format!("{word}qzx").as_bytes()), "{word}");
    }
    assert!(!is_word(b"") && !is_word(b"qzqz") && !is_word(&[b'a'; 17]));
}

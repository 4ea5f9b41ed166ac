//! Whether one condition follows from another: what lets an entry be called unreachable.

use std::borrow::Cow;
use std::collections::HashSet;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;

use super::regex::Expression;
use super::{Condition, INDEX_HEADER, Test};

/// The largest memory one automaton, and the work of making it, may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// How many pairs of states are compared at most.
const MAX_PAIRS: usize = 1 << 14;

impl Condition {
    /// The lower-case name of the header.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a header with these values passes; without any it is absent.
    #[must_use]
    pub fn holds(&self, values: &[&[u8]]) -> bool {
        values.iter().any(|value| self.test.holds(value))
    }

    /// The one value that passes, where the condition can be seen to take no other.
    #[must_use]
    pub fn only_value(&self) -> Option<Cow<'_, [u8]>> {
        match &self.test {
            Test::Exact(value) => Some(Cow::Borrowed(value)),
            Test::Regex(expression) => expression.literal().map(|text| Cow::Owned(text.into_bytes())),
        }
    }

    /// Whether every header that passes this condition passes `other` too. A yes is always right; where finding out would
    /// take too much, the answer is no. Comparing two expressions, which takes up to some milliseconds, takes one off
    /// `budget`.
    #[must_use]
    pub fn implies(&self, other: &Self, budget: &mut usize) -> bool {
        if self.name != other.name {
            return false;
        }
        match (self.only_value(), &other.test) {
            (Some(value), test) => test.holds(&value),
            (None, Test::Exact(_)) => false,
            (None, Test::Regex(wider)) => match &self.test {
                Test::Regex(narrower) => {
                    // A header that is set to nothing is dropped, so that the model never is.
                    narrower.is_within(wider, self.name == INDEX_HEADER, budget)
                }
                Test::Exact(_) => false,
            },
        }
    }
}

impl Expression {
    /// The text that alone matches, if nothing in the expression has a special meaning.
    fn literal(&self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.source().chars();
        while let Some(next) = characters.next() {
            match next {
                '\\' => text.push(characters.next().filter(char::is_ascii_punctuation)?),
                '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
                next if next.is_ascii() => text.push(next),
                _ => return None,
            }
        }
        Some(text)
    }

    /// Text with which every value that matches begins.
    fn prefix(&self) -> &str {
        let source = self.source();
        if source.contains('|') || source.contains("(?") {
            return "";
        }
        let special = |character: char| !character.is_ascii_alphanumeric() && !"-_/:@ ".contains(character);
        match source.find(special) {
            // What follows may say that the last character need not be there.
            Some(end) => &source[..end.saturating_sub(1)],
            None => source,
        }
    }

    /// Whether `wider` matches every value that this expression matches, of those that a header can have.
    fn is_within(&self, wider: &Self, never_empty: bool, budget: &mut usize) -> bool {
        if self.source() == wider.source() {
            return true;
        }
        let (own, its) = (self.prefix(), wider.prefix());
        if *budget == 0 || !(own.starts_with(its) || its.starts_with(own)) {
            return false;
        }
        *budget -= 1;
        match (automaton(self), automaton(wider)) {
            (Some(narrower), Some(wider)) => included(&narrower, &wider, never_empty).unwrap_or(false),
            _ => false,
        }
    }
}

type Dfa = dense::DFA<Vec<u32>>;

fn automaton(expression: &Expression) -> Option<Dfa> {
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(SIZE_LIMIT))
        .determinize_size_limit(Some(SIZE_LIMIT));
    dense::Builder::new().configure(config).build(expression.pattern()).ok()
}

/// Whether `wider` accepts what `narrower` accepts: no pair of states that one value leads to may accept in the narrower
/// automaton alone. Nothing if there are too many pairs.
fn included(narrower: &Dfa, wider: &Dfa, never_empty: bool) -> Option<bool> {
    let anchored = start::Config::new().anchored(Anchored::Yes);
    let start = (narrower.start_state(&anchored).ok()?, wider.start_state(&anchored).ok()?);
    let accepts = |dfa: &Dfa, state: StateID| dfa.is_match_state(dfa.next_eoi_state(state));
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some((narrow, wide)) = open.pop() {
        let empty = never_empty && (narrow, wide) == start;
        if !empty && accepts(narrower, narrow) && !accepts(wider, wide) {
            return Some(false);
        }
        for byte in header_bytes() {
            let next = (narrower.next_state(narrow, byte), wider.next_state(wide, byte));
            if narrower.is_quit_state(next.0) || wider.is_quit_state(next.1) {
                return None;
            }
            if !narrower.is_dead_state(next.0) && seen.insert(next) {
                if seen.len() > MAX_PAIRS {
                    return None;
                }
                open.push(next);
            }
        }
    }
    Some(true)
}

/// The bytes of a header's value as expressions see it: Latin-1 written as UTF-8, without those that no header can hold.
fn header_bytes() -> impl Iterator<Item = u8> {
    (1..=0xbf).chain([0xc2, 0xc3]).filter(|byte| !matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regex(expression: &str) -> Condition {
        Condition::regex("h", expression).expect("an expression")
    }

    #[test]
    fn what_follows_is_seen_and_nothing_else() {
        for (narrower, wider, expected) in [
            ("gpt-.*", ".*", true),
            (".*", "gpt-.*", false),
            ("gpt-4.*", "gpt-(4|5).*", true),
            ("gpt-4.*", "gpt-[0-9]", false),
            ("a+", "a*", true),
            ("a*", "a+", false),
            ("(ab)+", "(ab|cd)*", true),
            ("[^x]*", ".*", true),
            ("é", ".", false),
            ("é", "..", true),
            ("gpt-4", "gpt-4", true),
            (r"gpt-4\.1", "gpt-4.1", true),
            ("gpt-4.1", r"gpt-4\.1", false),
            (r"\bx\b", "x", true),
            ("(?i)GPT", "gpt|GPT|[gG][pP][tT]", true),
            ("x{1000}", "x{999}.", true),
        ] {
            assert_eq!(regex(narrower).implies(&regex(wider), &mut 1), expected, "{narrower} within {wider}");
        }
        assert!(Condition::exact("h", "gpt-4").implies(&regex("gpt-.*"), &mut 0));
        assert!(!Condition::exact("h", "o3").implies(&regex("gpt-.*"), &mut 0));
        assert!(regex(r"gpt\-4").implies(&Condition::exact("h", "gpt-4"), &mut 0));
        assert!(!regex("gpt-.").implies(&Condition::exact("h", "gpt-4"), &mut 0));
        assert!(!Condition::exact("h", "a").implies(&Condition::exact("i", "a"), &mut 0));
    }

    #[test]
    fn the_model_is_never_empty_and_other_headers_may_be() {
        let model = |expression| Condition::regex(INDEX_HEADER, expression).expect("an expression");
        assert!(model(".*").implies(&model(".+"), &mut 1));
        assert!(!regex(".*").implies(&regex(".+"), &mut 1));
    }

    #[test]
    fn what_would_take_too_much_is_not_claimed() {
        assert!(!regex("gpt-.*").implies(&regex(".*"), &mut 0));
        let mut budget = 1;
        assert!(!regex("gpt-.*").implies(&regex("claude-.*"), &mut budget));
        assert_eq!(budget, 1, "nothing had to be compared");
        let exploding = format!("(a|b)*a{}", "(a|b)".repeat(40));
        assert!(!regex(&exploding).implies(&regex("[ab]+"), &mut 1));
    }

    proptest! {
        #[test]
        fn a_yes_is_never_wrong(
            narrower in "[ab.]{0,3}(\\*|\\+|\\?|\\|[ab.]{1,2})?",
            wider in "[ab.]{0,3}(\\*|\\+|\\?|\\|[ab.]{1,2})?",
            value in "[abc]{0,4}",
        ) {
            let (Ok(narrower), Ok(wider)) = (Condition::regex("h", &narrower), Condition::regex("h", &wider)) else {
                return Ok(());
            };
            if narrower.implies(&wider, &mut 1) && narrower.holds(&[value.as_bytes()]) {
                prop_assert!(wider.holds(&[value.as_bytes()]));
            }
        }
    }
}

//! L1. Which rule a request gets: the decision that Envoy's router will take, taken before it.
//!
//! First the most specific host name ([`Hosts`]), then, among its entries only, the first whose conditions all hold
//! ([`Matcher`]). Both mean what they mean in Envoy's `RouteConfiguration`, so that the two never disagree.

use std::cell::OnceCell;
use std::collections::HashMap;

mod hosts;
mod implication;
mod regex;

pub use hosts::{HostError, Hosts};
use regex::Expression;
pub use regex::RegexError;

/// The header that most entries test for an exact value, by which they are indexed.
pub const INDEX_HEADER: &str = "x-ai-eg-model";

/// The rules of one gateway by host name and headers.
#[derive(Debug)]
pub struct Router(Hosts<Matcher>);

impl Router {
    /// Takes the ordered entries of each host name: `*`, `*.suffix` or an exact name. A name that cannot be used is left
    /// out, with its entries, and reported; the rest is served.
    #[must_use]
    pub fn new(hosts: Vec<(String, Vec<Entry>)>) -> (Self, Vec<HostError>) {
        let (hosts, errors) =
            Hosts::new(hosts.into_iter().map(|(name, entries)| (name, Matcher::new(entries))));
        (Self(hosts), errors)
    }

    /// The rule for a request to `authority` (a port in it does not matter), whose headers' values `header` gives by
    /// lower-case name; see [`Matcher::find`].
    pub fn select<'h>(&self, authority: &str, header: impl Fn(&str) -> Vec<&'h [u8]>) -> Option<usize> {
        self.0.find(authority)?.find(header)
    }
}

/// A conjunction of conditions and the rule it selects.
#[derive(Debug)]
pub struct Entry {
    /// All must hold; none means always.
    pub conditions: Vec<Condition>,
    /// What is found when they do.
    pub rule: usize,
}

/// A test of one header. An absent header never passes. One that occurs several times passes if any of its values
/// does, each taken by itself: Envoy 1.40 (`envoy.reloadable_features.match_headers_individually`) does not join them.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Exact(Vec<u8>),
    Regex(Expression),
}

impl Condition {
    /// The value of the header with that lower-case name must be this, byte for byte. The empty value demands a header that
    /// is present and empty.
    #[must_use]
    pub fn exact(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), test: Test::Exact(value.as_bytes().to_vec()) }
    }

    /// The whole value must match an expression in RE2's syntax.
    ///
    /// # Errors
    /// When the expression cannot be compiled, or is too large.
    pub fn regex(name: &str, expression: &str) -> Result<Self, RegexError> {
        Ok(Self { name: name.to_owned(), test: Test::Regex(regex::compile(expression)?) })
    }
}

impl Test {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// An ordered list of entries, of which the first that holds decides.
///
/// Entries that demand an exact value of [`INDEX_HEADER`] are found by hash, so that thousands of models cost no more than
/// one.
#[derive(Debug)]
pub struct Matcher {
    entries: Vec<Indexed>,
    /// The header names that conditions refer to by position; the index header is the first.
    names: Vec<String>,
    /// Entries by the exact value they demand of the index header, in order.
    indexed: HashMap<Vec<u8>, Vec<usize>>,
    /// All other entries, in order.
    scanned: Vec<usize>,
}

#[derive(Debug)]
struct Indexed {
    tests: Vec<(usize, Test)>,
    rule: usize,
}

impl Matcher {
    /// Indexes a list.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut matcher = Self {
            entries: Vec::with_capacity(entries.len()),
            names: vec![INDEX_HEADER.to_owned()],
            indexed: HashMap::new(),
            scanned: Vec::new(),
        };
        let mut positions = HashMap::from([(INDEX_HEADER.to_owned(), 0)]);
        for (order, Entry { conditions, rule }) in entries.into_iter().enumerate() {
            let mut tests = Vec::with_capacity(conditions.len());
            let mut key = None;
            for Condition { name, test } in conditions {
                let position = *positions.entry(name).or_insert_with_key(|name| {
                    matcher.names.push(name.clone());
                    matcher.names.len() - 1
                });
                match &test {
                    Test::Exact(value) if position == 0 && key.is_none() => key = Some(value.clone()),
                    _ => {}
                }
                tests.push((position, test));
            }
            match key {
                Some(key) => matcher.indexed.entry(key).or_default().push(order),
                None => matcher.scanned.push(order),
            }
            matcher.entries.push(Indexed { tests, rule });
        }
        matcher
    }

    /// The rule of the first entry that holds. `header` gives the values of a header by its lower-case name, none if it is
    /// absent, and is called once at most for each name.
    pub fn find<'h>(&self, header: impl Fn(&str) -> Vec<&'h [u8]>) -> Option<usize> {
        let values: Vec<OnceCell<Vec<&'h [u8]>>> = vec![OnceCell::new(); self.names.len()];
        let value = |name: usize| values[name].get_or_init(|| header(&self.names[name])).as_slice();
        let holds = |order: &&usize| {
            self.entries[**order]
                .tests
                .iter()
                .all(|(name, test)| value(*name).iter().any(|value| test.holds(value)))
        };

        // There is one value, but for requests that are not the gateway's own making.
        let indexed = value(0).iter().filter_map(|value| self.indexed.get(*value));
        let first = indexed.filter_map(|orders| orders.iter().find(&holds)).min().copied();
        // Of the others only those that come before it matter.
        let end =
            first.map_or(self.scanned.len(), |first| self.scanned.partition_point(|order| *order < first));
        let order = self.scanned[..end].iter().find(&holds).copied().or(first)?;
        Some(self.entries[order].rule)
    }
}

#[cfg(test)]
mod tests;

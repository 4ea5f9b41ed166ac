//! L1. Host names as Envoy's virtual hosts have them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A host name is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither a name, nor `*.suffix`, nor `*`.
    #[error("`{0}` is no host name: write an exact name, `*.` and a suffix, or `*`")]
    Invalid(String),
    /// The same name twice, case aside.
    #[error("the host name `{0}` occurs twice: put its matches into one list")]
    Duplicate(String),
}

/// What is served under host names, found by the most specific one: an exact name, then the longest `*.suffix` (of any
/// number of labels), then `*`. Case never matters.
#[derive(Debug)]
pub struct Hosts<T> {
    exact: HashMap<String, T>,
    /// Keyed by the suffix with its leading dot.
    suffixes: HashMap<String, T>,
    any: Option<T>,
    /// In bytes. Bounds the work that a long hostile host name makes.
    longest_suffix: usize,
}

impl<T> Hosts<T> {
    /// Takes a list of host names and what each serves. Names that cannot be used are left out and reported; of a name that
    /// occurs twice the first counts.
    pub fn new(hosts: impl IntoIterator<Item = (String, T)>) -> (Self, Vec<HostError>) {
        let mut result =
            Self { exact: HashMap::new(), suffixes: HashMap::new(), any: None, longest_suffix: 0 };
        let mut errors = Vec::new();
        for (name, target) in hosts {
            if let Err(error) = result.add(name, target) {
                errors.push(error);
            }
        }
        (result, errors)
    }

    fn add(&mut self, name: String, target: T) -> Result<(), HostError> {
        let lower = name.to_ascii_lowercase();
        let place = match lower.strip_prefix('*') {
            Some("") if self.any.is_none() => {
                self.any = Some(target);
                return Ok(());
            }
            Some("") => return Err(HostError::Duplicate(name)),
            Some(suffix) if suffix.starts_with('.') && suffix.len() > 1 && !suffix.contains('*') => {
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                self.suffixes.entry(suffix.to_owned())
            }
            None if !lower.is_empty() && !lower.contains('*') => self.exact.entry(lower),
            _ => return Err(HostError::Invalid(name)),
        };
        match place {
            Entry::Occupied(_) => Err(HostError::Duplicate(name)),
            Entry::Vacant(place) => {
                place.insert(target);
                Ok(())
            }
        }
    }

    /// What serves an `:authority` or `host` header; a port in it does not matter.
    #[must_use]
    pub fn find(&self, authority: &str) -> Option<&T> {
        let host = without_port(authority);
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let suffix = || {
            // A wildcard stands for one byte at least, so that `*.a` does not serve `.a`.
            let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
            let mut suffixes =
                dots.map(|at| &host[at..]).skip_while(|suffix| suffix.len() > self.longest_suffix);
            suffixes.find_map(|suffix| self.suffixes.get(suffix))
        };
        self.exact.get(&*host).or_else(suffix).or(self.any.as_ref())
    }
}

/// Cuts off `:port`. Colons inside of the brackets of an IPv6 address are none.
fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if authority.rfind(']').is_none_or(|bracket| bracket < colon) => &authority[..colon],
        _ => authority,
    }
}

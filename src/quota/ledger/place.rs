//! Which bucket a claim is paid into.

use std::fmt;

use crate::quota::{Claim, Window};

/// The subject of the bucket that is shared by all subjects beyond those a limit may have. No digest looks like it.
pub const OVERFLOW: &str = "overflow";

/// A window at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Instance {
    /// See [`Window::InFlight`].
    InFlight,
    /// One window of the calendar's.
    Aligned {
        /// Inclusive.
        start: u64,
        /// Exclusive.
        end: u64,
    },
    /// See [`Window::Rolling`].
    Rolling {
        /// In milliseconds.
        length: u64,
    },
}

impl Window {
    /// The window of that moment; nothing if even the next one has ended.
    #[must_use]
    pub fn at(&self, now: u64) -> Option<Instance> {
        match *self {
            Self::InFlight => Some(Instance::InFlight),
            Self::Aligned { start, end, .. } if now < end => Some(Instance::Aligned { start, end }),
            Self::Aligned { end, next_end, .. } if now < next_end => {
                Some(Instance::Aligned { start: end, end: next_end })
            }
            Self::Aligned { .. } => None,
            Self::Rolling { length } => Some(Instance::Rolling { length }),
        }
    }

    /// The first window that is known.
    #[must_use]
    pub fn at_or_first(&self) -> Instance {
        self.at_or_last(0)
    }

    /// The window of that moment, or the last one that is known.
    #[must_use]
    pub fn at_or_last(&self, now: u64) -> Instance {
        match (self.at(now), *self) {
            (Some(instance), _) => instance,
            (None, Self::Aligned { end, next_end, .. }) => Instance::Aligned { start: end, end: next_end },
            (None, Self::Rolling { length }) => Instance::Rolling { length },
            (None, Self::InFlight) => Instance::InFlight,
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight => f.write_str("f"),
            Self::Aligned { start, end } => write!(f, "a{start}-{end}"),
            Self::Rolling { length } => write!(f, "r{length}"),
        }
    }
}

/// The names that a claim's bucket may have. They are made of ASCII letters, digits and `.`, `/`, `-`, `_`, `:`, `%`; the last part
/// says of which window it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The window.
    pub window: Instance,
    /// `LIMIT:SUBJECT:WINDOW`.
    pub own: String,
    /// Where a limit has only so many buckets.
    pub shared: Option<Shared>,
}

/// See [`Claim::most_subjects`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The bucket of those that come too late.
    pub overflow: String,
    /// The list of those that have their own.
    pub list: String,
    /// How many those may be.
    pub most: u32,
}

impl Place {
    /// Of a claim, in that window.
    pub fn new(claim: &Claim, window: Instance) -> Self {
        let limit = plain(&claim.bucket.limit);
        let subject = plain(&claim.bucket.subject);
        let shared = claim.most_subjects.map(|most| match subject.split_once('.') {
            Some((owner, _)) => {
                let name = format!("{limit}:{owner}.{OVERFLOW}:{window}");
                Shared { overflow: name.clone(), list: name, most }
            }
            None => {
                let overflow = format!("{limit}:{OVERFLOW}:{window}");
                Shared { overflow, list: format!("{limit}:{window}"), most }
            }
        });
        Self { window, own: format!("{limit}:{subject}:{window}"), shared }
    }
}

/// Every byte that may not stand in a name as `%` and its number.
fn plain(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 48);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"./-_:".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::{Bound, BucketKey, Mode, OnExpiry};

    fn place(limit: &str, subject: &str, most_subjects: Option<u32>) -> Place {
        let claim = Claim {
            bucket: BucketKey { limit: limit.into(), subject: subject.into() },
            amount: 1,
            window: Window::InFlight,
            bound: Bound::fixed(1),
            mode: Mode::Reserve,
            shadow: false,
            on_expiry: OnExpiry::Charge,
            group: 0,
            most_subjects,
        };
        Place::new(&claim, Instance::InFlight)
    }

    #[test]
    fn each_that_chooses_has_a_list_and_a_bucket_for_the_rest_of_its_own() {
        let of = |subject: &str| place("l", subject, Some(9)).shared.unwrap();
        assert_eq!(of("aa.11"), of("aa.22"));
        assert_ne!(of("aa.11").list, of("bb.11").list);
        assert_ne!(of("aa.11").overflow, of("bb.11").overflow);
        assert_ne!(of("aa.11"), of("11"));
        assert!(place("l", "aa.11", None).shared.is_none());
    }

    /// What could break out of its place in a name.
    fn hostile() -> impl Strategy<Value = String> {
        let signs =
            vec![":", ".", "%", "%3a", "{", "}", " ", "\n", "\0", "*", "é", "overflow", "f", "a1-2", "a", ""];
        prop::collection::vec(prop::sample::select(signs), 0..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_two_buckets_have_the_same_name(keys in prop::collection::vec((hostile(), "[0-9a-f]{0,2}(\\.[0-9a-f]{1,2})?"), 2..30)) {
            let mut seen = HashMap::new();
            for (limit, subject) in &keys {
                let place = place(limit, subject, Some(1));
                let shared = place.shared.unwrap();
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"./-_:%".contains(&byte);
                prop_assert!([&place.own, &shared.overflow, &shared.list].iter().all(|name| name.bytes().all(allowed)));
                prop_assert!(place.own != shared.overflow);
                if let Some(other) = seen.insert(place.own, (limit, subject)) {
                    prop_assert_eq!(other, (limit, subject));
                }
            }
        }
    }
}

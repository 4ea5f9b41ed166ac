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
        let shared = claim.most_subjects.map(|most| Shared {
            overflow: format!("{limit}:{OVERFLOW}:{window}"),
            list: format!("{limit}:{window}"),
            most,
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

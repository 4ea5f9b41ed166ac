//! Which documents are taken: those of the controller that this processor belongs to.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// The version this program was built as: the environment variable `AIGW_VERSION` at build time, or `dev`. A controller
/// writes its own into the documents it makes.
pub const STAMP: &str = match option_env!("AIGW_VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => "dev",
};

/// The versions that are accepted. The text form is one version, or `*` for any; an empty one is [`STAMP`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Whatever the document says.
    Any,
    /// This one alone.
    Only(String),
}

impl Accept {
    /// Whether a document of that version is taken.
    pub fn takes(&self, version: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(accepted) => accepted == version,
        }
    }
}

impl FromStr for Accept {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.trim() {
            "*" => Self::Any,
            "" => Self::Only(STAMP.to_owned()),
            version => Self::Only(version.to_owned()),
        })
    }
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Only(version) => version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_version_it_is_that_of_the_build() {
        assert_eq!("".parse(), Ok(Accept::Only(STAMP.to_owned())));
    }

    #[test]
    fn versions_are_compared_exactly() {
        let accept: Accept = " v1.1.0 ".parse().unwrap();
        assert!(accept.takes("v1.1.0"));
        for other in ["", "v1.1", "V1.1.0", "v1.1.0 "] {
            assert!(!accept.takes(other), "{other}");
            assert!("*".parse::<Accept>().unwrap().takes(other), "{other}");
        }
    }
}

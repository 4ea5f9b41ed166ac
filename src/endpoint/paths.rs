//! Where clients find the endpoints: the default paths, or others under prefixes.

use std::str::FromStr;

use super::Endpoint;

/// The prefixes of the three families of endpoints. The text form is `openai:/,cohere:/cohere,anthropic:/anthropic`; a
/// family that is left out keeps the prefix shown here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes {
    /// Before `/v1/chat/completions` and everything else that is neither of the others.
    pub openai: String,
    /// Before `/v2/rerank`.
    pub cohere: String,
    /// Before `/v1/messages`, its token counts and the models list in that dialect.
    pub anthropic: String,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { openai: "/".to_owned(), cohere: "/cohere".to_owned(), anthropic: "/anthropic".to_owned() }
    }
}

/// Why a text is no [`Prefixes`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefixes {
    /// A part between commas is empty or has no colon.
    #[error(
        "endpoint prefixes: part {position} is {pair:?}, which is not of the form family:/prefix; write openai:/,cohere:/cohere,anthropic:/anthropic"
    )]
    NoPair {
        /// Counted from 1.
        position: usize,
        /// The part.
        pair: String,
    },
    /// There is no such family of endpoints.
    #[error("endpoint prefixes: part {position} names {family:?}; there are openai, cohere and anthropic")]
    UnknownFamily {
        /// Counted from 1.
        position: usize,
        /// What was named.
        family: String,
    },
}

impl FromStr for Prefixes {
    type Err = InvalidPrefixes;

    fn from_str(text: &str) -> Result<Self, InvalidPrefixes> {
        let mut prefixes = Self::default();
        if text.is_empty() {
            return Ok(prefixes);
        }
        for (index, pair) in text.split(',').enumerate() {
            let (position, pair) = (index + 1, pair.trim());
            let Some((family, prefix)) = pair.split_once(':') else {
                return Err(InvalidPrefixes::NoPair { position, pair: pair.to_owned() });
            };
            let prefix = prefix.trim().to_owned();
            match family.trim() {
                "openai" => prefixes.openai = prefix,
                "cohere" => prefixes.cohere = prefix,
                "anthropic" => prefixes.anthropic = prefix,
                family => {
                    return Err(InvalidPrefixes::UnknownFamily { position, family: family.to_owned() });
                }
            }
        }
        Ok(prefixes)
    }
}

/// Which path is which endpoint. Paths are compared exactly; where prefixes make two endpoints share a path, the one that
/// [`Endpoint::ALL`] names first has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths(Vec<(Box<str>, Endpoint)>);

impl Default for Paths {
    fn default() -> Self {
        Self::new("/", &Prefixes::default())
    }
}

impl Paths {
    /// Every endpoint under `root` and the prefix of its family. Slashes are put and taken away as needed, dots resolved.
    pub fn new(root: &str, prefixes: &Prefixes) -> Self {
        let path = |endpoint: Endpoint| {
            let path = endpoint.path();
            let (prefix, path) = if let Some(path) = path.strip_prefix("/cohere/") {
                (&prefixes.cohere, path)
            } else if let Some(path) = path.strip_prefix("/anthropic/") {
                (&prefixes.anthropic, path)
            } else {
                (&prefixes.openai, path)
            };
            (join([root, prefix, path]).into(), endpoint)
        };
        Self(Endpoint::ALL.map(path).into())
    }

    /// The endpoint of a request path without its query.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        // A few comparisons, of which most end at the length, are cheaper than a hash.
        self.0.iter().find(|(known, _)| **known == *path).map(|(_, endpoint)| *endpoint)
    }
}

/// An absolute path without empty parts, `.` and `..`.
fn join<'a>(parts: [&'a str; 3]) -> String {
    let mut segments: Vec<&'a str> = Vec::new();
    for segment in parts.into_iter().flat_map(|part| part.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(root: &str, prefixes: &str) -> Paths {
        Paths::new(root, &prefixes.parse().unwrap())
    }

    #[test]
    fn by_default_the_paths_are_the_endpoints_own() {
        let paths = Paths::default();
        for endpoint in Endpoint::ALL {
            assert_eq!(paths.endpoint(endpoint.path()), Some(endpoint));
        }
        for path in ["", "/", "/v1/chat/completions/", "/v1/chat", "/V1/chat/completions", "v1/models"] {
            assert_eq!(paths.endpoint(path), None, "{path}");
        }
    }

    #[test]
    fn prefixes_move_their_family_only() {
        let moved = paths("/ai/", "openai: /o/ , cohere:c");
        for (path, endpoint) in [
            ("/ai/o/v1/chat/completions", Some(Endpoint::ChatCompletions)),
            ("/ai/o/tokenize", Some(Endpoint::Tokenize)),
            ("/ai/c/v2/rerank", Some(Endpoint::Rerank)),
            ("/ai/anthropic/v1/messages", Some(Endpoint::Messages)),
            ("/v1/chat/completions", None),
            ("/ai/v1/chat/completions", None),
        ] {
            assert_eq!(moved.endpoint(path), endpoint, "{path}");
        }
        let shared = paths("", "openai:,anthropic:/./x/..");
        assert_eq!(shared.endpoint("/v1/messages"), Some(Endpoint::Messages));
        assert_eq!(shared.endpoint("/v1/models"), Some(Endpoint::Models));
    }

    #[test]
    fn what_is_no_pair_is_named() {
        for (text, told) in [
            ("openai", "part 1 is \"openai\""),
            ("openai:/,", "part 2 is \"\""),
            ("openai:/, gemini:/g", "part 2 names \"gemini\""),
            ("OpenAI:/", "part 1 names \"OpenAI\""),
            (" ", "part 1 is \"\""),
        ] {
            let error = text.parse::<Prefixes>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!("".parse(), Ok(Prefixes::default()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_paths_are_absolute(root in ".{0,20}", text in "[a-z:,/. ]{0,40}|.{0,40}") {
            if let Ok(prefixes) = text.parse::<Prefixes>() {
                let Paths(paths) = Paths::new(&root, &prefixes);
                for (path, endpoint) in paths {
                    let tail = endpoint.path().trim_start_matches("/cohere").trim_start_matches("/anthropic");
                    prop_assert!(path.starts_with('/') && path.ends_with(tail) && !path.contains("//"), "{path}");
                }
            }
        }

        #[test]
        fn what_is_written_is_read(openai in "(/[a-z]{1,5}){0,3}", cohere in "/[a-z]{1,5}", anthropic in "/[a-z]{1,5}") {
            let text = format!("anthropic:{anthropic},openai:{openai},cohere:{cohere}");
            prop_assert_eq!(text.parse::<Prefixes>(), Ok(Prefixes { openai, cohere, anthropic }));
        }
    }
}

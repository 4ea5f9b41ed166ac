//! A document in parts: `index.yaml` names the parts, which are slices of one document, and the digest of the whole.
//!
//! The form is that of Envoy AI Gateway v1.1, whose controller cuts documents that do not fit into one Secret.

use std::path::{Component, Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::Deserialize;

use crate::codec::any_case;

/// The name of the index within a bundle.
pub(super) const INDEX: &str = "index.yaml";
/// How long an index may be, in bytes.
pub(super) const MAX_INDEX: u64 = 16 << 20;
/// How many parts there may be.
const MAX_PARTS: usize = 10_000;

/// The content of `index.yaml`. What is not named here (`version`, `uuid`, `createdAt`) is told by the document, too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// The SHA-256 of all parts together, hexadecimal.
    #[serde(default)]
    pub checksum: String,
    /// The parts, in order.
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// One slice of the document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// For messages.
    #[serde(default)]
    pub name: String,
    /// Where it is within the bundle, with slashes.
    #[serde(default)]
    pub path: String,
    /// How long it is said to be, for messages; the checksum decides.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

impl Index {
    /// Reads an index, and refuses one without checksum or parts, or with a part outside of the bundle. The error is for
    /// people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { budget: None };
        let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
            any_case::deserialize(yaml, &[])
        });
        let index: Self = read.map_err(|error| error.to_string())?;
        if index.checksum.trim().is_empty() {
            return Err("`checksum` is empty; it has to be the SHA-256 of all parts together".to_owned());
        }
        if index.parts.is_empty() {
            return Err("`parts` is empty; the document has at least one".to_owned());
        }
        if index.parts.len() > MAX_PARTS {
            return Err(format!("there are {} parts; at most {MAX_PARTS} are read", index.parts.len()));
        }
        for (number, part) in index.parts.iter().enumerate() {
            if part.file().is_none() {
                let path = &part.path;
                return Err(format!(
                    "`parts[{number}].path` is {path:?}; it has to lead to a file within the bundle"
                ));
            }
        }
        Ok(index)
    }

    /// Whether these bytes are the document.
    pub fn fits(&self, document: &[u8]) -> bool {
        self.checksum.trim().eq_ignore_ascii_case(&hexadecimal(digest(&SHA256, document).as_ref()))
    }
}

impl Part {
    /// Its path below the bundle; nothing where it would leave it.
    pub fn file(&self) -> Option<PathBuf> {
        let path = Path::new(&self.path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let names = path.components().any(|part| matches!(part, Component::Normal(_)));
        (inside && names && !self.path.contains(['\\', '\0'])).then(|| path.to_owned())
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn an_index_is_read_and_tells_its_document() {
        let text = format!(
            "version: dev\nuuid: u\nchecksum: {}\ncreatedAt: 2025-01-01T00:00:00Z\nparts:\n- name: \"000\"\n  path: parts/000\n  sizeBytes: 3\n- {{Name: x, Path: ./parts/001}}\n",
            ABC.to_uppercase()
        );
        let index = Index::parse(&text).unwrap();
        assert_eq!(index.parts[0].size_bytes, Some(3));
        assert_eq!(index.parts[1].file(), Some("./parts/001".into()));
        assert!(index.fits(b"abc") && !index.fits(b"abd"));
    }

    #[test]
    fn what_cannot_be_a_bundle_is_refused() {
        let with = |path: &str| format!("{{checksum: {ABC}, parts: [{{path: '{path}'}}]}}");
        for (text, told) in [
            ("{parts: [{path: a}]}".to_owned(), "checksum"),
            (format!("{{checksum: {ABC}}}"), "parts"),
            (format!("{{checksum: {ABC}, parts: null}}"), "parts"),
            (with("../secret"), "parts[0].path"),
            (with("parts/../../secret"), "parts[0].path"),
            (with("/etc/passwd"), "parts[0].path"),
            (with(""), "parts[0].path"),
            (with("."), "parts[0].path"),
            (with("..\\secret"), "parts[0].path"),
            ("checksum: [".to_owned(), "line"),
        ] {
            let error = Index::parse(&text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_part_is_outside_of_the_bundle(path in "[./a\\\\]{0,12}|\\PC{0,20}") {
            let part = Part { name: String::new(), path, size_bytes: None };
            if let Some(file) = part.file() {
                let mut depth = 0;
                for component in file.components() {
                    match component {
                        Component::Normal(_) => depth += 1,
                        Component::CurDir => {}
                        other => prop_assert!(false, "{other:?} in {file:?}"),
                    }
                }
                prop_assert!(depth > 0);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = Index::parse(&text);
        }
    }
}

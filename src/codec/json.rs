//! L0. JSON without a tree: finding and editing top-level members while every other byte stays as it came.
//!
//! What is not acted on is never interpreted: member values are told apart by their brackets and quotes alone. Whoever
//! needs to know that a document is valid parses it. Grammar: RFC 8259.

use std::ops::Range;

use memchr::memchr2;

mod edit;
mod scan;

pub use edit::{Edit, edit, quoted, remove_member, set_member, set_path};
pub use scan::{DocumentState, MemberScanner};

/// The bytes are not a JSON object, as far as that had to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object (at byte {offset})")]
pub struct NotAnObject {
    /// Where the first unexpected byte is, or the length of the document if it ends too early.
    pub offset: usize,
}

/// The raw values of the named top-level members of a whole document, borrowed from it. Of members that occur more than
/// once the last counts. `None` for absent ones.
pub fn members<'a, const N: usize>(
    doc: &'a [u8],
    keys: [&str; N],
) -> Result<[Option<&'a [u8]>; N], NotAnObject> {
    let mut found = [None; N];
    for member in Members::new(doc)? {
        let Member { key, value } = member?;
        if let Some(index) = keys.iter().position(|wanted| key_is(&doc[key.start + 1..key.end - 1], wanted)) {
            found[index] = Some(&doc[value]);
        }
    }
    Ok(found)
}

/// Where serde_json found a document wrong, as `line L column C`. The reason is left out on purpose: it can quote the
/// document.
#[must_use]
pub fn position(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

/// Where one member is in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    /// With its quotes.
    key: Range<usize>,
    value: Range<usize>,
}

/// The top-level members of a document in order. Ends after the first error.
#[derive(Debug)]
struct Members<'a> {
    doc: &'a [u8],
    /// Just after the opening brace or the latest member.
    at: usize,
    first: bool,
    done: bool,
}

impl<'a> Members<'a> {
    fn new(doc: &'a [u8]) -> Result<Self, NotAnObject> {
        let open = skip_space(doc, 0);
        match doc.get(open) {
            Some(b'{') => Ok(Self { doc, at: open + 1, first: true, done: false }),
            _ => Err(NotAnObject { offset: open }),
        }
    }

    fn step(&mut self) -> Result<Option<Member>, NotAnObject> {
        let doc = self.doc;
        let expect = |at: usize, byte: u8| match doc.get(at) {
            Some(&found) if found == byte => Ok(at + 1),
            _ => Err(NotAnObject { offset: at }),
        };
        let mut at = skip_space(doc, self.at);
        if doc.get(at) == Some(&b'}') {
            let end = skip_space(doc, at + 1);
            return if end == doc.len() { Ok(None) } else { Err(NotAnObject { offset: end }) };
        }
        if !std::mem::take(&mut self.first) {
            at = skip_space(doc, expect(at, b',')?);
        }
        let start = at;
        let end = string_end(doc, expect(start, b'"')?).ok_or(NotAnObject { offset: doc.len() })?;
        let value = skip_space(doc, expect(skip_space(doc, end), b':')?);
        let value = value..value_end(doc, value)?;
        self.at = value.end;
        Ok(Some(Member { key: start..end, value }))
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, NotAnObject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn skip_space(doc: &[u8], from: usize) -> usize {
    doc[from..].iter().position(|byte| !is_space(*byte)).map_or(doc.len(), |length| from + length)
}

/// Ends a number or a literal.
fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b'}' | b']' | b'{' | b'[' | b':' | b'"')
}

/// The place after the closing quote of a string whose content begins at `from`.
fn string_end(doc: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr2(b'"', b'\\', doc.get(from..)?)?;
        if doc[at] == b'"' {
            return Some(at + 1);
        }
        from = at + 2;
    }
}

fn value_end(doc: &[u8], start: usize) -> Result<usize, NotAnObject> {
    let too_short = NotAnObject { offset: doc.len() };
    match doc.get(start) {
        None => Err(too_short),
        Some(b'"') => string_end(doc, start + 1).ok_or(too_short),
        Some(b'{' | b'[') => {
            let mut depth = 0_usize;
            let mut at = start;
            loop {
                at += find_structure(&doc[at..]).ok_or(too_short)?;
                match doc[at] {
                    b'"' => {
                        at = string_end(doc, at + 1).ok_or(too_short)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
        Some(&byte) if is_delimiter(byte) => Err(NotAnObject { offset: start }),
        Some(_) => Ok(doc[start..]
            .iter()
            .position(|byte| is_delimiter(*byte))
            .map_or(doc.len(), |length| start + length)),
    }
}

/// The next quote or bracket.
fn find_structure(bytes: &[u8]) -> Option<usize> {
    const STRUCTURE: [bool; 256] = {
        let mut table = [false; 256];
        let mut index = 0;
        while index < 5 {
            table[b"\"{}[]"[index] as usize] = true;
            index += 1;
        }
        table
    };
    bytes.iter().position(|byte| STRUCTURE[usize::from(*byte)])
}

/// Whether a key, given as in the document and without its quotes, means `wanted`.
fn key_is(raw: &[u8], wanted: &str) -> bool {
    if memchr::memchr(b'\\', raw).is_none() {
        return raw == wanted.as_bytes();
    }
    // Each byte of the wanted key takes at most six in the document (`\u0061`).
    raw.len() <= wanted.len() * 6
        && serde_json::from_slice::<String>(&[b"\"", raw, b"\""].concat()).is_ok_and(|key| key == wanted)
}

#[cfg(test)]
mod tests;

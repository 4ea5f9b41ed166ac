//! L0. `multipart/form-data` bodies, whole: RFC 2046 §5.1 for the parts, RFC 7578 for their names.
//!
//! A [`Form`] only knows where its parts are; nothing of them is copied.

use std::ops::Range;

use memchr::memmem;

/// More parts than that are no form that anyone fills in.
const MAX_PARTS: usize = 256;
/// The headers of one part, in bytes.
const MAX_PART_HEADERS: usize = 16 * 1024;
/// RFC 2046 §5.1.1.
const MAX_BOUNDARY: usize = 70;

/// Why a body is no form. The text is for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type names no usable boundary.
    #[error("the content type of a form must name a boundary of 1 to {MAX_BOUNDARY} characters")]
    NoBoundary,
    /// The delimiter does not occur, or not where it should.
    #[error("the form is cut off: {0}")]
    CutOff(&'static str),
    /// More than anyone needs.
    #[error("the form has more than {MAX_PARTS} parts")]
    TooManyParts,
    /// A part without a name.
    #[error("part {0} of the form has no name in its content-disposition")]
    NoName(usize),
    /// A field that must be there once at most.
    #[error("the form field `{0}` is given more than once")]
    Twice(String),
    /// A field that must be text.
    #[error("the form field `{0}` is not UTF-8")]
    NotText(String),
}

/// A form in a body: the places of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    body: &'a [u8],
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    name: String,
    content: Range<usize>,
}

impl<'a> Form<'a> {
    /// Whether a content type is that of a form.
    pub fn is_content_type(content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("multipart/form-data")
    }

    /// Finds the parts of a whole body.
    pub fn parse(content_type: &str, body: &'a [u8]) -> Result<Self, FormError> {
        let boundary = boundary(content_type).ok_or(FormError::NoBoundary)?;
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        let finder = memmem::Finder::new(&delimiter);
        // The first delimiter may stand at the very beginning, without its line break.
        let mut at = if body.starts_with(&delimiter[2..]) {
            delimiter.len() - 2
        } else {
            finder.find(body).ok_or(FormError::CutOff("its boundary does not occur"))? + delimiter.len()
        };
        let mut parts = Vec::new();
        loop {
            if body[at..].starts_with(b"--") {
                return Ok(Self { body, parts });
            }
            if parts.len() == MAX_PARTS {
                return Err(FormError::TooManyParts);
            }
            // White space may follow a boundary.
            let padding = body[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let headers = at + padding;
            if !body[headers..].starts_with(b"\r\n") {
                return Err(FormError::CutOff("a boundary is not followed by a line break"));
            }
            let window = &body[headers..body.len().min(headers + MAX_PART_HEADERS)];
            let length =
                memmem::find(window, b"\r\n\r\n").ok_or(FormError::CutOff("a part's headers do not end"))?;
            let start = headers + length + 4;
            // The line break that ends the headers may be the one before the delimiter: an empty part.
            let from = start - 2;
            let end = from + finder.find(&body[from..]).ok_or(FormError::CutOff("a part does not end"))?;
            let name = name(&body[headers..headers + length]).ok_or(FormError::NoName(parts.len() + 1))?;
            parts.push(Part { name, content: start..end.max(start) });
            at = end + delimiter.len();
        }
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    /// The text of a field that may be there once.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, FormError> {
        let Some(content) = self.only(name)? else { return Ok(None) };
        std::str::from_utf8(&self.body[content]).map(Some).map_err(|_| FormError::NotText(name.to_owned()))
    }

    /// The body with another text in that field; all other bytes are the same. `None` if there is no such field. The text
    /// must not contain a line break, so that it cannot look like a boundary.
    pub fn with_text(&self, name: &str, text: &str) -> Result<Option<Vec<u8>>, FormError> {
        let Some(content) = self.only(name)? else { return Ok(None) };
        let (before, after) = (&self.body[..content.start], &self.body[content.end..]);
        Ok(Some([before, text.as_bytes(), after].concat()))
    }

    fn only(&self, name: &str) -> Result<Option<Range<usize>>, FormError> {
        let mut fields = self.parts.iter().filter(|part| part.name == name);
        let first = fields.next().map(|part| part.content.clone());
        if fields.next().is_some() {
            return Err(FormError::Twice(name.to_owned()));
        }
        Ok(first)
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    let usable = (1..=MAX_BOUNDARY).contains(&boundary.len())
        && boundary.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    usable.then_some(boundary)
}

/// The name that a part's `content-disposition` gives.
fn name(headers: &[u8]) -> Option<String> {
    let headers = String::from_utf8_lossy(headers);
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    parameter(disposition, "name")
}

/// The value of a parameter behind the first `;`: a token, or a quoted string whose escapes are taken off.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (text, next) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = next.split_once(';')?.1;
    }
}

/// A quoted string from behind its first quote, and what follows its last one.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(characters.next()?.1),
            _ => text.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"b b\"; charset=utf-8";

    fn form(parts: &[(&str, &str)]) -> String {
        let part = |(disposition, content): &(&str, &str)| {
            format!(
                "--b b\r\nContent-Disposition: form-data; {disposition}\r\nX-Other: a\r\n\r\n{content}\r\n"
            )
        };
        parts.iter().map(part).collect::<String>() + "--b b--\r\nepilogue"
    }

    #[test]
    fn fields_are_found_by_name() {
        let body = form(&[
            ("name=\"model\"", "whisper-1"),
            ("filename=\"na;me=x.mp3\"; name=file", "\r\n--b\r\n\r\nnot a boundary"),
            ("name=\"quo\\\"ted\"", ""),
        ]);
        let form = Form::parse(TYPE, body.as_bytes()).unwrap();
        assert_eq!(form.text("model"), Ok(Some("whisper-1")));
        assert_eq!(form.text("file"), Ok(Some("\r\n--b\r\n\r\nnot a boundary")));
        assert_eq!(form.text("quo\"ted"), Ok(Some("")));
        assert_eq!(form.text("other"), Ok(None));
        assert!(form.contains("file") && !form.contains("other"));
    }

    #[test]
    fn one_field_is_replaced_and_nothing_else() {
        let body = form(&[("name=a", "1"), ("name=model", "old"), ("name=b", "2")]);
        let parsed = Form::parse(TYPE, body.as_bytes()).unwrap();
        let replaced = parsed.with_text("model", "new-name").unwrap().unwrap();
        assert_eq!(String::from_utf8(replaced).unwrap(), body.replace("old", "new-name"));
        assert_eq!(parsed.with_text("c", "x"), Ok(None));
    }

    #[test]
    fn a_preamble_and_an_empty_part_are_no_problem() {
        let body = "preamble\r\n--b \t\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n--b--";
        let form = Form::parse("multipart/form-data;boundary=b", body.as_bytes()).unwrap();
        assert_eq!(form.text("a"), Ok(Some("")));
    }

    #[test]
    fn what_is_no_form_is_refused_with_a_reason() {
        for (content_type, body, part) in [
            ("multipart/form-data", "", "must name a boundary"),
            ("multipart/form-data; boundary=", "", "must name a boundary"),
            ("multipart/form-data; boundary=b", "nothing", "does not occur"),
            ("multipart/form-data; boundary=b", "--b", "not followed by a line break"),
            ("multipart/form-data; boundary=b", "--b\r\na: b", "headers do not end"),
            (
                "multipart/form-data; boundary=b",
                "--b\r\ncontent-disposition: x; name=a\r\n\r\ncut",
                "does not end",
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nx: y\r\n\r\na\r\n--b--",
                "part 1 of the form has no name",
            ),
        ] {
            let error = Form::parse(content_type, body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{body:?}: {error}");
        }
        let twice = form(&[("name=model", "a"), ("name=model", "b")]);
        let twice = Form::parse(TYPE, twice.as_bytes()).unwrap();
        assert_eq!(twice.text("model"), Err(FormError::Twice("model".to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'-'), Just(b'\r'), Just(b'\n'), Just(b'b')], 0..200)) {
            let _ = Form::parse("multipart/form-data; boundary=b", &body);
        }

        #[test]
        fn contents_come_back_as_they_were(contents in prop::collection::vec("[a-z\\r\\n-]{0,20}", 1..5)) {
            let parts: Vec<(String, &str)> =
                contents.iter().enumerate().map(|(index, content)| (format!("name=f{index}"), content.as_str())).collect();
            let borrowed: Vec<(&str, &str)> = parts.iter().map(|(name, content)| (name.as_str(), *content)).collect();
            let body = form(&borrowed);
            let parsed = Form::parse(TYPE, body.as_bytes()).unwrap();
            for (index, content) in contents.iter().enumerate() {
                prop_assert_eq!(parsed.text(&format!("f{index}")), Ok(Some(content.as_str())));
            }
        }
    }
}

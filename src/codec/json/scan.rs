//! L0. Capturing members of a document that arrives in pieces.

use memchr::memchr2;

use super::{find_structure, is_delimiter, is_space, key_is};

/// How far a [`MemberScanner`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentState {
    /// Nothing but white space so far.
    Empty,
    /// Inside an object.
    Object,
    /// The object has ended.
    Complete,
    /// The document is not an object but another value (or begins like one). Nothing is captured.
    NotAnObject,
    /// What came cannot be a JSON document, or goes on after its end. What was captured before stays.
    Invalid,
}

/// Captures the raw values of selected top-level members of one JSON document, given in chunks of any size, and keeps
/// nothing else of it. Of members that occur more than once the last counts.
#[derive(Debug)]
pub struct MemberScanner {
    captures: Vec<Capture>,
    max_capture: usize,
    state: State,
    /// The current key without its quotes, if it is not too long to be one of the wanted ones.
    key: Vec<u8>,
    max_key: usize,
    /// Index into `captures`, while the value of a wanted key is being read.
    current: Option<usize>,
}

#[derive(Debug)]
struct Capture {
    key: &'static str,
    value: Captured,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Captured {
    Nothing,
    /// Not to its end so far.
    Part,
    Whole,
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// `first`: the object may end here.
    BeforeKey {
        first: bool,
    },
    Key {
        escaped: bool,
    },
    BeforeColon,
    BeforeValue,
    Scalar,
    Text {
        escaped: bool,
    },
    Nested {
        depth: usize,
        text: bool,
        escaped: bool,
    },
    AfterValue,
    End,
    NotAnObject,
    Invalid,
}

impl MemberScanner {
    /// A scanner for the members `keys`, each of whose values is captured if it has at most `max_capture` bytes.
    #[must_use]
    pub fn new(keys: &'static [&'static str], max_capture: usize) -> Self {
        let captures =
            keys.iter().map(|key| Capture { key, value: Captured::Nothing, bytes: Vec::new() }).collect();
        // A byte of a key takes at most six in the document (`\u0061`).
        let max_key = keys.iter().map(|key| key.len() * 6).max().unwrap_or(0);
        Self { captures, max_capture, state: State::Start, key: Vec::new(), max_key, current: None }
    }

    /// Takes the next piece of the document.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            match self.state {
                State::Key { escaped } => at += self.key(&chunk[at..], escaped),
                State::Scalar | State::Text { .. } | State::Nested { .. } => at += self.value(&chunk[at..]),
                State::NotAnObject | State::Invalid => return,
                State::Start
                | State::BeforeKey { .. }
                | State::BeforeColon
                | State::BeforeValue
                | State::AfterValue
                | State::End => at += self.between(chunk[at]),
            }
        }
    }

    /// How far the document is.
    #[must_use]
    pub fn state(&self) -> DocumentState {
        match self.state {
            State::Start => DocumentState::Empty,
            State::End => DocumentState::Complete,
            State::NotAnObject => DocumentState::NotAnObject,
            State::Invalid => DocumentState::Invalid,
            _ => DocumentState::Object,
        }
    }

    /// The raw value of a member, once it is complete. `None` as well when it is longer than the limit.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&[u8]> {
        let capture = self.captures.iter().find(|capture| capture.key == key)?;
        (capture.value == Captured::Whole).then_some(&capture.bytes[..])
    }

    /// Whether a member was there but longer than the limit.
    #[must_use]
    pub fn too_long(&self, key: &str) -> bool {
        self.captures.iter().any(|capture| capture.key == key && capture.value == Captured::TooLong)
    }

    /// Takes one byte outside of keys and values. Returns how many were consumed: the first byte of a number is left
    /// to [`Self::value`].
    fn between(&mut self, byte: u8) -> usize {
        if is_space(byte) {
            return 1;
        }
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::BeforeKey { first: true },
            (State::Start, b'}' | b']' | b',' | b':') => State::Invalid,
            (State::Start, _) => State::NotAnObject,
            (State::BeforeKey { .. }, b'"') => {
                self.key.clear();
                State::Key { escaped: false }
            }
            (State::BeforeKey { first: true } | State::AfterValue, b'}') => State::End,
            (State::BeforeColon, b':') => State::BeforeValue,
            (State::BeforeValue, _) => {
                if let Some(capture) = self.current.and_then(|index| self.captures.get_mut(index)) {
                    capture.value = Captured::Part;
                    capture.bytes.clear();
                }
                match byte {
                    // The first byte was seen here, and is captured here.
                    b'"' => {
                        self.capture(b"\"");
                        self.state = State::Text { escaped: false };
                        return 1;
                    }
                    b'{' | b'[' => State::Nested { depth: 0, text: false, escaped: false },
                    byte if is_delimiter(byte) => State::Invalid,
                    _ => State::Scalar,
                }
            }
            (State::AfterValue, b',') => State::BeforeKey { first: false },
            _ => State::Invalid,
        };
        usize::from(!matches!(self.state, State::Scalar | State::Nested { .. }))
    }

    fn key(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (consumed, step) = text(bytes, escaped);
        let content = &bytes[..consumed - usize::from(step == Text::Ended)];
        // One byte more than fits marks the key as too long.
        let room = (self.max_key + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(&content[..content.len().min(room)]);
        self.state = match step {
            Text::Ended => {
                self.current = if self.key.len() > self.max_key {
                    None
                } else {
                    self.captures.iter().position(|capture| key_is(&self.key, capture.key))
                };
                State::BeforeColon
            }
            Text::Inside { escaped } => State::Key { escaped },
        };
        consumed
    }

    fn value(&mut self, bytes: &[u8]) -> usize {
        let (consumed, state) = match self.state {
            State::Text { escaped } => match text(bytes, escaped) {
                (consumed, Text::Ended) => (consumed, State::AfterValue),
                (consumed, Text::Inside { escaped }) => (consumed, State::Text { escaped }),
            },
            State::Nested { depth, text, escaped } => nested(bytes, depth, text, escaped),
            _ => match bytes.iter().position(|byte| is_delimiter(*byte)) {
                Some(end) => (end, State::AfterValue),
                None => (bytes.len(), State::Scalar),
            },
        };
        self.capture(&bytes[..consumed]);
        self.state = state;
        if state == State::AfterValue
            && let Some(capture) = self.current.take().and_then(|index| self.captures.get_mut(index))
            && capture.value == Captured::Part
        {
            capture.value = Captured::Whole;
        }
        consumed
    }

    fn capture(&mut self, bytes: &[u8]) {
        let Some(capture) = self.current.and_then(|index| self.captures.get_mut(index)) else { return };
        if capture.value != Captured::Part {
            return;
        }
        if capture.bytes.len() + bytes.len() > self.max_capture {
            capture.value = Captured::TooLong;
            capture.bytes = Vec::new();
        } else {
            capture.bytes.extend_from_slice(bytes);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// The closing quote is the last byte consumed.
    Ended,
    /// `escaped`: the last byte was a backslash that escapes the next.
    Inside { escaped: bool },
}

/// Reads on inside a string. Returns how many bytes were consumed, at least one.
fn text(bytes: &[u8], escaped: bool) -> (usize, Text) {
    let mut at = usize::from(escaped);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return (at, Text::Ended);
        }
        if at == bytes.len() {
            return (at, Text::Inside { escaped: true });
        }
        at += 1;
    }
    (bytes.len(), Text::Inside { escaped: false })
}

/// Reads on inside an array or object. Returns how many bytes were consumed, at least one.
fn nested(bytes: &[u8], mut depth: usize, in_text: bool, escaped: bool) -> (usize, State) {
    let mut at = 0;
    let mut inside = in_text.then_some(escaped);
    loop {
        if let Some(escaped) = inside.take() {
            let (consumed, step) = text(&bytes[at..], escaped);
            at += consumed;
            if let Text::Inside { escaped } = step {
                return (at, State::Nested { depth, text: true, escaped });
            }
        }
        let Some(found) = find_structure(&bytes[at..]) else {
            return (bytes.len(), State::Nested { depth, text: false, escaped: false });
        };
        at += found + 1;
        match bytes[at - 1] {
            b'"' if at == bytes.len() => return (at, State::Nested { depth, text: true, escaped: false }),
            b'"' => inside = Some(false),
            b'{' | b'[' => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
        if depth == 0 {
            return (at, State::AfterValue);
        }
    }
}

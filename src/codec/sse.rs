//! L0. Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.
//!
//! [`Splitter`] finds the ends of events and hands out each one's bytes unchanged, so that what nobody wants to change can
//! be passed on as it came.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event was longer than the splitter's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Cuts a stream of chunks into events.
///
/// An event is everything up to and including a blank line; a blank line with nothing before it is an event without data.
/// Lines end in LF, CRLF or CR. An event that ends in CR is yielded when the byte after it is known, since that may be the
/// LF that belongs to it.
///
/// Bytes of complete events within one chunk are shared with it and not copied. What is left of a chunk after its last
/// complete event is copied and held until the event ends. The bytes yielded, followed by [`Splitter::finish`], are exactly
/// the bytes fed.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// The beginning of an unfinished event, from earlier chunks.
    held: BytesMut,
    /// What has not been looked at yet, of the latest chunk.
    chunk: Bytes,
    line: Line,
    /// No event was yielded so far: a byte order mark may come.
    first: bool,
    failed: bool,
}

/// Where the scan is within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing of the line was seen.
    Start,
    /// Something of it was seen.
    Inside,
    /// It ended in CR; an LF may follow that belongs to it. `blank`: the line was empty, so that the event ends here.
    Cr { blank: bool },
}

impl Splitter {
    /// A splitter that refuses events of more than `limit` bytes and never holds more than that (and one chunk).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: BytesMut::new(),
            chunk: Bytes::new(),
            line: Line::Start,
            first: true,
            failed: false,
        }
    }

    /// Yields the events that `chunk` completes. After an error nothing more is yielded; [`Splitter::finish`] then
    /// returns all bytes that were not yielded, up to and including this chunk, and later chunks are dropped.
    pub fn feed(&mut self, chunk: Bytes) -> Events<'_> {
        if self.failed {
            return Events { splitter: self, failure: true };
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            // The iterator over the previous chunk was not run to its end.
            let rest = std::mem::take(&mut self.chunk);
            self.chunk = [rest, chunk].concat().into();
        }
        Events { splitter: self, failure: false }
    }

    /// How many bytes of an unfinished event are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len() + self.chunk.len()
    }

    /// Ends the stream: the unfinished event, if there is one. Many providers leave out the last blank line, so it may be as
    /// meaningful as any other. The splitter is as new afterwards.
    pub fn finish(&mut self) -> Option<Event> {
        let mut raw = std::mem::take(&mut self.held);
        raw.extend_from_slice(&std::mem::take(&mut self.chunk));
        let first = self.first;
        *self = Self::new(self.limit);
        (!raw.is_empty()).then(|| Event { raw: raw.freeze(), first })
    }

    fn next_event(&mut self) -> Result<Option<Event>, EventTooLong> {
        let end = self.scan();
        let length = self.held.len() + end.unwrap_or(self.chunk.len());
        if length > self.limit {
            self.failed = true;
            return Err(EventTooLong { limit: self.limit });
        }
        let Some(end) = end else {
            self.held.extend_from_slice(&std::mem::take(&mut self.chunk));
            return Ok(None);
        };
        let piece = self.chunk.split_to(end);
        let raw = if self.held.is_empty() {
            piece
        } else {
            self.held.extend_from_slice(&piece);
            std::mem::take(&mut self.held).freeze()
        };
        Ok(Some(Event { raw, first: std::mem::take(&mut self.first) }))
    }

    /// Looks for the end of an event in the current chunk, from its beginning; looks at each byte once.
    fn scan(&mut self) -> Option<usize> {
        let chunk = &self.chunk[..];
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            let blank = match self.line {
                Line::Cr { blank } => {
                    self.line = Line::Start;
                    at += usize::from(byte == b'\n');
                    if blank {
                        return Some(at);
                    }
                    continue;
                }
                Line::Start => true,
                Line::Inside => false,
            };
            let Some(length) = memchr2(b'\n', b'\r', &chunk[at..]) else {
                self.line = Line::Inside;
                return None;
            };
            let blank = blank && length == 0;
            at += length + 1;
            if chunk[at - 1] == b'\r' {
                self.line = Line::Cr { blank };
            } else {
                self.line = Line::Start;
                if blank {
                    return Some(at);
                }
            }
        }
        None
    }
}

/// The events that one chunk completes; see [`Splitter::feed`].
#[derive(Debug)]
#[must_use = "events are found as they are asked for"]
pub struct Events<'a> {
    splitter: &'a mut Splitter,
    failure: bool,
}

impl Iterator for Events<'_> {
    type Item = Result<Event, EventTooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        let limit = self.splitter.limit;
        if std::mem::take(&mut self.failure) {
            return Some(Err(EventTooLong { limit }));
        }
        if self.splitter.failed {
            return None;
        }
        self.splitter.next_event().transpose()
    }
}

/// One event, with its bytes as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    raw: Bytes,
    /// The first of its stream, which may begin with a byte order mark.
    first: bool,
}

impl Event {
    /// The event's bytes, its terminating blank line included.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The event's bytes, its terminating blank line included.
    #[must_use]
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// The payload: the values of all `data` fields, joined by LF. `None` when there is no such field. Borrowed unless
    /// there are several.
    #[must_use]
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut lines = self.data_lines();
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut data = [first, second].join(&b'\n');
        for line in lines {
            data.push(b'\n');
            data.extend_from_slice(line);
        }
        Some(Cow::Owned(data))
    }

    /// The values of the `data` fields one by one, for providers that separate payloads by single line ends.
    pub fn data_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.fields().filter(|(name, _)| *name == b"data").map(|(_, value)| value)
    }

    /// The event's type, as its last `event` field says. `None` when there is no such field.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.fields().filter(|(name, _)| *name == b"event").last().map(|(_, value)| value)
    }

    /// All fields in order, comments left out. Names without a colon have an empty value.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.raw[..];
        if self.first {
            rest = rest.strip_prefix(BOM).unwrap_or(rest);
        }
        let lines = std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // LF after CR makes an empty line here, which is no field either.
            let (line, after) = match memchr2(b'\n', b'\r', rest) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            rest = after;
            Some(line)
        });
        lines.filter(|line| !line.is_empty()).filter_map(|line| match memchr::memchr(b':', line) {
            Some(0) => None,
            Some(colon) => {
                let value = &line[colon + 1..];
                Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
            }
            None => Some((line, &line[line.len()..])),
        })
    }
}

#[cfg(test)]
mod tests;

//! L0. HTTP headers as Envoy hands them over, and the edits we ask of it.

use std::borrow::Cow;
use std::str::FromStr;

use bytes::Bytes;

/// The headers of one message, in the order received. Names are lower-case, as Envoy sends them; values are slices of
/// the received frame. A header may occur more than once.
#[derive(Clone, Default)]
pub struct Headers(Vec<(Bytes, Bytes)>);

impl Headers {
    /// No headers, with room for `capacity`.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds one header. Nothing is checked: what Envoy let in is kept as it is.
    pub fn push(&mut self, name: Bytes, value: Bytes) {
        self.0.push((name, value));
    }

    /// The value of the last header of that lower-case name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_ref())
    }

    /// As [`Headers::get`], shared instead of borrowed.
    pub fn get_bytes(&self, name: &str) -> Option<Bytes> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.clone())
    }

    /// As [`Headers::get`], where the value is UTF-8; otherwise nothing.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of that name, in the order received.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_ref())
    }

    /// All values of that name joined by a comma, as one list.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.iter().filter(|(key, _)| key == name.as_bytes()).map(|(_, value)| value);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut all = first.to_vec();
        for value in std::iter::once(second).chain(values) {
            all.push(b',');
            all.extend_from_slice(value);
        }
        Some(Cow::Owned(all))
    }

    /// Whether there is a header of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Those whose names are kept.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// Names and values in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// Names only: values may hold credentials.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        Self(iter.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Edits of a message's headers. Envoy applies removals first, then sets, each set replacing every former value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Lower-case names and their new values.
    pub set: Vec<(Bytes, Bytes)>,
    /// Lower-case names.
    pub remove: Vec<Cow<'static, str>>,
}

impl HeaderEdits {
    /// Sets a header, replacing an earlier set of the same name.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (name, value) = (name.into(), value.into());
        match self.set.iter_mut().find(|(key, _)| *key == name) {
            Some(entry) => entry.1 = value,
            None => self.set.push((name, value)),
        }
    }

    /// Removes a header unless it is already on the list.
    pub fn remove(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if !self.remove.contains(&name) {
            self.remove.push(name);
        }
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Names only: values may hold credentials.
impl std::fmt::Debug for HeaderEdits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderEdits")
            .field("set", &self.set.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect::<Vec<_>>())
            .field("remove", &self.remove)
            .finish()
    }
}

/// Which request headers become which telemetry attributes. The text form is `header:attribute,…`; the empty text maps none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMapping(Vec<(String, String)>);

/// Why a text is no [`HeaderMapping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pair}` in `{text}` is not of the form header:attribute")]
pub struct InvalidMapping {
    pair: String,
    text: String,
}

impl FromStr for HeaderMapping {
    type Err = InvalidMapping;

    fn from_str(text: &str) -> Result<Self, InvalidMapping> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let pair = |pair: &str| {
            let (header, attribute) = pair.split_once(':')?;
            let (header, attribute) = (header.trim().to_ascii_lowercase(), attribute.trim().to_owned());
            (!header.is_empty() && !attribute.is_empty()).then_some((header, attribute))
        };
        let invalid = |pair: &str| InvalidMapping { pair: pair.trim().to_owned(), text: text.to_owned() };
        text.split(',')
            .map(|text| pair(text).ok_or_else(|| invalid(text)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl HeaderMapping {
    /// The mapping of one header, whose name is lower-case.
    pub fn of(header: &str, attribute: &str) -> Self {
        Self(vec![(header.to_owned(), attribute.to_owned())])
    }

    /// `over` after `self`: where both map a header, `over` decides.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        let mut merged = self.clone();
        for (header, attribute) in &over.0 {
            merged.0.retain(|(known, _)| known != header);
            merged.0.push((header.clone(), attribute.clone()));
        }
        merged
    }

    /// The attributes that these headers give; absent and empty headers give none.
    pub fn attributes<'a>(&'a self, headers: &'a Headers) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(header, attribute)| {
            let value = headers.text(header).filter(|value| !value.is_empty())?;
            Some((attribute.as_str(), value))
        })
    }
}

/// The mappings of one processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderAttributes {
    /// Into labels of metrics.
    pub metrics: HeaderMapping,
    /// Into dynamic metadata, for access logs.
    pub logs: HeaderMapping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_wins_and_joined_keeps_all() {
        let headers: Headers = [("a", "1"), ("b", "x"), ("a", "2")].into_iter().collect();
        assert_eq!(headers.get("a"), Some(&b"2"[..]));
        assert_eq!(headers.joined("a").as_deref(), Some(&b"1,2"[..]));
        assert_eq!(headers.joined("b").as_deref(), Some(&b"x"[..]));
        assert_eq!(headers.joined("c"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        let headers: Headers = [("authorization", "Bearer secret")].into_iter().collect();
        let mut edits = HeaderEdits::default();
        edits.set("authorization", "Bearer secret");
        assert!(!format!("{headers:?}{edits:?}").contains("secret"));
    }

    #[test]
    fn mappings_are_read_merged_and_applied() {
        let base: HeaderMapping = " X-Team : team , x-user:user.id:raw".parse().unwrap();
        let merged = base.merged(&"x-team:group".parse().unwrap());
        let headers: Headers = [("x-team", "a"), ("x-user", "u"), ("x-empty", "")].into_iter().collect();
        let attributes: Vec<_> = merged.attributes(&headers).collect();
        assert_eq!(attributes, [("user.id:raw", "u"), ("group", "a")]);
        assert_eq!("".parse::<HeaderMapping>(), Ok(HeaderMapping::default()));
        for wrong in ["a", "a:", ":b", "a:b,", ","] {
            assert!(wrong.parse::<HeaderMapping>().is_err(), "{wrong}");
        }
    }
}

//! L0. HTTP headers as Envoy hands them over, and the edits we ask of it.

use std::borrow::Cow;

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
}

//! What an attempt makes of the headers that an earlier one left: Envoy shows each attempt the headers as the one before changed
//! them.

use std::borrow::Cow;

use crate::auth::CLIENT_CREDENTIAL_HEADERS;
use crate::headers::{HeaderEdits, Headers};
use crate::runtime::Backend;

/// The headers as they are, and as the client sent them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Former<'a> {
    pub(super) current: &'a Headers,
    pub(super) original: &'a Headers,
}

/// Whether a header is Envoy's or the gateway's own, and no attempt changes it for a backend.
fn is_own(name: &[u8]) -> bool {
    name.starts_with(b":")
        || name.starts_with(b"x-ai-eg-")
        || name.starts_with(b"x-envoy-")
        || name == b"content-length"
}

/// Adds to the edits what makes everything else as the client sent it: headers that are missing or changed are set again,
/// headers that the client did not send are removed.
pub(super) fn original(former: &Former<'_>, edits: &mut HeaderEdits) {
    let Former { current, original } = *former;
    let is_set = |edits: &HeaderEdits, name: &[u8]| edits.set.iter().any(|(set, _)| set == name);
    for (name, _) in current.iter().filter(|(name, _)| !is_own(name)) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if !original.contains(text) && !is_set(edits, name) {
            edits.remove(text.to_owned());
        }
    }
    for (name, _) in original.iter().filter(|(name, _)| !is_own(name)) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if is_set(edits, name) || edits.remove.iter().any(|removed| removed == text) {
            continue;
        }
        if !current.all(text).eq(original.all(text))
            && let Some(value) = original.joined(text)
        {
            edits.set(text.to_owned(), value.into_owned());
        }
    }
}

/// The headers of a request that another process routed, without what an earlier attempt may have left in them: credentials, and
/// headers that the rule's other backends set.
pub(super) fn without_traces<'a>(
    headers: &Headers,
    siblings: impl Iterator<Item = &'a Backend> + Clone,
) -> Headers {
    let set_by_others = |name: &[u8]| siblings.clone().any(|sibling| sibling.sets_header(name));
    let is_credential = |name: &[u8]| CLIENT_CREDENTIAL_HEADERS.iter().any(|known| known.as_bytes() == name);
    headers.filtered(|name| !is_credential(name) && !set_by_others(name))
}

/// Sets the client's own credentials again.
pub(super) fn credentials(headers: &Headers, edits: &mut HeaderEdits) {
    for name in CLIENT_CREDENTIAL_HEADERS {
        if edits.remove.iter().any(|removed| removed == name) || edits.set.iter().any(|(set, _)| set == name)
        {
            continue;
        }
        if let Some(value) = headers.joined(name) {
            edits.set(name, Cow::into_owned(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn everything_is_as_the_client_sent_it_but_for_what_this_attempt_sets() {
        let client: Headers = [
            (":path", "/v1"),
            ("x-kept", "1"),
            ("x-changed", "1"),
            ("x-changed", "2"),
            ("x-gone", "1"),
            ("x-mine", "1"),
        ]
        .into_iter()
        .collect();
        let now: Headers = [
            (":path", "/other"),
            ("x-kept", "1"),
            ("x-changed", "other"),
            ("x-mine", "other"),
            ("authorization", "Bearer of-another"),
            ("x-ai-eg-model", "m"),
            ("x-envoy-attempt-count", "2"),
        ]
        .into_iter()
        .collect();
        let mut edits = HeaderEdits::default();
        edits.set("x-mine", "this attempt's");
        original(&Former { current: &now, original: &client }, &mut edits);
        assert_eq!(edits.remove, ["authorization"]);
        let set: Vec<(Bytes, Bytes)> = [("x-mine", "this attempt's"), ("x-changed", "1,2"), ("x-gone", "1")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec();
        assert_eq!(edits.set, set);
    }
}

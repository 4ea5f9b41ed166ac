//! What becomes of a request's body on its way to a backend.

use bytes::Bytes;

use crate::codec::json::{self, Edit};
use crate::codec::multipart::Form;
use crate::endpoint::Endpoint;
use crate::headers::HeaderEdits;
use crate::translate::{Outgoing, RequestFacts, TranslateError};
use crate::wire::anthropic;

/// Configured edits of JSON bodies. A path names nested members with dots (`a.b`, `\.` for a dot in a name); a value is a
/// JSON document, or else taken as a string.
#[derive(Debug, Clone, Default)]
pub struct BodyEdits(Vec<(Vec<String>, Option<Vec<u8>>)>);

impl BodyEdits {
    /// Adds the removal of a member.
    pub fn remove(&mut self, path: &str) {
        self.0.push((split(path), None));
    }

    /// Adds the setting of a member.
    pub fn set(&mut self, path: &str, value: &str) {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok();
        let value = if is_json { value.trim().as_bytes().to_vec() } else { json::quoted(value) };
        self.0.push((split(path), Some(value)));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn paths(&self) -> Vec<Vec<&str>> {
        self.0.iter().map(|(path, _)| path.iter().map(String::as_str).collect()).collect()
    }

    fn changes<'a>(&'a self, paths: &'a [Vec<&'a str>]) -> impl Iterator<Item = Edit<'a>> {
        paths.iter().zip(&self.0).map(|(path, (_, value))| Edit { path, value: value.as_deref() })
    }
}

fn split(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => parts.push(std::mem::take(&mut part)),
            '\\' => part.extend(characters.next()),
            _ => part.push(character),
        }
    }
    parts.push(part);
    parts
}

/// What a request becomes whose dialect stays. Bytes that are not edited stay as they are.
pub(super) fn same(facts: &RequestFacts<'_>) -> Result<Outgoing, TranslateError> {
    let malformed = |error| TranslateError::Malformed(format!("malformed request: {error}"));
    let mut headers = HeaderEdits::default();
    let anthropic = matches!(facts.endpoint, Endpoint::Messages | Endpoint::CountTokens);
    if anthropic && !facts.headers.contains("anthropic-version") {
        headers.set("anthropic-version", anthropic::VERSION);
    }
    Ok(Outgoing { body: same_body(facts).map_err(malformed)?, headers })
}

/// The new body, or nothing where the client's own bytes will do. The error says what is wrong with a body that
/// [`crate::endpoint::ModelRequest::read`] would not have accepted.
fn same_body(facts: &RequestFacts<'_>) -> Result<Option<Bytes>, String> {
    let RequestFacts { endpoint, headers, body, model_override, force_usage, edits, .. } = *facts;
    if endpoint.is_multipart() {
        let Some(model) = model_override else { return Ok(None) };
        let content_type = headers.text("content-type").unwrap_or_default();
        let form = Form::parse(content_type, body).map_err(|error| error.to_string())?;
        return Ok(form.with_text("model", model).map_err(|error| error.to_string())?.map(Bytes::from));
    }
    let model = model_override.map(json::quoted);
    let configured = edits.paths();
    let mut changes = Vec::with_capacity(2 + configured.len());
    if let Some(model) = &model {
        changes.push(Edit { path: &["model"], value: Some(model) });
    }
    if force_usage {
        changes.push(Edit { path: &["stream_options", "include_usage"], value: Some(b"true") });
    }
    changes.extend(edits.changes(&configured));
    if changes.is_empty() {
        return Ok(None);
    }
    json::edit(body, &changes).map(|body| Some(body.into())).map_err(|error| error.to_string())
}

/// A translated body with the configured edits.
pub(super) fn edited(body: Bytes, edits: &BodyEdits) -> Result<Bytes, TranslateError> {
    if edits.is_empty() {
        return Ok(body);
    }
    let changes: Vec<_> = edits.paths();
    let changes: Vec<_> = edits.changes(&changes).collect();
    let edited = json::edit(&body, &changes);
    edited.map(Bytes::from).map_err(|error| TranslateError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;

    fn facts<'a>(
        endpoint: Endpoint,
        headers: &'a Headers,
        body: &'a Bytes,
        model_override: Option<&'a str>,
        edits: &'a BodyEdits,
    ) -> RequestFacts<'a> {
        let model = model_override.unwrap_or("m");
        RequestFacts {
            endpoint,
            headers,
            body,
            model,
            model_override,
            streaming: false,
            force_usage: false,
            edits,
        }
    }

    fn edited(body: &str, edits: &BodyEdits) -> String {
        let (headers, body) = (Headers::default(), Bytes::copy_from_slice(body.as_bytes()));
        let body = same(&facts(Endpoint::ChatCompletions, &headers, &body, None, edits)).unwrap().body;
        String::from_utf8(body.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn configured_edits_remove_first_and_set_json_or_text() {
        let mut edits = BodyEdits::default();
        edits.remove("gone");
        edits.set("temperature", "0.5");
        edits.set("service_tier", "flex");
        edits.set("meta.a\\.b", "{\"x\": 1}");
        let body = r#"{"gone": 1, "temperature": 2,  "messages": []}"#;
        let expected =
            r#"{"temperature": 0.5,  "messages": [],"service_tier":"flex","meta":{"a.b":{"x": 1}}}"#;
        let edited: serde_json::Value = serde_json::from_str(&edited(body, &edits)).unwrap();
        assert_eq!(edited, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }

    #[test]
    fn a_form_gets_another_model_and_keeps_the_rest() {
        let body = "--b\r\ncontent-disposition: form-data; name=model\r\n\r\nold\r\n\
                    --b\r\ncontent-disposition: form-data; name=file\r\n\r\n\0\r\n--b--";
        let headers: Headers = [("content-type", "multipart/form-data; boundary=b")].into_iter().collect();
        let (bytes, edits) = (Bytes::from(body), BodyEdits::default());
        let new = same(&facts(Endpoint::Translations, &headers, &bytes, Some("new"), &edits))
            .unwrap()
            .body
            .unwrap();
        assert_eq!(String::from_utf8(new.to_vec()).unwrap(), body.replace("old", "new"));
    }

    #[test]
    fn anthropic_requests_name_a_version_even_if_the_client_does_not() {
        let (body, edits) = (Bytes::from_static(b"{}"), BodyEdits::default());
        for (endpoint, sent, set) in [
            (Endpoint::Messages, None, true),
            (Endpoint::CountTokens, None, true),
            (Endpoint::Messages, Some(("anthropic-version", "2099-01-01")), false),
            (Endpoint::ChatCompletions, None, false),
        ] {
            let headers: Headers = sent.into_iter().collect();
            let outgoing = same(&facts(endpoint, &headers, &body, None, &edits)).unwrap();
            assert_eq!(outgoing.headers.is_empty(), !set, "{endpoint:?} {sent:?}");
            assert_eq!(outgoing.body, None);
        }
    }
}

//! The client's side of an exchange: which endpoint, which rule, and what goes to the provider.

use std::sync::Arc;

use bytes::Bytes;

use super::{Exchange, Received, Sent, State, Step};
use crate::auth::{self, CredentialMetadata, SignError, SigningRequest};
use crate::endpoint::{Endpoint, ModelRequest};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, Change, LocalReply, Metadata};
use crate::runtime::{Gateway, Route, Rule};
use crate::translate::{self, Outgoing, Pair, RequestFacts, TranslateError};
use crate::wire::openai;

/// Names the model in route matches, labels and logs.
pub const MODEL_HEADER: &str = "x-ai-eg-model";
/// Proves to Envoy's route that the request was signed for it; see [`crate::config::Rule::routing_key`].
pub const ROUTING_HEADER: &str = "x-ai-eg-route";
/// The path the client used.
pub const ORIGINAL_PATH_HEADER: &str = "x-ai-eg-original-path";
/// The path the client used, under the name Envoy's access logs know.
pub const ENVOY_ORIGINAL_PATH_HEADER: &str = "x-envoy-original-path";
/// The answer to a model that no rule names.
pub const NO_ROUTE: &str = "No matching route found. It is likely that the model specified your request is not configured in the Gateway";

/// Headers of that prefix are the gateway's own and never believed from a client.
const INTERNAL_PREFIX: &[u8] = b"x-ai-eg-";
/// As long as a value that a route can match (Gateway API: 4,096).
const MAX_MODEL_LENGTH: usize = 4096;
/// How much of a client's text is repeated back to it.
const MAX_ECHO: usize = 1024;

impl Exchange {
    pub(super) fn request_headers(&mut self, headers: Headers, end_of_stream: bool) -> (State, Step) {
        let path = headers.text(":path").unwrap_or_default();
        let Some(endpoint) = self.settings.paths.endpoint(path.split('?').next().unwrap_or_default()) else {
            let shown = &path[..path.floor_char_boundary(MAX_ECHO)];
            let body = format!("unsupported path: {shown}");
            return self.reply(LocalReply::text(404, "unsupported_path", body));
        };
        self.note(|settlement| settlement.endpoint = Some(endpoint));
        let Some(gateway) = self.gateway.clone() else {
            let message = "the processor has no configuration for this gateway yet; try again shortly";
            let body = openai::error_body("ServiceUnavailable", 503, message);
            return self.reply(LocalReply::json(503, "no_configuration", body));
        };
        let models = || gateway.models.of_host(headers.text(":authority"));
        if endpoint == Endpoint::Models {
            return self.reply(LocalReply::json(200, "models", models().openai.clone()));
        }
        if endpoint == Endpoint::AnthropicModels {
            return self.reply(LocalReply::json(200, "models", models().anthropic.clone()));
        }
        if headers.get(":method") != Some(b"POST") {
            let message = format!("{} takes POST requests only", endpoint.path());
            let body = openai::error_body("MethodNotAllowed", 405, &message);
            let mut reply = LocalReply::json(405, "method_not_allowed", body);
            reply.headers.push(("allow", "POST".to_owned()));
            return self.reply(reply);
        }
        if end_of_stream {
            return self.malformed("no_body", "malformed request: the request has no body");
        }
        if let Some(encoding) =
            headers.text("content-encoding").filter(|value| !value.eq_ignore_ascii_case("identity"))
        {
            let shown: String = encoding.chars().take(64).collect();
            let message = format!("the request body must not be compressed (content-encoding: {shown})");
            let body = openai::error_body("UnsupportedMediaType", 415, &message);
            return self.reply(LocalReply::json(415, "compressed_request", body));
        }
        (State::AwaitBody(Box::new(Received { gateway, endpoint, headers })), Step::default())
    }

    pub(super) fn request_body(&mut self, received: Received, body: &Bytes) -> (State, Step) {
        let Received { gateway, endpoint, headers } = received;
        let content_type = headers.text("content-type").unwrap_or_default();
        let peek = match ModelRequest::read(endpoint, content_type, body) {
            Ok(peek) => peek,
            Err(refused) => return self.malformed(refused.details, &refused.message),
        };
        let model = peek.model.as_deref().unwrap_or_default();
        if let Some(problem) = model_problem(model) {
            return self.malformed("invalid_model", &problem);
        }
        let attributes = self.settings.attributes.metrics.attributes(&headers);
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.note(|settlement| {
            let model: Arc<str> = model.into();
            settlement.original_model = Some(Arc::clone(&model));
            settlement.request_model = Some(model);
            settlement.streaming = peek.streaming;
            settlement.attributes = attributes;
            settlement.prompt_bytes = body.len() as u64;
        });
        match select(&gateway, &headers, model) {
            Route::Rule(rule) => self.send(&rule, endpoint, &headers, body, &peek),
            Route::None if peek.model.is_none() => {
                let message = "malformed request: `model` is missing: name the model to be used";
                self.malformed("missing_model", message)
            }
            Route::None => self.reply(LocalReply::text(404, "no_route", NO_ROUTE)),
            Route::Broken => {
                let message = "the route of this model has no usable backend; the gateway's log says why";
                let body = openai::error_body("ServiceUnavailable", 503, message);
                self.reply(LocalReply::json(503, "broken_rule", body))
            }
        }
    }

    /// Everything the request needs on its way to the rule's backend, in one reply.
    fn send(
        &mut self,
        rule: &Arc<Rule>,
        endpoint: Endpoint,
        headers: &Headers,
        body: &Bytes,
        peek: &ModelRequest,
    ) -> (State, Step) {
        let backend = &rule.backend;
        let model = peek.model.as_deref().unwrap_or_default();
        let effective_model = backend.model_override.as_deref().unwrap_or(model);
        let pair = Pair::of(endpoint, backend.api.schema());
        let path = backend.api.path(endpoint, effective_model, peek.streaming);
        let Some((pair, target)) = pair.zip(path) else {
            let message = format!("the backend of model {model:?} does not serve {}", endpoint.path());
            let body = openai::error_body("UnprocessableEntity", 422, &message);
            return self.reply(LocalReply::json(422, "unsupported_endpoint", body));
        };
        let force_usage = peek.streaming && endpoint.usage_is_optional() && !peek.include_usage;
        let in_path = backend.api.names_model_in_path(endpoint);
        let facts = RequestFacts {
            endpoint,
            headers,
            body,
            model: effective_model,
            model_override: backend.model_override.as_deref().filter(|_| !in_path),
            streaming: peek.streaming,
            force_usage,
            edits: &backend.body_edits,
        };
        let outgoing = match translate::request(pair, &facts) {
            Ok(outgoing) => outgoing,
            Err(TranslateError::User(message)) => {
                let body = openai::error_body("UnprocessableEntity", 422, &message);
                return self.reply(LocalReply::json(422, "untranslatable", body));
            }
            Err(TranslateError::Internal(message)) => {
                let body = openai::error_body("InternalError", 500, &message);
                return self.reply(LocalReply::json(500, "translation_failed", body));
            }
        };
        let Outgoing { body: new_body, headers: mut edits } = outgoing;
        self.note(|settlement| {
            settlement.rule = Some(Arc::clone(rule));
            if let Some(model) = &backend.model_override {
                settlement.request_model = Some(Arc::clone(model));
            }
        });

        let path = headers.get_bytes(":path").unwrap_or_default();
        edits.set(MODEL_HEADER, Bytes::copy_from_slice(model.as_bytes()));
        edits.set(ORIGINAL_PATH_HEADER, path.clone());
        edits.set(ENVOY_ORIGINAL_PATH_HEADER, path);
        edits.set(ROUTING_HEADER, rule.routing_key.clone());
        edits.set(":path", target.clone());
        if let Some(body) = &new_body {
            edits.set("content-length", body.len().to_string());
        }
        strip_internal(headers, &mut edits);
        translate::accept_encoding(headers, &mut edits);
        auth::strip_client_credentials(headers, &mut edits);
        backend.mutate_headers(headers, &mut edits);
        if let Some(credential) = &backend.credential {
            let signing = SigningRequest {
                method: headers.get(":method").unwrap_or_default(),
                path: &target,
                upstream_host: None,
                body: new_body.as_ref().unwrap_or(body),
                headers,
                credential_metadata: &CredentialMetadata::default(),
                wall: std::time::SystemTime::UNIX_EPOCH,
            };
            if let Err(error) = credential.sign(&signing, &mut edits) {
                return self.unsigned(&error);
            }
        }

        let mut metadata = Metadata::default();
        metadata.text("backend_name", &*backend.name);
        for (attribute, value) in self.settings.attributes.logs.attributes(headers) {
            metadata.text(attribute.to_owned(), value);
        }
        if let Some(body) = &new_body {
            metadata.number("content_length", body.len() as f64);
        }
        let change = Change {
            headers: edits,
            body: new_body.map_or(BodyChange::Keep, BodyChange::Replace),
            clear_route_cache: true,
            phases: None,
            metadata,
        };
        // From here on the runtime this began with is not needed: the rule holds all that is.
        self.gateway = None;
        let sent = Sent {
            endpoint,
            pair,
            rule: Arc::clone(rule),
            streaming: peek.streaming,
            hide_usage: force_usage,
        };
        (State::AwaitAnswer(Box::new(sent)), Step::Continue(change))
    }

    /// The answer where there is no credential to sign with.
    fn unsigned(&mut self, error: &SignError) -> (State, Step) {
        let (status, kind, details) = match error {
            SignError::Missing => (401, "Unauthorized", "missing_credential"),
            SignError::Unavailable(_) => (503, "ServiceUnavailable", "credential_unavailable"),
            SignError::Unusable(_) => (500, "InternalServerError", "credential_unusable"),
        };
        let body = openai::error_body(kind, status, &error.to_string());
        self.reply(LocalReply::json(status, details, body))
    }
}

/// Why a model's name cannot be put into a header, if it cannot.
fn model_problem(model: &str) -> Option<String> {
    if model.len() > MAX_MODEL_LENGTH {
        let length = model.len();
        return Some(format!(
            "malformed request: `model` is {length} bytes long; at most {MAX_MODEL_LENGTH} are allowed"
        ));
    }
    if model.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Some("malformed request: `model` must not hold control characters".to_owned());
    }
    None
}

/// The rule of the request, by the headers as Envoy's routes will see them: with the model, without anything of ours that the
/// client sent.
fn select(gateway: &Gateway, headers: &Headers, model: &str) -> Route {
    let host = headers.text(":authority").unwrap_or_default();
    gateway.select(host, |name| matched_values(headers, model, name))
}

/// The values of a header as route matches see them: those of the client, but for what the gateway sets itself.
pub fn matched_values<'h>(headers: &'h Headers, model: &'h str, name: &str) -> Vec<&'h [u8]> {
    if name == MODEL_HEADER {
        // Envoy drops a header that is set to nothing.
        return if model.is_empty() { Vec::new() } else { vec![model.as_bytes()] };
    }
    if name.as_bytes().starts_with(INTERNAL_PREFIX) {
        return Vec::new();
    }
    headers.all(name).collect()
}

/// Removes what a client sent under the gateway's own names, except where it is overwritten anyway.
fn strip_internal(headers: &Headers, edits: &mut HeaderEdits) {
    for (name, _) in headers.iter().filter(|(name, _)| name.starts_with(INTERNAL_PREFIX)) {
        if edits.set.iter().all(|(set, _)| set != name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            edits.remove(name.to_owned());
        }
    }
}

//! What goes to a backend: the one place where a request gets its path, body, headers and credential for it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::auth::{self, CredentialMetadata, SignError, SigningRequest};
use crate::endpoint::{Endpoint, ModelRequest};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::LocalReply;
use crate::runtime::Served;
use crate::translate::{self, Answer, Pair, RequestFacts, TranslateError};
use crate::wire::openai;

/// A request as the client sent it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Original<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a Bytes,
    pub(super) request: &'a ModelRequest,
    /// The model in it.
    pub(super) model: &'a Arc<str>,
}

/// How a request is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    /// The provider is asked for usage though the client did not ask.
    pub(super) force_usage: bool,
    /// The event with that usage is kept from the client.
    pub(super) hide_usage: bool,
    /// The client's own credentials end here, whatever the backend wants.
    pub(super) strip_credentials: bool,
    /// The host Envoy sends to.
    pub(super) upstream_host: Option<&'a str>,
    /// What Envoy's filters know of the client's own credentials for the backend.
    pub(super) credential_metadata: &'a CredentialMetadata,
    /// What time it is.
    pub(super) wall: SystemTime,
}

/// What is made of a request for a backend.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) headers: HeaderEdits,
    /// Takes the place of the client's.
    pub(super) body: Option<Bytes>,
    pub(super) expected: Expected,
}

/// Who was asked, and what decides how the answer is read.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) served: Arc<Served>,
    pub(super) endpoint: Endpoint,
    pub(super) pair: Pair,
    /// The client asked for a stream.
    pub(super) streaming: bool,
    /// The usage event of the stream was asked for by us alone, and is to be hidden.
    pub(super) hide_usage: bool,
    /// The model the backend was asked for.
    pub(super) model: Arc<str>,
}

impl Expected {
    /// What decides how an answer with that status is read.
    pub(super) fn answer(&self, status: u16, created: SystemTime) -> Answer<'_> {
        let Self { served: _, endpoint, pair, streaming, hide_usage, model } = self;
        Answer {
            pair: *pair,
            model,
            created,
            endpoint: *endpoint,
            streaming: *streaming,
            hide_usage: *hide_usage,
            status,
        }
    }
}

/// Makes of a request what a backend is to get, or the answer that the client gets in its place.
pub(super) fn prepare(
    served: &Arc<Served>,
    original: &Original<'_>,
    manner: &Manner<'_>,
) -> Result<Outgoing, LocalReply> {
    let Original { endpoint, headers, body, request, model: asked } = *original;
    let backend = &served.backend;
    let model = Arc::clone(backend.model_override.as_ref().unwrap_or(asked));
    let pair = Pair::of(endpoint, backend.api.schema());
    let path = backend.api.path(endpoint, &model, request.streaming);
    let Some((pair, target)) = pair.zip(path) else {
        let message = format!("the backend of model {asked:?} does not serve {}", endpoint.path());
        let body = openai::error_body("UnprocessableEntity", 422, &message);
        return Err(LocalReply::json(422, "unsupported_endpoint", body));
    };
    let in_path = backend.api.names_model_in_path(endpoint);
    let facts = RequestFacts {
        endpoint,
        headers,
        body,
        model: &model,
        model_override: backend.model_override.as_deref().filter(|_| !in_path),
        streaming: request.streaming,
        force_usage: manner.force_usage,
        edits: &backend.body_edits,
    };
    let translated = translate::request(pair, &facts).map_err(untranslatable)?;
    let (mut edits, new_body) = (translated.headers, translated.body);
    translate::accept_encoding(headers, &mut edits);
    if manner.strip_credentials || backend.credential.is_some() {
        auth::strip_client_credentials(headers, &mut edits);
    }
    backend.mutate_headers(headers, &mut edits);
    if let Some(credential) = &backend.credential {
        let signing = SigningRequest {
            method: headers.get(":method").unwrap_or_default(),
            path: &target,
            upstream_host: manner.upstream_host,
            body: new_body.as_ref().unwrap_or(body),
            headers,
            credential_metadata: manner.credential_metadata,
            wall: manner.wall,
        };
        edits.set(":path", target.clone());
        credential.sign(&signing, &mut edits).map_err(|error| unsigned(&error))?;
    } else {
        edits.set(":path", target);
    }
    let expected = Expected {
        served: Arc::clone(served),
        endpoint,
        pair,
        streaming: request.streaming,
        hide_usage: manner.hide_usage,
        model,
    };
    Ok(Outgoing { headers: edits, body: new_body, expected })
}

fn untranslatable(error: TranslateError) -> LocalReply {
    match error {
        TranslateError::Malformed(message) => {
            LocalReply::json(400, "malformed_request", openai::error_body("BadRequest", 400, &message))
        }
        TranslateError::User(message) => {
            LocalReply::json(422, "untranslatable", openai::error_body("UnprocessableEntity", 422, &message))
        }
        TranslateError::Internal(message) => LocalReply::json(
            500,
            "translation_failed",
            openai::error_body("InternalServerError", 500, &message),
        ),
    }
}

/// The answer where there is no credential to sign with.
fn unsigned(error: &SignError) -> LocalReply {
    let (status, kind, details) = match error {
        SignError::Missing => (401, "Unauthorized", "missing_credential"),
        SignError::Unavailable(_) => (503, "ServiceUnavailable", "credential_unavailable"),
        SignError::Unusable(_) => (500, "InternalServerError", "credential_unusable"),
    };
    LocalReply::json(status, details, openai::error_body(kind, status, &error.to_string()))
}

/// A request that makes no sense.
pub(super) fn malformed(details: &'static str, message: &str) -> LocalReply {
    LocalReply::json(400, details, openai::error_body("BadRequest", 400, message))
}

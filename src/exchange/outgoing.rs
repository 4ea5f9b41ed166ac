//! What goes to a backend: the one place where a request gets its path, body, headers and credential for it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::quota::Way;
use crate::auth::{self, CredentialMetadata, SignError, SigningRequest};
use crate::endpoint::{Dialect, Endpoint, ModelRequest};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::LocalReply;
use crate::quota::cap::{self, Form};
use crate::quota::refusal;
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

impl<'a> Original<'a> {
    /// What it uses if it is sent as it is.
    fn way(&self) -> Way<'a> {
        Way { prompt: self.body, body: self.body, form: self.endpoint.into() }
    }
}

/// Whether usage is asked for that the client did not ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// The provider is asked for it.
    pub(super) force: bool,
    /// The event with it is kept from the client.
    pub(super) hide: bool,
}

/// How a request is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
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

/// A request in its backend's terms, with all configured edits, before it is signed. What it may cost is read off this, and nothing but
/// [`Draft::hold_to`] changes it afterwards: so no edit raises what was granted.
#[derive(Debug)]
pub(super) struct Draft {
    path: String,
    headers: HeaderEdits,
    /// Takes the place of the client's.
    body: Option<Bytes>,
    expected: Expected,
}

impl Draft {
    /// Makes of a request what a backend is to get, or the answer that the client gets in its place.
    pub(super) fn new(
        served: &Arc<Served>,
        original: &Original<'_>,
        usage: Usage,
    ) -> Result<Self, LocalReply> {
        let Original { endpoint, headers, body, request, model: asked } = *original;
        let backend = &served.backend;
        let model = Arc::clone(backend.model_override.as_ref().unwrap_or(asked));
        let pair = Pair::of(endpoint, backend.api.schema());
        let path = backend.api.path(endpoint, &model, request.streaming);
        let Some((pair, path)) = pair.zip(path) else {
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
            force_usage: usage.force,
            edits: &backend.body_edits,
        };
        let translate::Outgoing { body, headers } =
            translate::request(pair, &facts).map_err(untranslatable)?;
        let expected = Expected {
            served: Arc::clone(served),
            endpoint,
            pair,
            streaming: request.streaming,
            hide_usage: usage.hide,
            model,
        };
        Ok(Self { path, headers, body, expected })
    }

    /// Those of a rule whose backends get something else than what the client sent, as far as that decides what it uses.
    pub(super) fn apart(served: &[Arc<Served>], original: &Original<'_>, usage: Usage) -> Vec<Self> {
        let differs = |served: &&Arc<Served>| {
            let same = Pair::of(original.endpoint, served.backend.api.schema()) == Some(Pair::Same);
            !same || !served.backend.body_edits.is_empty()
        };
        // What cannot be translated is not sent.
        served.iter().filter(differs).filter_map(|served| Self::new(served, original, usage).ok()).collect()
    }

    /// In how many ways a request may be sent to `of` backends, of which these get something else than the client sent.
    pub(super) fn ways<'a>(drafts: &'a [Self], of: usize, original: &Original<'a>) -> Vec<Way<'a>> {
        let as_it_is = (drafts.len() < of).then(|| original.way());
        drafts.iter().map(|draft| draft.way(original)).chain(as_it_is).collect()
    }

    /// What it uses.
    pub(super) fn way<'a>(&'a self, original: &Original<'a>) -> Way<'a> {
        let Expected { served, endpoint, pair, .. } = &self.expected;
        let body = self.body.as_ref().unwrap_or(original.body);
        // Of what is only translated, the prompt is the client's; an edit may have added to it. Bedrock's terms are not measured.
        let edited = !served.backend.body_edits.is_empty() && *pair != Pair::ChatToConverse;
        let prompt = if edited { body } else { original.body };
        Way { prompt, body, form: Form::sent(*endpoint, *pair) }
    }

    /// Makes it say that no answer has more than that many tokens; says so if that had to be written. What says less stays.
    pub(super) fn hold_to(
        &mut self,
        original: &Original<'_>,
        ceiling: Option<u64>,
    ) -> Result<Option<u64>, LocalReply> {
        let Some(ceiling) = ceiling else { return Ok(None) };
        let Expected { endpoint, pair, model, .. } = &self.expected;
        let body = self.body.as_ref().unwrap_or(original.body);
        let lowered = cap::lower(Form::sent(*endpoint, *pair), model, body, ceiling).map_err(|too_low| {
            // Only if a store grants less than the least that was asked for.
            tracing::error!(%too_low, "less was granted than was asked for");
            refusal::unavailable(Dialect::of(*endpoint))
        })?;
        let written = lowered.body.map(|body| self.body = Some(body.into()));
        Ok(written.map(|()| lowered.output))
    }

    /// The request, signed.
    pub(super) fn sign(self, original: &Original<'_>, manner: &Manner<'_>) -> Result<Outgoing, LocalReply> {
        let Self { path, headers: mut edits, body, expected } = self;
        let (backend, headers) = (&expected.served.backend, original.headers);
        translate::accept_encoding(headers, &mut edits);
        if manner.strip_credentials || backend.credential.is_some() {
            auth::strip_client_credentials(headers, &mut edits);
        }
        backend.mutate_headers(headers, &mut edits);
        if let Some(credential) = &backend.credential {
            let signing = SigningRequest {
                method: headers.get(":method").unwrap_or_default(),
                path: &path,
                upstream_host: manner.upstream_host,
                body: body.as_ref().unwrap_or(original.body),
                headers,
                credential_metadata: manner.credential_metadata,
                wall: manner.wall,
            };
            edits.set(":path", path.clone());
            credential.sign(&signing, &mut edits).map_err(|error| unsigned(&error))?;
        } else {
            edits.set(":path", path);
        }
        Ok(Outgoing { headers: edits, body, expected })
    }
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

//! Who is asking, and whether they may: what Envoy's filters have proved becomes a tenant, and a refusal speaks the client's
//! dialect.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::gateway_key;
use crate::endpoint::{Dialect, Endpoint};
use crate::keys::Record;
use crate::mutation::LocalReply;
use crate::quota::refusal;
use crate::runtime::{Gateway, Proved, Tenancy};
use crate::tenant::Tenant;

/// The metadata in which Envoy's own filter leaves the payload of each token that it has verified, by its provider. No client writes
/// metadata.
pub const VERIFIED_TOKENS: &str = "envoy.filters.http.jwt_authn";

/// A client, as far as it has proved who it is.
#[derive(Clone, Default)]
pub(super) struct Client {
    pub(super) tenant: Tenant,
    pub(super) proved: Proved,
    /// The gateway's own key that it showed.
    pub(super) key: Option<Arc<Record>>,
}

impl Client {
    /// A key of the gateway's own says more than anything else about who shows it.
    pub(super) fn new(proved: Proved, key: Option<Arc<Record>>, tenancy: &Tenancy) -> Self {
        let tenant = key.as_deref().map_or_else(|| tenancy.tenant(&proved), gateway_key::tenant);
        Self { tenant, proved, key }
    }

    /// The quota that its key names.
    pub(super) fn key_quota(&self) -> Option<&str> {
        self.key.as_deref()?.grant.quota.as_deref()
    }

    /// Why it may not use a model, if it may not.
    pub(super) fn refusal(&self, tenancy: &Tenancy, endpoint: Endpoint, model: &str) -> Option<LocalReply> {
        if tenancy.allows(&self.tenant, model) {
            return None;
        }
        Some(if self.tenant.is_anonymous() { unauthenticated(endpoint) } else { forbidden(endpoint) })
    }
}

/// The name only: claims are the client's business.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.tenant.to_string()).finish()
    }
}

/// What a client is told that does not prove who it is. The same whatever is wrong with the credential; Envoy's filters are told to
/// answer alike.
pub const UNAUTHENTICATED: &str = "the request was refused: it needs a valid credential of this gateway, such as an API key or a token, for the model it names (a model that does not exist is refused alike)";

/// Goes with it. The same whatever would be valid: which it is would tell one protected model from another.
pub const CHALLENGE: &str = "Bearer";

/// What a client is told that may not use a model, whether or not there is one of that name.
const FORBIDDEN: &str = "the credential does not allow this model";

/// A rule asks for proofs by itself, and a model that is not there must not be told from one of its own: whoever asks for either without
/// proof gets one answer.
pub(super) fn unknown_model(gateway: &Gateway, endpoint: Endpoint) -> Option<LocalReply> {
    gateway.protects_models().then(|| unauthenticated(endpoint))
}

/// The answer to a request without proof of who is asking.
pub fn unauthenticated(endpoint: Endpoint) -> LocalReply {
    let mut reply = LocalReply::json(401, NOT_PROVED, unauthenticated_body(Dialect::of(endpoint)));
    reply.headers.push(("www-authenticate", CHALLENGE.to_owned()));
    reply
}

/// Its body, which Envoy sends too.
pub fn unauthenticated_body(dialect: Dialect) -> Bytes {
    body(dialect, ["invalid_request_error", "invalid_api_key"], "authentication_error", UNAUTHENTICATED)
}

/// Why a request is refused that is not for its tenant.
pub(super) const MODEL_NOT_ALLOWED: &str = "model_not_allowed";
const NOT_PROVED: &str = "unauthenticated";

/// The reason of a refusal by another process, if it is one that is known here.
pub(super) fn known_refusal(details: &str) -> &'static str {
    let known = [MODEL_NOT_ALLOWED, NOT_PROVED, refusal::EXCEEDED, refusal::UNAVAILABLE];
    known.into_iter().find(|known| *known == details).unwrap_or("refused_elsewhere")
}

fn forbidden(endpoint: Endpoint) -> LocalReply {
    let codes = ["invalid_request_error", MODEL_NOT_ALLOWED];
    LocalReply::json(
        403,
        MODEL_NOT_ALLOWED,
        body(Dialect::of(endpoint), codes, "permission_error", FORBIDDEN),
    )
}

fn body(dialect: Dialect, [kind, code]: [&str; 2], anthropic: &str, message: &str) -> Bytes {
    let body = match dialect {
        Dialect::OpenAI => {
            json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
        }
        Dialect::Anthropic => json!({ "type": "error", "error": { "type": anthropic, "message": message } }),
        Dialect::Cohere => json!({ "message": message }),
    };
    body.to_string().into()
}

#[cfg(test)]
mod tests;

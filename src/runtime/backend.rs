//! One backend, ready to be sent to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Credential;
use crate::config;
use crate::endpoint::Endpoint;
use crate::headers::{HeaderEdits, Headers};
use crate::wire::ApiSchemaName;

/// Where requests go and what is done to them on the way.
#[derive(Debug)]
pub struct Backend {
    /// The full name: `namespace/name/route/<route>/rule/<i>/ref/<j>`.
    pub name: Arc<str>,
    /// The dialect it speaks.
    pub schema: ApiSchemaName,
    /// Takes the place of the model the client asked for.
    pub model_override: Option<Arc<str>>,
    /// Signs its requests.
    pub credential: Option<Credential>,
    /// Path before the endpoint's own, without a slash at its end.
    prefix: String,
    set_headers: Vec<(Bytes, Bytes)>,
    remove_headers: Vec<String>,
}

/// Why a backend cannot be served.
#[derive(Debug)]
pub(super) struct InvalidBackend {
    pub(super) field: &'static str,
    pub(super) message: String,
}

impl Backend {
    pub(super) fn new(config: &config::Backend) -> Result<Self, InvalidBackend> {
        let config::Backend { name, model_name_override, schema, auth, header_mutation, body_mutation } =
            config;
        let invalid = |field, message| InvalidBackend { field, message };
        let credential = match auth {
            None => None,
            Some(config::Auth { api_key: Some(config::ApiKeyAuth { key }) }) => Some(
                Credential::api_key(key).map_err(|error| invalid("auth.apiKey.key", error.to_string()))?,
            ),
            // Sending without the credential that was configured would be worse than not sending.
            Some(config::Auth { api_key: None }) => {
                return Err(invalid(
                    "auth",
                    "this kind of credential is not supported yet; use apiKey".into(),
                ));
            }
        };
        if body_mutation.is_some() {
            return Err(invalid("httpBodyMutation", "body mutations are not supported yet".into()));
        }
        let mutation = header_mutation.clone().unwrap_or_default();
        let own = |name: &str| {
            name.starts_with(':') || name.starts_with("x-ai-eg-") || name == "x-envoy-original-path"
        };
        let set_headers = mutation
            .set
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), header.value.clone()))
            .filter(|(name, _)| !own(name))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let remove_headers =
            mutation.remove.iter().map(|name| name.to_ascii_lowercase()).filter(|name| !own(name)).collect();
        Ok(Self {
            name: name.as_str().into(),
            schema: schema.name,
            model_override: model_name_override.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            credential,
            prefix: clean_prefix(schema.prefix.as_deref().unwrap_or("v1")),
            set_headers,
            remove_headers,
        })
    }

    /// `namespace/name` of the AIServiceBackend.
    pub fn service(&self) -> &str {
        let end = self.name.match_indices('/').nth(1).map_or(self.name.len(), |(at, _)| at);
        &self.name[..end]
    }

    /// The path of that endpoint at this backend; nothing if the two do not go together.
    pub fn target(&self, endpoint: Endpoint) -> Option<String> {
        endpoint.supports(self.schema).then(|| format!("{}{}", self.prefix, endpoint.openai_suffix()))
    }

    /// Applies the configured header mutation: removals of what is there, then sets.
    pub fn mutate_headers(&self, headers: &Headers, edits: &mut HeaderEdits) {
        for name in &self.remove_headers {
            if headers.contains(name) {
                edits.remove(Cow::Owned(name.clone()));
            }
        }
        for (name, value) in &self.set_headers {
            edits.set(name.clone(), value.clone());
        }
    }
}

/// One slash before each part, none at the end; nothing for an empty prefix.
fn clean_prefix(prefix: &str) -> String {
    prefix.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect()
}

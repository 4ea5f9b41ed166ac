//! One backend, ready to be sent to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::credential;
use crate::auth::Credential;
use crate::config;
use crate::endpoint::ApiTarget;
use crate::headers::{HeaderEdits, Headers};
use crate::translate::BodyEdits;

/// Where requests go and what is done to them on the way.
#[derive(Debug)]
pub struct Backend {
    /// The full name: `namespace/name/route/<route>/rule/<i>/ref/<j>`.
    pub name: Arc<str>,
    /// The dialect it speaks, and where.
    pub api: ApiTarget,
    /// Takes the place of the model the client asked for.
    pub model_override: Option<Arc<str>>,
    /// Signs its requests.
    pub credential: Option<Credential>,
    /// Configured edits of its requests' bodies.
    pub body_edits: BodyEdits,
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
        let mut body_edits = BodyEdits::default();
        if let Some(config::BodyMutation { set, remove }) = body_mutation {
            remove.iter().for_each(|path| body_edits.remove(path));
            set.iter().for_each(|field| body_edits.set(&field.path, &field.value));
        }
        Ok(Self {
            name: name.as_str().into(),
            api: ApiTarget::new(schema.name, schema.prefix.as_deref(), schema.version.as_deref()),
            model_override: model_name_override.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            credential: auth.as_ref().map(credential::compile).transpose()?,
            body_edits,
            set_headers,
            remove_headers,
        })
    }

    /// `namespace/name` of the AIServiceBackend.
    pub fn service(&self) -> &str {
        let end = self.name.match_indices('/').nth(1).map_or(self.name.len(), |(at, _)| at);
        &self.name[..end]
    }

    /// Whether the configured header mutation sets that lower-case name.
    pub fn sets_header(&self, name: &[u8]) -> bool {
        self.set_headers.iter().any(|(set, _)| set == name)
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

//! BackendSecurityPolicies: which credential goes to which AIServiceBackend.

use secrecy::{ExposeSecret, SecretString};

use crate::config::{ApiKeyAuth, Auth};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::aigateway::AIServiceBackend;
use crate::resources::security::{BackendSecurityPolicy, BackendSecurityPolicyType, SecretKeyCredential};
use crate::resources::types::SecretObjectReference;
use crate::resources::{Located, Snapshot};

use super::grants::{From, To, allowed, missing};

const GROUP: &str = "aigateway.envoyproxy.io";

/// The Secret's key that holds an API key.
const API_KEY: &str = "apiKey";

/// The credential of a backend was looked for and cannot be had; why is in the diagnostics.
#[derive(Debug)]
pub(super) struct Unavailable;

/// A static key and how it is sent.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) kind: KeyKind,
    pub(super) key: SecretString,
}

/// In which header a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// `authorization: Bearer <key>`.
    Bearer,
    /// `api-key: <key>`.
    Azure,
    /// `x-api-key: <key>`.
    Anthropic,
}

impl Credential {
    /// As the processor reads it.
    pub(super) fn config(&self) -> Auth {
        let key = Some(ApiKeyAuth { key: self.key.clone() });
        match self.kind {
            KeyKind::Bearer => Auth { api_key: key, ..Auth::default() },
            KeyKind::Azure => Auth { azure_api_key: key, ..Auth::default() },
            KeyKind::Anthropic => Auth { anthropic_api_key: key, ..Auth::default() },
        }
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.key.expose_secret() == other.key.expose_secret()
    }
}

/// The credential of a backend; `None` where no policy targets it.
pub(super) fn of(
    snapshot: &Snapshot,
    backend: &Located<AIServiceBackend>,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Credential>, Unavailable> {
    let policies: Vec<_> =
        snapshot.backend_security_policies.iter().filter(|policy| targets(policy, backend)).collect();
    match policies.as_slice() {
        [] => Ok(None),
        [policy] => credential(snapshot, policy, diagnostics).map(Some),
        [first, second, ..] => {
            let message = format!("{} and {} both target {}", first.id(), second.id(), backend.id());
            diagnostics.push(
                second
                    .error("spec.targetRefs", message)
                    .help("a backend has one credential: remove one of the two targets"),
            );
            Err(Unavailable)
        }
    }
}

fn targets(policy: &Located<BackendSecurityPolicy>, backend: &Located<AIServiceBackend>) -> bool {
    policy.namespace() == backend.namespace()
        && policy.spec.target_refs.iter().any(|target| {
            target.group == GROUP && target.kind == "AIServiceBackend" && target.name == backend.name()
        })
}

fn credential(
    snapshot: &Snapshot,
    policy: &Located<BackendSecurityPolicy>,
    diagnostics: &mut Diagnostics,
) -> Result<Credential, Unavailable> {
    use BackendSecurityPolicyType as Type;
    let spec = &policy.spec;
    let (kind, member, written) = match spec.kind {
        Type::APIKey => (KeyKind::Bearer, "apiKey", &spec.api_key),
        Type::AzureAPIKey => (KeyKind::Azure, "azureAPIKey", &spec.azure_api_key),
        Type::AnthropicAPIKey => (KeyKind::Anthropic, "anthropicAPIKey", &spec.anthropic_api_key),
        Type::AWSCredentials | Type::AzureCredentials | Type::GCPCredentials => {
            let message = format!(
                "credentials of type {:?} are not supported yet; APIKey, AzureAPIKey and AnthropicAPIKey are",
                spec.kind
            );
            diagnostics.push(
                policy.warning("spec.type", message).help("the backends it targets are left out until then"),
            );
            return Err(Unavailable);
        }
    };
    let Some(SecretKeyCredential { secret_ref }) = written else {
        let message = format!("type is {:?}, but there is no {member}", spec.kind);
        diagnostics.push(policy.error("spec", message).help("name its Secret"));
        return Err(Unavailable);
    };
    let field = format!("spec.{member}.secretRef");
    Ok(Credential { kind, key: api_key(snapshot, policy, &field, secret_ref, diagnostics)? })
}

fn api_key(
    snapshot: &Snapshot,
    policy: &Located<BackendSecurityPolicy>,
    field: &str,
    reference: &SecretObjectReference,
    diagnostics: &mut Diagnostics,
) -> Result<SecretString, Unavailable> {
    let namespace = reference.namespace.as_deref().unwrap_or_else(|| policy.namespace());
    let from = From { group: GROUP, kind: "BackendSecurityPolicy", namespace: policy.namespace() };
    let to = To { group: "", kind: "Secret", namespace, name: &reference.name };
    if reference.group != to.group || reference.kind != to.kind {
        diagnostics
            .push(policy.error(field, "only a Secret can hold the key").help("leave out group and kind"));
        return Err(Unavailable);
    }
    if !allowed(snapshot, from, to) {
        let message =
            format!("the Secret is in namespace `{namespace}`, which does not allow this reference");
        diagnostics.push(policy.error(&format!("{field}.namespace"), message).help(missing(from, to)));
        return Err(Unavailable);
    }
    let Some(secret) = snapshot.secrets.get(namespace, &reference.name) else {
        let message = format!("there is no Secret {namespace}/{}", reference.name);
        let help = suggest(&reference.name, snapshot.secrets.names_in(namespace));
        diagnostics.push(policy.error(&format!("{field}.name"), message).help(help));
        return Err(Unavailable);
    };
    let Some(value) = secret.value(API_KEY) else {
        let message = format!("the Secret has no key `{API_KEY}`, which {} needs", policy.id());
        diagnostics
            .push(secret.error("", message).help(format!("put the API key under stringData.{API_KEY}")));
        return Err(Unavailable);
    };
    let key = value.expose_secret().trim();
    let value_field = format!("stringData.{API_KEY}");
    if key.is_empty() || !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let what = if key.is_empty() { "is empty" } else { "has characters that cannot be sent in a header" };
        diagnostics.push(
            secret
                .error(&value_field, format!("the API key {what}"))
                .help("paste the key as the provider shows it"),
        );
        return Err(Unavailable);
    }
    if is_placeholder(key) {
        diagnostics.push(
            secret
                .warning(&value_field, "the API key looks like a placeholder: the provider will refuse it")
                .help("put your own key there, for example as ${OPENAI_API_KEY} from the environment"),
        );
    }
    Ok(SecretString::from(key))
}

/// Whether a key is one that examples show and no provider gives out.
fn is_placeholder(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    let is_variable = key.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && key.contains('_');
    let body = lower.strip_prefix("sk-").unwrap_or(&lower);
    let is_filler = body.len() >= 3 && body.bytes().all(|byte| matches!(byte, b'x' | b'*' | b'.' | b'-'));
    let is_phrase = ["your-", "your_", "changeme", "change-me", "replace", "placeholder", "<"]
        .iter()
        .any(|phrase| lower.starts_with(phrase));
    is_variable || is_filler || is_phrase
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_recognised_and_keys_are_not() {
        for key in ["OPENAI_API_KEY", "sk-xxxxxxxxxxxxxx", "xxxx", "your-api-key", "<key>", "CHANGEME"] {
            assert!(is_placeholder(key), "{key}");
        }
        for key in ["sk-proj-4f9aB", "AKIAIOSFODNN7", "0123456789", "test", "sk-x1", "Yours"] {
            assert!(!is_placeholder(key), "{key}");
        }
    }
}

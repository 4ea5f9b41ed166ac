//! What Secrets hold for a policy.

use secrecy::{ExposeSecret, SecretString};

use super::{GROUP, Unavailable};
use crate::compile::grants::{From, To, allowed, missing};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::core::Secret;
use crate::resources::security::BackendSecurityPolicy;
use crate::resources::types::SecretObjectReference;
use crate::resources::{Located, Snapshot};

/// Looks things up for one policy, and says what is wrong with them.
pub(super) struct Lookup<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) policy: &'a Located<BackendSecurityPolicy>,
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl<'a> Lookup<'a> {
    /// The value under `key` of a Secret, which is a `what`.
    pub(super) fn value(
        &mut self,
        field: &str,
        reference: &SecretObjectReference,
        key: &str,
        what: &str,
    ) -> Result<(SecretString, &'a Located<Secret>), Unavailable> {
        let Self { snapshot, policy, .. } = *self;
        let namespace = reference.namespace.as_deref().unwrap_or_else(|| policy.namespace());
        let from = From { group: GROUP, kind: "BackendSecurityPolicy", namespace: policy.namespace() };
        let to = To { group: "", kind: "Secret", namespace, name: &reference.name };
        if reference.group != to.group || reference.kind != to.kind {
            let help = "leave out group and kind";
            return self.refuse(field, "only a Secret can hold the key".to_owned(), help);
        }
        if !allowed(snapshot, from, to) {
            let message =
                format!("the Secret is in namespace `{namespace}`, which does not allow this reference");
            return self.refuse(&format!("{field}.namespace"), message, &missing(from, to));
        }
        let Some(secret) = snapshot.secrets.get(namespace, &reference.name) else {
            let message = format!("there is no Secret {namespace}/{}", reference.name);
            let help = suggest(&reference.name, snapshot.secrets.names_in(namespace));
            return self.refuse(&format!("{field}.name"), message, &help);
        };
        let Some(value) = secret.value(key) else {
            let message = format!("the Secret has no key `{key}`, which {} needs", policy.id());
            self.diagnostics
                .push(secret.error("", message).help(format!("put the {what} under stringData.{key}")));
            return Err(Unavailable);
        };
        Ok((SecretString::from(value.expose_secret()), secret))
    }

    /// A value that goes into a header or a form as it is.
    pub(super) fn key(
        &mut self,
        field: &str,
        reference: &SecretObjectReference,
        key: &str,
        what: &str,
    ) -> Result<SecretString, Unavailable> {
        let (value, secret) = self.value(field, reference, key, what)?;
        let value = value.expose_secret().trim();
        let value_field = format!("stringData.{key}");
        if value.is_empty() || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            let problem =
                if value.is_empty() { "is empty" } else { "has characters that cannot be sent in a header" };
            self.diagnostics.push(
                secret
                    .error(&value_field, format!("the {what} {problem}"))
                    .help(format!("paste the {what} as the provider shows it")),
            );
            return Err(Unavailable);
        }
        if is_placeholder(value) {
            let message = format!("the {what} looks like a placeholder: the provider will refuse it");
            self.diagnostics.push(
                secret.warning(&value_field, message).help(format!(
                    "put your own {what} there, for example as ${{NAME}} from the environment"
                )),
            );
        }
        Ok(SecretString::from(value))
    }

    /// Says of the policy why it cannot be used.
    pub(super) fn refuse<T>(&mut self, field: &str, message: String, help: &str) -> Result<T, Unavailable> {
        self.diagnostics.push(self.policy.error(field, message).help(help));
        Err(Unavailable)
    }
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

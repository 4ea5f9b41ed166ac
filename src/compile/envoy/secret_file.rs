//! What Envoy has to know and nobody may see, and has no other way in: files of their own, which its configuration names.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::super::plan::{Asked, JwksPlan, ListenerPlan};

/// A file that only Envoy reads. Its debug form does not show the content.
#[derive(Clone)]
pub struct SecretFile {
    /// The file's name, which changes with the content and tells nothing of it.
    pub name: String,
    /// What is in it.
    pub content: SecretString,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for SecretFile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.content.expose_secret() == other.content.expose_secret()
    }
}

/// The files that the filters of these listeners name, each once.
pub(super) fn all(listeners: &[ListenerPlan]) -> Vec<SecretFile> {
    let asked = listeners.iter().flat_map(|listener| {
        let of_rules = listener.rules.iter().filter_map(|rule| rule.asked.as_ref());
        listener.clients.front.iter().chain(&listener.clients.rest).chain(of_rules)
    });
    let mut files: Vec<SecretFile> = Vec::new();
    for file in asked.flat_map(of) {
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    files
}

fn of(asked: &Asked) -> impl Iterator<Item = &SecretFile> {
    let issuers = asked.plan.jwt.iter().flat_map(|jwt| &jwt.issuers);
    issuers.filter_map(|issuer| match &issuer.keys {
        JwksPlan::File { file, .. } => Some(file),
        JwksPlan::Inline(_) | JwksPlan::Fetched { .. } => None,
    })
}

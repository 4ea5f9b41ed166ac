//! BackendSecurityPolicies: which credential goes to which AIServiceBackend.

mod kinds;
mod secrets;

use secrecy::{ExposeSecret, SecretString};

use crate::config::Auth;
use crate::diagnostics::Diagnostics;
use crate::resources::aigateway::AIServiceBackend;
use crate::resources::security::BackendSecurityPolicy;
use crate::resources::{Located, Snapshot};

const GROUP: &str = "aigateway.envoyproxy.io";

/// The credential of a backend was looked for and cannot be had; why is in the diagnostics.
#[derive(Debug)]
pub(super) struct Unavailable;

/// What a backend's requests are signed with.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) kind: Kind,
    /// Everything that makes it this credential and no other: what is configured, not what is fetched with it.
    pub(super) material: SecretString,
    auth: Auth,
}

/// The kinds of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `authorization: Bearer <key>`.
    Bearer,
    /// `api-key: <key>`.
    Azure,
    /// `x-api-key: <key>`.
    Anthropic,
    /// Signatures of AWS.
    Aws,
    /// A token of Microsoft Entra.
    AzureToken,
    /// A token of Google Cloud.
    Gcp,
}

impl Credential {
    /// As the processor reads it. `host` is what Envoy asks the backend for, where it is one name.
    pub(super) fn config(&self, host: Option<&str>) -> Auth {
        let mut auth = self.auth.clone();
        if let Some(aws) = &mut auth.aws {
            aws.host = host.map(str::to_owned);
        }
        auth
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.material.expose_secret() == other.material.expose_secret()
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
        [policy] => kinds::compile(snapshot, policy, diagnostics).map(Some),
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

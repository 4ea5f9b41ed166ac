//! BackendSecurityPolicies: which credential goes to which AIServiceBackend.

mod kinds;
mod secrets;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

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

/// By namespace and name of an AIServiceBackend.
type ByBackend<'a> = HashMap<(&'a str, &'a str), Vec<&'a Located<BackendSecurityPolicy>>>;

/// The policies by the AIServiceBackend that they target, so that a backend need not look at all of them. Clones are handles.
#[derive(Clone)]
pub(super) struct Policies<'a> {
    snapshot: &'a Snapshot,
    by_backend: Rc<ByBackend<'a>>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut by_backend = ByBackend::new();
        for policy in &snapshot.backend_security_policies {
            let backends = policy
                .spec
                .target_refs
                .iter()
                .filter(|it| it.group == GROUP && it.kind == "AIServiceBackend");
            let names: BTreeSet<&str> = backends.map(|target| target.name.as_str()).collect();
            for name in names {
                by_backend.entry((policy.namespace(), name)).or_default().push(policy);
            }
        }
        Self { snapshot, by_backend: Rc::new(by_backend) }
    }

    /// The credential of a backend; `None` where no policy targets it.
    pub(super) fn of(
        &self,
        backend: &Located<AIServiceBackend>,
        diagnostics: &mut Diagnostics,
    ) -> Result<Option<Credential>, Unavailable> {
        let policies = self.by_backend.get(&(backend.namespace(), backend.name()));
        match policies.map(Vec::as_slice).unwrap_or_default() {
            [] => Ok(None),
            [policy] => kinds::compile(self.snapshot, policy, diagnostics).map(Some),
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
}

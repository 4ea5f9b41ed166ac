//! Who is asking, in a question: what clients have to prove, and a client who proves it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use secrecy::ExposeSecret;

use super::Question;
use crate::config::{self, KeyDemand, Proof, ProofKind};
use crate::exchange::Settings;
use crate::headers::Headers;
use crate::keys::{Grant, Index, NewKey, Record};
use crate::runtime::Tenancy;
use crate::tenant::Tenant;

/// What the clients of a gateway, and of a rule besides, have to prove, for people.
pub(super) fn demands(gateway: &config::Gateway, rule: Option<&config::Rule>) -> Vec<String> {
    let key = gateway.gateway_key.and_then(|demand| {
        let optional = match demand {
            KeyDemand::Required => "",
            KeyDemand::Optional => ", if the client has one",
            KeyDemand::NotAsked => return None,
        };
        let policy = gateway.tenancy.as_ref().map_or("", |tenancy| &tenancy.policy);
        Some(format!("a key of the gateway's own (aigw key), as TenantPolicy {policy} asks{optional}"))
    });
    // The names in a certificate come with its subject.
    let is_demand = |proof: &&Proof| !matches!(proof.kind, ProofKind::ClientUri | ProofKind::ClientDns);
    let proofs =
        gateway.proofs.iter().chain(rule.into_iter().flat_map(|rule| &rule.proofs)).filter(is_demand);
    key.into_iter().chain(proofs.map(demand)).collect()
}

/// One thing that clients have to prove.
fn demand(proof: &Proof) -> String {
    let (kind, policy) = match proof.kind {
        ProofKind::ApiKey => ("an API key", "SecurityPolicy"),
        ProofKind::BasicAuth => ("a user's name and password", "SecurityPolicy"),
        ProofKind::Jwt => ("a token (JWT)", "SecurityPolicy"),
        ProofKind::ClientCertificate | ProofKind::ClientUri | ProofKind::ClientDns => {
            ("a client certificate", "ClientTrafficPolicy")
        }
    };
    let optional = if proof.optional { ", if the client has one" } else { "" };
    format!("{kind}, as {policy} {} asks{optional}", proof.policy)
}

/// A client who has proved what is asked for: the tenant that the question names, or somebody of whom no more is known.
pub(super) struct Client<'q> {
    tenant: Option<&'q Tenant>,
    /// What counts for the rule that is chosen.
    tenancy: Arc<Tenancy>,
    key: NewKey,
    settings: Arc<Settings>,
}

impl<'q> Client<'q> {
    pub(super) fn new(question: &'q Question, tenancy: Arc<Tenancy>) -> Self {
        let tenant = question.tenant();
        // Known to this process alone, and only until the question is answered.
        let key = NewKey::generate(&[0; 64]);
        let index = Index::new(Duration::MAX);
        let text = |part: Option<&Arc<str>>| part.map(ToString::to_string);
        let grant = Grant {
            organisation: text(tenant.and_then(|tenant| tenant.organisation.as_ref())),
            team: text(tenant.and_then(|tenant| tenant.team.as_ref())),
            ..Grant::named(
                text(tenant.and_then(|tenant| tenant.key.as_ref())).unwrap_or_else(|| "client".to_owned()),
            )
        };
        index.replace(Record::new(&key, grant, SystemTime::now()));
        index.confirm(Instant::now());
        let settings = Settings { keys: Some(Arc::new(index)), keys_by_policy: true, ..Settings::default() };
        Self { tenant, tenancy, key, settings: Arc::new(settings) }
    }

    /// What the processor is started with, as far as the files say.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// The headers as they come to the gateway: with what is asked for there.
    pub(super) fn at_gateway(&self, headers: Headers, gateway: &config::Gateway) -> Headers {
        let mut headers = self.proving(headers, &gateway.proofs);
        // One who has a key shows it; nobody does who is known to be nobody.
        let is_nobody = self.tenant.is_some_and(Tenant::is_anonymous);
        let asked = matches!(gateway.gateway_key, Some(KeyDemand::Required | KeyDemand::Optional));
        let shows = gateway.gateway_key == Some(KeyDemand::Required) || self.tenant.is_some();
        if asked && shows && !is_nobody {
            headers
                .push("x-api-key".into(), Bytes::copy_from_slice(self.key.text.expose_secret().as_bytes()));
        }
        headers
    }

    /// The headers with proofs, as Envoy's filters leave them.
    pub(super) fn proving(&self, mut headers: Headers, proofs: &[Proof]) -> Headers {
        for proof in proofs {
            let value = match self.tenant {
                Some(tenant) if tenant.is_anonymous() => None,
                Some(tenant) => self.tenancy.proof_of(proof.kind, tenant).or_else(|| usual(proof.kind)),
                None => usual(proof.kind),
            };
            if let Some(value) = value {
                headers.push(proof.header.clone().into(), value);
            }
        }
        headers
    }

    /// Whether a client can prove to be that tenant by what the gateway and the rule ask for.
    fn is_provable(&self, tenant: &Tenant, gateway: &config::Gateway, rule: Option<&config::Rule>) -> bool {
        let by_key = matches!(gateway.gateway_key, Some(KeyDemand::Required | KeyDemand::Optional));
        let mut proofs = gateway.proofs.iter().chain(rule.into_iter().flat_map(|rule| &rule.proofs));
        // A key of the gateway's own always has a name.
        by_key && tenant.key.is_some()
            || proofs.any(|proof| self.tenancy.proof_of(proof.kind, tenant).is_some())
    }

    /// Who is asking, and what that tenant may use and who says so; nothing if the question names nobody. `rule` is the one that is
    /// chosen.
    pub(super) fn access(
        &self,
        gateway: &config::Gateway,
        rule: Option<&config::Rule>,
    ) -> Option<(String, String)> {
        let tenant = self.tenant?;
        if !tenant.is_anonymous() && !self.is_provable(tenant, gateway, rule) {
            let told =
                "nothing that is asked for here makes a client this tenant; told as for one of another name";
            return Some((tenant.to_string(), told.to_owned()));
        }
        let written = rule.and_then(|rule| rule.tenancy.as_ref()).or(gateway.tenancy.as_ref());
        let Some(written) = written.filter(|written| !written.access.is_empty()) else {
            return Some((tenant.to_string(), "every model: no TenantPolicy has a list here".to_owned()));
        };
        let entry = |(index, access): (usize, &config::Access)| {
            format!("{} (access[{index}])", access.models.join(", "))
        };
        let granted: Vec<String> = self.tenancy.granted(tenant).map(entry).collect();
        let policy = &written.policy;
        let told = if granted.is_empty() {
            format!("nothing: no entry of TenantPolicy {policy} is about it")
        } else {
            format!("{}, as TenantPolicy {policy} says", granted.join("; "))
        };
        Some((tenant.to_string(), told))
    }
}

/// What proves that somebody is asking, and no more.
fn usual(kind: ProofKind) -> Option<Bytes> {
    Some(Bytes::from_static(match kind {
        ProofKind::ApiKey | ProofKind::BasicAuth => b"client",
        ProofKind::Jwt => b"e30",
        ProofKind::ClientCertificate => b"CN=client",
        ProofKind::ClientUri | ProofKind::ClientDns => return None,
    }))
}

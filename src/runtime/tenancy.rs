//! Proofs of who is asking, and what tenants may use.

use bytes::Bytes;

use super::Problem;
use crate::config::{self, Proof, ProofKind};
use crate::headers::{HeaderEdits, Headers};
use crate::tenant::Tenant;
use crate::tenant::naming::{Pattern, Sources, allows};

/// What requests have to prove.
#[derive(Debug, Clone, Default)]
pub struct Proofs(Vec<Proof>);

/// What a request has proved.
#[derive(Clone, Default)]
pub struct Proved {
    facts: Vec<(ProofKind, Bytes)>,
    /// What the provider is told of it: names and values of headers.
    told: Vec<(String, Bytes)>,
}

/// The kinds only: claims are the client's business.
impl std::fmt::Debug for Proved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.facts.iter().map(|(kind, _)| kind)).finish()
    }
}

/// A request does not prove what it has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unproved;

impl Proofs {
    pub(super) fn new(proofs: &[Proof]) -> Self {
        Self(proofs.to_vec())
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The single proofs.
    pub fn iter(&self) -> impl Iterator<Item = &Proof> {
        self.0.iter()
    }

    /// What these headers prove, once Envoy's filters have seen them. Adds to what was proved before.
    pub fn check(&self, headers: &Headers, mut before: Proved) -> Result<Proved, Unproved> {
        for proof in &self.0 {
            // A filter sets its header once; more than one value is not its work.
            let mut values = headers.all(&proof.header);
            let value = values.next().filter(|value| !matches!(value.trim_ascii(), b"" | b"-"));
            match (value, values.next()) {
                (Some(value), None) => {
                    let value = Bytes::copy_from_slice(value);
                    if let Some(name) = &proof.forward {
                        before.told.push((name.clone(), value.clone()));
                    }
                    // Kept for later attempts: Envoy sets them before the first only.
                    before.told.extend(
                        proof.told.iter().filter_map(|name| {
                            Some((name.clone(), headers.joined(name)?.into_owned().into()))
                        }),
                    );
                    before.facts.push((proof.kind, value));
                }
                (None, None) if proof.optional => {}
                _ => return Err(Unproved),
            }
        }
        Ok(before)
    }

    /// Headers that no provider may see: those that prove, and those that hold what was proved with.
    pub fn hidden(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|proof| {
            std::iter::once(proof.header.as_str()).chain(proof.secrets.iter().map(String::as_str))
        })
    }

    /// The client's headers without those that hold its secrets.
    pub fn without_secrets(&self, headers: Headers) -> Headers {
        let secret = |name: &[u8]| {
            self.0.iter().any(|proof| proof.secrets.iter().any(|secret| secret.as_bytes() == name))
        };
        if headers.iter().any(|(name, _)| secret(name)) {
            headers.filtered(|name| !secret(name))
        } else {
            headers
        }
    }
}

impl Proved {
    /// What tokens prove, by their payloads in base64url.
    pub fn by_tokens(payloads: impl IntoIterator<Item = Bytes>) -> Self {
        let facts = payloads.into_iter().map(|payload| (ProofKind::Jwt, payload)).collect();
        Self { facts, told: Vec::new() }
    }

    /// Tells the provider what policies want it to be told.
    pub fn tell(&self, edits: &mut HeaderEdits) {
        for (name, value) in &self.told {
            edits.set(name.clone(), value.clone());
        }
    }
}

/// Who tenants are and what they may use.
#[derive(Debug, Default)]
pub struct Tenancy {
    api_key: Pattern,
    basic_auth: Pattern,
    jwt: Sources,
    client_certificate: Sources,
    client_uri: Option<Pattern>,
    client_dns: Option<Pattern>,
    access: Vec<config::Access>,
    /// It cannot be read: nobody may use anything.
    closed: bool,
}

impl Tenancy {
    /// What goes without saying where no policy speaks: the name is the key's, and everybody may use everything.
    pub(super) fn unsaid() -> Self {
        Self::read(&config::Tenancy::default(), &mut |_, _| {})
    }

    pub(super) fn new(written: &config::Tenancy, at: &str, problems: &mut Vec<Problem>) -> Self {
        Self::read(written, &mut |field, message| {
            problems.push(Problem { at: format!("{at}.tenancy.{field}"), message });
        })
    }

    fn read(written: &config::Tenancy, problem: &mut dyn FnMut(&str, String)) -> Self {
        let config::Tenancy {
            policy: _,
            api_key,
            basic_auth,
            jwt,
            client_certificate,
            client_uri,
            client_dns,
            access,
        } = written;
        let mut closed = false;
        let mut pattern = |field: &str, text: &Option<String>| match text.as_deref()?.parse() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                closed = true;
                let error: crate::tenant::naming::InvalidPattern = error;
                problem(field, error.to_string());
                None
            }
        };
        let sources = |parts: &Option<config::Parts>, usual: [Option<&str>; 3]| match parts {
            Some(config::Parts { organisation, team, key }) => {
                Sources { organisation: organisation.clone(), team: team.clone(), key: key.clone() }
            }
            None => {
                let [organisation, team, key] = usual.map(|name| name.map(str::to_owned));
                Sources { organisation, team, key }
            }
        };
        let (client_uri, client_dns) = (pattern("clientUri", client_uri), pattern("clientDns", client_dns));
        // A certificate's subject says something else, unless it is asked for too.
        let subject = if client_uri.is_none() && client_dns.is_none() {
            [Some("O"), Some("OU"), Some("CN")]
        } else {
            [None; 3]
        };
        Self {
            api_key: pattern("apiKey", api_key).unwrap_or_default(),
            basic_auth: pattern("basicAuth", basic_auth).unwrap_or_default(),
            jwt: sources(jwt, [None, None, Some("sub")]),
            client_certificate: sources(client_certificate, subject),
            client_uri,
            client_dns,
            access: access.clone(),
            closed,
        }
    }

    /// The tenant of what was proved; where several proofs name a part, the first counts.
    pub fn tenant(&self, proved: &Proved) -> Tenant {
        let mut tenant = Tenant::anonymous();
        for (kind, value) in &proved.facts {
            let Tenant { organisation, team, key } = self.of_proof(*kind, value);
            tenant.organisation = tenant.organisation.or(organisation);
            tenant.team = tenant.team.or(team);
            tenant.key = tenant.key.or(key);
        }
        tenant
    }

    fn of_proof(&self, kind: ProofKind, value: &[u8]) -> Tenant {
        let text = String::from_utf8_lossy(value);
        match kind {
            ProofKind::ApiKey => self.api_key.tenant(&text),
            ProofKind::BasicAuth => self.basic_auth.tenant(&text),
            ProofKind::Jwt => self.jwt.of_payload(value).unwrap_or_default(),
            ProofKind::ClientCertificate => self.client_certificate.of_subject(&text),
            ProofKind::ClientUri => named(self.client_uri.as_ref(), std::iter::once(&*text)),
            ProofKind::ClientDns => named(self.client_dns.as_ref(), text.split(',')),
        }
    }

    /// What a proof of that kind says of a client who is this tenant; nothing if no such proof is one of it.
    pub fn proof_of(&self, kind: ProofKind, tenant: &Tenant) -> Option<Bytes> {
        let value = match kind {
            ProofKind::ApiKey => self.api_key.name(tenant)?,
            ProofKind::BasicAuth => self.basic_auth.name(tenant)?,
            ProofKind::Jwt => self.jwt.payload(tenant),
            ProofKind::ClientCertificate => self.client_certificate.subject(tenant),
            ProofKind::ClientUri => self.client_uri.as_ref()?.name(tenant)?,
            ProofKind::ClientDns => self.client_dns.as_ref()?.name(tenant)?,
        };
        (self.of_proof(kind, value.as_bytes()) == *tenant).then(|| value.into())
    }

    /// Whether everybody may use everything.
    pub fn is_open(&self) -> bool {
        self.access.is_empty() && !self.closed
    }

    /// Whether a tenant may use a model.
    pub fn allows(&self, tenant: &Tenant, model: &str) -> bool {
        let mut granted = self.granted(tenant);
        self.is_open()
            || (!self.closed
                && granted.any(|(_, access)| access.models.iter().any(|glob| allows(glob, model))))
    }

    /// The entries that are about a tenant, with their places.
    pub fn granted<'a>(&'a self, tenant: &'a Tenant) -> impl Iterator<Item = (usize, &'a config::Access)> {
        let is = move |wanted: &Option<String>, part: &Option<std::sync::Arc<str>>| {
            wanted.as_ref().is_none_or(|wanted| part.as_deref() == Some(wanted.as_str()))
        };
        let concerns = move |access: &config::Access| {
            let config::Parts { organisation, team, key } = &access.tenant;
            if access.anonymous || tenant.is_anonymous() {
                return access.anonymous && tenant.is_anonymous();
            }
            is(organisation, &tenant.organisation) && is(team, &tenant.team) && is(key, &tenant.key)
        };
        self.access.iter().enumerate().filter(move |(_, access)| concerns(access))
    }
}

/// The tenant of the first of a certificate's names that looks as it should. One with a comma in it never does: it could be two.
fn named<'n>(pattern: Option<&Pattern>, mut names: impl Iterator<Item = &'n str>) -> Tenant {
    let fit = |name: &str| pattern?.fit(name).filter(|_| !name.contains(','));
    names.find_map(fit).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proofs(optional: bool) -> Proofs {
        Proofs(vec![Proof {
            kind: ProofKind::ApiKey,
            header: "x-ai-eg-auth-1".into(),
            policy: "d/p".into(),
            optional,
            forward: Some("x-client".into()),
            told: vec!["x-user".into()],
            secrets: vec!["x-api-token".into()],
        }])
    }

    #[test]
    fn a_proof_is_there_once_or_not_at_all() {
        let none = Headers::default();
        let one: Headers = [("x-ai-eg-auth-1", "acme")].into_iter().collect();
        let twice: Headers = [("x-ai-eg-auth-1", "acme"), ("x-ai-eg-auth-1", "evil")].into_iter().collect();
        let empty: Headers = [("x-ai-eg-auth-1", " ")].into_iter().collect();
        let check = |optional, headers| proofs(optional).check(headers, Proved::default());
        assert_eq!(check(false, &one).unwrap().told, [("x-client".to_owned(), Bytes::from("acme"))]);
        let claims: Headers = [("x-ai-eg-auth-1", "acme"), ("x-user", "ann")].into_iter().collect();
        assert_eq!(check(false, &claims).unwrap().told[1], ("x-user".to_owned(), Bytes::from("ann")));
        for refused in [check(false, &none), check(false, &twice), check(false, &empty), check(true, &twice)]
        {
            assert_eq!(refused.unwrap_err(), Unproved);
        }
        assert!(check(true, &none).unwrap().facts.is_empty());
    }

    #[test]
    fn access_is_granted_to_those_it_names_and_to_nobody_else() {
        let written = serde_json::from_value(json!({
            "policy": "d/p",
            "apiKey": "{organisation}.{key}",
            "access": [
                {"tenant": {"organisation": "acme"}, "models": ["gpt-*"]},
                {"anonymous": true, "models": ["free"]},
                {"tenant": {}, "models": ["common"]},
            ],
        }))
        .unwrap();
        let mut problems = Vec::new();
        let tenancy = Tenancy::new(&written, "gateways[0]", &mut problems);
        assert_eq!(problems, []);
        let of = |name: &str| {
            tenancy.tenant(&Proved {
                facts: vec![(ProofKind::ApiKey, name.to_owned().into())],
                told: Vec::new(),
            })
        };
        for (tenant, model, allowed) in [
            (of("acme.ci"), "gpt-4o", true),
            (of("acme.ci"), "common", true),
            (of("acme.ci"), "free", false),
            (of("other.ci"), "gpt-4o", false),
            (of("other.ci"), "common", true),
            (of("acme"), "gpt-4o", false),
            (Tenant::anonymous(), "free", true),
            (Tenant::anonymous(), "common", false),
            (Tenant::anonymous(), "gpt-4o", false),
        ] {
            assert_eq!(tenancy.allows(&tenant, model), allowed, "{tenant} {model}");
        }
    }

    #[test]
    fn a_certificates_names_count_before_its_subject_if_they_are_asked_for() {
        let facts = |uri: &'static str, dns: &'static str| Proved {
            facts: vec![
                (ProofKind::ClientUri, uri.into()),
                (ProofKind::ClientDns, dns.into()),
                (ProofKind::ClientCertificate, "O=subject,CN=c".into()),
            ],
            told: Vec::new(),
        };
        let tenancy = |written: serde_json::Value| {
            let (mut problems, written) = (Vec::new(), serde_json::from_value(written).unwrap());
            let tenancy = Tenancy::new(&written, "gateways[0]", &mut problems);
            assert_eq!(problems, []);
            tenancy
        };
        let spiffe = tenancy(json!({"clientUri": "spiffe://{organisation}/ns/{team}/sa/{key}"}));
        let of = |uri| spiffe.tenant(&facts(uri, "-")).to_string();
        assert_eq!(of("spiffe://acme/ns/research/sa/ci"), "acme/research/ci");
        // Two of them, or one that could be, are nobody's; neither is the subject anybody's then.
        for odd in ["spiffe://acme/ns/r/sa/ci,spiffe://evil/ns/r/sa/ci", "https://acme/ns/r/sa/ci", ""] {
            assert_eq!(of(odd), "-", "{odd}");
        }
        let dns =
            tenancy(json!({"clientDns": "{key}.{organisation}.example", "clientCertificate": {"team": "O"}}));
        let proved = facts("-", "other.test,ci.acme.example");
        assert_eq!(dns.tenant(&proved).to_string(), "acme/subject/ci");
        assert_eq!(tenancy(json!({})).tenant(&proved).to_string(), "subject/-/c");
    }

    #[test]
    fn what_cannot_be_read_allows_nothing() {
        let written = config::Tenancy { api_key: Some("{who}".into()), ..config::Tenancy::default() };
        let mut problems = Vec::new();
        let tenancy = Tenancy::new(&written, "gateways[0]", &mut problems);
        assert_eq!(problems[0].at, "gateways[0].tenancy.apiKey");
        assert!(!tenancy.is_open() && !tenancy.allows(&Tenant::anonymous(), "m"));
        assert!(Tenancy::unsaid().allows(&Tenant::anonymous(), "m"));
    }
}

//! Who may ask for what: the proofs that Envoy leaves of who is asking, and what is made of them.

use serde::{Deserialize, Serialize};

/// A header in which one of Envoy's filters says who it has found to be asking. Envoy takes off what a client sent under that
/// name before the filter runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// What was proved.
    pub kind: ProofKind,
    /// The header, lower-case. It names the gateway and the policy by a keyed digest, so that it cannot be guessed.
    pub header: String,
    /// `namespace/name` of the policy that demands it.
    pub policy: String,
    /// A request without it is served too, as one that proves nothing.
    #[serde(default)]
    pub optional: bool,
    /// The provider is told the name under this header, as the policy wishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Lower-case names of headers in which Envoy tells the provider what was proved; a client's own are taken off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// Lower-case names of headers in which clients bring their secret; none of them goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

/// What a proof is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProofKind {
    /// A key: the header holds its client's name.
    ApiKey,
    /// A password: the header holds the user's name.
    BasicAuth,
    /// A token: the header holds its payload in base64url.
    Jwt,
    /// A certificate: the header holds its subject.
    ClientCertificate,
    /// The same certificate: the header holds the URI that it names, or several with commas between them.
    ClientUri,
    /// The same certificate: the header holds the DNS names that it names, with commas between them.
    ClientDns,
}

/// Whether clients show keys of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyDemand {
    /// A request without a key that is good is refused.
    Required,
    /// A request without a key is served as one that proves nothing by it; one with a key that is not good is refused.
    Optional,
    /// Nobody looks for keys.
    NotAsked,
}

/// How tenants are read out of proofs, and what each may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tenancy {
    /// `namespace/name` of the policy that says so.
    pub policy: String,
    /// Pattern of the names of API keys; see [`crate::tenant::naming::Pattern`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Pattern of users' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<String>,
    /// Paths of a token's claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Parts>,
    /// Attributes of a certificate's subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Parts>,
    /// Pattern of the URI in a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<String>,
    /// Pattern of a DNS name in a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_dns: Option<String>,
    /// Who may use which models; empty means that everybody may use all.
    pub access: Vec<Access>,
}

/// Where the parts of a tenant are found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are those of a tenant's parts")]
pub struct Parts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Some models for some tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Access {
    /// Those whose parts are these; a part that is absent may be any. Requests that prove nothing are never among them.
    pub tenant: Parts,
    /// Requests that prove nothing instead.
    pub anonymous: bool,
    /// Names, in which `*` stands for any text.
    pub models: Vec<String>,
}

//! What Envoy Gateway's `OIDC` says about people's logins, which has no meaning for a gateway's own credentials.

use schemars::JsonSchema;

/// How long and for whom cookies are good.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// Whether they go along with requests from other sites.
    pub same_site: Option<SameSite>,
}

/// Whether a cookie goes along with requests from other sites.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are those of RFC 6265bis")]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

/// What cookies are called.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieNames {
    /// That of the access token.
    pub access_token: Option<String>,
    /// That of the ID token.
    pub id_token: Option<String>,
}

/// Requests that are refused and not sent to the provider.
#[derive(JsonSchema)]
pub struct DenyRedirect {
    /// Those with one of these headers.
    #[schemars(length(min = 1, max = 16))]
    pub headers: Vec<DeniedHeader>,
}

/// A header.
#[derive(JsonSchema)]
pub struct DeniedHeader {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// How it is compared.
    #[serde(rename = "type")]
    #[schemars(extend("x-crd" = {"default": "Exact"}))]
    pub kind: Option<StringMatchType>,
    /// With what.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How strings are compared.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum StringMatchType {
    Exact,
    Prefix,
    Suffix,
    RegularExpression,
}

/// Sends the ID token on.
#[derive(JsonSchema)]
pub struct ForwardIDToken {
    /// Under this header.
    #[schemars(length(min = 1))]
    pub header: String,
}

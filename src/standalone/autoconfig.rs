//! Resources made from the environment, for a gateway without any file.
//!
//! The variables are those that the providers' own SDKs read. The document names the key's variable instead of holding the
//! key: it is read by the same loader as files are, and can be shown and kept as one.

use std::net::IpAddr;

use http::Uri;
use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// The name of every resource.
const NAME: &str = "aigw-run";

/// What the document is called in messages about it.
pub(super) const SOURCE: &str = "<environment>";

/// Which variables there are, for people.
const KNOWN: &str = "\
  OPENAI_API_KEY          and, if not OpenAI itself, OPENAI_BASE_URL (also OPENAI_ORG_ID, OPENAI_PROJECT_ID)
  AZURE_OPENAI_API_KEY    with AZURE_OPENAI_ENDPOINT and OPENAI_API_VERSION
  ANTHROPIC_API_KEY       and, if not Anthropic itself, ANTHROPIC_BASE_URL";

/// Why the environment makes no gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AutoConfigError {
    /// No key is set.
    #[error("name some, such as examples/basic/basic.yaml, or set one of these:\n{KNOWN}")]
    NoProvider,
    /// A variable that goes with a key is missing.
    #[error("{key} is set, but {missing} is not: {hint}")]
    Incomplete {
        /// The one that is set.
        key: &'static str,
        /// The one that is not.
        missing: &'static str,
        /// What belongs into it.
        hint: &'static str,
    },
    /// A URL cannot be used.
    #[error("{variable} cannot be used: {reason}; write a URL such as {example}")]
    Url {
        /// The variable.
        variable: &'static str,
        /// What is wrong with its value.
        reason: String,
        /// One that is right.
        example: &'static str,
    },
}

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoConfig {
    /// The resources, as YAML. No secret is in it: it refers to the variable that holds the key.
    pub document: String,
    /// In a few words, which provider is served, and which other keys are not used.
    pub summary: String,
}

/// A provider's address and how it is spoken to.
struct Provider {
    key: &'static str,
    schema: Value,
    credential: &'static str,
    member: &'static str,
    url: Url,
    headers: Vec<Value>,
}

impl AutoConfig {
    /// Reads the environment; a variable that is set to nothing is not set.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, AutoConfigError> {
        let set =
            |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let keys = ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"];
        let provider = if set(keys[0]).is_some() {
            openai(&set)?
        } else if set(keys[1]).is_some() {
            azure(&set)?
        } else if set(keys[2]).is_some() {
            anthropic(&set)?
        } else {
            return Err(AutoConfigError::NoProvider);
        };
        let ignored: Vec<&str> =
            keys.into_iter().filter(|key| *key != provider.key && set(key).is_some()).collect();
        let mut summary = format!("no files: requests go to {} with {}", provider.url.shown, provider.key);
        if !ignored.is_empty() {
            summary.push_str(&format!(" ({} is set too, and not used)", ignored.join(", ")));
        }
        Ok(Self { document: provider.document(), summary })
    }
}

type Set<'a> = &'a dyn Fn(&str) -> Option<String>;

fn openai(set: Set<'_>) -> Result<Provider, AutoConfigError> {
    const VARIABLE: &str = "OPENAI_BASE_URL";
    const DEFAULT: &str = "https://api.openai.com/v1";
    let url = Url::parse(VARIABLE, DEFAULT, set(VARIABLE).as_deref().unwrap_or(DEFAULT))?;
    let header = |variable: &str, name: &str| {
        set(variable).map(|_| json!({ "name": name, "value": format!("${{{variable}}}") }))
    };
    Ok(Provider {
        key: "OPENAI_API_KEY",
        schema: json!({ "name": "OpenAI", "prefix": if url.path.is_empty() { "v1" } else { &url.path } }),
        credential: "APIKey",
        member: "apiKey",
        headers: [("OPENAI_ORG_ID", "OpenAI-Organization"), ("OPENAI_PROJECT_ID", "OpenAI-Project")]
            .into_iter()
            .filter_map(|(variable, name)| header(variable, name))
            .collect(),
        url,
    })
}

fn azure(set: Set<'_>) -> Result<Provider, AutoConfigError> {
    const VARIABLE: &str = "AZURE_OPENAI_ENDPOINT";
    const EXAMPLE: &str = "https://my-resource.openai.azure.com";
    let key = "AZURE_OPENAI_API_KEY";
    let missing = |missing, hint| AutoConfigError::Incomplete { key, missing, hint };
    let endpoint = set(VARIABLE).ok_or_else(|| {
        missing(VARIABLE, "the resource's address, such as https://my-resource.openai.azure.com")
    })?;
    let version = set("OPENAI_API_VERSION")
        .ok_or_else(|| missing("OPENAI_API_VERSION", "the API version, such as 2025-01-01-preview"))?;
    let url = Url::parse(VARIABLE, EXAMPLE, &endpoint)?;
    if !url.path.is_empty() {
        let reason = format!("its path `/{}` would be lost", url.path);
        return Err(AutoConfigError::Url { variable: VARIABLE, reason, example: EXAMPLE });
    }
    Ok(Provider {
        key,
        schema: json!({ "name": "AzureOpenAI", "version": version }),
        credential: "AzureAPIKey",
        member: "azureAPIKey",
        url,
        headers: Vec::new(),
    })
}

fn anthropic(set: Set<'_>) -> Result<Provider, AutoConfigError> {
    const VARIABLE: &str = "ANTHROPIC_BASE_URL";
    const DEFAULT: &str = "https://api.anthropic.com";
    let url = Url::parse(VARIABLE, DEFAULT, set(VARIABLE).as_deref().unwrap_or(DEFAULT))?;
    // Anthropic's SDKs put the version behind the base URL themselves.
    let prefix = match url.path.as_str() {
        "" => "v1".to_owned(),
        path if path == "v1" || path.ends_with("/v1") => path.to_owned(),
        path => format!("{path}/v1"),
    };
    Ok(Provider {
        key: "ANTHROPIC_API_KEY",
        schema: json!({ "name": "Anthropic", "prefix": prefix }),
        credential: "AnthropicAPIKey",
        member: "anthropicAPIKey",
        url,
        headers: Vec::new(),
    })
}

/// A base URL, taken apart.
struct Url {
    shown: String,
    tls: bool,
    host: String,
    port: u16,
    /// Without slashes at its ends.
    path: String,
}

impl Url {
    fn parse(variable: &'static str, example: &'static str, text: &str) -> Result<Self, AutoConfigError> {
        // The text itself may hold a password.
        let fail = |reason: &str| AutoConfigError::Url { variable, reason: reason.to_owned(), example };
        let uri: Uri = text.parse().map_err(|_| fail("it is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(fail("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| fail("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("a name and password in it would be lost"));
        }
        if uri.query().is_some() {
            return Err(fail("its query would be lost"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(fail("it names no host"));
        }
        Ok(Self {
            shown: text.to_owned(),
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path().trim_matches('/').to_owned(),
        })
    }

    fn endpoint(&self) -> Value {
        match self.host.parse::<IpAddr>() {
            Ok(address) => json!({ "ip": { "address": address, "port": self.port } }),
            Err(_) => json!({ "fqdn": { "hostname": self.host, "port": self.port } }),
        }
    }
}

impl Provider {
    fn document(&self) -> String {
        let mut resources = gateway();
        resources.extend(self.route());
        resources.extend(self.backend());
        // Plain data always serialises.
        let texts = resources.iter().map(|resource| serde_saphyr::to_string(resource).unwrap_or_default());
        texts.collect::<Vec<_>>().join("---\n")
    }

    fn route(&self) -> [Value; 2] {
        let mut service = json!({
            "apiVersion": "aigateway.envoyproxy.io/v1beta1",
            "kind": "AIServiceBackend",
            "metadata": metadata(),
            "spec": {
                "schema": self.schema,
                "backendRef": { "group": "gateway.envoyproxy.io", "kind": "Backend", "name": NAME },
            },
        });
        if !self.headers.is_empty() {
            service["spec"]["headerMutation"] = json!({ "set": self.headers });
        }
        let cost = |key: &str, kind: &str| json!({ "metadataKey": key, "type": kind });
        let route = json!({
            "apiVersion": "aigateway.envoyproxy.io/v1beta1",
            "kind": "AIGatewayRoute",
            "metadata": metadata(),
            "spec": {
                "parentRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": NAME }],
                "llmRequestCosts": [
                    cost("llm_input_token", "InputToken"),
                    cost("llm_output_token", "OutputToken"),
                    cost("llm_total_token", "TotalToken"),
                ],
                "rules": [{
                    "matches": [{ "headers": [
                        { "name": "x-ai-eg-model", "type": "RegularExpression", "value": ".*" },
                    ] }],
                    "backendRefs": [{ "name": NAME }],
                    "timeouts": { "request": "120s" },
                }],
            },
        });
        [route, service]
    }

    fn backend(&self) -> Vec<Value> {
        let Self { key, credential, member, url, .. } = self;
        let mut resources = vec![
            json!({
                "apiVersion": "aigateway.envoyproxy.io/v1beta1",
                "kind": "BackendSecurityPolicy",
                "metadata": metadata(),
                "spec": {
                    "targetRefs": [{
                        "group": "aigateway.envoyproxy.io", "kind": "AIServiceBackend", "name": NAME,
                    }],
                    "type": credential,
                    *member: { "secretRef": { "name": NAME } },
                },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": metadata(),
                "stringData": { "apiKey": format!("${{{key}}}") },
            }),
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1",
                "kind": "Backend",
                "metadata": metadata(),
                "spec": { "endpoints": [url.endpoint()] },
            }),
        ];
        if url.tls {
            resources.push(json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "BackendTLSPolicy",
                "metadata": metadata(),
                "spec": {
                    "targetRefs": [{ "group": "gateway.envoyproxy.io", "kind": "Backend", "name": NAME }],
                    "validation": { "wellKnownCACertificates": "System", "hostname": url.host },
                },
            }));
        }
        resources
    }
}

fn metadata() -> Value {
    json!({ "name": NAME, "namespace": "default" })
}

/// What does not depend on the provider.
fn gateway() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": NAME },
            "spec": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": metadata(),
            "spec": {
                "gatewayClassName": NAME,
                "listeners": [{ "name": "http", "protocol": "HTTP", "port": 1975 }],
            },
        }),
        json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "ClientTrafficPolicy",
            "metadata": metadata(),
            "spec": {
                "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": NAME }],
                "connection": { "bufferLimit": "50Mi" },
            },
        }),
    ]
}

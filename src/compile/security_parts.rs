//! What a SecurityPolicy asks for, looked up: keys, passwords, and who issues tokens. Nothing that is said about a Secret repeats
//! any of it.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::core::Secret;
use crate::resources::security_policy::{
    APIKeyAuth, BasicAuth, ExtractFrom, JWT, JWTProvider, LocalJWKS, LocalJWKSType, SecurityPolicy,
};
use crate::resources::types::SecretObjectReference;
use crate::resources::{Located, Snapshot};

use super::destinations::fingerprint;
use super::digest::Digest;
use super::grants::{From, To, allowed, missing};
use super::plan::{
    ApiKeyPlan, AuthPlan, BasicPlan, Cluster, ClusterPlan, ClusterTraffic, Endpoint, IssuerPlan, JwksPlan,
    JwtPlan, TlsPlan, Trust,
};
use super::{CompileOptions, SecretFile};

/// What policies are compiled with.
pub(super) struct Context<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: &'a CompileOptions,
    pub(super) diagnostics: &'a mut Diagnostics,
    pub(super) clusters: &'a mut Vec<Cluster>,
}

type Policy = Located<SecurityPolicy>;

/// What a policy asks for; nothing where it cannot be served, which diagnostics say.
pub(super) fn compile(policy: &Policy, context: &mut Context<'_>) -> Option<AuthPlan> {
    let spec = &policy.spec;
    // All are looked at, so that all problems are told.
    let api_key = spec.api_key_auth.as_ref().map(|asked| api_key(policy, asked, context));
    let basic = spec.basic_auth.as_ref().map(|asked| basic(policy, asked, context));
    let jwt = spec.jwt.as_ref().map(|asked| jwt(policy, asked, context));
    let plan = AuthPlan {
        policy: format!("{}/{}", policy.namespace(), policy.name()),
        api_key: unbroken(api_key).ok()?,
        basic: unbroken(basic).ok()?,
        jwt: unbroken(jwt).ok()?,
    };
    Some(plan)
}

/// A part of a policy cannot be served.
struct Broken;

/// Of a part that may be absent or broken: nothing if it is broken.
fn unbroken<T>(part: Option<Option<T>>) -> Result<Option<T>, Broken> {
    part.map(|part| part.ok_or(Broken)).transpose()
}

fn refuse(policy: &Policy, context: &mut Context<'_>, field: &str, message: String, help: String) {
    let help = format!("{help}; until then what this policy is for is not served");
    context.diagnostics.push(policy.error(field, message).help(help));
}

fn secret<'a>(
    policy: &Policy,
    reference: &SecretObjectReference,
    field: &str,
    context: &mut Context<'a>,
) -> Option<&'a Located<Secret>> {
    let namespace = reference.namespace.as_deref().unwrap_or_else(|| policy.namespace());
    let name = &reference.name;
    if !reference.group.is_empty() || reference.kind != "Secret" {
        let message = format!("a {} cannot hold credentials", reference.kind);
        refuse(policy, context, &format!("{field}.kind"), message, "name a Secret".to_owned());
        return None;
    }
    let from = From { group: "gateway.envoyproxy.io", kind: "SecurityPolicy", namespace: policy.namespace() };
    let to = To { group: "", kind: "Secret", namespace, name };
    if !allowed(context.snapshot, from, to) {
        let message =
            format!("the Secret is in namespace `{namespace}`, which does not allow this reference");
        refuse(policy, context, &format!("{field}.namespace"), message, missing(from, to));
        return None;
    }
    let found = context.snapshot.secrets.get(namespace, name);
    if found.is_none() {
        let message = format!("there is no Secret {namespace}/{name}");
        let help = suggest(name, context.snapshot.secrets.names_in(namespace));
        refuse(policy, context, &format!("{field}.name"), message, help);
    }
    found
}

fn api_key(policy: &Policy, asked: &APIKeyAuth, context: &mut Context<'_>) -> Option<ApiKeyPlan> {
    const FIELD: &str = "spec.apiKeyAuth";
    let mut credentials: BTreeMap<String, SecretString> = BTreeMap::new();
    let mut complete = true;
    for (index, reference) in asked.credential_refs.iter().enumerate() {
        let field = format!("{FIELD}.credentialRefs[{index}]");
        let Some(found) = secret(policy, reference, &field, context) else {
            complete = false;
            continue;
        };
        for client in found.keys() {
            let key = found.value(client);
            let key = key.filter(|key| {
                let key = key.expose_secret();
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
            });
            let Some(key) = key else {
                let message = format!(
                    "the key of client `{client}` in {} is empty or no visible ASCII text",
                    found.id()
                );
                refuse(policy, context, &field, message, "write another one".to_owned());
                complete = false;
                continue;
            };
            let twin = credentials
                .iter()
                .find(|(name, known)| known.expose_secret() == key.expose_secret() && *name != client);
            if let Some((twin, _)) = twin {
                let message = format!("clients `{twin}` and `{client}` have the same key");
                refuse(policy, context, &field, message, "give each client its own".to_owned());
                complete = false;
            } else if credentials.insert(client.to_owned(), key).is_some() {
                let message = format!("there are two clients `{client}`");
                refuse(policy, context, &field, message, "give each its own name".to_owned());
                complete = false;
            }
        }
    }
    if complete && credentials.is_empty() {
        let message = "its Secrets have no key: nobody could pass".to_owned();
        refuse(policy, context, &format!("{FIELD}.credentialRefs"), message, "add one".to_owned());
        complete = false;
    }
    let mut sources = Vec::new();
    let mut secrets = Vec::new();
    for (index, ExtractFrom { headers, params, cookies }) in asked.extract_from.iter().enumerate() {
        let field = format!("{FIELD}.extractFrom[{index}]");
        for name in headers {
            let name = name.to_ascii_lowercase();
            if name.starts_with("x-ai-eg-") || name.starts_with(':') {
                let message = format!("`{name}` is a name of the gateway's own, not believed from clients");
                refuse(policy, context, &format!("{field}.headers"), message, "choose another".to_owned());
                complete = false;
            }
            secrets.push(name.clone());
            sources.push(("header", name));
        }
        sources.extend(params.iter().map(|name| ("query", name.clone())));
        if !cookies.is_empty() {
            secrets.push("cookie".to_owned());
            sources.extend(cookies.iter().map(|name| ("cookie", name.clone())));
        }
    }
    if sources.is_empty() {
        let message = "it says nowhere where the key is looked for".to_owned();
        let help = "write headers: [authorization], for example".to_owned();
        refuse(policy, context, &format!("{FIELD}.extractFrom"), message, help);
        complete = false;
    }
    let credentials = credentials.into_iter().collect();
    let forward = asked.forward_client_id_header.clone();
    complete.then_some(ApiKeyPlan { credentials, sources, secrets, forward })
}

fn basic(policy: &Policy, asked: &BasicAuth, context: &mut Context<'_>) -> Option<BasicPlan> {
    const FIELD: &str = "spec.basicAuth.users";
    let found = secret(policy, &asked.users, FIELD, context)?;
    let id = found.id();
    let Some(users) = found.value(".htpasswd") else {
        let message = format!("{id} has no key `.htpasswd`");
        refuse(policy, context, FIELD, message, "put lines user:{SHA}hash there".to_owned());
        return None;
    };
    let mut names = std::collections::BTreeSet::new();
    let mut count = 0;
    for (number, line) in users.expose_secret().lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        count += 1;
        let entry = line.split_once(':').filter(|(name, hash)| {
            !name.is_empty() && hash.strip_prefix("{SHA}").is_some_and(|hash| hash.trim_end().len() == 28)
        });
        let problem = match entry {
            None => "is not of the form user:{SHA}hash, which is the only one that Envoy reads",
            Some((name, _)) if !names.insert(name.to_owned()) => "names a user that was named before",
            Some(_) => continue,
        };
        let message = format!("line {} of `.htpasswd` in {id} {problem}", number + 1);
        refuse(policy, context, FIELD, message, "make the line with htpasswd -sbn USER PASSWORD".to_owned());
        return None;
    }
    if count == 0 {
        let message = format!("`.htpasswd` in {id} names no user: nobody could pass");
        refuse(policy, context, FIELD, message, "add one with htpasswd -sbn USER PASSWORD".to_owned());
        return None;
    }
    Some(BasicPlan { users, forward: asked.forward_username_header.clone() })
}

fn jwt(policy: &Policy, asked: &JWT, context: &mut Context<'_>) -> Option<JwtPlan> {
    let mut issuers: Vec<IssuerPlan> = Vec::new();
    let mut complete = true;
    let mut secrets = Vec::new();
    for (index, provider) in asked.providers.iter().enumerate() {
        let field = format!("spec.jwt.providers[{index}]");
        if issuers.iter().any(|known| known.name == provider.name) {
            let message = format!("there are two providers `{}`", provider.name);
            refuse(policy, context, &format!("{field}.name"), message, "rename one".to_owned());
            complete = false;
            continue;
        }
        match issuer(policy, provider, &field, context) {
            Some(issuer) => {
                let from = provider.extract_from.as_ref();
                let headers = issuer.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
                secrets.extend(headers);
                let is_usual =
                    issuer.headers.is_empty() && issuer.cookies.is_empty() && issuer.params.is_empty();
                secrets.extend(is_usual.then(|| "authorization".to_owned()));
                let cookies = from.is_some_and(|from| !from.cookies.is_empty());
                secrets.extend(cookies.then(|| "cookie".to_owned()));
                issuers.push(issuer);
            }
            None => complete = false,
        }
    }
    secrets.sort();
    secrets.dedup();
    complete.then_some(JwtPlan { optional: asked.optional, issuers, secrets })
}

fn issuer(
    policy: &Policy,
    provider: &JWTProvider,
    field: &str,
    context: &mut Context<'_>,
) -> Option<IssuerPlan> {
    let keys = match (&provider.local_jwks, &provider.remote_jwks) {
        (Some(local), _) => jwks_plan(local_keys(policy, local, field, context)?, context.options),
        (None, Some(remote)) => {
            let Some(cluster) = fetched_from(&remote.uri, context.options) else {
                let message = "this is no URI of http or https with a host and a path".to_owned();
                let help = "write one such as https://issuer.example/.well-known/jwks.json".to_owned();
                refuse(policy, context, &format!("{field}.remoteJWKS.uri"), message, help);
                return None;
            };
            let name = cluster.name.clone();
            if !context.clusters.iter().any(|known| known.name() == name) {
                context.clusters.push(Cluster::Backend(Box::new(cluster)));
            }
            let cache_ms = remote.cache_duration.map_or(300_000, |time| super::milliseconds(time.0).max(1));
            JwksPlan::Fetched { uri: remote.uri.clone(), cluster: name, cache_ms }
        }
        (None, None) => return None,
    };
    if provider.issuer.is_none() && provider.audiences.is_empty() {
        let message = "any token that these keys have signed will do, for whomever it was made";
        let help = "say issuer and audiences";
        context.diagnostics.push(policy.warning(field, message).help(help));
    }
    let from = provider.extract_from.clone().unwrap_or_default();
    let claims = provider.claim_to_headers.iter();
    let claims: Vec<_> =
        claims.map(|claim| (claim.header.to_ascii_lowercase(), claim.claim.clone())).collect();
    if let Some((name, _)) = claims.iter().find(|(name, _)| name.starts_with("x-ai-eg-")) {
        let message = format!("`{name}` is a name of the gateway's own");
        refuse(policy, context, &format!("{field}.claimToHeaders"), message, "choose another".to_owned());
        return None;
    }
    Some(IssuerPlan {
        name: provider.name.clone(),
        issuer: provider.issuer.clone().filter(|issuer| !issuer.is_empty()),
        audiences: provider.audiences.clone(),
        keys,
        claims,
        headers: from
            .headers
            .into_iter()
            .map(|header| (header.name, header.value_prefix.unwrap_or_default()))
            .collect(),
        cookies: from.cookies,
        params: from.params,
    })
}

/// Public keys may be shown to whoever looks at Envoy's configuration; a key that signs tokens too, or that could, may not.
fn jwks_plan(text: String, options: &CompileOptions) -> JwksPlan {
    let holds_secret = |key: &Value| key.get("k").is_some() || key.get("d").is_some();
    let jwks: Value = serde_json::from_str(&text).unwrap_or_default();
    if !jwks["keys"].as_array().is_some_and(|keys| keys.iter().any(holds_secret)) {
        return JwksPlan::Inline(text);
    }
    let digest = Digest::new(&options.secret.0).routing_key(&"jwks", [Some(text.as_str())]);
    let file = SecretFile { name: format!("jwks-{digest}.json"), content: text.into() };
    JwksPlan::File { path: options.sockets.embedded.join(&file.name), file }
}

/// Envoy refuses everything if it cannot read one of these, so that it is looked at first.
fn local_keys(policy: &Policy, local: &LocalJWKS, field: &str, context: &mut Context<'_>) -> Option<String> {
    let field = format!("{field}.localJWKS");
    let text = match local.kind {
        LocalJWKSType::Inline => local.inline.clone(),
        LocalJWKSType::ValueRef => {
            let name = &local.value_ref.as_ref()?.name;
            let map = context.snapshot.config_maps.get(policy.namespace(), name);
            let Some(map) = map else {
                let message = format!("there is no ConfigMap {}/{name}", policy.namespace());
                let help = suggest(name, context.snapshot.config_maps.names_in(policy.namespace()));
                refuse(policy, context, &format!("{field}.valueRef.name"), message, help);
                return None;
            };
            let only = map.data.values().next().filter(|_| map.data.len() == 1);
            map.data.get("jwks").or(only).cloned()
        }
    };
    let usable = |text: &String| {
        let keys = serde_json::from_str::<Value>(text).ok()?;
        let usable = |key: &Value| match key.get("kty").and_then(Value::as_str) {
            Some("RSA") => key.get("n").is_some() && key.get("e").is_some(),
            Some("EC") => key.get("x").is_some() && key.get("y").is_some(),
            Some("OKP") => key.get("x").is_some(),
            Some("oct") => key.get("k").is_some(),
            _ => false,
        };
        keys.get("keys")?.as_array()?.iter().any(usable).then_some(())
    };
    let text = text.filter(|text| usable(text).is_some());
    if text.is_none() {
        let message = "this is no JWKS with a key in it".to_owned();
        refuse(policy, context, &field, message, "write {\"keys\": [...]} as the issuer gives it".to_owned());
    }
    text
}

/// How the host of a URI is reached.
fn fetched_from(uri: &str, options: &CompileOptions) -> Option<ClusterPlan> {
    let (scheme, rest) = uri.split_once("://")?;
    let secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let (place, _) = rest.split_once('/')?;
    let authority: http::uri::Authority = place.parse().ok().filter(|_| !place.contains('@'))?;
    let hostname = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let endpoint = match hostname.parse() {
        Ok(address) => Endpoint::Ip { address, port, hostname: None },
        Err(_) => Endpoint::Fqdn { hostname: hostname.clone(), port },
    };
    let trust = || options.ca_bundle.clone().map(Trust::System);
    let tls = if secure { Some(TlsPlan { hostname, names: Vec::new(), trust: trust()? }) } else { None };
    let mut plan = ClusterPlan {
        name: String::new(),
        backend: format!("jwks/{place}"),
        endpoints: vec![endpoint],
        tls,
        h2c: false,
        traffic: ClusterTraffic::default(),
    };
    plan.name = format!("jwks/{place}/{}", fingerprint(&super::envoy::provider_cluster(&plan).to_string()));
    Some(plan)
}

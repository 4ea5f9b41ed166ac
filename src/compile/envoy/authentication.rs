//! Envoy's authentication filters: what clients have to prove, asked before the processor reads anything, or behind it where that
//! depends on the rule it chooses.
//!
//! What is asked is part of the routes, and the listener has but places for it: a filter is made of what the route says at the time
//! the place is reached. Behind the processor that is the route it chose. So a key that is taken away is refused as soon as Envoy has
//! the new routes, on all connections.

use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::config::ProofKind;

use super::super::plan::{ApiKeyPlan, Asked, BasicPlan, Clients, IssuerPlan, JwksPlan, JwtPlan};
use super::duration;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const MATCHING: &str = "type.googleapis.com/envoy.extensions.common.matching.v3";

/// On which side of the processor a place is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Front,
    Behind,
}

const KINDS: [&str; 3] = ["api-key", "basic-auth", "jwt"];

impl Side {
    fn place(self, kind: &str) -> String {
        match self {
            Self::Front => format!("aigw.authentication.front/{kind}"),
            Self::Behind => format!("aigw.authentication/{kind}"),
        }
    }
}

/// The places of a listener on one side of the processor.
pub(super) fn places(clients: &Clients, side: Side) -> Vec<Value> {
    let needed = match side {
        Side::Front => clients.front.is_some(),
        Side::Behind => clients.behind,
    };
    let place = |kind: &&str| {
        json!({
            "name": side.place(kind),
            "typed_config": {
                "@type": format!("{MATCHING}.ExtensionWithMatcher"),
                // Where a route says nothing, no filter is made.
                "xds_matcher": {
                    "matcher_tree": {
                        "input": {
                            "name": "never",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                                "header_name": "x-ai-eg-never",
                            },
                        },
                        "exact_match_map": { "map": { "never": { "action": {
                            "name": "skip",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter",
                            },
                        } } } },
                    },
                },
                "extension_config": {
                    "name": "composite",
                    "typed_config": { "@type": format!("{FILTERS}.composite.v3.Composite") },
                },
            },
        })
    };
    KINDS.iter().filter(|_| needed).map(place).collect()
}

/// What a route, or all of them, put into the places.
pub(super) fn per_filter(asked: &Asked, side: Side) -> Value {
    let plan = &asked.plan;
    let filters = [
        plan.api_key.as_ref().map(|keys| api_key(keys, asked.header(ProofKind::ApiKey))),
        plan.basic.as_ref().map(|users| basic(users, asked.header(ProofKind::BasicAuth))),
        plan.jwt.as_ref().map(|jwt| tokens(jwt, asked.header(ProofKind::Jwt))),
    ];
    let put = |(kind, filter): (&str, Option<Value>)| {
        let filter = filter?;
        let put = json!({
            "@type": format!("{MATCHING}.ExtensionWithMatcherPerRoute"),
            "xds_matcher": { "on_no_match": { "action": {
                "name": kind,
                "typed_config": {
                    "@type": format!("{FILTERS}.composite.v3.ExecuteFilterAction"),
                    "typed_config": { "name": kind, "typed_config": filter },
                },
            } } },
        });
        Some((side.place(kind), put))
    };
    Value::Object(KINDS.into_iter().zip(filters).filter_map(put).collect::<Map<_, _>>())
}

fn api_key(plan: &ApiKeyPlan, header: &str) -> Value {
    let credential = |(client, key): &(String, secrecy::SecretString)| json!({ "key": key.expose_secret(), "client": client });
    let source = |(kind, name): &(&str, String)| json!({ *kind: name });
    json!({
        "@type": format!("{FILTERS}.api_key_auth.v3.ApiKeyAuth"),
        "credentials": plan.credentials.iter().map(credential).collect::<Vec<_>>(),
        "key_sources": plan.sources.iter().map(source).collect::<Vec<_>>(),
        "forwarding": { "header": header, "hide_credentials": true },
    })
}

fn basic(plan: &BasicPlan, header: &str) -> Value {
    json!({
        "@type": format!("{FILTERS}.basic_auth.v3.BasicAuth"),
        "users": { "inline_string": plan.users.expose_secret() },
        "forward_username_header": header,
    })
}

fn tokens(plan: &JwtPlan, header: &str) -> Value {
    let providers: Map<String, Value> =
        plan.issuers.iter().map(|issuer| (issuer.name.clone(), provider(issuer, header))).collect();
    let mut demands: Vec<Value> =
        plan.issuers.iter().map(|issuer| json!({ "provider_name": issuer.name })).collect();
    if plan.optional {
        demands.push(json!({ "allow_missing": {} }));
    }
    let requires = match demands.as_slice() {
        [one] => one.clone(),
        several => json!({ "requires_any": { "requirements": several } }),
    };
    json!({
        "@type": format!("{FILTERS}.jwt_authn.v3.JwtAuthentication"),
        "providers": providers,
        "rules": [{ "match": { "prefix": "/" }, "requires": requires }],
    })
}

fn provider(plan: &IssuerPlan, header: &str) -> Value {
    let mut provider = json!({ "forward": false, "forward_payload_header": header });
    if let Some(issuer) = &plan.issuer {
        provider["issuer"] = json!(issuer);
    }
    if !plan.audiences.is_empty() {
        provider["audiences"] = json!(plan.audiences);
    }
    match &plan.keys {
        JwksPlan::Inline(text) => provider["local_jwks"] = json!({ "inline_string": text }),
        JwksPlan::File { path, file: _ } => provider["local_jwks"] = json!({ "filename": path }),
        JwksPlan::Fetched { uri, cluster, cache_ms } => {
            provider["remote_jwks"] = json!({
                "http_uri": { "uri": uri, "cluster": cluster, "timeout": "10s" },
                "cache_duration": duration(*cache_ms),
                "async_fetch": { "fast_listener": true },
                "retry_policy": { "num_retries": 2 },
            });
        }
    }
    if !plan.claims.is_empty() {
        let claim =
            |(header, claim): &(String, String)| json!({ "header_name": header, "claim_name": claim });
        provider["claim_to_headers"] = plan.claims.iter().map(claim).collect();
    }
    let usual = plan.headers.is_empty() && plan.cookies.is_empty() && plan.params.is_empty();
    if usual {
        // Without this Envoy also takes a parameter `access_token`.
        provider["from_headers"] = json!([{ "name": "Authorization", "value_prefix": "Bearer " }]);
    } else {
        let header = |(name, prefix): &(String, String)| json!({ "name": name, "value_prefix": prefix });
        provider["from_headers"] = plan.headers.iter().map(header).collect();
        provider["from_cookies"] = json!(plan.cookies);
        provider["from_params"] = json!(plan.params);
    }
    provider
}

/// Says who has shown a certificate.
pub(super) fn certificate(clients: &Clients) -> Option<Value> {
    let mutations = clients.certificate.iter().map(|proof| {
        let value = match proof.kind {
            ProofKind::ClientUri => "%DOWNSTREAM_PEER_URI_SAN%",
            ProofKind::ClientDns => "%DOWNSTREAM_PEER_DNS_SAN%",
            _ => "%DOWNSTREAM_PEER_SUBJECT%",
        };
        json!({ "append": {
            "header": { "key": proof.header, "value": value },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        } })
    });
    let mutations: Vec<Value> = mutations.collect();
    (!mutations.is_empty()).then(|| {
        json!({
            "name": "aigw.authentication/certificate",
            "typed_config": {
                "@type": format!("{FILTERS}.header_mutation.v3.HeaderMutation"),
                "mutations": { "request_mutations": mutations },
            },
        })
    })
}

/// Takes off, before anything else looks at a request, what only the gateway may say. `rules` is what rules ask for.
pub(super) fn early<'a>(clients: &'a Clients, rules: impl Iterator<Item = &'a Asked>) -> Option<Value> {
    let asked: Vec<&Asked> = clients.front.iter().chain(&clients.rest).chain(rules).collect();
    let proofs = asked.iter().flat_map(|asked| &asked.proofs).chain(&clients.certificate);
    let mut names: Vec<&str> = proofs
        .flat_map(|proof| std::iter::once(proof.header.as_str()).chain(proof.forward.as_deref()))
        .collect();
    let issuers = asked.iter().filter_map(|asked| asked.plan.jwt.as_ref()).flat_map(|jwt| &jwt.issuers);
    names.extend(issuers.flat_map(|issuer| &issuer.claims).map(|(header, _)| header.as_str()));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return None;
    }
    let removals: Vec<Value> = names.iter().map(|name| json!({ "remove": name })).collect();
    Some(json!([{
        "name": "aigw.authentication/early",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": removals,
        },
    }]))
}

/// Replaces what clients prove themselves with, for people to look at the rest.
pub(super) fn hide(document: &mut Value) {
    const HIDDEN: &str = "[REDACTED]";
    match document {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => {
            if members.contains_key("client") && members.contains_key("key") {
                members.insert("key".to_owned(), json!(HIDDEN));
            }
            if members.contains_key("forward_username_header") {
                members.insert("users".to_owned(), json!({ "inline_string": HIDDEN }));
            }
            members.values_mut().for_each(hide);
        }
        _ => {}
    }
}

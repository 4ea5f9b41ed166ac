//! L5. What a request would get, and why: decided by the very code that serves requests, told for people.
//!
//! The request is put through an exchange, whose step is what is reported; the matches are tried one by one besides,
//! in their order and with their own conditions, to say why each that comes first is passed over.

mod client;
mod limits;
mod question;
mod run;
mod text;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use self::client::Client;
pub use self::question::{Question, QuestionError};

use self::run::{attempt, begin};
use crate::auth::{CLIENT_CREDENTIAL_HEADERS, Held};
use crate::compile::{Compiled, Destination, Listener, RuleFate};
use crate::config::{self, HeaderMatchType, RuleMatch};
use crate::diagnostics::suggest;
use crate::endpoint::{ApiTarget, Endpoint};
use crate::exchange::{self, MODEL_HEADER, Now, Step, matched_values};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::Change;
use crate::routing::Hosts;
use crate::runtime::{Route, Runtime, Tenancy, condition};

/// The headers by which the processor and Envoy agree; no provider sees them.
const INTERNAL_PREFIX: &str = "x-ai-eg-";

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The request as it was asked about.
    pub request: String,
    /// The listener that takes it, as `namespace/gateway/listener`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The host name among those of the listener under which it is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What the client has to prove, each of them. The rest is told as if it had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authentication: Vec<String>,
    /// Who is asking, as the gateway would read it out of what is proved; only if the question names somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What that tenant may use of what the rule or the listener offers, and who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// The limits it falls under, or would as a request of some clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<FallsUnder>,
    /// All matches of that host name, in the order in which they are tried.
    pub matches: Vec<Trial>,
    /// What comes of it.
    #[serde(flatten)]
    pub result: Verdict,
}

/// A limit that a request falls under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FallsUnder {
    /// What clients are told it is called: `policy/limit`.
    pub name: String,
    /// How much there is, such as "100000 tokens in 1m for each key".
    pub allows: String,
    /// `namespace/name` of the AIServiceBackend, if only attempts at it fall under it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Whose requests fall under it, if not everybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
}

/// One match and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// `namespace/name` of the AIGatewayRoute.
    pub route: String,
    /// The index of the rule in it.
    pub rule: usize,
    /// What is asked of a request, such as "x-ai-eg-model is `a`"; nothing if every request will do.
    pub conditions: Vec<String>,
    /// Whether it was chosen.
    pub outcome: Outcome,
    /// The first condition that does not hold, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What became of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The request is one of its rule.
    Chosen,
    /// A condition does not hold.
    Failed,
    /// One that comes earlier was chosen.
    NotTried,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Verdict {
    /// It goes to a provider.
    #[serde(rename_all = "camelCase")]
    Forwarded {
        /// `namespace/name` of the AIGatewayRoute.
        route: String,
        /// The index of the rule in it.
        rule: usize,
        /// One of these is chosen, by priority, then in proportion to the weights.
        backends: Vec<BackendChoice>,
        /// What the provider is sent, whichever it is; nothing if each attempt is made for its own backend.
        #[serde(skip_serializing_if = "Option::is_none")]
        provider_request: Option<ProviderRequest>,
    },
    /// The gateway answers itself.
    #[serde(rename_all = "camelCase")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// Why.
        reason: String,
    },
    /// The question names what is not there.
    #[serde(rename_all = "camelCase")]
    Unanswerable {
        /// What, and what there is instead.
        reason: String,
    },
}

/// A backend that a request may go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendChoice {
    /// `namespace/name` of the AIServiceBackend.
    pub name: String,
    /// Its share, in proportion to the others of the same priority.
    pub weight: u32,
    /// Those with a lower number come first.
    pub priority: u32,
    /// `host:port` or `unix:path`.
    pub addresses: Vec<String>,
    /// The name its certificate has to have; nothing where TLS is not spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What an attempt at it sends, if that depends on the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_request: Option<ProviderRequest>,
    /// Why an attempt at it fails, if it does so in the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The request as it leaves the gateway. No value of a header is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRequest {
    /// Path and query.
    pub path: String,
    /// The model it asks for.
    pub model: String,
    /// How it is signed, such as "authorization: Bearer"; nothing if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Headers that are set besides, by name.
    pub headers_set: Vec<String>,
    /// Headers of the request that are taken off, by name.
    pub headers_removed: Vec<String>,
    /// Whether the body is changed on the way.
    pub body_changed: bool,
}

/// Decides about one request with the configuration that `runtime` was made of.
#[must_use]
pub fn explain(compiled: &Compiled, runtime: &Arc<Runtime>, question: &Question) -> Explanation {
    // Nothing is fetched to explain; what would be sent is told as if it had been.
    for (_, cell) in runtime.cells().iter().filter(|(_, cell)| !cell.is_filled()) {
        cell.fill(Arc::new(Held::sample(cell.source())));
    }
    let mut explanation = Explanation {
        request: question.to_string(),
        listener: None,
        hostname: None,
        authentication: Vec::new(),
        tenant: None,
        access: None,
        limits: Vec::new(),
        matches: Vec::new(),
        result: Verdict::Unanswerable { reason: String::new() },
    };
    let (listener, gateway) = match listener(compiled, question) {
        Ok(found) => found,
        Err(reason) => {
            explanation.result = Verdict::Unanswerable { reason };
            return explanation;
        }
    };
    explanation.listener = Some(listener.id.clone());
    let headers = question.headers(listener.hostname.as_deref());
    let host = host(gateway, &headers);
    if let Some(host) = host {
        explanation.hostname = Some(host.hostname.clone());
        if question.is_routed() {
            explanation.matches = trials(listener, host, &headers, question.model());
        }
    }
    let chosen = explanation.matches.iter().position(|trial| trial.outcome == Outcome::Chosen);
    let chosen = host.zip(chosen).and_then(|(host, index)| host.matches.get(index));
    let of_rule = chosen.and_then(|chosen| gateway.rules.get(chosen.rule));
    explanation.authentication = client::demands(gateway, of_rule);
    let client = Client::new(question, tenancy(runtime, gateway, &headers, question.model()));
    (explanation.tenant, explanation.access) = client.access(gateway, of_rule).unzip();
    explanation.limits = of_rule
        .map(|rule| limits::of(compiled, runtime, gateway, rule, question, &headers))
        .unwrap_or_default();
    let headers = client.at_gateway(headers, gateway);
    explanation.result = match verdict(runtime, gateway, listener, question, &client, headers) {
        Verdict::Answered { status: 404, .. } if question.is_routed() && host.is_none() => {
            Verdict::Answered {
                status: 404,
                reason: "no route serves this host name on this listener".to_owned(),
            }
        }
        Verdict::Answered { status: status @ (401 | 403), reason }
            if !explanation.authentication.is_empty() && question.tenant().is_none() =>
        {
            let reason =
                format!("{reason} (asked as a client of whom nothing is known; tenant= names another)");
            Verdict::Answered { status, reason }
        }
        Verdict::Answered { status: 422, reason } => {
            let served = chosen.and_then(|chosen| served(compiled, gateway.rules.get(chosen.rule)?));
            Verdict::Answered { status: 422, reason: reason + &served.unwrap_or_default() }
        }
        Verdict::Forwarded { route, rule, mut backends, provider_request } => {
            for backend in &mut backends {
                backend.addresses.iter_mut().for_each(|address| name_embedded(compiled, address));
            }
            Verdict::Forwarded { route, rule, backends, provider_request }
        }
        other => other,
    };
    explanation
}

/// Which endpoints the backend of a rule has, as the end of a sentence.
fn served(compiled: &Compiled, rule: &config::Rule) -> Option<String> {
    let backend = compiled.config.backends.iter().find(|backend| backend.name == rule.backend)?;
    let config::ApiSchema { name, version, prefix } = &backend.schema;
    let api = ApiTarget::new(*name, prefix.as_deref(), version.as_deref());
    let paths = Endpoint::ALL.into_iter().filter(|endpoint| api.path(*endpoint, "m", false).is_some());
    Some(format!(
        ", since it speaks {name:?}; it serves {}",
        paths.map(Endpoint::path).collect::<Vec<_>>().join(", ")
    ))
}

/// A socket of this process is no address for people.
fn name_embedded(compiled: &Compiled, address: &mut String) {
    let socket = address.strip_prefix("unix:").map(Path::new);
    let found = compiled.embedded_backends.iter().find(|embedded| Some(embedded.socket.as_path()) == socket);
    if let Some(embedded) = found {
        *address = format!("the embedded test backend of Service {}", embedded.name);
    }
}

/// Who tenants are and what they may use, for a request with these headers.
fn tenancy(runtime: &Runtime, gateway: &config::Gateway, headers: &Headers, model: &str) -> Arc<Tenancy> {
    let Some(gateway) = runtime.gateway(&gateway.authority) else { return Arc::default() };
    let host = headers.text(":authority").unwrap_or_default();
    match gateway.select(host, |name| matched_values(headers, model, name)) {
        Route::Rule(rule) => Arc::clone(gateway.tenancy_of(&rule)),
        Route::Broken | Route::None => Arc::clone(&gateway.tenancy),
    }
}

/// The listener that is asked about: the named one, or the first.
fn listener<'a>(
    compiled: &'a Compiled,
    question: &Question,
) -> Result<(&'a Listener, &'a config::Gateway), String> {
    // Both are in the order of the listeners.
    let mut all = compiled.listeners.iter().zip(&compiled.config.gateways);
    match question.listener() {
        None => all.next().ok_or_else(|| "these files have no listener that is served".to_owned()),
        Some(name) => {
            all.find(|(listener, _)| listener.id == name || listener.name == name).ok_or_else(|| {
                let names = compiled.listeners.iter().map(|listener| listener.name.as_str());
                format!("there is no listener `{name}`: {}", suggest(name, names))
            })
        }
    }
}

/// The host name that serves the request, found as the processor finds it.
fn host<'a>(gateway: &'a config::Gateway, headers: &Headers) -> Option<&'a config::Host> {
    let (hosts, _) = Hosts::new(gateway.hosts.iter().map(|host| (host.hostname.clone(), host)));
    hosts.find(headers.text(":authority").unwrap_or_default()).copied()
}

fn trials(listener: &Listener, host: &config::Host, headers: &Headers, model: &str) -> Vec<Trial> {
    let mut chosen = false;
    let mut trials = Vec::with_capacity(host.matches.len());
    for tried in &host.matches {
        let Some(rule) = listener.described.get(tried.rule) else { continue };
        let because = if chosen { None } else { failure(tried, headers, model) };
        let outcome = match (chosen, &because) {
            (true, _) => Outcome::NotTried,
            (false, Some(_)) => Outcome::Failed,
            (false, None) => Outcome::Chosen,
        };
        chosen |= outcome == Outcome::Chosen;
        let conditions = tried.headers.iter().map(demand).collect();
        trials.push(Trial { route: rule.route.clone(), rule: rule.index, conditions, outcome, because });
    }
    trials
}

/// What a match asks of a header.
fn demand(header: &config::HeaderMatch) -> String {
    match header.kind {
        HeaderMatchType::Exact => format!("{} is `{}`", header.name, header.value),
        HeaderMatchType::RegularExpression => format!("{} matches `{}`", header.name, header.value),
    }
}

/// The first condition that does not hold.
fn failure(tried: &RuleMatch, headers: &Headers, model: &str) -> Option<String> {
    tried.headers.iter().find_map(|header| {
        let values = matched_values(headers, model, &header.name);
        let condition = match condition(header) {
            Ok(condition) => condition,
            Err(error) => return Some(error.to_string()),
        };
        if condition.holds(&values) {
            return None;
        }
        let wanted = match header.kind {
            HeaderMatchType::Exact => format!("is not `{}`", header.value),
            HeaderMatchType::RegularExpression => format!("does not match `{}`", header.value),
        };
        let name = &header.name;
        Some(match values.as_slice() {
            [] if name == MODEL_HEADER => format!("{name} is not there, because the request names no model"),
            [] => format!("the request has no header {name}"),
            _ if question::is_secret(name) => format!("{name} {wanted}"),
            values => {
                let shown: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
                format!("{name}, which is `{}`, {wanted}", shown.join("`, `"))
            }
        })
    })
}

/// Puts the request through an exchange.
fn verdict(
    runtime: &Arc<Runtime>,
    gateway: &config::Gateway,
    listener: &Listener,
    question: &Question,
    client: &Client<'_>,
    headers: Headers,
) -> Verdict {
    let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
    let (mut exchange, step) = begin(runtime, gateway, question, (headers, client.settings()), now);
    let per_attempt = exchange.handover().is_some();
    let settled = exchange.settle(now.monotonic);
    let change = match step {
        Ok(Step::Continue(change)) => change,
        Ok(Step::Reply(reply)) => {
            let told = String::from_utf8_lossy(&reply.body).into_owned();
            let unmatched = settled
                .as_ref()
                .is_some_and(|settled| settled.outcome == exchange::Outcome::Refused("no_route"));
            let reason = match reply.details {
                _ if unmatched && reply.status == 401 => {
                    "no match holds, which is told as if a rule had taken it that asks for proof".to_owned()
                }
                "no_route" => "no match holds".to_owned(),
                "models" => "this is the list of models, which the gateway makes itself".to_owned(),
                _ => message(&told).unwrap_or(told),
            };
            return Verdict::Answered { status: reply.status, reason };
        }
        Ok(Step::Ask(_)) => {
            return Verdict::Unanswerable { reason: "the limits cannot be asked about".to_owned() };
        }
        Err(violation) => return Verdict::Unanswerable { reason: violation.to_string() },
    };
    let chosen = settled.as_ref().and_then(|settled| settled.rule.as_ref());
    // The key is unique among the rules of a listener.
    let index = chosen.and_then(|rule| {
        gateway.rules.iter().position(|known| known.routing_key.as_bytes() == rule.routing_key.as_ref())
    });
    let proofs = index.and_then(|index| gateway.rules.get(index)).map_or(&[][..], |rule| &rule.proofs);
    let Some(described) = index.and_then(|index| listener.described.get(index)) else {
        return Verdict::Unanswerable { reason: "the rule that was chosen is not in these files".to_owned() };
    };
    let (route, rule) = (described.route.clone(), described.index);
    match &described.fate {
        RuleFate::Forwarded(destinations) => {
            let mut backends: Vec<BackendChoice> = destinations.iter().map(choice).collect();
            let provider_request = if let Some(rule) = chosen.filter(|_| per_attempt) {
                for (backend, destination) in backends.iter_mut().zip(destinations) {
                    let headers = question.headers(listener.hostname.as_deref());
                    let asking = (client.at_gateway(headers, gateway), client.settings());
                    let (exchange, _) = begin(runtime, gateway, question, asking, now);
                    match attempt(&exchange, (rule, proofs), destination, question, client, now) {
                        Ok(request) => backend.provider_request = Some(request),
                        Err(reason) => backend.refused = Some(reason),
                    }
                }
                None
            } else {
                let model = settled.as_ref().and_then(|settled| settled.request_model.as_ref());
                Some(provider_request(&change, model.map(ToString::to_string)))
            };
            backends.sort_by_key(|backend| backend.priority);
            Verdict::Forwarded { route, rule, backends, provider_request }
        }
        RuleFate::Refused => Verdict::Answered {
            status: 404,
            reason: format!("rule {rule} of {route} cannot be served; the problems that were found say why"),
        },
        RuleFate::NoBackend => Verdict::Answered {
            status: 500,
            reason: format!("rule {rule} of {route} has no backend with a weight above zero"),
        },
    }
}

/// The message inside an error in JSON.
fn message(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body.get("error")?.get("message")?.as_str()?.to_owned())
}

fn choice(destination: &Destination) -> BackendChoice {
    let Destination { backend, weight, priority, addresses, hosts: _, tls } = destination;
    BackendChoice {
        name: backend.splitn(3, '/').take(2).collect::<Vec<_>>().join("/"),
        weight: *weight,
        priority: *priority,
        addresses: addresses.clone(),
        tls: tls.clone(),
        provider_request: None,
        refused: None,
    }
}

fn provider_request(change: &Change, model: Option<String>) -> ProviderRequest {
    let HeaderEdits { set, remove } = &change.headers;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let edits = || set.iter().map(|(name, value)| (text(name), value));
    let credential = edits().find(|(name, _)| CLIENT_CREDENTIAL_HEADERS.contains(&name.as_str()));
    let credential = credential
        .map(|(name, value)| if value.starts_with(b"Bearer ") { format!("{name}: Bearer") } else { name });
    let own = |name: &str| {
        name.starts_with(':') || name.starts_with(INTERNAL_PREFIX) || name == "x-envoy-original-path"
    };
    ProviderRequest {
        path: edits().find(|(name, _)| name == ":path").map(|(_, value)| text(value)).unwrap_or_default(),
        model: model.unwrap_or_default(),
        headers_set: edits()
            .map(|(name, _)| name)
            .filter(|name| !own(name) && !CLIENT_CREDENTIAL_HEADERS.contains(&name.as_str()))
            .filter(|name| name != "content-length")
            .collect(),
        headers_removed: remove
            .iter()
            .map(|name| name.clone().into_owned())
            .filter(|name| edits().all(|(set, _)| set != *name) && !name.starts_with(INTERNAL_PREFIX))
            .collect(),
        credential,
        body_changed: change.body != crate::mutation::BodyChange::Keep,
    }
}

impl Question {
    /// The headers as Envoy would hand them over.
    fn headers(&self, hostname: Option<&str>) -> Headers {
        let mut headers = Headers::with_capacity(8);
        let content_type =
            if self.is_form() { "multipart/form-data; boundary=question" } else { "application/json" };
        let host = self.host().or(hostname).unwrap_or("localhost");
        let fixed = [
            (":method", if self.lists_models() { "GET" } else { "POST" }),
            (":path", self.path()),
            (":authority", host),
            ("content-type", content_type),
        ];
        let all = fixed.into_iter().chain(self.other_headers());
        all.for_each(|(name, value)| {
            headers.push(Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        });
        headers
    }

    /// The least that the endpoint takes as a body.
    fn body(&self) -> Bytes {
        let model = self.model();
        if self.is_form() {
            let part = |name: &str, value: &str| {
                format!("--question\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            };
            return format!("{}{}--question--\r\n", part("model", model), part("file", "")).into();
        }
        let body = if model.is_empty() { json!({}) } else { json!({ "model": model }) };
        body.to_string().into()
    }

    fn endpoint(&self) -> Option<Endpoint> {
        Endpoint::of_path(self.path().split('?').next().unwrap_or_default())
    }

    fn is_form(&self) -> bool {
        self.endpoint().is_some_and(Endpoint::is_multipart)
    }

    /// Whether the path is one whose requests are sent on by matches.
    fn is_routed(&self) -> bool {
        self.endpoint().is_some() && !self.lists_models()
    }

    fn lists_models(&self) -> bool {
        matches!(self.endpoint(), Some(Endpoint::Models | Endpoint::AnthropicModels))
    }
}

//! The request of an exchange: which endpoint, which rule, and what goes on to Envoy's routes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::gateway_key::Denied;
use super::handover::{Candidates, Limits};
use super::identity::{self, Client};
use super::outgoing::{self, Draft, Manner, Original, Outgoing, Usage};
use super::quota::{Question, reservation_id, store_time};
use super::told::{TOLD_KEY, Told};
use super::{Asking, Exchange, Handover, Now, Outcome, Received, Sent, Settings, State, Step};
use crate::auth::CredentialMetadata;
use crate::endpoint::{Endpoint, ModelRequest};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, Change, LocalReply, Metadata};
use crate::quota::{Facts, Stage};
use crate::runtime::{
    Classic, Gateway, ModelList, Proved, Route, Rule, Scope, Served, Target, Tenancy, Unproved,
};
use crate::tenant::Tenant;
use crate::wire::{anthropic, cohere, openai};

/// Names the model in route matches, labels and logs.
pub const MODEL_HEADER: &str = "x-ai-eg-model";
/// Proves to Envoy's route that the request was signed for it; see [`crate::config::Rule::routing_key`].
pub const ROUTING_HEADER: &str = "x-ai-eg-route";
/// Tells Envoy's routes that the processor has chosen, so that a choice which Envoy does not know is told from none.
pub const PROCESSED_HEADER: &str = "x-ai-eg-processed";
/// The path the client used.
pub const ORIGINAL_PATH_HEADER: &str = "x-ai-eg-original-path";
/// The path the client used, under the name Envoy's access logs know.
pub const ENVOY_ORIGINAL_PATH_HEADER: &str = "x-envoy-original-path";
/// Names the exchange to its attempts, where Envoy's configuration is that of the Go gateway.
pub const INTERNAL_ID_HEADER: &str = "x-ai-eg-internal-req-id";
/// Names the exchange to its attempts, in dynamic metadata: no provider sees it.
pub const INTERNAL_ID_KEY: &str = "internal_request_id";
/// The rule's routing key, in dynamic metadata for its attempts.
pub const ROUTING_KEY: &str = "routing_key";
/// The answer to a model that no rule names.
pub const NO_ROUTE: &str = "No matching route found. It is likely that the model specified your request is not configured in the Gateway";

/// Headers of that prefix are the gateway's own and never believed from a client.
const INTERNAL_PREFIX: &[u8] = b"x-ai-eg-";
/// As long as a value that a route can match (Gateway API: 4,096).
const MAX_MODEL_LENGTH: usize = 4096;
/// How much of a client's text is repeated back to it.
const MAX_ECHO: usize = 1024;

/// Nothing is known of the gateway that asks: nothing can be signed for it.
fn no_configuration(endpoint: Endpoint) -> LocalReply {
    const MESSAGE: &str = "the processor has no configuration for this gateway yet; try again shortly";
    let body = match endpoint {
        Endpoint::Messages | Endpoint::CountTokens | Endpoint::AnthropicModels => {
            anthropic::error_body(503, MESSAGE)
        }
        Endpoint::Rerank => cohere::error_body(MESSAGE),
        _ => openai::error_body("ServiceUnavailable", 503, MESSAGE),
    };
    let mut reply = LocalReply::json(503, "no_configuration", body);
    reply.headers.push(("retry-after", "1".to_owned()));
    reply
}

impl Exchange {
    pub(super) fn request_headers(
        &mut self,
        headers: Headers,
        end_of_stream: bool,
        now: Now,
    ) -> (State, Step) {
        let path = headers.text(":path").unwrap_or_default();
        let Some(endpoint) = self.settings.endpoint(path) else {
            let shown = &path[..path.floor_char_boundary(MAX_ECHO)];
            let body = format!("unsupported path: {shown}");
            return self.reply(LocalReply::text(404, "unsupported_path", body));
        };
        self.note(|settlement| settlement.endpoint = Some(endpoint));
        let Some(scope) = self.scope.clone() else {
            return self.reply(no_configuration(endpoint));
        };
        let key = match self.gateway_key(&scope, &headers, now) {
            Ok(key) => key,
            Err(denied) => {
                let answer = self.reply(denied.reply(endpoint));
                self.set_outcome(Outcome::Refused(denied.details()));
                return answer;
            }
        };
        let client = match &scope {
            Scope::Gateway(gateway) => {
                match gateway.proofs.check(&headers, std::mem::take(&mut self.vouched)) {
                    Ok(proved) => Client::new(proved, key, &gateway.tenancy),
                    Err(Unproved) => return self.reply(identity::unauthenticated(endpoint)),
                }
            }
            Scope::Classic(_) => Client::new(Proved::default(), key, &Tenancy::default()),
        };
        self.note(|settlement| settlement.tenant = client.tenant.clone());
        if matches!(endpoint, Endpoint::Models | Endpoint::AnthropicModels) {
            let models = models(&scope, &headers, &client);
            let body = if endpoint == Endpoint::Models { &models.openai } else { &models.anthropic };
            return self.reply(LocalReply::json(200, "models", body.clone()));
        }
        let change = match &scope {
            Scope::Gateway(_) => match unfit(endpoint, &headers, end_of_stream) {
                Some(reply) => return self.reply(reply),
                None => Change::default(),
            },
            Scope::Classic(_) => {
                let mut edits = HeaderEdits::default();
                edits.set(INTERNAL_ID_HEADER, self.id.to_string());
                Change { headers: edits, ..Change::default() }
            }
        };
        let received = Box::new(Received { scope, endpoint, client, headers });
        (State::AwaitBody(received), Step::Continue(change))
    }

    pub(super) fn request_body(&mut self, received: Received, body: Bytes, now: Now) -> (State, Step) {
        let Received { scope, endpoint, client, headers } = received;
        let content_type = headers.text("content-type").unwrap_or_default();
        let request = match ModelRequest::read(endpoint, content_type, &body) {
            Ok(request) => request,
            Err(refused) => return self.malformed(refused.details, &refused.message),
        };
        let model = request.model.as_deref().unwrap_or_default();
        if let Some(problem) = model_problem(model) {
            return self.malformed("invalid_model", &problem);
        }
        let model: Arc<str> = model.into();
        let attributes = self.settings.attributes.metrics.attributes(&headers);
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.note(|settlement| {
            settlement.original_model = Some(Arc::clone(&model));
            settlement.request_model = Some(Arc::clone(&model));
            settlement.streaming = request.streaming;
            settlement.attributes = attributes;
            settlement.prompt_bytes = body.len() as u64;
        });
        if client.key.as_ref().is_some_and(|key| !key.allows_model(&model)) {
            // Whether or not there is such a model.
            return self.reply(Denied::Model.reply(endpoint));
        }
        let gateway = match scope {
            Scope::Gateway(gateway) => gateway,
            Scope::Classic(classic) => {
                return self.hand_over(&classic, endpoint, headers, body, request, model);
            }
        };
        let route = select(&gateway, &headers, &model);
        let client = match &route {
            Route::Rule(rule) if rule.tenancy.is_some() => {
                Client::new(client.proved, client.key, gateway.tenancy_of(rule))
            }
            _ => client,
        };
        self.note(|settlement| settlement.tenant = client.tenant.clone());
        if let Some(refusal) = refusal(&gateway, &route, &client, endpoint, &request) {
            return self.reply(refusal);
        }
        match route {
            Route::Rule(rule) => {
                let asked = Asked { gateway, endpoint, client, headers, body, request, model };
                self.ask(rule, asked, now)
            }
            Route::None if request.model.is_none() => {
                let message = "malformed request: `model` is missing: name the model to be used";
                self.malformed("missing_model", message)
            }
            Route::None => {
                let told = identity::unknown_model(&gateway, endpoint);
                let answer = self.reply(told.unwrap_or_else(|| LocalReply::text(404, "no_route", NO_ROUTE)));
                // The log tells why, whatever the client is told.
                self.set_outcome(Outcome::Refused("no_route"));
                answer
            }
            Route::Broken => {
                let message = "the route of this model has no usable backend; the gateway's log says why";
                let body = openai::error_body("ServiceUnavailable", 503, message);
                self.reply(LocalReply::json(503, "broken_rule", body))
            }
        }
    }

    /// Asks for what the request may use, where it falls under limits; otherwise it goes on.
    fn ask(&mut self, rule: Arc<Rule>, asked: Asked, now: Now) -> (State, Step) {
        let (stage, served, onward) = match &rule.target {
            Target::Direct(served) => match Draft::new(served, &asked.original(), asked.usage()) {
                Ok(draft) => (Stage::Whole, Some(served), Onward::Send(Box::new(draft))),
                Err(reply) => return self.reply(reply),
            },
            // Who is asking is proved on the way to an attempt: that asks for all of it.
            Target::PerAttempt(_) if !rule.proofs.is_empty() => {
                return self.go_on(&rule, asked, Onward::HandOver, None, now);
            }
            Target::PerAttempt(_) => (Stage::Router, None, Onward::HandOver),
        };
        let sent_model = served.map(|served| served.backend.model_override.as_ref().unwrap_or(&asked.model));
        let facts = Facts {
            tenant: &asked.client.tenant,
            key_quota: asked.client.key_quota(),
            gateway: Some(&asked.gateway.name),
            route: Some(&rule.route),
            backend: served.map(|served| &*served.backend.name),
            asked_model: &asked.model,
            sent_model: sent_model.map(|model| &**model),
            headers: &asked.headers,
            endpoint: asked.endpoint,
            source: self.source,
        };
        let Some(selected) = asked.gateway.quotas.select(stage, &facts) else {
            return self.go_on(&rule, asked, onward, None, now);
        };
        let original = asked.original();
        // Envoy has not chosen yet.
        let apart = Draft::apart(rule.attempts(), &original, asked.usage());
        let ways = match &onward {
            Onward::Send(draft) => vec![draft.way(&original)],
            Onward::HandOver => Draft::ways(&apart, rule.attempts().len(), &original),
        };
        let (id, time) = (reservation_id(self.id, 0), store_time(now, self.ahead));
        let question = Question::new(selected, &facts, &ways, id, time);
        let reservation = question.reservation(served, sent_model.unwrap_or(&asked.model));
        let ask = Arc::clone(reservation.ask());
        self.note(|settlement| settlement.reservations.push(reservation));
        (State::Asking(Box::new(Asking { question, rule, asked, onward })), Step::Ask(ask))
    }

    /// The request is let in: it goes to its backend, or to the attempts. Its answer gets no longer than `ceiling` tokens.
    pub(super) fn go_on(
        &mut self,
        rule: &Arc<Rule>,
        asked: Asked,
        onward: Onward,
        ceiling: Option<u64>,
        now: Now,
    ) -> (State, Step) {
        let sent = match onward {
            Onward::Send(mut draft) => draft.hold_to(&asked.original(), ceiling).and_then(|clamped| {
                self.note(|settlement| settlement.clamped = clamped);
                self.send(rule, *draft, &asked, now)
            }),
            Onward::HandOver => Ok(self.hand_over_to_rule(rule, asked, ceiling)),
        };
        sent.unwrap_or_else(|reply| self.reply(reply))
    }

    /// Everything the request needs on its way to the rule's backend, in one reply.
    fn send(
        &mut self,
        rule: &Arc<Rule>,
        draft: Draft,
        asked: &Asked,
        now: Now,
    ) -> Result<(State, Step), LocalReply> {
        let original = asked.original();
        let manner = Manner {
            strip_credentials: true,
            upstream_host: None,
            credential_metadata: &CredentialMetadata::default(),
            wall: now.wall,
        };
        let Outgoing { headers: mut edits, body, expected } = draft.sign(&original, &manner)?;
        let served = &expected.served;
        self.note(|settlement| {
            settlement.sent = true;
            settlement.rule = Some(Arc::clone(rule));
            settlement.served = Some(Arc::clone(served));
            settlement.request_model = Some(Arc::clone(&expected.model));
        });
        edits.set(ROUTING_HEADER, rule.routing_key.clone());
        edits.set(PROCESSED_HEADER, "1");
        route_anew(original.headers, original.model, &mut edits);
        asked.client.proved.tell(&mut edits);
        if let Some(body) = &body {
            edits.set("content-length", body.len().to_string());
        }
        let mut metadata = self.sending_metadata(served, original.headers, body.as_ref());
        tell(&asked.client.tenant, &mut metadata);
        let change = Change {
            headers: edits,
            body: body.map_or(BodyChange::Keep, BodyChange::Replace),
            clear_route_cache: true,
            phases: None,
            metadata,
        };
        // From here on the runtime this began with is not needed: what was sent holds all that is.
        self.scope = None;
        Ok((State::AwaitAnswer(Box::new(Sent::Direct(expected))), Step::Continue(change)))
    }

    /// Routes a request, and leaves it to the attempts to send it.
    fn hand_over_to_rule(&mut self, rule: &Arc<Rule>, asked: Asked, ceiling: Option<u64>) -> (State, Step) {
        let usage = asked.usage();
        let Asked { gateway, endpoint, client, headers, body, request, model } = asked;
        let tenancy = Arc::clone(gateway.tenancy_of(rule));
        self.note(|settlement| settlement.rule = Some(Arc::clone(rule)));
        let quota = (!gateway.quotas.is_empty()).then(|| Limits {
            quotas: Arc::clone(&gateway.quotas),
            stage: if rule.proofs.is_empty() { Stage::Attempt } else { Stage::Whole },
            gateway: Arc::clone(&gateway.name),
            exchange: self.id,
            source: self.source,
            ahead: self.ahead,
        });
        let mut edits = HeaderEdits::default();
        edits.set(ROUTING_HEADER, rule.routing_key.clone());
        edits.set(PROCESSED_HEADER, "1");
        let mut metadata = Metadata::default();
        metadata.text(INTERNAL_ID_KEY, self.id.to_string());
        metadata.text(ROUTING_KEY, String::from_utf8_lossy(&rule.routing_key));
        route_anew(&headers, &model, &mut edits);
        if !rule.proofs.is_empty() {
            // Its query may hold what the client proves itself with, and logs tell this path.
            for name in [ORIGINAL_PATH_HEADER, ENVOY_ORIGINAL_PATH_HEADER] {
                let path = headers.text(":path").unwrap_or_default();
                edits.set(name, path.split('?').next().unwrap_or_default().to_owned());
            }
        }
        let headers = rule.proofs.without_secrets(headers);
        let told = Told::new(&client, self.source, ceiling, &headers, gateway.quotas.headers());
        metadata.text(TOLD_KEY, told.text());
        let handover = Handover {
            endpoint,
            known: client,
            tenancy,
            client: Default::default(),
            strip_credentials: true,
            usage,
            ceiling,
            candidates: Candidates::OfRule(Arc::clone(rule)),
            headers,
            body,
            request,
            model,
            quota,
            attempts: Default::default(),
        };
        self.await_attempts(handover, Change { headers: edits, metadata, ..Change::default() })
    }

    /// Names the model to Envoy's routes, which choose by it, and leaves the rest to the attempts.
    fn hand_over(
        &mut self,
        classic: &Arc<Classic>,
        endpoint: Endpoint,
        headers: Headers,
        body: Bytes,
        request: ModelRequest,
        model: Arc<str>,
    ) -> (State, Step) {
        let mut edits = HeaderEdits::default();
        route_anew(&headers, &model, &mut edits);
        let handover = Handover {
            endpoint,
            known: Client::default(),
            tenancy: Arc::default(),
            client: Default::default(),
            // A key of the gateway's own is none of the provider's business.
            strip_credentials: self.settings.keys.is_some(),
            usage: Usage {
                force: asks_for_usage_as_the_go_gateway(classic, endpoint, &request),
                hide: false,
            },
            ceiling: None,
            candidates: Candidates::Classic(Arc::clone(classic)),
            headers,
            body,
            request,
            model,
            quota: None,
            attempts: Default::default(),
        };
        self.await_attempts(handover, Change { headers: edits, ..Change::default() })
    }

    fn await_attempts(&mut self, handover: Handover, mut change: Change) -> (State, Step) {
        // Of a Go gateway's configuration: it was set when the headers came, for the attempts to read.
        change.headers.remove.retain(|name| {
            name != INTERNAL_ID_HEADER || matches!(handover.candidates, Candidates::OfRule(_))
        });
        change.clear_route_cache = true;
        self.scope = None;
        (State::AwaitAnswer(Box::new(Sent::PerAttempt(Arc::new(handover)))), Step::Continue(change))
    }

    fn sending_metadata(&self, served: &Served, headers: &Headers, body: Option<&Bytes>) -> Metadata {
        sending_metadata(&self.settings, served, headers, body)
    }
}

/// What is told of a request that is sent: where to, and what its headers say about it.
pub(super) fn sending_metadata(
    settings: &Settings,
    served: &Served,
    headers: &Headers,
    body: Option<&Bytes>,
) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.text("backend_name", &*served.backend.name);
    for (attribute, value) in settings.attributes.logs.attributes(headers) {
        metadata.text(attribute.to_owned(), value);
    }
    if let Some(body) = body {
        metadata.number("content_length", body.len() as f64);
    }
    metadata
}

/// A request for a model, read.
#[derive(Debug)]
pub(super) struct Asked {
    gateway: Arc<Gateway>,
    endpoint: Endpoint,
    client: Client,
    headers: Headers,
    body: Bytes,
    request: ModelRequest,
    model: Arc<str>,
}

impl Asked {
    fn original(&self) -> Original<'_> {
        let Self { endpoint, headers, body, request, model, .. } = self;
        Original { endpoint: *endpoint, headers, body, request, model }
    }

    /// What only the gateway asks for is kept from the client.
    fn usage(&self) -> Usage {
        let force = wants_usage(self.endpoint, &self.request);
        Usage { force, hide: force }
    }
}

/// How a request goes on once it is let in.
#[derive(Debug)]
pub(super) enum Onward {
    /// To its backend.
    Send(Box<Draft>),
    /// To the attempts.
    HandOver,
}

/// The models a client may see.
fn models<'a>(scope: &'a Scope, headers: &Headers, client: &Client) -> Cow<'a, ModelList> {
    let (all, gateway) = match scope {
        Scope::Gateway(gateway) => (gateway.models.of_host(headers.text(":authority")), Some(gateway)),
        Scope::Classic(classic) => {
            (classic.models.of_host(headers.text(":authority").or_else(|| headers.text("host"))), None)
        }
    };
    let gateway = gateway.filter(|gateway| !gateway.shows_all_models());
    let key = client.key.as_ref().filter(|key| key.grant.models.is_some());
    if gateway.is_none() && key.is_none() {
        return Cow::Borrowed(all);
    }
    Cow::Owned(all.of_those(|model| {
        key.is_none_or(|key| key.allows_model(model))
            && gateway
                .is_none_or(|gateway| gateway.shows(&client.tenant, model, &select(gateway, headers, model)))
    }))
}

/// Why a client may not ask for a model, as far as it is known before the attempts: a rule that asks for proofs of its own sees to
/// that itself. What is not allowed is refused in the same way whether it exists or not.
fn refusal(
    gateway: &Gateway,
    route: &Route,
    client: &Client,
    endpoint: Endpoint,
    request: &ModelRequest,
) -> Option<LocalReply> {
    let model = request.model.as_deref();
    match route {
        Route::Rule(rule) if !rule.proofs.is_empty() => None,
        Route::Rule(rule) => {
            let tenancy = gateway.tenancy_of(rule);
            client.refusal(tenancy, endpoint, model.unwrap_or_default())
        }
        Route::Broken | Route::None => client.refusal(&gateway.tenancy, endpoint, model?),
    }
}

/// Tells filters, access logs and later attempts who is asking.
pub(super) fn tell(tenant: &Tenant, metadata: &mut Metadata) {
    for (name, part) in tenant.parts() {
        metadata.text(name, &**part);
    }
}

/// Why a request cannot be one for a model, by its headers alone.
fn unfit(endpoint: Endpoint, headers: &Headers, end_of_stream: bool) -> Option<LocalReply> {
    if headers.get(":method") != Some(b"POST") {
        let message = format!("{} takes POST requests only", endpoint.path());
        let body = openai::error_body("MethodNotAllowed", 405, &message);
        let mut reply = LocalReply::json(405, "method_not_allowed", body);
        reply.headers.push(("allow", "POST".to_owned()));
        return Some(reply);
    }
    if end_of_stream {
        return Some(outgoing::malformed("no_body", "malformed request: the request has no body"));
    }
    let encoding =
        headers.text("content-encoding").filter(|value| !value.eq_ignore_ascii_case("identity"))?;
    let shown: String = encoding.chars().take(64).collect();
    let message = format!("the request body must not be compressed (content-encoding: {shown})");
    let body = openai::error_body("UnsupportedMediaType", 415, &message);
    Some(LocalReply::json(415, "compressed_request", body))
}

/// Usage is asked for where it is not given otherwise: what is not reported cannot be accounted for.
pub(super) fn wants_usage(endpoint: Endpoint, request: &ModelRequest) -> bool {
    request.streaming && endpoint.usage_is_optional() && !request.include_usage
}

/// Under a Go gateway's configuration usage is asked for as it asks: of chats, if a cost needs it; and the client sees it.
pub(super) fn asks_for_usage_as_the_go_gateway(
    classic: &Classic,
    endpoint: Endpoint,
    request: &ModelRequest,
) -> bool {
    endpoint == Endpoint::ChatCompletions && classic.has_costs() && wants_usage(endpoint, request)
}

/// What Envoy's routes choose by, and nothing of ours that the client sent.
fn route_anew(headers: &Headers, model: &str, edits: &mut HeaderEdits) {
    let path = headers.get_bytes(":path").unwrap_or_default();
    edits.set(MODEL_HEADER, Bytes::copy_from_slice(model.as_bytes()));
    edits.set(ORIGINAL_PATH_HEADER, path.clone());
    edits.set(ENVOY_ORIGINAL_PATH_HEADER, path);
    strip_internal(headers, edits);
}

/// Why a model's name cannot be put into a header, if it cannot.
fn model_problem(model: &str) -> Option<String> {
    if model.len() > MAX_MODEL_LENGTH {
        let length = model.len();
        return Some(format!(
            "malformed request: `model` is {length} bytes long; at most {MAX_MODEL_LENGTH} are allowed"
        ));
    }
    if model.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Some("malformed request: `model` must not hold control characters".to_owned());
    }
    None
}

/// The rule of the request, by the headers as Envoy's routes will see them: with the model, without anything of ours that the
/// client sent.
fn select(gateway: &Gateway, headers: &Headers, model: &str) -> Route {
    let host = headers.text(":authority").unwrap_or_default();
    gateway.select(host, |name| matched_values(headers, model, name))
}

/// The values of a header as route matches see them: those of the client, but for what the gateway sets itself.
pub fn matched_values<'h>(headers: &'h Headers, model: &'h str, name: &str) -> Vec<&'h [u8]> {
    if name == MODEL_HEADER {
        // Envoy drops a header that is set to nothing.
        return if model.is_empty() { Vec::new() } else { vec![model.as_bytes()] };
    }
    if name.as_bytes().starts_with(INTERNAL_PREFIX) {
        return Vec::new();
    }
    headers.all(name).collect()
}

/// Removes what a client sent under the gateway's own names, except where it is overwritten anyway.
fn strip_internal(headers: &Headers, edits: &mut HeaderEdits) {
    for (name, _) in headers.iter().filter(|(name, _)| name.starts_with(INTERNAL_PREFIX)) {
        if edits.set.iter().all(|(set, _)| set != name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            edits.remove(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_gateway_is_answered_in_the_clients_dialect() {
        let said = |endpoint| -> serde_json::Value {
            let reply = no_configuration(endpoint);
            assert_eq!((reply.status, reply.details), (503, "no_configuration"));
            serde_json::from_slice(&reply.body).unwrap()
        };
        assert_eq!(said(Endpoint::Messages)["type"], "error");
        assert_eq!(said(Endpoint::ChatCompletions)["error"]["type"], "ServiceUnavailable");
        assert!(said(Endpoint::Rerank)["message"].is_string());
    }
}

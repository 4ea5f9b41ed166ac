//! An attempt at a request that is with another process: Envoy sends the request here, and the answer. What its backend's limits ask for
//! is reserved and settled here, too, under a name of this process.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::super::attempted::{ATTEMPT_HEADER, Attempted};
use super::super::outgoing::{self, Draft, Expected, Manner, Original, Outgoing, Usage};
use super::super::quota::{NoAnswer, Question, Ruling, reservation_id, store_time};
use super::super::request::{asks_for_usage_as_the_go_gateway, sending_metadata, wants_usage};
use super::super::response::status;
use super::super::restore::{self, Former};
use super::super::{Now, ORIGINAL_PATH_HEADER, Outcome, Phase, Settlement, Step, Violation};
use super::{Attempt, Client, State, UPSTREAM_HOST_HEADER, prove, unauthenticated};
use crate::auth::CLIENT_CREDENTIAL_HEADERS;
use crate::endpoint::{Dialect, Endpoint, ModelRequest};
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, Change, LocalReply, PhaseOverride};
use crate::quota::{Facts, Stage, Verdict, headers as quota_headers, refusal};
use crate::runtime::{Rule, Scope, Served};
use crate::tenant::Tenant;
use crate::translate::{self, Reader};
use crate::wire::openai;

/// A request that another process has, and whose body is still to come.
#[derive(Debug)]
pub(super) struct Elsewhere {
    endpoint: Endpoint,
    served: Arc<Served>,
    rule: Option<Arc<Rule>>,
    headers: Headers,
    is_first: bool,
}

/// A request that is here now.
#[derive(Debug)]
struct Arrived {
    elsewhere: Elsewhere,
    /// The headers without what an earlier attempt has left, where there was one.
    kept: Option<Headers>,
    body: Bytes,
    request: ModelRequest,
    model: Arc<str>,
    client: Client,
}

/// A request that waits for the store of quotas.
#[derive(Debug)]
pub(super) struct AskingElsewhere {
    question: Question,
    arrived: Arrived,
    draft: Draft,
}

impl Arrived {
    fn original(&self) -> Original<'_> {
        let Self { elsewhere, kept, body, request, model, .. } = self;
        let headers = kept.as_ref().unwrap_or(&elsewhere.headers);
        Original { endpoint: elsewhere.endpoint, headers, body, request, model }
    }
}

impl Attempt {
    /// The request is with another process: Envoy is asked to send it here too, and the answer.
    pub(super) fn ask_for_body(
        &self,
        headers: Headers,
        end_of_stream: bool,
    ) -> Result<(State, Step), Violation> {
        let path = headers.text(ORIGINAL_PATH_HEADER).unwrap_or_default();
        let endpoint = self.settings.endpoint(path);
        let Some(endpoint) = endpoint.filter(|_| !end_of_stream) else {
            return Err(Violation::OutOfOrder {
                phase: Phase::RequestHeaders,
                state: "waiting for a request that the gateway has routed",
            });
        };
        let name = self.backend(&headers)?;
        let (served, rule) = match &self.scope {
            Some(Scope::Classic(classic)) => (classic.served(name, self.route()), None),
            Some(Scope::Gateway(gateway)) => {
                let key = self.arrival.routing_key.as_deref().unwrap_or_default();
                let Some(rule) = gateway.rule_of_attempt(key) else { return Ok(behind()) };
                (rule.attempted(name).cloned(), Some(Arc::clone(rule)))
            }
            None => return Ok(behind()),
        };
        let served = served.ok_or_else(|| Violation::UnknownBackend(name.to_owned()))?;
        // Should Envoy not heed the wish for the body, the request goes without anybody's credential.
        let mut edits = HeaderEdits::default();
        for name in CLIENT_CREDENTIAL_HEADERS {
            if headers.contains(name) {
                edits.remove(name);
            }
        }
        let is_first = match rule {
            Some(_) => self.arrival.count == Some(1),
            None => !self.arrival.marked,
        };
        self.mark(&mut edits);
        let elsewhere = Elsewhere { endpoint, served, rule, headers, is_first };
        let change = Change { headers: edits, phases: Some(PhaseOverride::RequestBody), ..Change::default() };
        Ok((State::AwaitBody(Box::new(elsewhere)), Step::Continue(change)))
    }

    /// Who is asking for a request that another process routed, and why it may not, if so.
    fn ask_elsewhere(&self, elsewhere: &Elsewhere, model: &str) -> (Client, Option<LocalReply>) {
        let told = self.arrival.told.as_ref();
        let Some(rule) = elsewhere.rule.as_ref().filter(|rule| !rule.proofs.is_empty()) else {
            let tenant = told.map_or_else(Tenant::anonymous, |told| told.tenant());
            return (Client { tenant, ..Client::default() }, None);
        };
        let known = match &self.scope {
            Some(Scope::Gateway(gateway)) => {
                let tenancy = gateway.tenancy_of(rule);
                let client = self.client(tenancy, rule, &elsewhere.headers, Client::default());
                client.map(|client| (tenancy, client))
            }
            Some(Scope::Classic(_)) | None => None,
        };
        match known {
            Some((tenancy, mut client)) => {
                if let Some(tenant) = told.and_then(|told| told.key_tenant()) {
                    client.tenant = tenant;
                }
                let refusal = client.refusal(tenancy, elsewhere.endpoint, model);
                (client, refusal)
            }
            None => (Client::default(), Some(unauthenticated(elsewhere.endpoint))),
        }
    }

    /// The request is here: it is sent, or asked about first.
    pub(super) fn ask_or_send(&mut self, elsewhere: Elsewhere, body: Bytes, now: Now) -> (State, Step) {
        let Elsewhere { endpoint, served, rule, headers, is_first } = &elsewhere;
        // An earlier attempt may have left its credential and its headers: only the first sees what the client sent.
        let name = &*served.backend.name;
        let kept = (!is_first).then(|| match (rule, &self.scope) {
            (Some(rule), _) => restore::without_traces(headers, rule.others(name)),
            (None, Some(Scope::Classic(classic))) => restore::without_traces(headers, classic.siblings(name)),
            (None, _) => restore::without_traces(headers, std::iter::empty()),
        });
        let content_type = kept.as_ref().unwrap_or(headers).text("content-type").unwrap_or_default();
        let request = match ModelRequest::read(*endpoint, content_type, &body) {
            Ok(request) => request,
            Err(refused) => {
                return (State::Passing, Step::Reply(outgoing::malformed(refused.details, &refused.message)));
            }
        };
        let model: Arc<str> = request.model.as_deref().unwrap_or_default().into();
        let (client, refusal) = self.ask_elsewhere(&elsewhere, &model);
        let arrived = Arrived { elsewhere, kept, body, request, model, client };
        if let Some(reply) = refusal {
            return self.refuse_elsewhere(&arrived, reply);
        }
        let draft = match self.draft_elsewhere(&arrived) {
            Ok(draft) => draft,
            Err(reply) => return (State::Passing, Step::Reply(reply)),
        };
        match self.question_elsewhere(&arrived, &draft, now) {
            Ok(None) => self.send_from_elsewhere(&arrived, draft, None, now),
            Err(reply) => self.refuse_elsewhere(&arrived, reply),
            Ok(Some(question)) => {
                let asking = AskingElsewhere { question, arrived, draft };
                let ask = asking.question.ask();
                (State::AskingElsewhere(Box::new(asking)), Step::Ask(ask))
            }
        }
    }

    /// What the backend is to get, within what the router's stream was granted.
    fn draft_elsewhere(&mut self, arrived: &Arrived) -> Result<Draft, LocalReply> {
        let Arrived { elsewhere, request, .. } = arrived;
        let force = match &self.scope {
            Some(Scope::Classic(classic)) => {
                asks_for_usage_as_the_go_gateway(classic, elsewhere.endpoint, request)
            }
            _ => wants_usage(elsewhere.endpoint, request),
        };
        // The router's stream hides it, once it has counted it.
        let usage = Usage { force, hide: false };
        let mut draft = Draft::new(&elsewhere.served, &arrived.original(), usage)?;
        let ceiling = self.arrival.told.as_ref().and_then(|told| told.ceiling);
        self.clamped = draft.hold_to(&arrived.original(), ceiling)?;
        Ok(draft)
    }

    /// What the store is to be asked before the request goes on, if anything: for the account that this opens. Where limits apply and it
    /// cannot be said which, the request is refused.
    fn question_elsewhere(
        &mut self,
        arrived: &Arrived,
        draft: &Draft,
        now: Now,
    ) -> Result<Option<Question>, LocalReply> {
        let Arrived { elsewhere: Elsewhere { endpoint, served, rule, .. }, client, model, .. } = arrived;
        let (Some(Scope::Gateway(gateway)), Some(rule)) = (&self.scope, rule) else { return Ok(None) };
        if gateway.quotas.is_empty() {
            return Ok(None);
        }
        let (Some(told), Some((own, ahead))) = (&self.arrival.told, self.own) else {
            tracing::error!(backend = %served.backend.name, "the router did not say whose request this is");
            return Err(refusal::unavailable(Dialect::of(*endpoint)));
        };
        let stage = if rule.proofs.is_empty() { Stage::Attempt } else { Stage::Whole };
        let sent_model = served.backend.model_override.as_ref().unwrap_or(model);
        let facts = Facts {
            tenant: &client.tenant,
            key_quota: told.key_quota.as_deref(),
            gateway: Some(&gateway.name),
            route: Some(&served.route),
            backend: Some(&served.backend.name),
            asked_model: model,
            sent_model: Some(sent_model),
            headers: &told.headers(),
            endpoint: *endpoint,
            source: told.source,
        };
        let Some(selected) = gateway.quotas.select(stage, &facts) else { return Ok(None) };
        // No exchange of this process has that number: its parts are all this attempt's.
        let (id, time) = (reservation_id(own, 0), store_time(now, ahead));
        let question = Question::new(selected, &facts, &[draft.way(&arrived.original())], id, time);
        let mut account = Settlement::new(now.monotonic);
        account.endpoint = Some(*endpoint);
        account.served = Some(Arc::clone(served));
        account.request_model = Some(Arc::clone(sent_model));
        account.prompt_bytes = arrived.body.len() as u64;
        account.reservations.push(question.reservation(Some(served), sent_model));
        self.account = Some(Box::new(account));
        Ok(Some(question))
    }

    /// Takes the store's answer.
    pub(super) fn answered_elsewhere(
        &mut self,
        mut asking: Box<AskingElsewhere>,
        answer: Result<Verdict, NoAnswer>,
        now: Now,
    ) -> (State, Step) {
        match asking.question.answered(answer) {
            Ruling::Again(ask) => (State::AskingElsewhere(asking), Step::Ask(ask)),
            Ruling::Refused(reply, _) => {
                // Nothing is held.
                self.account = None;
                self.refuse_elsewhere(&asking.arrived, reply)
            }
            Ruling::Unknown(reply) => self.refuse_elsewhere(&asking.arrived, reply),
            Ruling::Passed(passed) => {
                if let Some(account) = &mut self.account {
                    account.reservations.iter_mut().for_each(|reservation| reservation.granted(&passed));
                }
                let AskingElsewhere { arrived, draft, .. } = *asking;
                self.send_from_elsewhere(&arrived, draft, passed.ceiling, now)
            }
        }
    }

    /// The gateway answers in the backend's place, and tells the router's stream why.
    fn refuse_elsewhere(&self, arrived: &Arrived, mut reply: LocalReply) -> (State, Step) {
        let Arrived { elsewhere, client, .. } = arrived;
        let tenant = elsewhere.asks_for_proof().then(|| client.tenant.clone());
        let told = Attempted { refused: Some(reply.details), ..Attempted::new(&elsewhere.served, tenant) };
        reply.headers.push((ATTEMPT_HEADER, told.word(self.arrival.id)));
        (State::Passing, Step::Reply(reply))
    }

    fn send_from_elsewhere(
        &mut self,
        arrived: &Arrived,
        mut draft: Draft,
        ceiling: Option<u64>,
        now: Now,
    ) -> (State, Step) {
        let Arrived { elsewhere, kept, client, .. } = arrived;
        let Elsewhere { served, rule, headers: current, .. } = elsewhere;
        let original = arrived.original();
        let manner = Manner {
            strip_credentials: rule.is_some(),
            upstream_host: self.arrival.upstream_host.as_deref(),
            credential_metadata: &self.arrival.credentials,
            wall: now.wall,
        };
        let sent = draft.hold_to(&original, ceiling).and_then(|clamped| {
            let outgoing = draft.sign(&original, &manner)?;
            self.clamped = clamped.or(self.clamped);
            if let Some(account) = &mut self.account {
                (account.sent, account.clamped) = (true, self.clamped);
            }
            Ok(outgoing)
        });
        let Outgoing { headers: mut edits, body, expected } = match sent {
            Ok(outgoing) => outgoing,
            Err(reply) => return (State::Passing, Step::Reply(reply)),
        };
        if rule.is_none() && served.backend.credential.is_none() {
            // They were taken off in case Envoy would not send the body.
            restore::credentials(original.headers, &mut edits);
        }
        if kept.is_some() {
            restore::original(&Former { current, original: original.headers }, &mut edits);
        }
        edits.remove(UPSTREAM_HOST_HEADER);
        let mut metadata = sending_metadata(&self.settings, served, original.headers, body.as_ref());
        if let Some(rule) = rule {
            prove(rule, client, &mut edits, &mut metadata);
        }
        // An earlier attempt may have left the length of another body.
        if body.is_some() || kept.is_some() {
            let length = body.as_ref().unwrap_or(original.body).len();
            edits.set("content-length", length.to_string());
        }
        let body = body.map_or(BodyChange::Keep, BodyChange::Replace);
        let change = Change { headers: edits, body, metadata, ..Change::default() };
        let tenant = elsewhere.asks_for_proof().then(|| client.tenant.clone());
        (State::AwaitAnswer(Box::new(expected), tenant), Step::Continue(change))
    }

    pub(super) fn answer(
        &mut self,
        (expected, tenant): (&Expected, Option<Tenant>),
        headers: &Headers,
        end_of_stream: bool,
        now: Now,
    ) -> (State, Step) {
        let mut edits = HeaderEdits::default();
        let mut plan = None;
        let status = status(headers);
        if !end_of_stream {
            let planned = translate::plan(&expected.answer(status, now.wall), headers);
            edits = planned.headers;
            plan = Some((planned.phases, planned.reader));
        }
        edits.set(ATTEMPT_HEADER, Attempted::new(&expected.served, tenant).word(self.arrival.id));
        if let Some(account) = &mut self.account {
            let failed = !(200..300).contains(&status);
            account.status = Some(status);
            account.outcome = if failed { Outcome::ProviderError } else { Outcome::Interrupted };
            let elapsed = now.monotonic.saturating_duration_since(account.started).as_millis();
            let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
            account.tell_limits(Dialect::of(expected.endpoint), headers, elapsed, &mut edits);
        }
        if let Some(clamped) = self.clamped {
            edits.set(quota_headers::CLAMPED, clamped.to_string());
        }
        let Some((phases, reader)) = plan else {
            self.close();
            return (State::Over, Step::Continue(Change { headers: edits, ..Change::default() }));
        };
        let phases = Some(PhaseOverride::Response(phases));
        let state = reader.map_or(State::Passing, |reader| State::Reading(Box::new(reader)));
        (state, Step::Continue(Change { headers: edits, phases, ..Change::default() }))
    }

    /// Takes over what was read of the answer.
    pub(super) fn charge(&mut self, reader: &Reader, cut_short: bool, now: Instant) {
        if let Some(account) = &mut self.account {
            account.read(reader.report(), cut_short || reader.report().cut);
            account.completed = Some(now);
        }
        self.close();
    }

    /// Nothing more will come: what is held for an attempt of this process is to be settled, once.
    pub fn finish(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Reading(reader) => self.charge(&reader, true, now),
            _ => self.close(),
        }
    }

    fn close(&mut self) {
        if let Some(account) = self.account.take() {
            self.settles.extend(account.settles());
        }
    }
}

impl Elsewhere {
    fn asks_for_proof(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| !rule.proofs.is_empty())
    }
}

/// This process does not know the configuration by which the request was routed.
fn behind() -> (State, Step) {
    let message =
        "this processor does not have the configuration that the request was routed by; try again shortly";
    let body = openai::error_body("ServiceUnavailable", 503, message);
    (State::Passing, Step::Reply(LocalReply::json(503, "no_configuration", body)))
}

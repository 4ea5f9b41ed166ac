//! One attempt to send a request to a provider: the state machine of the stream that Envoy's cluster opens, again for each retry.
//!
//! ```text
//! RequestHeaders ─► Passing                                            (the request is at hand: all is done at once)
//!       ├► Asking ─► Passing                                           (quotas apply: the store is asked)
//!       └► AwaitBody ─► AwaitAnswer ─► Reading ─► over                 (it is with another process: Envoy sends it here)
//!              └► AskingElsewhere ─┘                                   (and quotas apply)
//! ```
//!
//! Which backend Envoy is about to try is read from Envoy's own data. An attempt to one that the configuration does not know is
//! not sent.

mod elsewhere;

use std::sync::Arc;

use bytes::Bytes;

use self::elsewhere::{AskingElsewhere, Elsewhere};
use super::handover::{Candidates, Taken};
use super::identity::{Client, unauthenticated};
use super::outgoing::{Draft, Expected, Manner, Outgoing};
use super::quota::{NoAnswer, Question, Ruling, reservation_id, store_time};
use super::request::{sending_metadata, tell};
use super::response::pass;
use super::restore::{self, Former};
use super::{
    ExchangeId, Handover, INTERNAL_ID_HEADER, Input, Now, Phase, Settings, Settlement, Step, Told, Violation,
};
use crate::auth::CredentialMetadata;
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, Change, LocalReply, Metadata};
use crate::quota::{Facts, Settle, Verdict};
use crate::runtime::{Rule, Scope, Served, Tenancy, Unproved};
use crate::tenant::Tenant;
use crate::translate::{Pair, Reader};

/// Where the Go gateway keeps the host of a backend; it never leaves the gateway.
const UPSTREAM_HOST_HEADER: &str = "x-ai-eg-upstream-host";
/// Set where an endpoint picker has chosen the host, which then says nothing about the backend.
const PICKED_ENDPOINT_HEADER: &str = "x-gateway-destination-endpoint";

/// In dynamic metadata: the routing key of the rule for which an earlier attempt has seen proof.
pub const PROVED_KEY: &str = "proved";

/// Follows the id of an exchange once an attempt has been at the headers.
const MARK: char = '+';

/// What Envoy tells of an attempt besides its headers.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// The backend, by the metadata of the chosen host.
    pub host_backend: Option<String>,
    /// The backend, by the metadata of the cluster.
    pub cluster_backend: Option<String>,
    /// The name of the chosen host.
    pub upstream_host: Option<String>,
    /// `namespace/name` of the route.
    pub route: Option<String>,
    /// Which attempt of the request this is, from 1, where Envoy is asked to say so.
    pub count: Option<u32>,
    /// An earlier attempt has left its mark on the headers.
    pub marked: bool,
    /// The exchange it belongs to.
    pub id: Option<ExchangeId>,
    /// The routing key of the rule, where the processor chose it.
    pub routing_key: Option<Bytes>,
    /// What the router's stream says of the request.
    pub told: Option<Told>,
    /// Who is asking, if an earlier attempt has seen proof for this rule.
    pub proved: Option<Tenant>,
    /// What Envoy's filters know of the client's own credentials for the backend.
    pub credentials: CredentialMetadata,
}

impl Arrival {
    /// Takes the exchange's id from the header that names it.
    pub fn read_id(&mut self, header: &str) {
        self.marked = header.ends_with(MARK);
        self.id = header.trim_end_matches(MARK).parse().ok();
    }
}

/// The state machine of an attempt.
#[derive(Debug)]
pub struct Attempt {
    arrival: Arrival,
    scope: Option<Scope>,
    settings: Arc<Settings>,
    state: State,
    /// What has to be settled, of earlier attempts or this one.
    settles: Vec<Settle>,
    /// What it asks the store of quotas as, where the request is with another process, and the store's time less ours in milliseconds.
    own: Option<(ExchangeId, i64)>,
    /// What it is to be charged for there.
    account: Option<Box<Settlement>>,
    /// How long the answer may get, where that was written there.
    clamped: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// With the request, where this process has it.
    Start(Option<Arc<Handover>>),
    Asking(Box<Asking>),
    AwaitBody(Box<Elsewhere>),
    AskingElsewhere(Box<AskingElsewhere>),
    /// And for whom it is, where the rule has asked.
    AwaitAnswer(Box<Expected>, Option<Tenant>),
    Reading(Box<Reader>),
    Passing,
    Over,
}

impl State {
    fn waiting_for(&self) -> &'static str {
        match self {
            Self::Start(_) => "waiting for request headers",
            Self::Asking(_) | Self::AskingElsewhere(_) => "waiting for the store of quotas",
            Self::AwaitBody(_) => "waiting for the request body",
            Self::AwaitAnswer(..) => "waiting for response headers",
            Self::Reading(_) => "waiting for the response body",
            Self::Passing => "letting the response pass",
            Self::Over => "the attempt is over",
        }
    }
}

/// A request on its way to a backend.
#[derive(Debug)]
struct Going {
    handover: Arc<Handover>,
    served: Arc<Served>,
    /// The headers as they are.
    current: Headers,
    is_first: bool,
}

/// A request that waits for the store of quotas.
#[derive(Debug)]
struct Asking {
    question: Question,
    going: Going,
    client: Client,
    draft: Draft,
}

impl Attempt {
    /// An attempt of which Envoy told `arrival`. `handover` is the request, where this process has it; `scope` is the
    /// configuration in force.
    pub fn new(
        arrival: Arrival,
        handover: Option<Arc<Handover>>,
        scope: Option<Scope>,
        settings: Arc<Settings>,
    ) -> Self {
        let (state, settles) = (State::Start(handover), Vec::new());
        Self { arrival, scope, settings, state, settles, own: None, account: None, clamped: None }
    }

    /// Where the request is with another process, the store of quotas is asked under this name, which nothing else has; its clock is so
    /// many milliseconds ahead of ours.
    pub fn reserves_as(&mut self, id: ExchangeId, ahead: i64) {
        self.own = Some((id, ahead));
    }

    /// Takes one message; `now` is when it came.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<Step, Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, step) = match (state, input) {
            (State::Start(Some(handover)), Input::RequestHeaders { headers, .. }) => {
                self.send(handover, headers, now)?
            }
            (State::Start(None), Input::RequestHeaders { headers, end_of_stream }) => {
                self.ask_for_body(headers, end_of_stream)?
            }
            (State::AwaitBody(elsewhere), Input::RequestBody { body, .. }) => {
                self.ask_or_send(*elsewhere, body, now)
            }
            (State::AwaitAnswer(expected, tenant), Input::RequestTrailers) => {
                (State::AwaitAnswer(expected, tenant), Step::default())
            }
            (State::AwaitAnswer(expected, tenant), Input::ResponseHeaders { headers, end_of_stream }) => {
                self.answer((&expected, tenant), &headers, end_of_stream, now)
            }
            // Envoy gave up before the request was complete.
            (State::AwaitBody(_), Input::ResponseHeaders { .. }) => (State::Passing, pass()),
            (State::Reading(mut reader), Input::ResponseBody { body, end_of_stream }) => {
                let body = reader.chunk(body, end_of_stream);
                if end_of_stream || body.is_err() {
                    self.charge(&reader, body.is_err(), now.monotonic);
                }
                let body = body.map_err(|error| Violation::Unreadable(error.to_string()))?;
                let next = if end_of_stream { State::Over } else { State::Reading(reader) };
                (next, Step::Continue(Change { body, ..Change::default() }))
            }
            (State::Reading(mut reader), Input::ResponseTrailers) => {
                reader.finish();
                self.charge(&reader, false, now.monotonic);
                (State::Over, Step::default())
            }
            (State::Passing, Input::ResponseHeaders { .. }) => (State::Passing, pass()),
            (
                State::Passing,
                Input::RequestBody { .. }
                | Input::RequestTrailers
                | Input::ResponseBody { .. }
                | Input::ResponseTrailers,
            ) => (State::Passing, Step::default()),
            (state, input) => {
                return Err(Violation::OutOfOrder { phase: Phase::of(&input), state: state.waiting_for() });
            }
        };
        self.state = next;
        Ok(step)
    }

    /// Takes the store's answer to the latest [`Step::Ask`].
    pub fn answered(&mut self, answer: Result<Verdict, NoAnswer>, now: Now) -> Result<Step, Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let mut asking = match state {
            State::Asking(asking) => asking,
            State::AskingElsewhere(asking) => {
                let (next, step) = self.answered_elsewhere(asking, answer, now);
                self.state = next;
                return Ok(step);
            }
            state => return Err(Violation::NotAsked(state.waiting_for())),
        };
        let handover = Arc::clone(&asking.going.handover);
        let (next, step) = match asking.question.answered(answer) {
            Ruling::Again(ask) => (State::Asking(asking), Step::Ask(ask)),
            Ruling::Refused(reply, limit) => {
                handover.refused(limit);
                refuse(&asking.going, reply, now)
            }
            Ruling::Unknown(reply) => refuse(&asking.going, reply, now),
            Ruling::Passed(passed) => {
                handover.granted(&passed);
                let Asking { going, client, draft, .. } = *asking;
                self.go_on(&going, &client, draft, passed.ceiling, now)
            }
        };
        self.state = next;
        Ok(step)
    }

    /// What the store of quotas is to be told besides, each once.
    pub fn settles(&mut self) -> impl Iterator<Item = Settle> {
        std::mem::take(&mut self.settles).into_iter()
    }

    /// The full name of the backend, by what Envoy says of the host it has chosen.
    fn backend(&self, headers: &Headers) -> Result<&str, Violation> {
        let Arrival { host_backend, cluster_backend, .. } = &self.arrival;
        let host_backend = host_backend.as_ref().filter(|_| !headers.contains(PICKED_ENDPOINT_HEADER));
        let name = host_backend.or(cluster_backend.as_ref());
        name.map(String::as_str).ok_or_else(|| Violation::UnknownBackend(String::new()))
    }

    fn route(&self) -> &str {
        self.arrival.route.as_deref().unwrap_or_default()
    }

    /// Tells later attempts of any process that the headers are not the client's any more. Where Envoy's configuration is ours, it
    /// counts attempts itself.
    fn mark(&self, edits: &mut HeaderEdits) {
        if let (Some(id), Some(Scope::Classic(_))) = (self.arrival.id, &self.scope) {
            edits.set(INTERNAL_ID_HEADER, format!("{id}{MARK}"));
        }
    }

    /// The request is at hand: it is sent, or asked about first.
    fn send(
        &mut self,
        handover: Arc<Handover>,
        current: Headers,
        now: Now,
    ) -> Result<(State, Step), Violation> {
        let name = self.backend(&current)?;
        let served = match &handover.candidates {
            Candidates::OfRule(rule) => rule.attempted(name).cloned(),
            Candidates::Classic(_) => match &self.scope {
                Some(Scope::Classic(classic)) => classic.served(name, self.route()),
                _ => None,
            },
        };
        let served = served.ok_or_else(|| Violation::UnknownBackend(name.to_owned()))?;
        let client = match &handover.candidates {
            Candidates::OfRule(rule) => self.admit(&handover, rule, &current),
            Candidates::Classic(_) => Ok(handover.known.clone()),
        };
        let (count, in_vain) = handover.begin();
        self.settles.extend(in_vain);
        // An earlier one, of this process or another, made of the request what this one's backend does not want.
        let is_first =
            count == 1 && !self.arrival.marked && self.arrival.count.is_none_or(|count| count <= 1);
        let going = Going { handover, served, current, is_first };
        let client = match client {
            Ok(client) => client,
            Err(reply) => return Ok(refuse(&going, reply, now)),
        };
        let draft = match going.draft() {
            Ok(draft) => draft,
            Err(reply) => return Ok(refuse(&going, reply, now)),
        };
        let Some(question) = going.question(&client, &draft, count, now) else {
            return Ok(self.go_on(&going, &client, draft, None, now));
        };
        let reservation = question.reservation(Some(&going.served), &going.model());
        let ask = Arc::clone(reservation.ask());
        going.handover.reserve(reservation);
        Ok((State::Asking(Box::new(Asking { question, going, client, draft })), Step::Ask(ask)))
    }

    /// Everything the request needs, in the reply to its headers. Its answer gets no longer than `ceiling` tokens.
    fn go_on(
        &self,
        going: &Going,
        client: &Client,
        mut draft: Draft,
        ceiling: Option<u64>,
        now: Now,
    ) -> (State, Step) {
        let Going { handover, served, current, is_first } = going;
        let manner = Manner {
            strip_credentials: handover.strip_credentials,
            upstream_host: self.arrival.upstream_host.as_deref(),
            credential_metadata: &self.arrival.credentials,
            wall: now.wall,
        };
        let original = handover.original();
        let sent = draft.hold_to(&original, ceiling).and_then(|clamped| {
            handover.clamped(clamped);
            draft.sign(&original, &manner)
        });
        let Outgoing { headers: mut edits, body, expected } = match sent {
            Ok(outgoing) => outgoing,
            Err(reply) => return refuse(going, reply, now),
        };
        let body = body.or_else(|| (!is_first).then(|| handover.body.clone()));
        if !is_first {
            restore::original(&Former { current, original: &handover.headers }, &mut edits);
        }
        edits.remove(UPSTREAM_HOST_HEADER);
        self.mark(&mut edits);
        let mut metadata = sending_metadata(&self.settings, served, &handover.headers, body.as_ref());
        if let Candidates::OfRule(rule) = &handover.candidates {
            prove(rule, client, &mut edits, &mut metadata);
        }
        handover.take(Taken { expected, refused: None, started: now.monotonic });
        let body = body.map_or(BodyChange::Keep, BodyChange::Replace);
        let change = Change { headers: edits, body, metadata, ..Change::default() };
        (State::Passing, Step::Continue(change))
    }

    /// Who is asking, if the request proves what its rule demands and may use the model. An earlier attempt has taken the proofs
    /// off: what it saw counts.
    fn admit(&self, handover: &Handover, rule: &Rule, current: &Headers) -> Result<Client, LocalReply> {
        if let Some(client) = handover.client.get() {
            return Ok(client.clone());
        }
        if rule.proofs.is_empty() {
            return Ok(handover.client.get_or_init(|| handover.known.clone()).clone());
        }
        let tenancy = &handover.tenancy;
        let client = self.client(tenancy, rule, current, handover.known.clone());
        let client = client.ok_or_else(|| unauthenticated(handover.endpoint))?;
        match client.refusal(tenancy, handover.endpoint, &handover.model) {
            None => Ok(handover.client.get_or_init(|| client).clone()),
            Some(refusal) => {
                // For the account; another attempt is asked anew.
                handover.forbidden(client.tenant);
                Err(refusal)
            }
        }
    }

    /// Who is asking, by what the headers prove or an earlier attempt of another process has seen.
    fn client(&self, tenancy: &Tenancy, rule: &Rule, headers: &Headers, known: Client) -> Option<Client> {
        match rule.proofs.check(headers, known.proved) {
            Ok(proved) => Some(Client::new(proved, known.key, tenancy)),
            Err(Unproved) => {
                let tenant = self.arrival.proved.clone()?;
                Some(Client { tenant, key: known.key, ..Client::default() })
            }
        }
    }
}

impl Going {
    /// The model that the backend is asked for.
    fn model(&self) -> Arc<str> {
        Arc::clone(self.served.backend.model_override.as_ref().unwrap_or(&self.handover.model))
    }

    /// What the backend is to get, within what the router's stream was granted.
    fn draft(&self) -> Result<Draft, LocalReply> {
        let Self { handover, served, .. } = self;
        let original = handover.original();
        let mut draft = Draft::new(served, &original, handover.usage)?;
        handover.clamped(draft.hold_to(&original, handover.ceiling)?);
        Ok(draft)
    }

    /// What the store is to be asked before this goes on, if anything.
    fn question(&self, client: &Client, draft: &Draft, count: u32, now: Now) -> Option<Question> {
        let Self { handover, served, .. } = self;
        let limits = handover.quota.as_ref()?;
        let model = self.model();
        let facts = Facts {
            tenant: &client.tenant,
            key_quota: client.key_quota(),
            gateway: Some(&limits.gateway),
            route: Some(&served.route),
            backend: Some(&served.backend.name),
            asked_model: &handover.model,
            sent_model: Some(&model),
            headers: &handover.headers,
            endpoint: handover.endpoint,
            source: limits.source,
        };
        let (id, time) = (reservation_id(limits.exchange, count), store_time(now, limits.ahead));
        let selected = limits.quotas.select(limits.stage, &facts)?;
        Some(Question::new(selected, &facts, &[draft.way(&handover.original())], id, time))
    }
}

/// The gateway answers in the backend's place.
fn refuse(going: &Going, reply: LocalReply, now: Now) -> (State, Step) {
    let Going { handover, served, .. } = going;
    let expected = Expected {
        served: Arc::clone(served),
        endpoint: handover.endpoint,
        pair: Pair::Same,
        streaming: handover.request.streaming,
        hide_usage: false,
        model: Arc::clone(&handover.model),
    };
    handover.take(Taken { expected, refused: Some(reply.details), started: now.monotonic });
    (State::Passing, Step::Reply(reply))
}

/// Takes off what proves and what it was proved with, and leaves word for other attempts that it was.
fn prove(rule: &Rule, client: &Client, edits: &mut HeaderEdits, metadata: &mut Metadata) {
    client.proved.tell(edits);
    let Rule { proofs, routing_key, .. } = rule;
    for name in proofs.hidden() {
        if edits.set.iter().all(|(set, _)| set != name) {
            edits.remove(name.to_owned());
        }
    }
    if !proofs.is_empty() {
        metadata.text(PROVED_KEY, String::from_utf8_lossy(routing_key));
    }
    tell(&client.tenant, metadata);
}

#[cfg(test)]
mod tests;

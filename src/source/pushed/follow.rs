//! The loop of a processor that is configured by a controller.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::Controller;
use super::cache::Cache;
use super::connect::{chain, connect};
use super::editions::{Editions, Effects, Outcome, Said, Work};
use super::incoming::{Document, Incoming, News};
use super::status::{GatewayStatus, PushedStatus};
use crate::proto::config_stream::config_stream_client::ConfigStreamClient;
use crate::proto::config_stream::{
    FromController, FromProcessor, Held, Hello, Problem as Reported, Verdict, from_processor,
};
use crate::runtime::{Problem, Runtime};
use crate::source::protocol::{MAX_GATEWAYS, MAX_MESSAGE, PROTOCOL};
use crate::source::{Accept, STAMP, Slot, SourceError, document};

/// How long the controller is waited for before what was kept on disk is served.
const CACHE_AFTER: Duration = Duration::from_secs(2);
/// How long a controller may take to greet.
const WELCOME: Duration = Duration::from_secs(10);
/// The first wait after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);
/// What is told of the problems of an edition.
const MAX_PROBLEMS: usize = 50;

/// A document that was compiled, or could not be.
struct Compiled {
    work: Work,
    outcome: Outcome,
}

pub(super) struct Follower {
    controller: Controller,
    slot: Slot,
    cache: Option<Cache>,
    editions: Editions,
    compiling: JoinSet<Compiled>,
    /// Compiling must not take every core from requests.
    turns: Arc<Semaphore>,
    /// What is to be kept on disk; nothing: to be forgotten.
    unkept: BTreeMap<String, Option<Document>>,
    /// What the controller is told once it is so.
    unsaid: Vec<Said>,
    keeping: JoinSet<()>,
    instance: Bytes,
    /// Until something is in force: whether all that there is has come.
    complete: bool,
    published: bool,
    started: Instant,
    connected: bool,
    since: Instant,
    problem: Option<String>,
}

impl Follower {
    pub(super) fn new(controller: Controller, slot: Slot) -> anyhow::Result<Self> {
        let cache = controller.cache.as_deref().map(Cache::open).transpose();
        let cache = cache.map_err(|error| anyhow::anyhow!("--config-cache: {error}"))?;
        let instance = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new());
        let instance = instance.map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        let half = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let now = Instant::now();
        let follower = Self {
            controller,
            slot,
            cache,
            editions: Editions::default(),
            compiling: JoinSet::new(),
            turns: Arc::new(Semaphore::new(half)),
            unkept: BTreeMap::new(),
            unsaid: Vec::new(),
            keeping: JoinSet::new(),
            instance: Bytes::copy_from_slice(&instance.expose()),
            complete: false,
            published: false,
            started: now,
            connected: false,
            since: now,
            problem: None,
        };
        follower.tell();
        Ok(follower)
    }

    /// Follows the controller until dropped.
    pub(super) async fn run(mut self) -> Infallible {
        self.read_cache().await;
        let mut wait = BACKOFF.0;
        loop {
            let begun = Instant::now();
            let connecting = connect(&self.controller.url, &self.controller.files);
            let error = match tokio::time::timeout(WELCOME, connecting).await {
                Ok(Ok(channel)) => self.converse(channel).await,
                Ok(Err(error)) => error,
                Err(_) => "no connection".to_owned(),
            };
            self.lost(error);
            self.serve_what_was_kept().await;
            if begun.elapsed() > GOOD {
                wait = BACKOFF.0;
            }
            // Many processors must not come back all at once.
            let random = ring::rand::generate::<[u8; 1]>(&ring::rand::SystemRandom::new());
            let part = random.map_or(0.5, |random| f64::from(random.expose()[0]) / 255.0);
            self.idle(wait.mul_f64(0.5 + part / 2.0)).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Waits, and goes on keeping documents.
    async fn idle(&mut self, wait: Duration) {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            self.keep();
            tokio::select! {
                () = &mut over => return,
                Some(_) = self.keeping.join_next() => {}
                // Of an earlier connection.
                Some(_) = self.compiling.join_next() => {}
            }
        }
    }

    /// Compiles what was kept on disk, for when no controller is there; and so that it need not be sent again.
    async fn read_cache(&mut self) {
        let Some(cache) = self.cache.clone() else { return };
        let documents = tokio::task::spawn_blocking(move || cache.read()).await.unwrap_or_default();
        let wanted = self.controller.gateways.clone();
        for document in documents {
            if !wanted.is_empty() && !wanted.contains(&document.gateway) {
                continue;
            }
            let work = self.editions.want(document, true).and_then(|effects| effects.work);
            if let Some(work) = work {
                self.compile(work);
            }
        }
        while let Some(done) = self.compiling.join_next().await {
            let Ok(Compiled { work, outcome }) = done else { continue };
            self.editions.done(&work, outcome, Instant::now());
        }
        for (gateway, (_, problems)) in self.editions.refused() {
            for problem in problems {
                tracing::error!(gateway, %problem, "a cached configuration cannot be used and is ignored");
            }
        }
        self.tell();
    }

    async fn serve_what_was_kept(&mut self) {
        if !self.published && !self.editions.in_force().is_empty() {
            tracing::warn!("the controller is not there; what was kept on disk is served");
            for known in self.editions.in_force().values() {
                self.slot.credentials().adopt(&known.runtime);
            }
            self.publish();
            self.slot.ready().await;
        }
    }

    fn lost(&mut self, error: String) {
        if self.connected || self.problem.is_none() {
            self.since = Instant::now();
            tracing::warn!(error, "the controller is away; what is in force stays");
        } else if self.problem.as_ref() != Some(&error) {
            tracing::warn!(error, "the controller is away still");
        }
        (self.connected, self.problem) = (false, Some(error));
        self.editions.forget_what_is_on_its_way();
        self.tell();
    }

    /// Speaks with the controller until there is an end, which is told.
    async fn converse(&mut self, channel: Channel) -> String {
        // There is one verdict for each edition, and as many editions as Gateways, unless nobody listens.
        let (say, said) = mpsc::channel(2 * MAX_GATEWAYS);
        if say.try_send(self.hello()).is_err() {
            return "nothing can be said".to_owned();
        }
        let mut client = ConfigStreamClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let following = client.follow(ReceiverStream::new(said));
        let mut inbound = match tokio::time::timeout(WELCOME, following).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return reason(&status),
            Err(_) => return "the controller does not answer".to_owned(),
        };
        (self.complete, self.unsaid) = (false, Vec::new());
        let (mut incoming, mut patience) = (Incoming::default(), WELCOME);
        loop {
            let next = self.next(&mut inbound, patience).await;
            let effects = match next {
                Event::Message(message) => match incoming.take(message) {
                    Ok(News::Welcome(silence)) => {
                        patience = silence;
                        (self.connected, self.since, self.problem) = (true, Instant::now(), None);
                        tracing::info!("the controller is connected");
                        Effects::default()
                    }
                    Ok(news) => match self.hear(news) {
                        Ok(effects) => effects,
                        Err(error) => return error,
                    },
                    Err(violation) => return violation.to_string(),
                },
                Event::Compiled(Compiled { work, outcome }) => self.compiled(work, outcome),
                Event::Waited => Effects::default(),
                Event::End(error) => return error,
            };
            if let Err(error) = self.follow_up(effects, &say) {
                return error;
            }
        }
    }

    async fn next(&mut self, inbound: &mut Streaming<FromController>, patience: Duration) -> Event {
        let cached = || self.editions.in_force().values().any(|known| known.cached);
        let waiting = !self.published && !self.complete && cached();
        let kept = tokio::time::sleep_until((self.started + CACHE_AFTER).into());
        tokio::select! {
            biased;
            Some(done) = self.compiling.join_next() => match done {
                Ok(compiled) => Event::Compiled(compiled),
                Err(_) => Event::Waited,
            },
            Some(_) = self.keeping.join_next() => Event::Waited,
            message = tokio::time::timeout(patience, inbound.message()) => match message {
                Ok(Ok(Some(message))) => Event::Message(message),
                Ok(Ok(None)) => Event::End("the controller ended the stream".to_owned()),
                Ok(Err(status)) => Event::End(reason(&status)),
                Err(_) => Event::End(format!("nothing came for {} s", patience.as_secs())),
            },
            () = kept, if waiting => {
                self.serve_what_was_kept().await;
                Event::Waited
            }
        }
    }

    fn hello(&self) -> FromProcessor {
        let held = self.editions.in_force().iter().map(|(gateway, known)| Held {
            gateway: gateway.clone(),
            generation: known.generation,
            sha256: Bytes::copy_from_slice(known.sha256.as_bytes()),
        });
        let hello = Hello {
            protocol: PROTOCOL,
            replica: self.controller.replica.clone(),
            version: STAMP.to_owned(),
            gateways: self.controller.gateways.clone(),
            held: held.collect(),
            instance: self.instance.clone(),
        };
        FromProcessor { message: Some(from_processor::Message::Hello(hello)) }
    }

    fn hear(&mut self, news: News) -> Result<Effects, String> {
        match news {
            News::Document(document) => {
                let effects = self.editions.want(document, false);
                effects.ok_or_else(|| format!("there are more than {MAX_GATEWAYS} Gateways"))
            }
            News::Unchanged { gateway, generation, sha256 } => {
                let effects = self.editions.unchanged(&gateway, generation, sha256);
                effects.ok_or_else(|| format!("the controller takes {gateway} to have what it has not"))
            }
            News::Withdrawn(gateway) => {
                tracing::info!(gateway, "a Gateway is served no longer");
                let effects = self.editions.withdrawn(&gateway);
                self.unkept.insert(gateway, None);
                Ok(effects)
            }
            News::Complete => {
                self.complete = true;
                Ok(Effects::default())
            }
            News::Welcome(_) | News::Nothing => Ok(Effects::default()),
        }
    }

    fn compiled(&mut self, work: Work, outcome: Outcome) -> Effects {
        let effects = self.editions.done(&work, outcome, Instant::now());
        if let Some(said) = &effects.said {
            let Said { gateway, generation, in_force, problems, .. } = said;
            for problem in problems {
                if *in_force {
                    tracing::error!(gateway, generation, %problem, "a part of the configuration is not served");
                } else {
                    tracing::error!(gateway, generation, %problem, "an edition cannot be used; the last good one stays");
                }
            }
            if *in_force {
                tracing::info!(gateway, generation, "a configuration is in force");
                self.unkept.insert(gateway.clone(), Some(work.document));
            }
        }
        effects
    }

    /// Does what an event asks for. What the controller is told is true by then.
    fn follow_up(&mut self, effects: Effects, say: &mpsc::Sender<FromProcessor>) -> Result<(), String> {
        let Effects { work, changed, said } = effects;
        if let Some(work) = work {
            self.compile(work);
        }
        self.unsaid.extend(said);
        let first = !self.published && self.complete && self.editions.is_idle();
        if first || (self.published && changed) {
            self.publish();
        }
        if self.published {
            for said in self.unsaid.drain(..) {
                let verdict = from_processor::Message::Verdict(verdict(said));
                let said = say.try_send(FromProcessor { message: Some(verdict) });
                said.map_err(|_| "the controller does not listen".to_owned())?;
            }
        }
        self.keep();
        self.tell();
        Ok(())
    }

    fn compile(&mut self, work: Work) {
        let (turns, slot) = (Arc::clone(&self.turns), self.slot.clone());
        let accept = self.controller.accept.clone();
        self.compiling.spawn(async move {
            // They are never taken away.
            let turn = turns.acquire_owned().await;
            let document = work.document.clone();
            // A panic would be met again with every edition.
            let load = move || catch_unwind(AssertUnwindSafe(|| load(&document, &accept)));
            let loaded = tokio::task::spawn_blocking(load).await;
            drop(turn);
            let mistake =
                || Err(vec![problem("reading it failed in a way that is a mistake of this program")]);
            let outcome = loaded.ok().and_then(Result::ok).unwrap_or_else(mistake);
            if let Ok((runtime, _)) = &outcome
                && !work.cached
            {
                slot.prepare(runtime).await;
            }
            Compiled { work, outcome }
        });
    }

    fn publish(&mut self) {
        let parts = self.editions.in_force().iter();
        let parts = parts.map(|(gateway, known)| (gateway.clone(), Arc::clone(&known.runtime)));
        drop(self.slot.publish(Runtime::joined(parts)));
        self.published = true;
    }

    /// Goes on with what is to be kept on disk, a file after the other.
    fn keep(&mut self) {
        let Some(cache) = &self.cache else {
            self.unkept.clear();
            return;
        };
        if !self.keeping.is_empty() {
            return;
        }
        let Some((gateway, document)) = self.unkept.pop_first() else { return };
        let cache = cache.clone();
        self.keeping.spawn_blocking(move || {
            let kept = match &document {
                Some(document) => cache.write(document),
                None => cache.remove(&gateway),
            };
            if let Err(error) = kept {
                tracing::error!(gateway, %error, "a configuration could not be kept on disk for a start without a controller");
            }
        });
    }

    /// Tells people and probes how it is.
    fn tell(&self) {
        let (in_force, refused) = (self.editions.in_force(), self.editions.refused());
        let names: BTreeSet<&String> = in_force.keys().chain(refused.keys()).collect();
        let gateway = |name: &String| {
            let known = in_force.get(name);
            let refused = refused.get(name).map(|(generation, problems)| {
                (*generation, problems.first().map(ToString::to_string).unwrap_or_default())
            });
            GatewayStatus {
                name: name.as_str().into(),
                in_force: known.map(|known| (known.generation, known.since)),
                cached: known.is_some_and(|known| known.cached),
                problems: known.map_or(0, |known| known.problems.len()),
                refused,
            }
        };
        self.slot.pushed().set(PushedStatus {
            connected: self.connected,
            since: self.since,
            problem: self.problem.clone(),
            gateways: names.into_iter().map(gateway).collect(),
        });
    }
}

/// What may happen while a controller is there.
enum Event {
    Message(FromController),
    Compiled(Compiled),
    Waited,
    End(String),
}

fn verdict(said: Said) -> Verdict {
    let Said { gateway, generation, sha256, in_force, problems } = said;
    let reported = |Problem { at, message }| Reported { at, message };
    Verdict {
        gateway,
        generation,
        sha256: Bytes::copy_from_slice(sha256.as_bytes()),
        in_force,
        problems: problems.into_iter().take(MAX_PROBLEMS).map(reported).collect(),
    }
}

fn problem(message: impl Into<String>) -> Problem {
    Problem { at: "document".to_owned(), message: message.into() }
}

/// A document that is of its Gateway and of no other.
fn load(document: &Document, accept: &Accept) -> Outcome {
    let gateway = &document.gateway;
    let loaded = document::load(gateway, &document.bytes, accept).map_err(|error| match error {
        SourceError::Rejected { problems, .. } => problems,
        error => vec![problem(error.to_string())],
    })?;
    let mut names = loaded.runtime.names().peekable();
    if names.peek().is_none() {
        return Err(vec![problem("it is of no Gateway")]);
    }
    if let Some(other) = names.find(|name| name != gateway) {
        return Err(vec![problem(format!("it speaks of the Gateway {other}, too"))]);
    }
    drop(names);
    Ok((loaded.runtime, loaded.problems))
}

fn reason(status: &Status) -> String {
    let code = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => "the controller refuses: ",
        _ => "",
    };
    format!("{code}{}", chain(status))
}

//! The loop: what is watched is compiled, processors are told, and, where this controller leads, the API server is.
//!
//! Nothing in here waits for the API server: writes run beside, one batch at a time, and what they have led to is taken in with
//! everything else. A processor is told as soon as it may be, however slow the API server is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{Done, Failure, Writer};
use super::compilation::{Compilation, Inputs, Settings, compile, keys_of};
use super::events::Events;
use super::feed::Feed;
use super::health::Health;
use super::identity;
use super::plan::{Conflict, Id, Operation, Prepared, Purpose, Written, plan};
use super::rollout::{Bounds, Decision, Facts, Rollout, Stage};
use super::status::{Progress, Situation, Update, is_taken, updates};
use super::store::View;
use super::watches::Watches;
use super::{finalizers, secrets};
use crate::resources::Memory;

/// Changes that follow each other this closely are taken in together,
const QUIET: Duration = Duration::from_millis(20);
/// but none waits longer than this.
const MOST_WAIT: Duration = Duration::from_millis(100);
/// For how long a Secret that has not been shown yet keeps everything else waiting.
const SECRET_PATIENCE: Duration = Duration::from_secs(10);
/// How many writes are begun at once; what else there is comes after them.
const BATCH: usize = 400;
/// How often it is looked at everything even if nothing happens.
const PULSE: Duration = Duration::from_secs(30);
/// For how long after it has begun to lead a controller believes what was said before of what is in force.
const FRESH: Duration = Duration::from_secs(15);
/// The longest pause before a write is tried again.
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// What the loop works with.
pub(super) struct Engine {
    pub(super) writer: Writer,
    pub(super) watches: Watches,
    pub(super) feed: Feed,
    pub(super) events: Events,
    pub(super) health: Health,
    pub(super) settings: Settings,
    pub(super) bounds: Bounds,
    pub(super) state: State,
}

/// What the loop remembers.
#[derive(Default)]
pub(super) struct State {
    memory: Option<Memory>,
    inputs: Inputs,
    compilation: Option<Arc<Compilation>>,
    rollout: Rollout,
    written: Written,
    setbacks: BTreeMap<Id, Setback>,
    /// Writes of objects: one batch, or none.
    writing: JoinSet<Vec<Done>>,
    /// Writes of statuses: one batch, or none.
    telling: JoinSet<Vec<Done>>,
    /// Since when Secrets have been waited for.
    waiting: Option<Instant>,
    /// Since when this controller leads, if it does.
    leads_since: Option<Instant>,
    routing_keys: BTreeMap<(String, i64), BTreeSet<String>>,
}

/// A write that failed.
struct Setback {
    attempts: u32,
    again: Instant,
    /// What it is for, and what went wrong; nothing if that is not worth a word.
    problem: Option<(Purpose, String)>,
}

impl Engine {
    /// Runs until `stop`; then waits for the writes that are under way.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.writer.store.changes();
        let mut leadership = self.writer.leadership.clone();
        loop {
            let wake = self.turn().await;
            self.health.beat();
            tokio::select! {
                () = stop.cancelled() => break,
                _ = changes.changed() => self.debounce(&mut changes).await,
                () = leadership.changed() => {}
                () = self.feed.changed() => {}
                done = finished(&mut self.state.writing) => self.state.take_in(done),
                done = finished(&mut self.state.telling) => self.state.take_in(done),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        // Each write is bounded.
        while self.state.writing.join_next().await.is_some() {}
        while self.state.telling.join_next().await.is_some() {}
    }

    async fn debounce(&self, changes: &mut watch::Receiver<u64>) {
        loop {
            changes.mark_unchanged();
            let waited = self.writer.store.waiting_since().map_or(MOST_WAIT, |since| since.elapsed());
            let Some(left) = MOST_WAIT.checked_sub(waited).filter(|left| !left.is_zero()) else { return };
            if tokio::time::timeout(QUIET.min(left), changes.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Does what can be done now. Returns when to look again, if nothing happens before.
    async fn turn(&mut self) -> Instant {
        let queued = self.writer.store.waiting_since();
        let view = self.writer.store.view();
        let now = Instant::now();
        let mut wakes = vec![now + PULSE];
        self.watches.secrets(&secrets::referenced(&view));
        if self.may_compile(now, &mut wakes) {
            self.compile(&view, queued).await;
        }
        let Some(compilation) = self.state.compilation.clone() else { return now + PULSE };
        let decision = self.roll_out(&compilation, &view);
        wakes.extend(decision.wake);
        self.feed.serve(decision.complete && !self.writer.leadership.follows());
        let leads = self.writer.leadership.remaining().is_some();
        self.writer.metrics.leads(leads);
        if leads {
            let since = *self.state.leads_since.get_or_insert(now);
            wakes.extend(Some(since + FRESH).filter(|end| *end > now));
            self.write(&compilation, &view, &decision, &mut wakes);
        } else {
            self.state.leads_since = None;
        }
        wakes.into_iter().min().unwrap_or(now + PULSE)
    }

    /// Whether everything has been seen. A Secret that does not come is not waited for endlessly, unless it is the beginning.
    fn may_compile(&mut self, now: Instant, wakes: &mut Vec<Instant>) -> bool {
        let unready = self.writer.store.unready();
        self.health.waiting(&unready);
        if unready.is_empty() {
            self.state.waiting = None;
            return true;
        }
        if self.state.compilation.is_none() {
            return false;
        }
        let until = *self.state.waiting.get_or_insert(now) + SECRET_PATIENCE;
        wakes.push(until);
        until <= now
    }

    async fn compile(&mut self, view: &View, queued: Option<Instant>) {
        let inputs = Inputs::of(view);
        let Some(secret) = identity::routing_secret(view, &self.settings.system_namespace) else { return };
        if self.state.compilation.is_some() && inputs == self.state.inputs {
            return;
        }
        let begun = Instant::now();
        let mut memory = self.state.memory.take().unwrap_or_else(Memory::of_stored);
        let (settings, compiled) = (self.settings.clone(), inputs.clone());
        let work = tokio::task::spawn_blocking(move || {
            let compilation = compile(&compiled, &mut memory, secret, &settings);
            (memory, compilation)
        });
        match work.await {
            Ok((memory, compilation)) => {
                self.state.memory = Some(memory);
                self.state.compilation = Some(Arc::new(compilation));
            }
            Err(error) => {
                tracing::error!(%error, "the objects could not be compiled; what was compiled before stays")
            }
        }
        // What could not be compiled is not tried again before something changes.
        self.state.inputs = inputs;
        self.health.compiled();
        self.writer.metrics.compiled(begun.elapsed(), queued.map(|since| since.elapsed()));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (kind, ..) in view.iter() {
            *counts.entry(kind).or_default() += 1;
        }
        counts.iter().for_each(|(kind, count)| self.writer.metrics.objects(kind, *count));
    }

    /// Tells the processors what they are to know by now.
    fn roll_out(&mut self, compilation: &Compilation, view: &View) -> Decision {
        let mut taken: BTreeMap<&str, (BTreeSet<String>, bool)> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for (_, route) in view.kind("HTTPRoute").filter(|(_, route)| route.generated()) {
            let Some(label) = route.label(super::object::GATEWAY) else { continue };
            let edition = (route.uid().to_owned(), route.generation());
            let keys = self.state.routing_keys.remove(&edition).unwrap_or_else(|| keys_of(route));
            let (all, routed) = taken.entry(label).or_default();
            *routed |= !keys.is_empty();
            if is_taken(route) {
                all.extend(keys.iter().cloned());
            }
            known.insert(edition, keys);
        }
        self.state.routing_keys = known;
        let facts = compilation.gateways.iter().map(|gateway| {
            let (taken, routed) = taken.get(gateway.label.as_str()).cloned().unwrap_or_default();
            let facts = Facts { digest: gateway.digest.clone(), keys: gateway.keys.clone(), taken, routed };
            (gateway.id.clone(), facts)
        });
        let facts: BTreeMap<String, Facts> = facts.collect();
        let in_force = |id: &str| self.feed.in_force(id);
        let decision = self.state.rollout.step(&facts, in_force, self.bounds, Instant::now());
        for gateway in compilation.gateways.iter().filter(|gateway| decision.publish.contains(&gateway.id)) {
            self.feed.publish(&gateway.id, &gateway.document);
        }
        for id in &decision.withdraw {
            self.feed.withdraw(id);
            self.writer.metrics.withdrawn(id);
        }
        for gateway in &compilation.gateways {
            if let Some(generation) = self.feed.generation(&gateway.id) {
                let replicas = self.feed.replicas(&gateway.id);
                self.writer.metrics.published(&gateway.id, generation, (replicas.current, replicas.behind));
            }
        }
        decision
    }

    fn write(
        &mut self,
        compilation: &Compilation,
        view: &View,
        decision: &Decision,
        wakes: &mut Vec<Instant>,
    ) {
        let now = Instant::now();
        let stages: BTreeMap<&str, Stage> = compilation
            .gateways
            .iter()
            .filter_map(|gateway| Some((gateway.label.as_str(), *decision.stages.get(&gateway.id)?)))
            .collect();
        let planned = plan(select(compilation, &stages, view), view, &self.state.written);
        let settled = stages.values().all(|stage| *stage == Stage::Settled);
        let mut operations = finalizers::plan(view, settled && planned.operations.is_empty());
        operations.extend(planned.operations.iter().cloned());
        let mut statuses = self.statuses(compilation, view, decision, &planned.conflicts, &operations);
        // One write of an object at a time: the second would find another version of it.
        let written: HashSet<&Id> = operations.iter().map(Operation::id).collect();
        statuses.retain(|update| !written.contains(update.operation.id()));
        let named: BTreeSet<&Id> = operations
            .iter()
            .chain(statuses.iter().map(|update| &update.operation))
            .map(Operation::id)
            .collect();
        self.state.setbacks.retain(|id, _| named.contains(id));
        for Conflict { id: (kind, (namespace, name)), .. } in &planned.conflicts {
            tracing::warn!(kind, namespace, name, "a user's object has the name that one of ours needs");
        }
        operations.retain(|operation| self.state.may_try(operation.id(), now, wakes));
        operations.truncate(BATCH);
        if self.state.writing.is_empty() && !operations.is_empty() {
            self.state.writing.spawn(self.writer.clone().write(operations));
        }
        let mut statuses: Vec<Update> = statuses
            .into_iter()
            .filter(|update| self.state.may_try(update.operation.id(), now, wakes))
            .collect();
        statuses.truncate(BATCH);
        if self.state.telling.is_empty() && !statuses.is_empty() {
            let (writer, events) = (self.writer.clone(), self.events.clone());
            self.state.telling.spawn(tell(writer, events, statuses));
        }
    }

    fn statuses(
        &self,
        compilation: &Compilation,
        view: &View,
        decision: &Decision,
        conflicts: &[Conflict],
        operations: &[Operation],
    ) -> Vec<Update> {
        let gateways = compilation.gateways.iter().filter_map(|gateway| {
            let progress = Progress {
                label: gateway.label.clone(),
                stage: *decision.stages.get(&gateway.id)?,
                generation: self.feed.generation(&gateway.id)?,
                replicas: self.feed.replicas(&gateway.id),
            };
            Some((gateway.id.clone(), progress))
        });
        let failures = self
            .state
            .setbacks
            .iter()
            .filter_map(|(id, setback)| Some((id.clone(), setback.problem.clone()?)));
        let pending = operations.iter().filter_map(|operation| match operation {
            Operation::Apply { object, .. } => Some((object.id.clone(), object.purpose.clone())),
            Operation::Delete { .. } | Operation::Patch { .. } => None,
        });
        let situation = Situation {
            view,
            gateways: &gateways.collect(),
            conflicts,
            failures: &failures.collect(),
            fresh: self.state.leads_since.is_some_and(|since| since.elapsed() < FRESH),
            pending: &pending.collect(),
        };
        updates(compilation, &situation, &super::timestamp())
    }
}

/// Waits for a batch; for ever if there is none.
async fn finished(batch: &mut JoinSet<Vec<Done>>) -> Vec<Done> {
    let Some(done) = batch.join_next().await else { return std::future::pending().await };
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a batch of writes broke off");
        Vec::new()
    })
}

/// Writes statuses, and tells of those that were written what users have to know.
async fn tell(writer: Writer, events: Events, statuses: Vec<Update>) -> Vec<Done> {
    let mut notices = BTreeMap::new();
    let mut operations = Vec::new();
    for Update { operation, notices: news } in statuses {
        notices.insert(operation.id().clone(), news);
        operations.push(operation);
    }
    let done = writer.write(operations).await;
    for done in done.iter().filter(|done| done.result.is_ok()) {
        for notice in notices.remove(done.operation.id()).unwrap_or_default() {
            events.publish(notice).await;
        }
    }
    done
}

/// The objects there shall be now.
fn select<'a>(
    compilation: &'a Compilation,
    stages: &BTreeMap<&str, Stage>,
    view: &View,
) -> Vec<&'a Arc<Prepared>> {
    let stage =
        |object: &Prepared| stages.get(object.purpose.gateway.as_str()).copied().unwrap_or(Stage::Settled);
    let changing = |object: &&Arc<Prepared>| stage(object) == Stage::Changing;
    let transitional = compilation.transitional.as_deref();
    let news = compilation.objects.iter().filter(|object| transitional.is_none() || !changing(object));
    let both = transitional.unwrap_or_default().iter().filter(changing);
    let mut selected: Vec<_> = news.chain(both).collect();
    // Routes come when their processors know of them, and last: what they refer to is there by then.
    selected.retain(|object| {
        let (kind, name) = &object.id;
        kind != "HTTPRoute" || stage(object) != Stage::Starting || view.get(kind, name).is_some()
    });
    let rank = |object: &Prepared| match object.id.0.as_str() {
        "Service" => 0,
        "ReferenceGrant" => 1,
        "HTTPRouteFilter" => 2,
        "HTTPRoute" => 4,
        _ => 3,
    };
    selected.sort_by(|one, other| (rank(one), &one.id).cmp(&(rank(other), &other.id)));
    selected
}

impl State {
    /// Whether an object may be written now: one that could not be is left alone for a while.
    fn may_try(&self, id: &Id, now: Instant, wakes: &mut Vec<Instant>) -> bool {
        match self.setbacks.get(id) {
            Some(setback) if setback.again > now => {
                wakes.push(setback.again);
                false
            }
            _ => true,
        }
    }

    /// What writes have led to.
    fn take_in(&mut self, done: Vec<Done>) {
        for Done { operation, result } in done {
            let id = operation.id().clone();
            match result {
                Ok(stored) => {
                    self.setbacks.remove(&id);
                    match (&operation, stored) {
                        (Operation::Apply { object, .. }, Some(stored)) => {
                            self.written.note(id, object.edition.clone(), &stored);
                        }
                        (Operation::Delete { .. }, _) => self.written.forget(&id),
                        _ => {}
                    }
                }
                Err(failure) => {
                    let attempts = self.setbacks.get(&id).map_or(0, |setback| setback.attempts) + 1;
                    // What was only seen too late is tried again soon.
                    let doublings =
                        if failure == Failure::Stale { attempts.min(3) } else { attempts.min(10) };
                    let pause = Duration::from_millis(100).saturating_mul(1 << doublings).min(MOST_BACKOFF);
                    let purpose = match &operation {
                        Operation::Apply { object, .. } => object.purpose.clone(),
                        Operation::Delete { .. } | Operation::Patch { .. } => Purpose::default(),
                    };
                    let problem = match failure {
                        Failure::Conflict(why) | Failure::Failed(why) => Some((purpose, why)),
                        Failure::Stale | Failure::Deposed => None,
                    };
                    self.setbacks.insert(id, Setback { attempts, again: Instant::now() + pause, problem });
                }
            }
        }
    }
}

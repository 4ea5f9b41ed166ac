//! What is said in the status of users' objects: what `compile` found, and whether it is in force. No I/O.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::compilation::Compilation;
use super::conditions::{Wanted, merge};
use super::object::{GATEWAY, Name, Seen, Stored, condition};
use super::plan::{Conflict, Id, Operation, Purpose};
use super::rollout::Stage;
use super::store::View;
use crate::compile::kubernetes::ObjectStatus;

/// The processors of a Gateway, by what they run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replicas {
    /// Of how many it runs what was published last.
    pub(super) current: usize,
    /// Of how many something before that, or nothing.
    pub(super) behind: usize,
    /// Who refused it, and why.
    pub(super) refused: Vec<String>,
}

/// Where a Gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// What its generated objects are labelled with.
    pub(super) label: String,
    pub(super) stage: Stage,
    /// The generation that was published last.
    pub(super) generation: u64,
    pub(super) replicas: Replicas,
}

/// All there is to know about what is in force.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) view: &'a View,
    pub(super) gateways: &'a BTreeMap<String, Progress>,
    pub(super) conflicts: &'a [Conflict],
    /// What could not be written, what it is for, and why.
    pub(super) failures: &'a BTreeMap<Id, (Purpose, String)>,
    /// Whether this controller leads since a moment ago only, so that processors may be on their way to it.
    pub(super) fresh: bool,
    /// What is yet to be written, and what it is for.
    pub(super) pending: &'a BTreeMap<Id, Purpose>,
}

/// Something a user has to know about an object of theirs, for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) id: Id,
    pub(super) api_version: String,
    pub(super) uid: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A status that is to be written, and what to tell when it was.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) operation: Operation,
    pub(super) notices: Vec<Notice>,
}

/// The statuses that say something else than they should.
pub(super) fn updates(compilation: &Compilation, situation: &Situation<'_>, now: &str) -> Vec<Update> {
    let mut updates = Vec::new();
    let index = Index::new(situation);
    for status in &compilation.statuses {
        let id = (status.kind.to_owned(), (status.namespace.clone(), status.name.clone()));
        let Some(stored) = situation.view.get(&id.0, &id.1) else { continue };
        // What was judged may be an earlier edition; the judgement of this one is on its way.
        let stale = status.generation.is_some_and(|generation| generation != stored.generation());
        if stale || stored.deleting() {
            continue;
        }
        let mut wanted: Vec<Wanted> = status.conditions.iter().map(of_compile).collect();
        let accepted = !wanted.iter().any(|wanted| wanted.kind == "NotAccepted");
        if accepted {
            let before = condition(stored.conditions(), "Programmed")
                .filter(|seen| seen.generation == stored.generation());
            let programmed = programmed(status, stored, before, (situation, &index));
            wanted.extend(match (programmed, before) {
                // What was said by the one that led before is believed until there was time to find out.
                (Some(now), Some(before)) if situation.fresh && passing(&now.reason) => Some(Wanted {
                    holds: before.holds,
                    reason: before.reason.to_owned(),
                    message: before.message.to_owned(),
                    ..now
                }),
                (programmed, _) => programmed,
            });
        }
        updates.extend(update(id, stored, &wanted, now));
    }
    for (id, why) in &compilation.unread {
        let Some(stored) = situation.view.get(&id.0, &id.1).filter(|stored| !stored.deleting()) else {
            continue;
        };
        let refused = |kind| Wanted {
            kind,
            holds: false,
            reason: "ReconciliationFailed".to_owned(),
            message: why.clone(),
        };
        updates.extend(update(id.clone(), stored, &[refused("NotAccepted"), refused("Accepted")], now));
    }
    updates
}

/// Whether what a reason says passes by itself, so that nobody has to do anything.
fn passing(reason: &str) -> bool {
    ["Pending", "NoProcessors"].contains(&reason)
}

fn of_compile(condition: &crate::compile::kubernetes::Condition) -> Wanted {
    let crate::compile::kubernetes::Condition { kind, status, reason, message } = condition;
    Wanted { kind, holds: *status, reason: (*reason).to_owned(), message: message.clone() }
}

fn update(id: Id, stored: &Stored, all: &[Wanted], now: &str) -> Option<Update> {
    let generation = Some(stored.generation()).filter(|generation| *generation != 0);
    let found = stored.conditions();
    let conditions = merge(found, all, generation, now)?;
    let api_version = stored.api_version().to_owned();
    let notices = all.iter().filter(|wanted| {
        let told = condition(found, wanted.kind).filter(|seen| !seen.holds);
        let news = told.is_none_or(|seen| (seen.reason, seen.message) != (&*wanted.reason, &*wanted.message));
        // Two forms of the same news.
        let twice = wanted.kind == "NotAccepted" && all.iter().any(|other| other.kind == "Accepted");
        !wanted.holds && !twice && !passing(&wanted.reason) && news
    });
    let notices = notices.map(|wanted| Notice {
        id: id.clone(),
        api_version: api_version.clone(),
        uid: stored.uid().to_owned(),
        reason: wanted.reason.clone(),
        message: wanted.message.clone(),
    });
    Some(Update {
        notices: notices.collect(),
        operation: Operation::Patch {
            body: json!({"metadata": {"resourceVersion": stored.version()}, "status": {"conditions": conditions}}),
            id,
            api_version,
            status: true,
        },
    })
}

/// Whether what an object asks for is in force, as far as it takes Gateways.
fn programmed(
    status: &ObjectStatus,
    stored: &Stored,
    before: Option<Seen<'_>>,
    (situation, index): (&Situation<'_>, &Index<'_>),
) -> Option<Wanted> {
    let not = |reason: &str, message: String| {
        Some(Wanted { kind: "Programmed", holds: false, reason: reason.to_owned(), message })
    };
    if status.gateways.is_empty() {
        let message = "no Gateway serves it".to_owned();
        return if status.kind == "AIGatewayRoute" { not("NoGateway", message) } else { None };
    }
    let mut served = Vec::new();
    for id in &status.gateways {
        let Some(progress) = situation.gateways.get(id) else {
            return not("Pending", format!("the configuration of Gateway {id} is not published yet"));
        };
        if let Some((reason, problem)) = problem(id, progress, stored, before, index) {
            return not(reason, problem);
        }
        served.push(serving(id, progress, before));
    }
    let message = served.join("; ");
    Some(Wanted { kind: "Programmed", holds: true, reason: "Programmed".to_owned(), message })
}

/// How many processors run what. Once all do, this changes no more with the generations that other objects bring, or the status of every
/// route would be written with each of them.
fn serving(id: &str, progress: &Progress, before: Option<Seen<'_>>) -> String {
    let Progress { replicas: Replicas { current, behind, .. }, generation, .. } = progress;
    let all = format!("Gateway {id}: all processors run it since generation ");
    let said = before.filter(|before| before.holds).map_or("", |before| before.message);
    match said.split("; ").find(|part| part.starts_with(&all)) {
        Some(said) => said.to_owned(),
        None if *behind == 0 => format!("{all}{generation}, {current} at that time"),
        None => {
            format!("Gateway {id}: {current} of {} processors run generation {generation}", current + behind)
        }
    }
}

fn problem(
    id: &str,
    progress: &Progress,
    stored: &Stored,
    before: Option<Seen<'_>>,
    index: &Index<'_>,
) -> Option<(&'static str, String)> {
    let Progress { label, replicas, .. } = progress;
    if let Some((kind, (namespace, name))) = concerning(&index.conflicts, label, stored) {
        let message = format!(
            "{kind} {namespace}/{name} is not ours and has the name that one of ours needs: rename or delete it"
        );
        return Some(("Conflict", message));
    }
    if let Some(((kind, (namespace, name)), why)) = concerning(&index.failures, label, stored) {
        return Some(("WriteFailed", format!("{kind} {namespace}/{name} cannot be written: {why}")));
    }
    if let Some(refusal) = replicas.refused.first() {
        return Some(("Refused", format!("Gateway {id}: a processor refuses its configuration: {refusal}")));
    }
    if replicas.current + replicas.behind == 0 {
        return Some(("NoProcessors", format!("Gateway {id}: no processor is connected to this controller")));
    }
    if let Some(problem) = of_envoy_gateway(label, stored, index) {
        return Some(problem);
    }
    // What is in force stays so while something else is on its way: that is no news of this one.
    if before.is_some_and(|before| before.holds) {
        return None;
    }
    if progress.stage != Stage::Settled && replicas.current == 0 {
        let message = format!("Gateway {id}: no processor runs generation {} yet", progress.generation);
        return Some(("Pending", message));
    }
    concerning(&index.waiting, label, stored).map(|(kind, (namespace, name))| {
        ("Pending", format!("{kind} {namespace}/{name} is yet to be written"))
    })
}

/// By Gateway (its label) and AIGatewayRoute (its uid), or without one for all routes of the Gateway.
type ByPurpose<'a, T> = HashMap<(&'a str, Option<&'a str>), T>;

/// What is known, by what it is known of, so that no route need look at what concerns the others.
struct Index<'a> {
    conflicts: ByPurpose<'a, &'a Id>,
    failures: ByPurpose<'a, (&'a Id, &'a str)>,
    waiting: ByPurpose<'a, &'a Id>,
    /// HTTPRoutes by Gateway (its label) and owner (its uid).
    routes: HashMap<(&'a str, &'a str), Vec<(&'a Name, &'a Stored)>>,
    /// EnvoyExtensionPolicies by Gateway (its label) and namespace.
    policies: HashMap<(&'a str, &'a str), Vec<(&'a Name, &'a Stored)>>,
}

impl<'a> Index<'a> {
    fn new(situation: &Situation<'a>) -> Self {
        let Situation { view, conflicts, failures, pending, .. } = *situation;
        let waiting = pending.iter().filter(|(id, _)| view.get(&id.0, &id.1).is_none());
        let generated = |kind| {
            let all = view.kind(kind).filter(|(_, stored)| stored.generated());
            all.filter_map(|(name, stored)| Some((stored.label(GATEWAY)?, name, &**stored)))
        };
        let (mut routes, mut policies) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (label, name, stored) in generated("HTTPRoute") {
            for (_, owner) in stored.owners() {
                routes.entry((label, owner)).or_default().push((name, stored));
            }
        }
        for (label, name, stored) in generated("EnvoyExtensionPolicy") {
            policies.entry((label, name.0.as_str())).or_default().push((name, stored));
        }
        Self {
            conflicts: by_purpose(conflicts.iter().map(|conflict| (&conflict.purpose, &conflict.id))),
            failures: by_purpose(failures.iter().map(|(id, (purpose, why))| (purpose, (id, why.as_str())))),
            waiting: by_purpose(waiting.map(|(id, purpose)| (purpose, id))),
            routes,
            policies,
        }
    }
}

/// The first of each.
fn by_purpose<'a, T>(all: impl Iterator<Item = (&'a Purpose, T)>) -> ByPurpose<'a, T> {
    let mut found = ByPurpose::new();
    for (Purpose { gateway, route }, known) in all {
        found.entry((gateway.as_str(), route.as_deref())).or_insert(known);
    }
    found
}

/// What concerns all routes of a Gateway, or this one.
fn concerning<'a, T: Copy>(known: &ByPurpose<'a, T>, label: &str, route: &Stored) -> Option<T> {
    known.get(&(label, None)).or_else(|| known.get(&(label, Some(route.uid())))).copied()
}

/// What Envoy Gateway says of the objects that were generated for a route.
fn of_envoy_gateway(label: &str, route: &Stored, index: &Index<'_>) -> Option<(&'static str, String)> {
    let Some(routes) = index.routes.get(&(label, route.uid())) else {
        return Some(("Pending", "its HTTPRoute is yet to be written".to_owned()));
    };
    for ((namespace, name), found) in routes {
        for kind in ["Accepted", "ResolvedRefs"] {
            if let Some(problem) = verdict("HTTPRoute", (namespace, name), found, kind) {
                return Some(problem);
            }
        }
    }
    let (home, _) = route.name();
    let mut policies = index.policies.get(&(label, home.as_str())).into_iter().flatten();
    policies.find_map(|((namespace, name), found)| {
        verdict("EnvoyExtensionPolicy", (namespace, name), found, "Accepted").map(|(reason, message)| {
            match reason {
                "Pending" => (reason, message),
                // Requests of its routes do not pass the processors, and find no route that serves them.
                _ => (
                    "Displaced",
                    format!("{message}; is there another EnvoyExtensionPolicy for the same HTTPRoutes?"),
                ),
            }
        })
    })
}

fn verdict(
    kind: &str,
    (namespace, name): (&str, &str),
    stored: &Stored,
    wanted: &str,
) -> Option<(&'static str, String)> {
    let mut parents = 0;
    for (_, conditions) in stored.parents() {
        parents += 1;
        match condition(conditions, wanted) {
            Some(seen) if !seen.holds => {
                let (reason, message) = (seen.reason, seen.message);
                let text = format!(
                    "Envoy Gateway refuses {kind} {namespace}/{name}: {wanted} is False: {reason}: {message}"
                );
                return Some(("RefusedByEnvoyGateway", text));
            }
            Some(seen) if seen.generation >= stored.generation() || seen.generation == 0 => {}
            _ => {
                let text = format!("Envoy Gateway has not taken the newest {kind} {namespace}/{name} yet");
                return Some(("Pending", text));
            }
        }
    }
    (parents == 0).then(|| {
        ("Pending", format!("Envoy Gateway has not taken {kind} {namespace}/{name} yet; does it run?"))
    })
}

/// Whether Envoy Gateway has seen the newest edition of an HTTPRoute: from all its parents a word about it.
pub(super) fn is_taken(route: &Stored) -> bool {
    let mut parents = route.parents().peekable();
    let wanted = route.value().pointer("/spec/parentRefs").and_then(Value::as_array).map_or(0, Vec::len);
    parents.peek().is_some()
        && route.parents().count() >= wanted
        && parents.all(|(_, conditions)| {
            condition(conditions, "Accepted").is_some_and(|seen| seen.generation >= route.generation())
        })
}

#[cfg(test)]
mod tests;

//! What is said in the status of users' objects: what `compile` found, and whether it is in force. No I/O.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compilation::Compilation;
use super::conditions::{Wanted, merge};
use super::object::{Stored, condition};
use super::plan::{Conflict, Id, Operation};
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
    /// What could not be written, for which Gateway (its label), and why.
    pub(super) failures: &'a BTreeMap<Id, (String, String)>,
    /// Whether this controller leads since a moment ago only, so that processors may be on their way to it.
    pub(super) fresh: bool,
    /// What is yet to be written, and for which Gateway (its label).
    pub(super) pending: &'a BTreeMap<Id, String>,
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
            let programmed = programmed(status, stored, situation);
            let before = condition(stored.conditions(), "Programmed")
                .filter(|seen| seen.generation == stored.generation());
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
fn programmed(status: &ObjectStatus, stored: &Stored, situation: &Situation<'_>) -> Option<Wanted> {
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
        if let Some((reason, problem)) = problem(id, progress, status, stored, situation) {
            return not(reason, problem);
        }
        let Progress { replicas: Replicas { current, behind, .. }, generation, .. } = progress;
        served.push(format!(
            "Gateway {id}: {current} of {} processors run generation {generation}",
            current + behind
        ));
    }
    Some(Wanted {
        kind: "Programmed",
        holds: true,
        reason: "Programmed".to_owned(),
        message: served.join("; "),
    })
}

fn problem(
    id: &str,
    progress: &Progress,
    status: &ObjectStatus,
    stored: &Stored,
    situation: &Situation<'_>,
) -> Option<(&'static str, String)> {
    let Situation { view, conflicts, failures, pending, .. } = situation;
    let Progress { label, replicas, .. } = progress;
    if let Some(Conflict { id: (kind, (namespace, name)), .. }) =
        conflicts.iter().find(|conflict| conflict.gateway == *label)
    {
        let message = format!(
            "{kind} {namespace}/{name} is not ours and has the name that one of ours needs: rename or delete it"
        );
        return Some(("Conflict", message));
    }
    if let Some(((kind, (namespace, name)), (_, why))) =
        failures.iter().find(|(_, failure)| failure.0 == *label)
    {
        return Some(("WriteFailed", format!("{kind} {namespace}/{name} cannot be written: {why}")));
    }
    if let Some(refusal) = replicas.refused.first() {
        return Some(("Refused", format!("Gateway {id}: a processor refuses its configuration: {refusal}")));
    }
    if replicas.current + replicas.behind == 0 {
        return Some(("NoProcessors", format!("Gateway {id}: no processor is connected to this controller")));
    }
    if status.kind == "AIGatewayRoute"
        && let Some(problem) = of_envoy_gateway(label, stored, view)
    {
        return Some(problem);
    }
    if progress.stage != Stage::Settled && replicas.current == 0 {
        let message = format!("Gateway {id}: no processor runs generation {} yet", progress.generation);
        return Some(("Pending", message));
    }
    let waiting = pending.iter().find(|(id, pending)| *pending == label && view.get(&id.0, &id.1).is_none());
    waiting.map(|((kind, (namespace, name)), _)| {
        ("Pending", format!("{kind} {namespace}/{name} is yet to be written"))
    })
}

/// What Envoy Gateway says of the objects that were generated for a route.
fn of_envoy_gateway(label: &str, route: &Stored, view: &View) -> Option<(&'static str, String)> {
    let generated = |kind| {
        view.kind(kind)
            .filter(|(_, stored)| stored.generated() && stored.label(super::object::GATEWAY) == Some(label))
    };
    let mut routes = 0;
    for ((namespace, name), found) in generated("HTTPRoute") {
        if !found.owners().any(|(_, uid)| uid == route.uid()) {
            continue;
        }
        routes += 1;
        for kind in ["Accepted", "ResolvedRefs"] {
            if let Some(problem) = verdict("HTTPRoute", (namespace, name), found, kind) {
                return Some(problem);
            }
        }
    }
    if routes == 0 {
        return Some(("Pending", "its HTTPRoute is yet to be written".to_owned()));
    }
    let (home, _) = route.name();
    let mut policies = generated("EnvoyExtensionPolicy").filter(|((namespace, _), _)| *namespace == home);
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

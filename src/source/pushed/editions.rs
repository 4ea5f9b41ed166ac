//! What of each Gateway is in force, and what is on its way there. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::incoming::Document;
use crate::runtime::{Problem, Runtime};
use crate::source::protocol::{MAX_GATEWAYS, Sha256};

/// What a Gateway is served by.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) generation: u64,
    pub(super) sha256: Sha256,
    pub(super) runtime: Arc<Runtime>,
    pub(super) problems: Vec<Problem>,
    pub(super) since: Instant,
    /// Whether no controller has spoken of it since the start.
    pub(super) cached: bool,
}

/// A document that is to be compiled.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) document: Document,
    /// Which time it is that something is to be compiled.
    pub(super) ticket: u64,
    pub(super) cached: bool,
}

/// What became of it: a runtime and what of it is not served, or why there is none.
pub(super) type Outcome = Result<(Runtime, Vec<Problem>), Vec<Problem>>;

/// What the controller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) gateway: String,
    pub(super) generation: u64,
    pub(super) sha256: Sha256,
    pub(super) in_force: bool,
    pub(super) problems: Vec<Problem>,
}

/// What follows from an event.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// To be compiled.
    pub(super) work: Option<Work>,
    /// Whether what is served is something else now.
    pub(super) changed: bool,
    /// To be told once that is in force.
    pub(super) said: Option<Said>,
}

/// Of all Gateways.
#[derive(Debug, Default)]
pub(super) struct Editions {
    in_force: BTreeMap<String, InForce>,
    /// What is being compiled, by its ticket.
    busy: BTreeMap<String, u64>,
    /// The latest of what came meanwhile.
    waiting: BTreeMap<String, Document>,
    refused: BTreeMap<String, (u64, Vec<Problem>)>,
    tickets: u64,
}

impl Editions {
    pub(super) fn in_force(&self) -> &BTreeMap<String, InForce> {
        &self.in_force
    }

    /// What came and could not be used, since it came.
    pub(super) fn refused(&self) -> &BTreeMap<String, (u64, Vec<Problem>)> {
        &self.refused
    }

    /// Whether everything that came has been dealt with.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }

    /// A document came. `None`: there are too many.
    pub(super) fn want(&mut self, document: Document, cached: bool) -> Option<Effects> {
        let gateway = &document.gateway;
        if self.busy.contains_key(gateway) {
            self.waiting.insert(gateway.clone(), document);
            return Some(Effects::default());
        }
        let same = self.in_force.get(gateway).is_some_and(|known| known.sha256 == document.sha256);
        if same {
            return self.unchanged(&document.gateway, document.generation, document.sha256);
        }
        if self.in_force.len() + self.busy.len() >= MAX_GATEWAYS && !self.in_force.contains_key(gateway) {
            return None;
        }
        Some(self.begin(document, cached))
    }

    fn begin(&mut self, document: Document, cached: bool) -> Effects {
        self.tickets += 1;
        self.busy.insert(document.gateway.clone(), self.tickets);
        Effects { work: Some(Work { document, ticket: self.tickets, cached }), ..Effects::default() }
    }

    /// The document in force is of another generation. `None`: it is not in force.
    pub(super) fn unchanged(&mut self, gateway: &str, generation: u64, sha256: Sha256) -> Option<Effects> {
        if self.busy.contains_key(gateway) {
            return None;
        }
        let known = self.in_force.get_mut(gateway).filter(|known| known.sha256 == sha256)?;
        (known.generation, known.cached) = (generation, false);
        self.refused.remove(gateway);
        let (gateway, problems) = (gateway.to_owned(), known.problems.clone());
        let said = Said { gateway, generation, sha256, in_force: true, problems };
        Some(Effects { said: Some(said), ..Effects::default() })
    }

    /// A Gateway is served no longer.
    pub(super) fn withdrawn(&mut self, gateway: &str) -> Effects {
        self.busy.remove(gateway);
        self.waiting.remove(gateway);
        self.refused.remove(gateway);
        Effects { changed: self.in_force.remove(gateway).is_some(), ..Effects::default() }
    }

    /// A document was compiled, or could not be.
    pub(super) fn done(&mut self, work: &Work, outcome: Outcome, now: Instant) -> Effects {
        let Document { gateway, generation, sha256, .. } = &work.document;
        if self.busy.get(gateway) != Some(&work.ticket) {
            return Effects::default();
        }
        self.busy.remove(gateway);
        let outcome = outcome.and_then(|(runtime, problems)| {
            let clash = self.clash(gateway, &runtime);
            clash.map_or(Ok((runtime, problems)), |clash| Err(vec![clash]))
        });
        let in_force = outcome.is_ok();
        let problems = match outcome {
            Ok((runtime, problems)) => {
                let new = InForce {
                    generation: *generation,
                    sha256: *sha256,
                    runtime: Arc::new(runtime),
                    problems: problems.clone(),
                    since: now,
                    cached: work.cached,
                };
                self.in_force.insert(gateway.clone(), new);
                self.refused.remove(gateway);
                problems
            }
            Err(problems) => {
                self.refused.insert(gateway.clone(), (*generation, problems.clone()));
                problems
            }
        };
        let said =
            Said { gateway: gateway.clone(), generation: *generation, sha256: *sha256, in_force, problems };
        // What came meanwhile is another document, or it would not have been sent.
        let work = self.waiting.remove(gateway).and_then(|document| self.begin(document, false).work);
        Effects { work, changed: in_force, said: Some(said) }
    }

    /// By its authority Envoy asks for a Gateway; another one's cannot be taken away.
    fn clash(&self, gateway: &str, runtime: &Runtime) -> Option<Problem> {
        let mut others = self.in_force.iter().filter(|(name, _)| *name != gateway);
        others.find_map(|(name, other)| {
            let authority =
                runtime.authorities().find(|authority| other.runtime.gateway(authority).is_some())?;
            let message = format!("the authority {authority:?} is that of the Gateway {name}");
            Some(Problem { at: "gateways".to_owned(), message })
        })
    }

    /// The controller went away: what is under way is left, because the next one says anew what is to be.
    pub(super) fn forget_what_is_on_its_way(&mut self) {
        self.busy.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(gateway: &str, generation: u64, text: &'static str) -> Document {
        let sha256 = Sha256::of(text.as_bytes());
        Document { gateway: gateway.to_owned(), generation, sha256, bytes: text.into() }
    }

    fn runtime(gateway: &str, authority: &str) -> Outcome {
        let gateway =
            json!({"authority": authority, "name": gateway, "models": {}, "hosts": [], "rules": []});
        let config = serde_json::from_value(json!({"gateways": [gateway]})).unwrap();
        Ok(Runtime::new(config))
    }

    fn problem() -> Vec<Problem> {
        vec![Problem { at: "backends[0]".to_owned(), message: "no".to_owned() }]
    }

    #[test]
    fn the_latest_comes_into_force_and_one_gateway_does_not_disturb_another() {
        let (mut editions, now) = (Editions::default(), Instant::now());
        let a = editions.want(document("d/a", 1, "a1"), false).unwrap().work.unwrap();
        let b = editions.want(document("d/b", 1, "b1"), false).unwrap().work.unwrap();
        for (generation, text) in [(2, "a2"), (3, "a3")] {
            assert!(editions.want(document("d/a", generation, text), false).unwrap().work.is_none());
        }
        let done = editions.done(&b, Err(problem()), now);
        assert!(!done.changed && !done.said.unwrap().in_force);
        let done = editions.done(&a, runtime("d/a", "a"), now);
        assert!(done.changed && done.said.unwrap().generation == 1);
        let next = done.work.unwrap();
        assert_eq!(next.document.generation, 3, "what was overtaken is not compiled");
        assert!(!editions.is_idle());
        // A bad one leaves the last good one.
        editions.done(&next, Err(problem()), now);
        assert_eq!(editions.in_force()["d/a"].generation, 1);
        assert_eq!(editions.refused()["d/a"].0, 3);
        assert!(editions.is_idle());
    }

    #[test]
    fn the_same_document_is_not_compiled_again() {
        let (mut editions, now) = (Editions::default(), Instant::now());
        let work = editions.want(document("d/a", 1, "a"), true).unwrap().work.unwrap();
        editions.done(&work, runtime("d/a", "a"), now);
        assert!(editions.in_force()["d/a"].cached);
        let effects = editions.want(document("d/a", 2, "a"), false).unwrap();
        assert!(effects.work.is_none() && effects.said.unwrap().in_force);
        let sum = |text: &str| Sha256::of(text.as_bytes());
        assert_eq!(editions.unchanged("d/a", 3, sum("a")).unwrap().said.unwrap().generation, 3);
        assert!(editions.unchanged("d/a", 4, sum("b")).is_none());
        assert!(editions.unchanged("d/b", 4, sum("a")).is_none());
        assert_eq!((editions.in_force()["d/a"].generation, editions.in_force()["d/a"].cached), (3, false));
    }

    #[test]
    fn what_was_withdrawn_or_left_behind_does_not_come_back() {
        let (mut editions, now) = (Editions::default(), Instant::now());
        let work = editions.want(document("d/a", 1, "a"), false).unwrap().work.unwrap();
        assert!(!editions.withdrawn("d/a").changed);
        assert!(!editions.done(&work, runtime("d/a", "a"), now).changed);
        let work = editions.want(document("d/a", 2, "b"), false).unwrap().work.unwrap();
        editions.forget_what_is_on_its_way();
        assert!(!editions.done(&work, runtime("d/a", "a"), now).changed);
        let work = editions.want(document("d/a", 2, "b"), false).unwrap().work.unwrap();
        assert!(editions.done(&work, runtime("d/a", "a"), now).changed);
        assert!(editions.withdrawn("d/a").changed && editions.in_force().is_empty());
    }

    #[test]
    fn nobody_takes_anothers_authority() {
        let (mut editions, now) = (Editions::default(), Instant::now());
        let work = editions.want(document("d/a", 1, "a"), false).unwrap().work.unwrap();
        editions.done(&work, runtime("d/a", "same"), now);
        let work = editions.want(document("d/b", 1, "b"), false).unwrap().work.unwrap();
        let said = editions.done(&work, runtime("d/b", "same"), now).said.unwrap();
        assert!(!said.in_force && said.problems[0].message.contains("d/a"));
    }
}

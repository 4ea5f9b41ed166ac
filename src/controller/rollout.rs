//! When processors are told of a configuration, and when Envoy Gateway is told of the routes that go with it. No I/O.
//!
//! The processor chooses a rule and names it by its key; Envoy has a route for each key. So a new key has to be at Envoy before
//! processors name it, and an old one has to stay until none does:
//!
//! 1. the HTTPRoutes get the new rules beside the old ones ([`Stage::Changing`]),
//! 2. once Envoy Gateway has taken them, or after a bound, the configuration is published,
//! 3. once the processors have taken that, or after a bound, and after a grace, the old rules are taken away ([`Stage::Settled`]).
//!
//! Where nothing is served yet it is the other way round: processors first, so that the first request that Envoy lets through finds them
//! ready ([`Stage::Starting`]). A change that needs no new key is published at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long Envoy Gateway, and then the processors, may take; after that it goes on without them.
    pub(super) wait: Duration,
    /// From Envoy Gateway's word that it has taken routes until Envoy is believed to have them.
    pub(super) settle: Duration,
    /// For how long old routes stay after the processors have taken what names new ones.
    pub(super) grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            grace: Duration::from_secs(2),
        }
    }
}

/// What is to be had of a Gateway, and what is known of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Tells configurations apart.
    pub(super) digest: Vec<u8>,
    /// The routing keys that it names.
    pub(super) keys: BTreeSet<String>,
    /// The keys that Envoy Gateway has taken.
    pub(super) taken: BTreeSet<String>,
    /// Whether there are any routes with keys, taken or not.
    pub(super) routed: bool,
}

/// Which of its routes there shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// None new: its processors know nothing of it yet.
    Starting,
    /// The new ones beside the old ones.
    Changing,
    /// The new ones.
    Settled,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Gateways whose configuration is to be published.
    pub(super) publish: Vec<String>,
    /// Gateways that are served no longer.
    pub(super) withdraw: Vec<String>,
    /// Where each Gateway is.
    pub(super) stages: BTreeMap<String, Stage>,
    /// Whether every Gateway has a configuration, if not always the newest: before that, processors that ask would take it that they
    /// are to serve less than they do.
    pub(super) complete: bool,
    /// When to look again, if nothing happens before.
    pub(super) wake: Option<Instant>,
}

#[derive(Debug, Default)]
struct Progress {
    published: Option<Published>,
    /// Since when there has been something to publish.
    pending: Option<Instant>,
    /// Since when Envoy Gateway has all keys.
    complete: Option<Instant>,
}

#[derive(Debug)]
struct Published {
    digest: Vec<u8>,
    keys: BTreeSet<String>,
    at: Instant,
    taken: Option<Instant>,
}

/// Where all Gateways are.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    gateways: BTreeMap<String, Progress>,
}

impl Rollout {
    /// Goes on. `in_force`: whether all processors of a Gateway run what was published for it last; one that is to be published by what
    /// this returns counts as published.
    pub(super) fn step(
        &mut self,
        facts: &BTreeMap<String, Facts>,
        in_force: impl Fn(&str) -> bool,
        bounds: Bounds,
        now: Instant,
    ) -> Decision {
        let mut decision = Decision { complete: true, ..Decision::default() };
        let gone: Vec<String> = self.gateways.keys().filter(|id| !facts.contains_key(*id)).cloned().collect();
        for id in gone {
            if self.gateways.remove(&id).is_some_and(|progress| progress.published.is_some()) {
                decision.withdraw.push(id);
            }
        }
        let mut wakes = Vec::new();
        for (id, facts) in facts {
            let progress = self.gateways.entry(id.clone()).or_default();
            if progress.advance(facts, bounds, now, &mut wakes) {
                decision.publish.push(id.clone());
            } else if let Some(published) = &mut progress.published {
                let late = published.at + bounds.wait;
                if published.taken.is_none() {
                    if in_force(id) || late <= now {
                        published.taken = Some(now);
                    } else {
                        wakes.push(late);
                    }
                }
            }
            decision.complete &= progress.published.is_some();
            decision.stages.insert(id.clone(), progress.stage(facts, bounds, now, &mut wakes));
        }
        decision.wake = wakes.into_iter().min();
        decision
    }
}

impl Progress {
    /// Whether what is wanted is to be published now.
    fn advance(&mut self, facts: &Facts, bounds: Bounds, now: Instant, wakes: &mut Vec<Instant>) -> bool {
        let Facts { digest, keys, taken, routed } = facts;
        if self.published.as_ref().is_some_and(|published| published.digest == *digest) {
            (self.pending, self.complete) = (None, None);
            return false;
        }
        let served = self.published.as_ref().is_some_and(|published| keys.is_subset(&published.keys));
        let pending = *self.pending.get_or_insert(now);
        self.complete = if keys.is_subset(taken) { self.complete.or(Some(now)) } else { None };
        let due = match self.complete {
            Some(complete) => (complete + bounds.settle).min(pending + bounds.wait),
            None => pending + bounds.wait,
        };
        if !served && *routed && now < due {
            wakes.push(due);
            return false;
        }
        (self.pending, self.complete) = (None, None);
        self.published = Some(Published { digest: digest.clone(), keys: keys.clone(), at: now, taken: None });
        true
    }

    fn stage(&self, facts: &Facts, bounds: Bounds, now: Instant, wakes: &mut Vec<Instant>) -> Stage {
        let current = self.published.as_ref().filter(|published| published.digest == facts.digest);
        let taken = current.and_then(|published| published.taken);
        match taken {
            _ if !facts.routed => {
                if taken.is_some() {
                    Stage::Settled
                } else {
                    Stage::Starting
                }
            }
            Some(taken) if taken + bounds.grace <= now => Stage::Settled,
            Some(taken) => {
                wakes.push(taken + bounds.grace);
                Stage::Changing
            }
            None => Stage::Changing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        wait: Duration::from_secs(5),
        settle: Duration::from_secs(1),
        grace: Duration::from_secs(2),
    };

    struct World {
        rollout: Rollout,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { rollout: Rollout::default(), start: Instant::now() }
        }

        /// A step at second `at` with one Gateway: the configuration's name, its keys, the keys that are taken.
        fn step(
            &mut self,
            at: u64,
            (digest, keys, taken): (&str, &[&str], &[&str]),
            in_force: bool,
        ) -> Decision {
            let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
            let facts = Facts {
                digest: digest.into(),
                keys: set(keys),
                taken: set(taken),
                routed: !taken.is_empty(),
            };
            let facts = BTreeMap::from([("g".to_owned(), facts)]);
            self.rollout.step(&facts, |_| in_force, BOUNDS, self.start + Duration::from_secs(at))
        }

        fn wake(&self, decision: &Decision) -> Option<u64> {
            decision.wake.map(|wake| wake.duration_since(self.start).as_secs())
        }
    }

    fn stage(decision: &Decision) -> Stage {
        decision.stages["g"]
    }

    #[test]
    fn what_is_new_goes_to_the_processors_first() {
        let mut world = World::new();
        let first = world.step(0, ("a", &["1"], &[]), false);
        assert_eq!((first.publish.len(), stage(&first), first.complete), (1, Stage::Starting, true));
        let second = world.step(1, ("a", &["1"], &[]), false);
        assert_eq!(
            (second.publish.len(), stage(&second), world.wake(&second)),
            (0, Stage::Starting, Some(5))
        );
        assert_eq!(stage(&world.step(2, ("a", &["1"], &[]), true)), Stage::Settled);
    }

    #[test]
    fn processors_that_do_not_answer_are_waited_for_no_longer_than_the_bound() {
        let mut world = World::new();
        world.step(0, ("a", &["1"], &[]), false);
        assert_eq!(stage(&world.step(4, ("a", &["1"], &[]), false)), Stage::Starting);
        assert_eq!(stage(&world.step(5, ("a", &["1"], &[]), false)), Stage::Settled);
    }

    #[test]
    fn a_changed_key_is_at_envoy_before_processors_name_it_and_the_old_one_stays() {
        let mut world = World::new();
        world.step(0, ("a", &["1"], &[]), true);
        world.step(1, ("a", &["1"], &["1"]), true);
        assert_eq!(stage(&world.step(3, ("a", &["1"], &["1"]), true)), Stage::Settled);
        let waiting = world.step(10, ("b", &["2"], &["1"]), true);
        assert_eq!(
            (waiting.publish.len(), stage(&waiting), world.wake(&waiting)),
            (0, Stage::Changing, Some(15))
        );
        let taken = world.step(11, ("b", &["2"], &["1", "2"]), true);
        assert_eq!((taken.publish.len(), world.wake(&taken)), (0, Some(12)));
        let published = world.step(12, ("b", &["2"], &["1", "2"]), false);
        assert_eq!((published.publish.len(), stage(&published)), (1, Stage::Changing));
        assert_eq!(stage(&world.step(13, ("b", &["2"], &["1", "2"]), false)), Stage::Changing);
        let in_force = world.step(14, ("b", &["2"], &["1", "2"]), true);
        assert_eq!((stage(&in_force), world.wake(&in_force)), (Stage::Changing, Some(16)));
        assert_eq!(stage(&world.step(16, ("b", &["2"], &["1", "2"]), true)), Stage::Settled);
    }

    #[test]
    fn envoy_gateway_is_waited_for_no_longer_than_the_bound_even_if_changes_never_end() {
        let mut world = World::new();
        world.step(0, ("a", &["1"], &["1"]), true);
        world.step(1, ("a", &["1"], &["1"]), true);
        for (second, digest) in [(10, "b"), (12, "c"), (14, "d")] {
            assert!(world.step(second, (digest, &["2"], &["1"]), true).publish.is_empty());
        }
        assert_eq!(world.step(15, ("e", &["2"], &["1"]), true).publish.len(), 1);
    }

    #[test]
    fn what_needs_no_new_key_is_published_at_once() {
        let mut world = World::new();
        world.step(0, ("a", &["1", "2"], &[]), true);
        assert_eq!(world.step(1, ("rotated", &["1", "2"], &["1", "2"]), true).publish.len(), 1);
        assert_eq!(world.step(2, ("fewer", &["1"], &["1", "2"]), true).publish.len(), 1);
    }

    #[test]
    fn after_a_restart_nobody_is_served_before_all_is_known() {
        let mut world = World::new();
        let first = world.step(0, ("a", &["2"], &["1"]), true);
        assert_eq!((first.publish.len(), first.complete), (0, false));
        let second = world.step(5, ("a", &["2"], &["1"]), true);
        assert_eq!((second.publish.len(), second.complete), (1, true));
    }

    #[test]
    fn what_is_gone_is_withdrawn_once() {
        let mut world = World::new();
        world.step(0, ("a", &["1"], &[]), true);
        let nothing = BTreeMap::new();
        let gone = world.rollout.step(&nothing, |_| true, BOUNDS, world.start);
        assert_eq!((gone.withdraw, gone.complete), (vec!["g".to_owned()], true));
        let again = world.rollout.step(&nothing, |_| true, BOUNDS, world.start);
        assert!(again.withdraw.is_empty());
    }
}

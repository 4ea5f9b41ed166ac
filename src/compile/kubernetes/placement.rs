//! Which rule stands where in which HTTPRoute.
//!
//! Envoy Gateway names clusters by HTTPRoute and place of the rule, and tells Envoy of clusters before it tells of routes. If a
//! rule took the place of another one, a request that was signed for the old destination could end at the new. So a rule keeps
//! its place as long as it lives, what it leaves behind is filled with a rule that takes nothing, and a place is given to
//! another rule only in a later edition, when no route leads to the old cluster any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::applied::{self, Before};
use super::objects;

/// Rules of an HTTPRoute (Gateway API: 16).
const MOST_RULES: usize = 16;
/// In the first HTTPRoute there are two more: for choices that Envoy does not know, and for requests that begin.
const MOST_IN_FIRST: usize = MOST_RULES - 2;

/// A rule that shall be there.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) key: String,
    pub(super) body: Value,
}

/// The rules of the HTTPRoutes of one route on one Gateway, the first one without what ends it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Placed {
    /// When the old ones are gone.
    pub(super) after: Vec<Vec<Value>>,
    /// While both are there. As long as [`Placed::after`] or longer.
    pub(super) between: Vec<Vec<Value>>,
}

/// Where a rule stands: the HTTPRoute, and its place in it.
type Place = (usize, usize);

/// Places rules. `before` are the HTTPRoutes of before, in order.
pub(super) fn place(wanted: Vec<Wanted>, before: &[Option<&Before>]) -> Placed {
    let mut held: BTreeMap<Place, &Value> = BTreeMap::new();
    let mut known: BTreeMap<&str, Place> = BTreeMap::new();
    for (object, rules) in before.iter().enumerate() {
        for (at, rule) in rules.iter().flat_map(|before| before.rules.iter().enumerate()) {
            if let Some(key) = applied::key(rule).filter(|key| *key != objects::NOBODY) {
                held.insert((object, at), rule);
                known.entry(key).or_insert((object, at));
            }
        }
    }
    let mut after: BTreeMap<Place, Value> = BTreeMap::new();
    let (stay, new): (Vec<Wanted>, Vec<Wanted>) = wanted
        .into_iter()
        .partition(|wanted| known.get(wanted.key.as_str()).is_some_and(|(object, at)| *at < most(*object)));
    for Wanted { key, body } in stay {
        if let Some(place) = known.get(key.as_str()) {
            after.insert(*place, body);
        }
    }
    let mut places = (0..).flat_map(|object| (0..most(object)).map(move |at| (object, at)));
    for Wanted { body, .. } in new {
        let free = |place: &Place| !held.contains_key(place) && !after.contains_key(place);
        if let Some(place) = places.find(free) {
            after.insert(place, body);
        }
    }
    let mut between = after.clone();
    for (place, rule) in held {
        if place.1 < most(place.0) {
            between.entry(place).or_insert_with(|| rule.clone());
        }
    }
    Placed { after: written(after), between: written(between) }
}

fn most(object: usize) -> usize {
    if object == 0 { MOST_IN_FIRST } else { MOST_RULES }
}

/// By HTTPRoute; gaps are filled. There is a first one even if it has no rules.
fn written(rules: BTreeMap<Place, Value>) -> Vec<Vec<Value>> {
    let mut objects: Vec<Vec<Value>> = vec![Vec::new()];
    for ((object, at), rule) in rules {
        while objects.len() <= object {
            objects.push(Vec::new());
        }
        if let Some(placed) = objects.get_mut(object) {
            while placed.len() < at {
                placed.push(objects::nothing());
            }
            placed.push(rule);
        }
    }
    for placed in &mut objects {
        name_once(placed);
    }
    objects
}

/// A name stands for one rule of an HTTPRoute: that of the newer one, which stands last.
fn name_once(rules: &mut [Value]) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for rule in rules.iter_mut().rev() {
        let Some(name) = rule["name"].as_str().map(str::to_owned) else { continue };
        if !names.insert(name)
            && let Some(rule) = rule.as_object_mut()
        {
            rule.remove("name");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wanted(key: &str) -> Wanted {
        Wanted { key: key.to_owned(), body: objects::rule("/", key, Some("named"), json!({ "for": key })) }
    }

    fn applied(rules: &[Vec<Value>]) -> Vec<Before> {
        let before = |rules: &Vec<Value>| Before { rules: rules.clone(), ..Before::default() };
        rules.iter().map(before).collect()
    }

    fn places(rules: &[Vec<Value>]) -> BTreeMap<Place, String> {
        let mut found = BTreeMap::new();
        for (object, rules) in rules.iter().enumerate() {
            for (at, rule) in rules.iter().enumerate() {
                if let Some(key) = applied::key(rule).filter(|key| *key != objects::NOBODY) {
                    found.insert((object, at), key.to_owned());
                }
            }
        }
        found
    }

    proptest! {
        /// Over any number of editions: nothing takes the place of something else without a step between, everything that
        /// is wanted is there once, and no HTTPRoute is too long.
        #[test]
        fn no_rule_takes_the_place_of_another(
            editions in prop::collection::vec(prop::collection::btree_set(0_u8..60, 0..15), 1..8),
        ) {
            let mut live: Vec<Vec<Value>> = Vec::new();
            for edition in editions {
                let keys: Vec<String> = edition.iter().map(|key| format!("k{key}")).collect();
                let before = applied(&live);
                let before: Vec<Option<&Before>> = before.iter().map(Some).collect();
                let placed = place(keys.iter().map(|key| wanted(key)).collect(), &before);
                let (old, between, after) = (places(&live), places(&placed.between), places(&placed.after));
                for (place, key) in &old {
                    prop_assert_eq!(between.get(place), Some(key), "an old rule stays where it was");
                }
                for (place, key) in &after {
                    prop_assert_eq!(between.get(place), Some(key), "a new rule stays where it was put");
                }
                let mut there: Vec<&String> = after.values().collect();
                there.sort();
                let mut all: Vec<&String> = keys.iter().collect();
                all.sort();
                prop_assert_eq!(there, all);
                for objects in [&placed.between, &placed.after] {
                    for (index, rules) in objects.iter().enumerate() {
                        prop_assert!(rules.len() <= most(index));
                        let names = rules.iter().filter(|rule| rule["name"].is_string()).count();
                        prop_assert!(names <= 1);
                    }
                }
                live = placed.after;
            }
        }
    }
}

//! Matches that no request can reach, because one that is tried before takes all of theirs.
//!
//! A match with more headers is tried first, so that one match can hide another only if both test the same headers. What
//! is reported is certain: a match is hidden only if each of its conditions implies the other's, on every host name of
//! every listener that it serves.

use std::collections::{BTreeMap, HashMap};

use crate::config::{HeaderMatch, HeaderMatchType};
use crate::diagnostics::Diagnostics;
use crate::routing::Condition;
use crate::runtime::condition;

use super::routes::{AttachedRoute, Entry};

/// How many pairs of expressions are compared in one configuration; what is left then is not reported.
const BUDGET: usize = 200;

/// With how many earlier matches that hold an expression a match is compared.
const REACH: usize = 200;

/// Index of the route, of its rule, of the rule's match that can be tried.
type Place = (usize, usize, usize);

/// What was found so far.
pub(super) struct Overlaps {
    fates: BTreeMap<Place, Fate>,
    budget: usize,
}

impl Default for Overlaps {
    fn default() -> Self {
        Self { fates: BTreeMap::new(), budget: BUDGET }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Somewhere a request may get to it.
    Reached,
    /// Nowhere so far; the first one that hides it.
    Hidden { by: Place, same: bool, more_exact: bool },
}

/// A match whose conditions are sorted by header.
struct Sorted<'a> {
    entry: &'a Entry<'a>,
    conditions: Vec<Condition>,
}

impl<'a> Sorted<'a> {
    fn new(entry: &'a Entry<'a>) -> Option<Self> {
        let mut conditions = entry.headers.iter().map(condition).collect::<Result<Vec<_>, _>>().ok()?;
        conditions.sort_by(|a, b| a.name().cmp(b.name()));
        Some(Self { entry, conditions })
    }

    /// Names and values, if no condition takes more than one value.
    fn values(&self) -> Option<Vec<(String, Vec<u8>)>> {
        let value =
            |condition: &Condition| Some((condition.name().to_owned(), condition.only_value()?.into_owned()));
        self.conditions.iter().map(value).collect()
    }

    fn names(&self) -> Vec<String> {
        self.conditions.iter().map(|condition| condition.name().to_owned()).collect()
    }

    /// Whether every request that this one matches is matched by the other, which tests the same headers.
    fn implies(&self, other: &Self, budget: &mut usize) -> bool {
        self.conditions.iter().zip(&other.conditions).all(|(own, its)| own.implies(its, budget))
    }

    fn is_same(&self, other: &Self) -> bool {
        let sorted = |entry: &Entry<'_>| {
            let test = |header: &HeaderMatch| {
                (header.name.clone(), header.kind == HeaderMatchType::Exact, header.value.clone())
            };
            let mut tests: Vec<_> = entry.headers.iter().map(test).collect();
            tests.sort();
            tests
        };
        sorted(self.entry) == sorted(other.entry)
    }
}

impl Overlaps {
    /// Takes the matches of one host name of one listener, in the order in which they are tried.
    pub(super) fn look_at(&mut self, entries: &[Entry<'_>]) {
        let mut by_values: HashMap<Vec<(String, Vec<u8>)>, usize> = HashMap::new();
        let mut by_names: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        let sorted: Vec<Option<Sorted<'_>>> = entries.iter().map(Sorted::new).collect();
        for (index, own) in sorted.iter().enumerate() {
            let Some(own) = own else { continue };
            let values = own.values();
            let equal = values.as_ref().and_then(|values| by_values.get(values).copied());
            let names = own.names();
            let mut wider = by_names.get(&names).into_iter().flatten().copied().take(REACH);
            let wider = wider.find(|other| {
                sorted[*other].as_ref().is_some_and(|other| own.implies(other, &mut self.budget))
            });
            let hider = equal.into_iter().chain(wider).min().and_then(|index| sorted[index].as_ref());
            self.note(own, hider);
            match values {
                Some(values) => _ = by_values.entry(values).or_insert(index),
                None => by_names.entry(names).or_default().push(index),
            }
        }
    }

    fn note(&mut self, own: &Sorted<'_>, hider: Option<&Sorted<'_>>) {
        let fate = hider.map_or(Fate::Reached, |hider| Fate::Hidden {
            by: hider.entry.place,
            same: own.is_same(hider),
            more_exact: hider.entry.exact > own.entry.exact,
        });
        let known = self.fates.entry(own.entry.place).or_insert(fate);
        if fate == Fate::Reached {
            *known = fate;
        }
    }

    /// Says which matches and rules are never reached, and why.
    pub(super) fn report(self, routes: &[AttachedRoute<'_>], diagnostics: &mut Diagnostics) {
        for ((route, rule, tried), fate) in &self.fates {
            let Fate::Hidden { by, same, more_exact } = *fate else { continue };
            let (Some(own), Some(other)) = (routes.get(*route), routes.get(by.0)) else { continue };
            let whole = own.resource.spec.rules.get(*rule).is_some_and(|rule| rule.matches.len() <= 1);
            let field = field(own, (*route, *rule, *tried));
            let what = if whole { "rule" } else { "match" };
            let how = if same {
                "has the same conditions".to_owned()
            } else {
                format!("matches every request that this one does ({})", conditions(other, by))
            };
            let why = reason(own, other, more_exact);
            let message = format!(
                "this {what} is never chosen: {} {how} and is tried first, because {why}",
                named(own, other, by)
            );
            let help = if same {
                "remove one of the two, or tell their requests apart by another header or by host names"
            } else if more_exact {
                "make the other narrower, or remove this one"
            } else {
                "put this one first, make the other narrower, or remove this one"
            };
            diagnostics.push(own.resource.warning(&field, message).help(help));
        }
    }
}

fn field(route: &AttachedRoute<'_>, (_, rule, tried): Place) -> String {
    let written =
        route.matches.get(rule).and_then(|matches| matches.get(tried)).and_then(|tried| tried.index);
    match written {
        Some(index) => format!("spec.rules[{rule}].matches[{index}]"),
        None => format!("spec.rules[{rule}]"),
    }
}

/// The match that wins, as seen from the one that loses.
fn named(own: &AttachedRoute<'_>, other: &AttachedRoute<'_>, place: Place) -> String {
    let field = field(other, place);
    let at = other.resource.locate(&field);
    if own.resource.order == other.resource.order {
        format!("{field} (line {})", at.line)
    } else {
        format!("{field} of {} ({at})", other.resource.id())
    }
}

fn conditions(route: &AttachedRoute<'_>, (_, rule, tried): Place) -> String {
    let tried = route.matches.get(rule).and_then(|matches| matches.get(tried));
    let condition = |header: &HeaderMatch| match header.kind {
        HeaderMatchType::Exact => format!("{} is `{}`", header.name, header.value),
        HeaderMatchType::RegularExpression => format!("{} matches `{}`", header.name, header.value),
    };
    tried.map(|tried| tried.headers.iter().map(condition).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

/// Why the one that wins is tried first.
fn reason(own: &AttachedRoute<'_>, other: &AttachedRoute<'_>, more_exact: bool) -> String {
    if more_exact {
        "it has more exact conditions".to_owned()
    } else if own.resource.order == other.resource.order {
        "it stands first in the route".to_owned()
    } else if own.age().0 != other.age().0 {
        "its route is older".to_owned()
    } else {
        format!("`{}` sorts before `{}`", other.name, own.name)
    }
}

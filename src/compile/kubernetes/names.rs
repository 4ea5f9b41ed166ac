//! Names of what is generated: the same for the same things, within the limits of Kubernetes, never twice.

use std::collections::BTreeSet;

use crate::compile::digest;

/// The longest label, and with that the longest name of a Service.
const LABEL: usize = 63;
/// The longest name of an object.
const NAME: usize = 253;

/// The name of a Gateway's Service: `aigw-<gateway>-<8 hex of SHA-256("namespace/name")>`.
pub(super) fn service(namespace: &str, gateway: &str) -> String {
    let hash = hash(&format!("{namespace}/{gateway}"));
    let room = LABEL - "aigw-".len() - 1 - hash.len();
    // Names of Gateways may have dots, those of Services not.
    let gateway: String = gateway.replace('.', "-").chars().take(room).collect();
    format!("aigw-{gateway}-{hash}")
}

/// A name that begins with `base`, and with nothing else if it is short enough.
pub(super) fn fitted(base: &str) -> String {
    if base.len() <= NAME { base.to_owned() } else { suffixed(base, base) }
}

/// `base-<8 hex of SHA-256(seed)>`.
pub(super) fn suffixed(base: &str, seed: &str) -> String {
    let hash = hash(seed);
    let base: String = base.chars().take(NAME - 1 - hash.len()).collect();
    // A label between dots ends with a letter or a digit.
    format!("{}-{hash}", base.trim_end_matches(['.', '-']))
}

fn hash(text: &str) -> String {
    digest::of(text).chars().take(8).collect()
}

/// The HTTPRoutes that there are: namespace and name.
#[derive(Default)]
pub(super) struct Taken(BTreeSet<(String, String)>);

impl Taken {
    pub(super) fn add(&mut self, namespace: &str, name: &str) {
        self.0.insert((namespace.to_owned(), name.to_owned()));
    }

    /// A name that nothing else has, the same for the same `seed` as long as nobody takes it on purpose.
    pub(super) fn find(&mut self, namespace: &str, base: &str, seed: &str) -> String {
        let mut seed = seed.to_owned();
        loop {
            let name = suffixed(base, &seed);
            if self.0.insert((namespace.to_owned(), name.clone())) {
                return name;
            }
            seed.push('+');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let long = "g".repeat(253);
        let name = service("default", &long);
        assert_eq!(name.len(), 63);
        assert_ne!(name, service("default", &format!("{}h", "g".repeat(252))));
        assert_ne!(service("a", "b.c"), service("a", "b-c"), "dots are no collision");
        assert_eq!(suffixed(&long, "x").len(), 253);
        assert_eq!(suffixed("a.", "x"), suffixed("a", "x"), "valid whatever it ends with");
        let mut taken = Taken::default();
        let first = taken.find("n", "r", "s");
        assert_ne!(first, taken.find("n", "r", "s"));
        assert_eq!(first, Taken::default().find("n", "r", "s"));
    }
}

//! What policies have in common: whom they target, and which of several counts.

use std::collections::BTreeMap;

use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::Located;
use crate::resources::gateway_api::Gateway;
use crate::resources::security_policy::TargetSelector;
use crate::resources::types::PolicyTargetReference;

use super::listeners::GATEWAY_GROUP;

/// The part of a target, by kind, namespace, name and section.
type Key = (String, String, String, Option<String>);

/// Policies by what they target. Of several with the same target the oldest counts, as Gateway API says.
#[derive(Debug)]
pub(super) struct Targets<'a, T> {
    by_target: BTreeMap<Key, &'a Located<T>>,
}

impl<'a, T> Targets<'a, T> {
    /// Sorts policies; those that another one keeps from having an effect are told.
    pub(super) fn new<'r>(
        policies: impl IntoIterator<Item = &'a Located<T>>,
        references: impl Fn(&'a Located<T>) -> Vec<(String, &'r PolicyTargetReference)>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut policies: Vec<_> = policies.into_iter().collect();
        policies.sort_by_key(|policy| {
            (
                policy.metadata.creation_timestamp.clone(),
                policy.namespace().to_owned(),
                policy.name().to_owned(),
            )
        });
        let mut by_target: BTreeMap<Key, &'a Located<T>> = BTreeMap::new();
        for policy in policies {
            for (field, target) in references(policy) {
                if target.group != GATEWAY_GROUP {
                    continue;
                }
                let key = (
                    target.kind.clone(),
                    policy.namespace().to_owned(),
                    target.name.clone(),
                    target.section_name.clone(),
                );
                if let Some(older) = by_target.get(&key) {
                    let message = format!(
                        "this has no effect on {} {}: {} targets it too and is the older one",
                        target.kind,
                        target.name,
                        older.id()
                    );
                    diagnostics.push(policy.warning(&field, message).help("make one policy of the two"));
                } else {
                    by_target.insert(key, policy);
                }
            }
        }
        Self { by_target }
    }

    /// Everything that is targeted: kind, namespace, name, section, and the policy that counts for it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &'a Located<T>)> {
        self.by_target.iter().map(|(key, policy)| (key, *policy))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    /// The policy that targets exactly this.
    pub(super) fn get(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        section: Option<&str>,
    ) -> Option<&'a Located<T>> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned(), section.map(str::to_owned));
        self.by_target.get(&key).copied()
    }
}

/// The references of a policy with the fields in which they stand.
pub(super) fn references<'a>(
    one: Option<&'a PolicyTargetReference>,
    several: &'a [PolicyTargetReference],
) -> Vec<(String, &'a PolicyTargetReference)> {
    let several = several.iter().enumerate();
    several
        .map(|(index, target)| (format!("spec.targetRefs[{index}]"), target))
        .chain(one.map(|target| ("spec.targetRef".to_owned(), target)))
        .collect()
}

/// That a policy names a listener which its Gateway does not have.
pub(super) fn unknown_listener<T>(
    policy: &Located<T>,
    gateway: &Located<Gateway>,
    section: Option<&str>,
) -> Option<Diagnostic> {
    let listeners = gateway.spec.listeners.iter().map(|listener| listener.name.as_str());
    let section = section.filter(|section| !listeners.clone().any(|name| name == *section))?;
    let message = format!("{} has no listener `{section}`, so that this has no effect", gateway.id());
    Some(policy.warning("spec", message).help(suggest(section, listeners)))
}

/// Traffic policies select by label in a cluster only.
pub(super) fn unselecting<T>(policy: &Located<T>, selectors: &[TargetSelector]) -> Option<Diagnostic> {
    let message = "`targetSelectors` has no meaning here yet and is ignored";
    (!selectors.is_empty()).then(|| policy.warning("spec.targetSelectors", message))
}

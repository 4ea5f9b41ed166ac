//! What policies are for, by name and by label.

use std::collections::BTreeMap;

use crate::resources::security_policy::TargetSelector;
use crate::resources::types::{LabelSelector, PolicyTargetReference};

/// The targets of a policy.
#[derive(Clone, Copy)]
pub(super) struct Targets<'a> {
    pub(super) namespace: &'a str,
    pub(super) one: Option<&'a PolicyTargetReference>,
    pub(super) several: &'a [PolicyTargetReference],
    pub(super) selectors: &'a [TargetSelector],
}

/// An object that a policy may be for.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl<'a> Targets<'a> {
    /// The sections of an object that the policy is for, `None` for all of it; nothing if it is for others.
    pub(super) fn sections(self, object: Object<'_>) -> Vec<Option<&'a str>> {
        if self.namespace != object.namespace {
            return Vec::new();
        }
        let named = self.one.into_iter().chain(self.several);
        let named = named
            .filter(|target| target.kind == object.kind && target.name == object.name)
            .map(|target| target.section_name.as_deref());
        named.chain(self.selects(object).then_some(None)).collect()
    }

    fn selects(self, object: Object<'_>) -> bool {
        self.selectors.iter().filter(|selector| selector.kind == object.kind).any(|selector| {
            let labels = LabelSelector {
                match_labels: selector.match_labels.clone(),
                match_expressions: selector.match_expressions.clone(),
            };
            labels.matches(object.labels)
        })
    }
}

/// Fills [`Targets`] from a policy.
macro_rules! targets {
    ($policy:expr) => {
        $crate::compile::kubernetes::targets::Targets {
            namespace: $policy.namespace(),
            one: $policy.spec.target_ref.as_ref(),
            several: &$policy.spec.target_refs,
            selectors: &$policy.spec.target_selectors,
        }
    };
}
pub(super) use targets;

//! ReferenceGrants: whether an object may refer to one in another namespace.

use crate::resources::Snapshot;

/// The referring side.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
}

/// The side that is referred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Whether `from` may refer to `to`: always within a namespace, otherwise where the other side granted it.
pub(super) fn allowed(snapshot: &Snapshot, from: From<'_>, to: To<'_>) -> bool {
    from.namespace == to.namespace
        || snapshot.reference_grants.iter().filter(|grant| grant.namespace() == to.namespace).any(|grant| {
            let comes = grant.spec.from.iter().any(|granted| {
                granted.group == from.group
                    && granted.kind == from.kind
                    && granted.namespace == from.namespace
            });
            let goes = grant.spec.to.iter().any(|granted| {
                granted.group == to.group
                    && granted.kind == to.kind
                    && granted.name.as_ref().is_none_or(|name| name == to.name)
            });
            comes && goes
        })
}

/// What to add so that `from` may refer to `to`.
pub(super) fn missing(from: From<'_>, to: To<'_>) -> String {
    format!(
        "add a ReferenceGrant to namespace `{}` from {{group: {}, kind: {}, namespace: {}}} to {{group: \"{}\", kind: {}, name: {}}}",
        to.namespace, from.group, from.kind, from.namespace, to.group, to.kind, to.name
    )
}

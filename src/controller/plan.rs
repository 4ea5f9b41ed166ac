//! What is to be written, so that the objects there are become those there shall be. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::kinds::KINDS;
use super::object::{EDITION, GATEWAY, MANAGED_BY, MANAGER, Name, Stored};
use super::store::View;
use crate::compile::kubernetes::Object;

/// A kind and the name of one of its objects.
pub(super) type Id = (String, Name);

/// An object that is wanted, ready to be applied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prepared {
    pub(super) id: Id,
    pub(super) api_version: String,
    /// Carries its edition.
    pub(super) body: Value,
    /// Tells it from what was wanted before.
    pub(super) edition: String,
    pub(super) purpose: Purpose,
}

/// What an object is generated for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Purpose {
    /// The Gateway: the value of the label.
    pub(super) gateway: String,
    /// The AIGatewayRoute, by its uid; nothing if it is for all routes of the Gateway.
    pub(super) route: Option<String>,
}

impl Prepared {
    pub(super) fn new(object: Object) -> Self {
        let Object { api_version, kind, namespace, name, body } = object;
        let metadata = &body["metadata"];
        let gateway = metadata["labels"][GATEWAY].as_str().unwrap_or_default().to_owned();
        let route = metadata["ownerReferences"][0]["uid"].as_str().map(str::to_owned);
        let (body, edition) = with_edition(body);
        let purpose = Purpose { gateway, route };
        Self { id: (kind, (namespace, name)), api_version, body, edition, purpose }
    }
}

/// Something to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    /// Server-side apply. `uid`: of the object that is there; nothing if none is.
    Apply { object: Arc<Prepared>, uid: Option<String> },
    /// Deletion of the object that has this uid.
    Delete { id: Id, api_version: String, uid: String },
    /// A merge patch of the object in this version, or of its status.
    Patch { id: Id, api_version: String, body: Value, status: bool },
}

impl Operation {
    pub(super) fn id(&self) -> &Id {
        match self {
            Self::Apply { object, .. } => &object.id,
            Self::Delete { id, .. } | Self::Patch { id, .. } => id,
        }
    }
}

/// An object of ours that cannot be written, because somebody else's has its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) id: Id,
    pub(super) purpose: Purpose,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) operations: Vec<Operation>,
    pub(super) conflicts: Vec<Conflict>,
}

/// What an object was like right after it was written: its edition, and the API server's count of what is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(BTreeMap<Id, (String, String, i64)>);

impl Written {
    /// Remembers what a write has led to.
    pub(super) fn note(&mut self, id: Id, edition: String, stored: &Stored) {
        self.0.insert(id, (edition, stored.uid().to_owned(), stored.generation()));
    }

    /// Forgets an object that was deleted.
    pub(super) fn forget(&mut self, id: &Id) {
        self.0.remove(id);
    }

    fn is(&self, id: &Id, edition: &str, stored: &Stored) -> bool {
        // A kind that does not count its generations is compared by what is in it.
        let known = self.0.get(id);
        stored.generation() != 0
            && known.is_some_and(|(known, uid, generation)| {
                known == edition && uid == stored.uid() && *generation == stored.generation()
            })
    }
}

/// Compares `wanted` with what is there.
pub(super) fn plan<'a>(
    wanted: impl IntoIterator<Item = &'a Arc<Prepared>>,
    view: &View,
    written: &Written,
) -> Plan {
    let mut plan = Plan::default();
    let mut names = BTreeSet::new();
    for object in wanted {
        let Prepared { id, body, edition, purpose, .. } = &**object;
        let stored = view.get(&id.0, &id.1);
        if stored.is_some_and(|stored| !may_write(stored, &id.0, view)) {
            plan.conflicts.push(Conflict { id: id.clone(), purpose: purpose.clone() });
        } else {
            let labels = |value: &Value| value.pointer("/metadata/labels").cloned().unwrap_or_default();
            let done = stored.is_some_and(|stored| {
                // What was written here is told by its generation, which is quicker than to compare it.
                stored.annotation(EDITION) == Some(edition)
                    && ((written.is(id, edition, stored) && is_part(&labels(body), &labels(stored.value())))
                        || is_part(body, stored.value()))
            });
            // One that is on its way out is applied once it is gone.
            if !done && !stored.is_some_and(|stored| stored.deleting()) {
                let uid = stored.map(|stored| stored.uid().to_owned());
                plan.operations.push(Operation::Apply { object: Arc::clone(object), uid });
            }
        }
        names.insert(id);
    }
    let mut gone = Vec::new();
    for (kind, name, stored) in view.iter() {
        let id = (kind.to_owned(), name.clone());
        let output = KINDS.iter().any(|known| known.kind == kind && known.is_output());
        if output && stored.generated() && !stored.deleting() && !names.contains(&id) {
            let (api_version, uid) = (stored.api_version().to_owned(), stored.uid().to_owned());
            gone.push(Operation::Delete { id, api_version, uid });
        }
    }
    // Routes go before what they refer to.
    gone.sort_by_key(|operation| operation.id().0 != "HTTPRoute");
    plan.operations.extend(gone);
    plan
}

/// Whether an object is ours: we wrote it, or the Go controller did for one of our routes. Everything else is a user's.
fn may_write(stored: &Stored, kind: &str, view: &View) -> bool {
    if stored.label(MANAGED_BY) == Some(MANAGER) {
        return true;
    }
    let (namespace, _) = stored.name();
    let owned = |uid: &str| {
        view.kind("AIGatewayRoute")
            .any(|(name, route)| name.0 == namespace && !uid.is_empty() && route.uid() == uid)
    };
    ["HTTPRoute", "HTTPRouteFilter"].contains(&kind)
        && stored.owners().any(|(owner, uid)| owner == "AIGatewayRoute" && owned(uid))
}

/// The body with the annotation that tells its edition.
fn with_edition(mut body: Value) -> (Value, String) {
    let mut edition = String::with_capacity(32);
    for byte in digest(&SHA256, body.to_string().as_bytes()).as_ref().iter().take(16) {
        // Writing to a string does not fail.
        let _ = write!(edition, "{byte:02x}");
    }
    if let Some(object) = body.as_object_mut() {
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
        if let Some(metadata) = metadata.as_object_mut() {
            let annotations =
                metadata.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(EDITION.to_owned(), edition.as_str().into());
            }
        }
    }
    (body, edition)
}

/// Whether all that `body` says is in `stored`, which may say more: the API server's defaults.
fn is_part(body: &Value, stored: &Value) -> bool {
    match (body, stored) {
        (Value::Object(body), Value::Object(stored)) => {
            body.iter().all(|(field, value)| stored.get(field).is_some_and(|stored| is_part(value, stored)))
        }
        (Value::Array(body), Value::Array(stored)) => {
            body.len() == stored.len() && body.iter().zip(stored).all(|(body, stored)| is_part(body, stored))
        }
        _ => body == stored,
    }
}

#[cfg(test)]
mod tests;

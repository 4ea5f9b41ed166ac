//! Writes: only while this controller leads, each within a bound, several at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::Value;

use super::kinds;
use super::lease::Leadership;
use super::metrics::{Metrics, Outcome};
use super::object::Stored;
use super::plan::{Id, Operation, Prepared};
use super::store::Store;
use super::watch::take;

/// Who we are in the list of who manages which field.
pub(super) const FIELD_MANAGER: &str = "ai-gateway-controller";
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many writes are under way at once.
const AT_ONCE: usize = 8;

/// What came of an operation.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) operation: Operation,
    pub(super) result: Result<Option<Stored>, Failure>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The object is another one than was believed: look again.
    Stale,
    /// Fields of it are somebody else's.
    Conflict(String),
    /// Leadership has ended.
    Deposed,
    /// Anything else.
    Failed(String),
}

/// Writes to the API server. Clones are handles.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) store: Arc<Store>,
    pub(super) leadership: Leadership,
    pub(super) metrics: Arc<Metrics>,
}

impl Writer {
    /// Does all of it, kind by kind in the order in which they come, those of one kind at once. What was not begun when leadership ended
    /// is not begun.
    pub(super) async fn write(self, operations: Vec<Operation>) -> Vec<Done> {
        let mut done = Vec::with_capacity(operations.len());
        for same in operations.chunk_by(|one, other| one.id().0 == other.id().0) {
            let writes = same.iter().cloned().map(|operation| self.operate(operation));
            done.extend(stream::iter(writes).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        }
        done
    }

    async fn operate(&self, operation: Operation) -> Done {
        let Some(left) = self.leadership.remaining() else {
            return Done { operation, result: Err(Failure::Deposed) };
        };
        let write = async {
            match &operation {
                Operation::Apply { object, uid } => self.apply(object, uid.as_deref()).await,
                Operation::Delete { id, api_version, uid } => self.delete(id, api_version, uid).await,
                Operation::Patch { id, api_version, body, status } => {
                    self.patch(id, api_version, body, *status).await
                }
            }
        };
        let result = match tokio::time::timeout(PATIENCE.min(left), write).await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(error)) => Err(failure(&operation, error)),
            Err(_) => Err(Failure::Failed("the API server does not answer".to_owned())),
        };
        self.tell(&operation, &result);
        Done { operation, result }
    }

    async fn apply(&self, object: &Prepared, uid: Option<&str>) -> kube::Result<Option<Stored>> {
        let Prepared { id, api_version, body, .. } = object;
        let mut body = body.clone();
        // Only this very object; and what nobody has made yet is not forced upon what somebody makes meanwhile.
        if let (Some(uid), Some(metadata)) = (uid, body.get_mut("metadata").and_then(Value::as_object_mut)) {
            metadata.insert("uid".to_owned(), uid.into());
        }
        let parameters = PatchParams { force: uid.is_some(), ..PatchParams::apply(FIELD_MANAGER) };
        let (api, resource) = self.api(id, api_version);
        let written = api.patch(&id.1.1, &parameters, &Patch::Apply(&body)).await?;
        Ok(self.learn(id, written, &resource))
    }

    async fn patch(
        &self,
        id: &Id,
        version: &str,
        body: &Value,
        status: bool,
    ) -> kube::Result<Option<Stored>> {
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (api, resource) = self.api(id, version);
        let patch = Patch::Merge(body);
        let written = match status {
            true => api.patch_status(&id.1.1, &parameters, &patch).await?,
            false => api.patch(&id.1.1, &parameters, &patch).await?,
        };
        // The last finalizer was taken away: the object is gone, which the watch tells.
        let gone = written.metadata.deletion_timestamp.is_some();
        Ok(if gone { None } else { self.learn(id, written, &resource) })
    }

    async fn delete(&self, id: &Id, version: &str, uid: &str) -> kube::Result<Option<Stored>> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let (api, _) = self.api(id, version);
        api.delete(&id.1.1, &parameters).await?;
        Ok(None)
    }

    fn api(&self, (kind, (namespace, _)): &Id, api_version: &str) -> (Api<DynamicObject>, ApiResource) {
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        let resource = match kinds::find(kind) {
            Some(known) => known.resource(version),
            // Nothing of another kind is ever written.
            None => kinds::resource("", version, kind, &format!("{}s", kind.to_lowercase())),
        };
        let api = match namespace.as_str() {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        (api, resource)
    }

    fn learn(&self, id: &Id, written: DynamicObject, resource: &ApiResource) -> Option<Stored> {
        let known = kinds::find(&id.0)?;
        let stored = take(written, resource, known.is_input())?;
        self.store.learn(known.kind, stored.clone());
        Some(stored)
    }

    fn tell(&self, operation: &Operation, result: &Result<Option<Stored>, Failure>) {
        let (kind, (namespace, name)) = operation.id();
        let verb = match operation {
            Operation::Apply { .. } => "apply",
            Operation::Delete { .. } => "delete",
            Operation::Patch { status: true, .. } => "status",
            Operation::Patch { status: false, .. } => "finalizers",
        };
        let outcome = match result {
            Ok(_) => Outcome::Done,
            Err(Failure::Stale | Failure::Conflict(_) | Failure::Deposed) => Outcome::Conflict,
            Err(Failure::Failed(_)) => Outcome::Failed,
        };
        self.metrics.wrote(kind, verb, outcome);
        match result {
            Ok(_) => tracing::debug!(kind, namespace, name, verb, "written"),
            Err(Failure::Failed(problem) | Failure::Conflict(problem)) => {
                tracing::warn!(kind, namespace, name, verb, problem, "could not be written");
            }
            Err(Failure::Stale | Failure::Deposed) => {
                tracing::debug!(kind, namespace, name, verb, "not written")
            }
        }
    }
}

fn failure(operation: &Operation, error: kube::Error) -> Failure {
    let kube::Error::Api(status) = &error else { return Failure::Failed(error.to_string()) };
    match (status.code, operation) {
        // What was to be deleted is gone; what was to be patched, too.
        (404, Operation::Delete { .. } | Operation::Patch { .. }) => Failure::Stale,
        (409, Operation::Apply { uid: None, .. }) => Failure::Conflict(status.message.clone()),
        (409, _) => Failure::Stale,
        _ => Failure::Failed(status.message.clone()),
    }
}

//! Watches: one task for each [`Stream`], which tells the store what the API server tells it, for as long as it lives.
//!
//! A kind that the API server does not have is no error: it is asked for again, and watched once it is there. After an error the watch
//! goes on where it was, or lists anew where the API server has forgotten that (410 Gone); meanwhile what was known stays known.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};

use super::metrics::Metrics;
use super::object::Stored;
use super::store::{Store, Stream, Told};

/// How often a kind is asked for that the API server does not have.
const ABSENT_RETRY: Duration = Duration::from_secs(3);
/// The longest pause between attempts at an API server that fails.
const MOST_BACKOFF: Duration = Duration::from_secs(5);
/// After this many answers that a kind is not there, one that was there counts as gone.
const GONE_AFTER: u32 = 3;
/// After which time without any event a watch is begun anew, in seconds.
const WATCH_SECONDS: u32 = 240;

/// What is to be watched.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) stream: Stream,
    /// The kind in each of its versions, the best first.
    pub(super) resources: Vec<ApiResource>,
    /// Nothing: in all namespaces, or the kind has none.
    pub(super) namespace: Option<String>,
    /// The name of the one object it is about.
    pub(super) object: Option<String>,
    /// Whether texts are kept.
    pub(super) input: bool,
    /// Whether it is as good as absent where the API server refuses to show it.
    pub(super) optional: bool,
}

impl Subject {
    fn api(&self, client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        match &self.object {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        }
    }
}

/// Watches until dropped. `keep` says which objects are kept at all.
pub(super) async fn follow(
    client: Client,
    subject: Subject,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    keep: impl Fn(&str) -> bool,
) {
    let mut refusals = 0_u32;
    for resource in subject.resources.iter().cycle() {
        // To ask for what there is not works, too, and fills the logs.
        if is_served(&client, resource).await == Some(false) {
            refusals += 1;
            tokio::time::sleep(absent(&subject, &store, refusals)).await;
            continue;
        }
        let mut watch = std::pin::pin!(watcher::watcher(subject.api(&client, resource), subject.config()));
        let mut backoff = Backoff::default();
        let again = loop {
            let Some(event) = watch.next().await else { break Duration::ZERO };
            match event {
                Ok(event) => {
                    // The beginning is no news: the list may fail yet.
                    if !matches!(event, Event::Init) {
                        (refusals, backoff) = (0, Backoff::default());
                    }
                    if let Some(told) = read(event, resource, subject.input, &keep) {
                        store.tell(&subject.stream, told);
                    }
                }
                Err(error) => {
                    metrics.watch_failed(subject.stream.kind);
                    match verdict(&error) {
                        Verdict::NotThere => {
                            refusals += 1;
                            break absent(&subject, &store, refusals);
                        }
                        Verdict::Refused if subject.optional => {
                            tracing::warn!(kind = subject.stream.kind, %error, "not allowed to watch; going on without");
                            store.tell(&subject.stream, Told::Absent);
                            tokio::time::sleep(ABSENT_RETRY).await;
                        }
                        Verdict::Refused => {
                            tracing::error!(
                                kind = subject.stream.kind, group = resource.group, namespace = subject.namespace, %error,
                                "not allowed to watch: grant `get`, `list` and `watch` on `{}`", resource.plural
                            );
                            tokio::time::sleep(backoff.next()).await;
                        }
                        Verdict::Broken => {
                            tracing::debug!(kind = subject.stream.kind, %error, "a watch broke off");
                            tokio::time::sleep(backoff.next()).await;
                        }
                    }
                }
            }
        };
        tokio::time::sleep(again).await;
    }
}

/// Whether the API server has a kind in a version; nothing if it does not say.
async fn is_served(client: &Client, resource: &ApiResource) -> Option<bool> {
    let ApiResource { group, version, api_version, plural, .. } = resource;
    if group.is_empty() {
        return Some(true);
    }
    let groups = client.list_api_groups().await.ok()?.groups;
    let known = groups.iter().find(|known| known.name == *group);
    if !known.is_some_and(|known| known.versions.iter().any(|known| known.version == *version)) {
        return Some(false);
    }
    let resources = client.list_api_group_resources(api_version).await.ok()?.resources;
    Some(resources.iter().any(|known| known.name == *plural))
}

/// The API server does not have the kind in this version. Returns after which time to try the next.
fn absent(subject: &Subject, store: &Store, refusals: u32) -> Duration {
    let versions = u32::try_from(subject.resources.len()).unwrap_or(1);
    if refusals < versions {
        return Duration::ZERO;
    }
    let seen = !store.is_empty(&subject.stream);
    if !seen || refusals >= GONE_AFTER * versions {
        store.tell(&subject.stream, Told::Absent);
    }
    if refusals.is_multiple_of(versions) { ABSENT_RETRY } else { Duration::ZERO }
}

/// What an error of a watch means.
enum Verdict {
    /// There is no such kind.
    NotThere,
    /// It is not for this controller to see.
    Refused,
    /// Anything else, which may pass.
    Broken,
}

fn verdict(error: &watcher::Error) -> Verdict {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return Verdict::Broken;
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => Verdict::NotThere,
        kube::Error::Api(status) if status.code == 403 => Verdict::Refused,
        _ => Verdict::Broken,
    }
}

fn read(
    event: Event<DynamicObject>,
    resource: &ApiResource,
    input: bool,
    keep: &impl Fn(&str) -> bool,
) -> Option<Told> {
    let stored = |object: DynamicObject| take(object, resource, input);
    match event {
        Event::Init => Some(Told::Init),
        Event::InitApply(object) if keep(&object.name_any()) => Some(Told::Found(stored(object)?)),
        Event::Apply(object) if keep(&object.name_any()) => Some(Told::Changed(stored(object)?)),
        Event::InitApply(_) | Event::Apply(_) => None,
        Event::InitDone => Some(Told::Ready),
        Event::Delete(object) => {
            Some(Told::Gone((object.namespace().unwrap_or_default(), object.name_any())))
        }
    }
}

/// An object as the API server sent it, for the store.
pub(super) fn take(object: DynamicObject, resource: &ApiResource, input: bool) -> Option<Stored> {
    let value = serde_json::to_value(object).ok()?;
    Some(Stored::new(value, (&resource.kind, &resource.api_version), input))
}

/// Pauses that double.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(100))
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(MOST_BACKOFF);
        pause
    }
}

//! Events: what a user has to do something about. The same news is told once; Kubernetes' recorder counts repetitions.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::status::Notice;

/// The longest text that the API server takes.
const MOST_NOTE: usize = 1024;

/// Where events go. Clones are handles.
#[derive(Clone)]
pub(super) struct Events(Recorder);

impl Events {
    /// Events of this controller, by its identity.
    pub(super) fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter {
            controller: "aigateway.envoyproxy.io/controller".to_owned(),
            instance: Some(identity),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Tells one. That it could not be told is no reason to stop.
    pub(super) async fn publish(&self, notice: Notice) {
        let Notice { id: (kind, (namespace, name)), api_version, uid, reason, message } = notice;
        let reference = ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason,
            note: Some(shortened(&message).to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let told =
            tokio::time::timeout(std::time::Duration::from_secs(5), self.0.publish(&event, &reference)).await;
        if let Ok(Err(error)) = told {
            tracing::debug!(%error, "an event could not be told");
        }
    }
}

/// The beginning, cut between characters.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MOST_NOTE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = format!("a{}", "ä".repeat(MOST_NOTE));
        assert_eq!(shortened(&long).len(), MOST_NOTE - 1);
    }
}

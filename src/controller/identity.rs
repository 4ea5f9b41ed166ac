//! The controller's own Secrets, in its namespace: made and renewed by the leader, kept over restarts, awaited by the others.
//!
//! - `ai-gateway-routing-key`: `key`, 32 random bytes, which keys the routing keys. Another one would change every route.
//! - `ai-gateway-ca`: `ca.crt` and `ca.key`, the authorities of the stream of configurations.
//! - `ai-gateway-controller-tls` and `ai-gateway-extproc-tls`: `tls.crt`, `tls.key` and `ca.crt` of its two ends.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::apply::{FIELD_MANAGER, Writer};
use super::object::{MANAGED_BY, MANAGER, Stored};
use super::store::View;
use super::watches::OWN_SECRET;
use crate::compile::RoutingSecret;
use crate::push::Grant;
use crate::push::certificates::{Authorities, Issued};

const ROUTING_KEY: &str = "ai-gateway-routing-key";
const AUTHORITIES: &str = "ai-gateway-ca";
const CONTROLLER: &str = "ai-gateway-controller-tls";
const PROCESSORS: &str = "ai-gateway-extproc-tls";
/// All Secrets of this controller.
pub(super) const NAMES: [&str; 4] = [ROUTING_KEY, AUTHORITIES, CONTROLLER, PROCESSORS];
/// How often it is looked whether one is missing or due.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What keys the routing keys; nothing while its Secret is not there, or holds something else.
pub(super) fn routing_secret(view: &View, namespace: &str) -> Option<RoutingSecret> {
    let bytes = value(find(view, namespace, ROUTING_KEY)?, "key").unwrap_or_default();
    match bytes.try_into() {
        Ok(secret) => Some(RoutingSecret(secret)),
        Err(_) => {
            tracing::error!(
                namespace,
                name = ROUTING_KEY,
                "`key` of this Secret is not 32 bytes; delete the Secret, and it is made anew"
            );
            None
        }
    }
}

/// What the controller shows to processors, and whom it lets in.
pub(super) struct Shown {
    pub(super) chain: String,
    pub(super) key: SecretString,
    pub(super) authorities: String,
}

/// What the Secrets of the stream say, and in which version; nothing while they are not there.
pub(super) fn shown(view: &View, namespace: &str) -> Option<(String, Shown)> {
    let secret = find(view, namespace, CONTROLLER)?;
    let text = |key| text(secret, key);
    let shown = Shown { chain: text("tls.crt")?, key: text("tls.key")?.into(), authorities: text("ca.crt")? };
    Some((secret.version().to_owned(), shown))
}

fn find<'a>(view: &'a View, namespace: &str, name: &str) -> Option<&'a Stored> {
    view.get(OWN_SECRET, &(namespace.to_owned(), name.to_owned())).map(|stored| &**stored)
}

fn value(secret: &Stored, key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.value().get("data")?.get(key)?.as_str()?).ok()
}

fn text(secret: &Stored, key: &str) -> Option<String> {
    String::from_utf8(value(secret, key)?).ok()
}

/// By which names processors may reach the controller: those of its Service.
fn server_names(namespace: &str) -> Vec<String> {
    const SERVICE: &str = "ai-gateway-controller";
    ["", ".svc", ".svc.cluster.local"]
        .iter()
        .map(|suffix| format!("{SERVICE}.{namespace}{suffix}"))
        .chain([SERVICE.to_owned()])
        .collect()
}

/// A Secret that is to be written.
struct Wanted {
    name: &'static str,
    kind: &'static str,
    /// Of the one that is there.
    version: Option<String>,
    data: Vec<(&'static str, Vec<u8>)>,
}

/// What is missing, or is to be made anew at `now`.
fn due(view: &View, namespace: &str, now: SystemTime) -> anyhow::Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    if find(view, namespace, ROUTING_KEY).is_none() {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
        wanted.push(Wanted {
            name: ROUTING_KEY,
            kind: "Opaque",
            version: None,
            data: vec![("key", key.to_vec())],
        });
    }
    let there = find(view, namespace, AUTHORITIES);
    let (authorities, changed) = match there {
        None => (Authorities::new(now)?, true),
        Some(secret) => {
            let certificates = text(secret, "ca.crt").unwrap_or_default();
            let keys = text(secret, "ca.key").unwrap_or_default();
            let help = || format!("Secret {namespace}/{AUTHORITIES} (delete it, and it is made anew)");
            let mut authorities = Authorities::read(&certificates, &keys.into()).with_context(help)?;
            let changed = authorities.renew(now)?;
            (authorities, changed)
        }
    };
    if changed {
        wanted.push(Wanted {
            name: AUTHORITIES,
            kind: "Opaque",
            version: there.map(|secret| secret.version().to_owned()),
            data: vec![
                ("ca.crt", authorities.certificates().into_bytes()),
                ("ca.key", authorities.keys().expose_secret().as_bytes().to_vec()),
            ],
        });
        // What they sign comes when they are known to be written: another may have been quicker.
        return Ok(wanted);
    }
    let trusted = authorities.certificates();
    let (names, grants) = (server_names(namespace), [Grant::All]);
    for name in [CONTROLLER, PROCESSORS] {
        let there = find(view, namespace, name);
        let read = |key| there.and_then(|secret| text(secret, key)).unwrap_or_default();
        let (certificate, key) = (read("tls.crt"), read("tls.key"));
        let is_due = key.is_empty()
            || match name {
                CONTROLLER => authorities.server_is_due(&certificate, &names, now),
                _ => authorities.client_is_due(&certificate, &grants, now),
            };
        let issued = match is_due {
            true if name == CONTROLLER => authorities.server(&names, now)?,
            true => authorities.client(&grants, now)?,
            false if read("ca.crt") == trusted => continue,
            false => Issued { certificate, key: key.into() },
        };
        wanted.push(Wanted {
            name,
            kind: "kubernetes.io/tls",
            version: there.map(|secret| secret.version().to_owned()),
            data: vec![
                ("tls.crt", issued.certificate.into_bytes()),
                ("tls.key", issued.key.expose_secret().as_bytes().to_vec()),
                ("ca.crt", trusted.clone().into_bytes()),
            ],
        });
    }
    Ok(wanted)
}

/// Makes what is missing or due, while this controller leads, until `stop`.
pub(super) async fn keep(writer: Writer, namespace: String, stop: CancellationToken) {
    let mut leadership = writer.leadership.clone();
    let mut changes = writer.store.changes();
    loop {
        let mut pause = INTERVAL;
        // Before all of them have been looked for, none is missing for certain; creating fails if it is there all the same.
        if leadership.remaining().is_some()
            && !writer.store.unready().iter().any(|stream| stream.kind == OWN_SECRET)
        {
            let made = async {
                for wanted in due(&writer.store.view_quietly(), &namespace, SystemTime::now())? {
                    write(&writer, &namespace, wanted).await?;
                }
                anyhow::Ok(())
            };
            if let Err(error) = made.await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    namespace,
                    "a Secret of the controller cannot be made"
                );
                pause = Duration::from_secs(5);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = leadership.changed() => {}
            // A write of ours is among them; others change often, and matter little.
            _ = changes.changed() => tokio::time::sleep(Duration::from_millis(200)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(writer: &Writer, namespace: &str, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { name, kind, version, data } = wanted;
    let Some(left) = writer.leadership.remaining() else { return Ok(()) };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())])),
            resource_version: version.clone(),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(writer.client.clone(), namespace);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let write = async {
        match version {
            Some(_) => secrets.replace(name, &parameters, &secret).await,
            None => secrets.create(&parameters, &secret).await,
        }
    };
    match tokio::time::timeout(PATIENCE.min(left), write).await.context("the API server does not answer")? {
        Ok(_) => tracing::info!(namespace, name, "wrote a Secret"),
        // Somebody was quicker: what they wrote will be seen.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).with_context(|| format!("Secret {namespace}/{name}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::store::{Store, Stream, Told};
    use crate::push::certificates::LEAF;

    /// A namespace in which everything that is due gets written.
    struct World {
        store: Store,
        versions: u32,
    }

    impl World {
        /// Writes what is due; the names of it.
        fn settle(&mut self, now: SystemTime) -> Vec<&'static str> {
            let due = due(&self.store.view(), "s", now).unwrap();
            due.into_iter()
                .map(|wanted| {
                    self.versions += 1;
                    let encoded =
                        wanted.data.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value)));
                    let data: BTreeMap<String, String> = encoded.collect();
                    let value = json!({"metadata": {"name": wanted.name, "namespace": "s",
                        "resourceVersion": self.versions.to_string()}, "data": data});
                    let stream = Stream { kind: OWN_SECRET, narrowed: None };
                    self.store.tell(&stream, Told::Changed(Stored::new(value, ("Secret", "v1"), false)));
                    wanted.name
                })
                .collect()
        }
    }

    #[test]
    fn secrets_are_made_once_and_renewed_in_time() {
        let mut world = World { store: Store::default(), versions: 0 };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(world.settle(now), [ROUTING_KEY, AUTHORITIES]);
        let key = routing_secret(&world.store.view(), "s").unwrap().0;
        assert_eq!(world.settle(now), [CONTROLLER, PROCESSORS]);
        assert!(world.settle(now).is_empty());
        let (version, _) = shown(&world.store.view(), "s").unwrap();
        let soon = now + LEAF / 2;
        assert!(world.settle(soon).is_empty());
        assert_eq!(world.settle(now + LEAF * 3 / 4), [CONTROLLER, PROCESSORS]);
        assert_ne!(shown(&world.store.view(), "s").unwrap().0, version);
        assert_eq!(routing_secret(&world.store.view(), "s").unwrap().0, key);
    }

    #[test]
    fn a_new_authority_is_told_to_both_ends_before_it_signs() {
        let mut world = World { store: Store::default(), versions: 0 };
        let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        while !world.settle(now).is_empty() {}
        let trusted =
            |world: &World| shown(&world.store.view(), "s").unwrap().1.authorities.matches("BEGIN").count();
        assert_eq!(trusted(&world), 1);
        while world.settle(now) != [AUTHORITIES] {
            now += LEAF / 4;
        }
        assert_eq!(world.settle(now), [CONTROLLER, PROCESSORS]);
        assert_eq!(trusted(&world), 2);
    }

    #[test]
    fn what_is_no_routing_key_is_not_taken_for_one() {
        let store = Store::default();
        let value = json!({"metadata": {"name": ROUTING_KEY, "namespace": "s"}, "data": {"key": STANDARD.encode("short")}});
        let stream = Stream { kind: OWN_SECRET, narrowed: None };
        store.tell(&stream, Told::Changed(Stored::new(value, ("Secret", "v1"), false)));
        assert!(routing_secret(&store.view(), "s").is_none());
        // It is not written over either.
        let due = due(&store.view(), "s", SystemTime::now()).unwrap();
        assert!(due.iter().all(|wanted| wanted.name != ROUTING_KEY));
    }
}

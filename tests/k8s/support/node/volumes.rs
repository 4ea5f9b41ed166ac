//! Volumes of pods, as folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// Files of a volume, by path, with their modes where they have their own.
type Files = BTreeMap<String, (Vec<u8>, Option<i32>)>;

/// The volumes of one pod.
pub(super) struct Volumes {
    client: Client,
    folder: PathBuf,
    written: Mutex<BTreeMap<String, Files>>,
    tokens: Mutex<BTreeMap<String, String>>,
}

impl Volumes {
    pub(super) fn new(client: Client, folder: PathBuf) -> Self {
        Self { client, folder, written: Mutex::default(), tokens: Mutex::default() }
    }

    /// Where a volume is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes what has changed; an error says what is not there yet.
    pub(super) async fn write(&self, pod: &Pod) -> Result<(), String> {
        let spec = pod.spec.as_ref().ok_or("no spec")?;
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        for volume in spec.volumes.iter().flatten() {
            let path = self.path(&volume.name);
            if volume.empty_dir.is_some() {
                if !path.exists() {
                    fs::create_dir_all(&path).expect("a folder");
                    fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("its mode");
                }
                continue;
            }
            let (files, mode) =
                self.content(pod, volume).await.map_err(|e| format!("volume {}: {e}", volume.name))?;
            let mut written = self.written.lock().expect("written");
            if written.get(&volume.name) != Some(&files) {
                replace(&path, &files, mode, group);
                written.insert(volume.name.clone(), files);
            }
        }
        Ok(())
    }

    async fn content(&self, pod: &Pod, volume: &Volume) -> Result<(Files, i32), String> {
        const DEFAULT: i32 = 0o644;
        if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let files = self.secret(pod, name, secret.optional, secret.items.as_deref()).await?;
            return Ok((files, secret.default_mode.unwrap_or(DEFAULT)));
        }
        if let Some(map) = &volume.config_map {
            let files = self.config_map(pod, &map.name, map.optional, map.items.as_deref()).await?;
            return Ok((files, map.default_mode.unwrap_or(DEFAULT)));
        }
        if let Some(projected) = &volume.projected {
            let mut files = Files::new();
            for source in projected.sources.iter().flatten() {
                files.extend(self.projection(pod, &volume.name, source).await?);
            }
            return Ok((files, projected.default_mode.unwrap_or(DEFAULT)));
        }
        if let Some(downward) = &volume.downward_api {
            return Ok((
                downward_files(pod, downward.items.as_deref())?,
                downward.default_mode.unwrap_or(DEFAULT),
            ));
        }
        Err("this kind of volume is not known to the stand-in".to_owned())
    }

    async fn projection(&self, pod: &Pod, volume: &str, source: &VolumeProjection) -> Result<Files, String> {
        if let Some(token) = &source.service_account_token {
            let text = self.token(pod, volume, token).await?;
            return Ok(Files::from([(token.path.clone(), (text.into_bytes(), None))]));
        }
        if let Some(secret) = &source.secret {
            return self.secret(pod, &secret.name, secret.optional, secret.items.as_deref()).await;
        }
        if let Some(map) = &source.config_map {
            return self.config_map(pod, &map.name, map.optional, map.items.as_deref()).await;
        }
        downward_files(pod, source.downward_api.as_ref().and_then(|downward| downward.items.as_deref()))
    }

    async fn token(
        &self,
        pod: &Pod,
        volume: &str,
        token: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let key = format!("{volume}/{}", token.path);
        if let Some(known) = self.tokens.lock().expect("tokens").get(&key) {
            return Ok(known.clone());
        }
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let bound = BoundObjectReference {
            kind: Some("Pod".to_owned()),
            api_version: Some("v1".to_owned()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
        };
        let spec = TokenRequestSpec {
            audiences: token.audience.iter().cloned().collect(),
            bound_object_ref: Some(bound),
            expiration_seconds: token.expiration_seconds,
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let made = made.map_err(|error| format!("a token of {account}: {error}"))?;
        let text = made.status.ok_or("a token request without an answer")?.token;
        self.tokens.lock().expect("tokens").insert(key, text.clone());
        Ok(text)
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<Files, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let found = secrets.get_opt(name).await.map_err(|error| error.to_string())?;
        let Some(secret) = found else { return absent(&format!("Secret {name}"), optional) };
        let data = secret.data.unwrap_or_default();
        select(data.into_iter().map(|(key, value)| (key, value.0)).collect(), items)
    }

    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<Files, String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let found = maps.get_opt(name).await.map_err(|error| error.to_string())?;
        let Some(map) = found else { return absent(&format!("ConfigMap {name}"), optional) };
        let data = map.data.unwrap_or_default();
        select(data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect(), items)
    }
}

fn absent(what: &str, optional: Option<bool>) -> Result<Files, String> {
    if optional == Some(true) { Ok(Files::new()) } else { Err(format!("there is no {what}")) }
}

fn select(mut data: BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>) -> Result<Files, String> {
    let Some(items) = items else {
        return Ok(data.into_iter().map(|(key, value)| (key, (value, None))).collect());
    };
    let pick = |item: &KeyToPath| {
        let value = data.remove(&item.key).ok_or_else(|| format!("there is no key {}", item.key))?;
        Ok((item.path.clone(), (value, item.mode)))
    };
    items.iter().map(pick).collect()
}

fn downward_files(pod: &Pod, items: Option<&[DownwardAPIVolumeFile]>) -> Result<Files, String> {
    let file = |item: &DownwardAPIVolumeFile| {
        let path = item.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
        let value =
            super::pod::field(pod, path).ok_or_else(|| format!("{path} is not known to the stand-in"))?;
        Ok((item.path.clone(), (value.into_bytes(), item.mode)))
    };
    items.unwrap_or_default().iter().map(file).collect()
}

/// As a kubelet does it: all files change at once, by the change of one link.
fn replace(path: &Path, files: &Files, mode: i32, group: Option<i64>) {
    let number = (0..).find(|number| !path.join(format!("..{number}")).exists()).expect("a free name");
    let content = path.join(format!("..{number}"));
    fs::create_dir_all(&content).expect("a folder");
    for (name, (bytes, own_mode)) in files {
        let file = content.join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, bytes).expect("write");
        let mut mode = u32::try_from(own_mode.unwrap_or(mode)).expect("a mode");
        if let Some(group) = group {
            mode |= (mode & 0o400) >> 3;
            chown(&file, None, Some(u32::try_from(group).expect("a group"))).expect("its group");
        }
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("its mode");
        let first = name.split('/').next().unwrap_or(name);
        // There from the time before, as a rule.
        _ = symlink(Path::new("..data").join(first), path.join(first));
    }
    let next = path.join("..next");
    symlink(format!("..{number}"), &next).expect("a link");
    fs::rename(next, path.join("..data")).expect("the change");
}

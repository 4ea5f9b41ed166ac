//! Kinds of Kubernetes' own groups. Of Deployment and Service only what recognises a stand-in model server is read.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::types::{IntOrString, LabelSelector};

/// Named values that are never printed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-accepted" = ["immutable"]))]
pub struct Secret {
    /// What the values are for, such as `Opaque`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The values in base64 (checked when read); [`Secret::value`] decodes.
    #[schemars(schema_with = "base64_map")]
    pub data: BTreeMap<String, SecretString>,
    /// The values as they are; they win over `data`.
    #[schemars(with = "BTreeMap<String, String>")]
    pub string_data: BTreeMap<String, SecretString>,
}

fn base64_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": { "type": "string", "format": "byte" },
    })
}

impl Secret {
    /// The value of a key, decoded; `None` if there is none or it is not UTF-8 text.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<SecretString> {
        self.string_data.get(key).cloned().or_else(|| {
            let bytes = decode_base64(self.data.get(key)?.expose_secret())?;
            String::from_utf8(bytes).ok().map(SecretString::from)
        })
    }

    /// The names of all values.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let more = self.string_data.keys().filter(|key| !self.data.contains_key(*key));
        self.data.keys().chain(more).map(String::as_str)
    }
}

/// Decodes base64 as Kubernetes does: standard alphabet, padded, line breaks allowed.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).ok()
}

/// Named values.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-accepted" = ["binaryData", "immutable"]))]
pub struct ConfigMap {
    /// The values. They often are scripts, so only variables that are set are substituted in them.
    #[schemars(extend("x-lenient-variables" = true))]
    pub data: BTreeMap<String, String>,
}

/// A name for a set of pods.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Service {
    /// What is asked for.
    pub spec: ServiceSpec,
}

/// See [`Service`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-open" = true))]
pub struct ServiceSpec {
    /// Labels of the pods.
    pub selector: BTreeMap<String, String>,
    /// The ports it offers.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-open" = true))]
pub struct ServicePort {
    /// Its name.
    pub name: Option<String>,
    /// The port clients use.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The pod's port, by number or name; absent means the same.
    pub target_port: Option<IntOrString>,
}

/// A set of equal pods.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Deployment {
    /// What is asked for.
    pub spec: DeploymentSpec,
}

/// See [`Deployment`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-open" = true))]
pub struct DeploymentSpec {
    /// Which pods are its own.
    #[serde(default)]
    pub selector: LabelSelector,
    /// What its pods look like.
    pub template: PodTemplate,
}

/// What a pod looks like.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PodTemplate {
    /// Its labels.
    pub metadata: PodMetadata,
    /// Its containers.
    pub spec: PodSpec,
}

/// A pod's labels.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-open" = true))]
pub struct PodMetadata {
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// A pod's containers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-open" = true))]
pub struct PodSpec {
    /// The containers.
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-open" = true))]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it runs.
    #[serde(default)]
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default)]
    #[schemars(extend("x-literal" = true))]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default)]
    #[schemars(extend("x-literal" = true))]
    pub args: Vec<String>,
    /// The ports it listens on.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<EnvVar>,
}

/// A port of a container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-open" = true))]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: u16,
}

/// An environment variable of a container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-accepted" = ["valueFrom"]))]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, where it is written down.
    #[serde(default)]
    #[schemars(extend("x-literal" = true))]
    pub value: String,
}

impl Deployment {
    /// Whether a Service with this selector sends its requests to this Deployment's pods.
    #[must_use]
    pub fn selected_by(&self, service: &ServiceSpec) -> bool {
        let labels = &self.spec.template.metadata.labels;
        !service.selector.is_empty()
            && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

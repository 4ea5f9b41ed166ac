//! How a container is run (`KubernetesContainerSpec` of Envoy Gateway, and what it takes from Kubernetes).

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::resources::types::QUANTITY;

/// How the processor's container is run.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [["!(has(self.image) && has(self.imageRepository))",
    "there can be one of `image` and `imageRepository`"]]))]
pub struct KubernetesContainerSpec {
    /// Its environment.
    pub env: Option<Vec<EnvVar>>,
    /// What it runs: a repository and a tag.
    #[schemars(extend("x-field-rules" = [[
        "self.matches('^[a-zA-Z0-9._-]+(:[0-9]+)?(/[a-zA-Z0-9._/-]+)?(:[a-zA-Z0-9._-]+)?(@sha256:[a-z0-9]+)?$')",
        "write an image such as `registry.example.com/name:tag`"
    ]]))]
    pub image: Option<String>,
    /// What it runs: a repository; the tag stays.
    #[schemars(extend("x-field-rules" = [[
        "self.matches('^[a-zA-Z0-9._-]+(:[0-9]+)?[a-zA-Z0-9._/-]+$')",
        "write a repository without a tag, such as `registry.example.com/name`"
    ]]))]
    pub image_repository: Option<String>,
    /// What it may use.
    pub resources: Option<ResourceRequirements>,
    /// What it may do.
    pub security_context: Option<SecurityContext>,
    /// Its volumes.
    pub volume_mounts: Option<Vec<VolumeMount>>,
}

/// A variable of the environment.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[schemars(extend("x-literal" = true))]
    pub value: Option<String>,
    /// Where its value stands.
    pub value_from: Option<EnvVarSource>,
}

/// Where a variable's value stands.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    /// In a ConfigMap.
    pub config_map_key_ref: Option<KeySelector>,
    /// In the pod itself.
    pub field_ref: Option<FieldSelector>,
    /// In a file.
    pub file_key_ref: Option<FileKeySelector>,
    /// In what the container may use.
    pub resource_field_ref: Option<ResourceFieldSelector>,
    /// In a Secret.
    pub secret_key_ref: Option<KeySelector>,
}

/// A key of a ConfigMap or Secret.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct KeySelector {
    /// The key.
    pub key: String,
    /// The object.
    #[serde(default)]
    pub name: String,
    /// Whether it may be missing.
    pub optional: Option<bool>,
}

/// A field of the pod.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct FieldSelector {
    /// The version of the API that names it.
    pub api_version: Option<String>,
    /// Its path.
    pub field_path: String,
}

/// A key of a file.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct FileKeySelector {
    /// The key.
    pub key: String,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
    /// The file.
    pub path: String,
    /// The volume it is in.
    pub volume_name: String,
}

/// Something that a container may use.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ResourceFieldSelector {
    /// The container.
    pub container_name: Option<String>,
    /// The unit it is counted in.
    pub divisor: Option<AnyQuantity>,
    /// What.
    pub resource: String,
}

/// A quantity of anything.
pub struct AnyQuantity;

impl JsonSchema for AnyQuantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyQuantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "pattern": QUANTITY })
    }
}

/// What a container may use.
#[derive(JsonSchema)]
pub struct ResourceRequirements {
    /// What it claims of the pod's.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Option<Vec<ResourceClaim>>,
    /// At most.
    pub limits: Option<BTreeMap<String, AnyQuantity>>,
    /// At least.
    pub requests: Option<BTreeMap<String, AnyQuantity>>,
}

/// Something that a container claims of the pod's.
#[derive(JsonSchema)]
pub struct ResourceClaim {
    /// Its name.
    pub name: String,
    /// The part of it.
    pub request: Option<String>,
}

/// What a container may do.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// Get more rights than it began with.
    pub allow_privilege_escalation: Option<bool>,
    /// By AppArmor.
    pub app_armor_profile: Option<Profile>,
    /// By capabilities.
    pub capabilities: Option<Capabilities>,
    /// All that the node may.
    pub privileged: Option<bool>,
    /// What it sees of processes.
    pub proc_mount: Option<String>,
    /// Not write to its root file system.
    pub read_only_root_filesystem: Option<bool>,
    /// The group it runs as.
    pub run_as_group: Option<i64>,
    /// Not run as root.
    pub run_as_non_root: Option<bool>,
    /// The user it runs as.
    pub run_as_user: Option<i64>,
    /// By SELinux.
    pub se_linux_options: Option<SELinuxOptions>,
    /// By system calls.
    pub seccomp_profile: Option<Profile>,
    /// On Windows.
    pub windows_options: Option<WindowsOptions>,
}

/// A profile of AppArmor or seccomp.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The node's profile, for type `Localhost`.
    pub localhost_profile: Option<String>,
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Capabilities of Linux.
#[derive(JsonSchema)]
pub struct Capabilities {
    /// Given.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub add: Option<Vec<String>>,
    /// Taken.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub drop: Option<Vec<String>>,
}

/// Labels of SELinux.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are SELinux's")]
pub struct SELinuxOptions {
    pub level: Option<String>,
    pub role: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub user: Option<String>,
}

/// What a container may do on Windows.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowsOptions {
    /// A group managed service account, in full.
    pub gmsa_credential_spec: Option<String>,
    /// Its name.
    pub gmsa_credential_spec_name: Option<String>,
    /// All that the node may.
    pub host_process: Option<bool>,
    /// The user it runs as.
    pub run_as_user_name: Option<String>,
}

/// Where a volume is seen.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Under this path.
    pub mount_path: String,
    /// Whether mounts below it are shared.
    pub mount_propagation: Option<String>,
    /// The volume.
    pub name: String,
    /// Not to be written.
    pub read_only: Option<bool>,
    /// Neither mounts below it.
    pub recursive_read_only: Option<String>,
    /// A part of the volume.
    pub sub_path: Option<String>,
    /// The same, with variables.
    #[schemars(extend("x-literal" = true))]
    pub sub_path_expr: Option<String>,
}

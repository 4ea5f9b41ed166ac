//! The kinds of this gateway as CustomResourceDefinitions: what an API server needs to know to check, default and keep them.
//!
//! They come from the types, and say what upstream's own say: an object is good under both or under neither, and means the
//! same. Where an API server is told otherwise than a reader of files, the field carries `x-crd`.

mod structural;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::structural::structural;
use super::{
    aigateway::{AIGatewayRoute, AIServiceBackend, GatewayConfig},
    mcp::MCPRoute,
    quota_policy::QuotaPolicy,
    security::BackendSecurityPolicy,
    security_policy::TenantPolicy,
    status::{KeyedStatus, Status},
    usage_limit::UsageLimit,
};

/// Upstream's group.
const GROUP: &str = "aigateway.envoyproxy.io";
/// The group of kinds that upstream does not have.
const OWN_GROUP: &str = "ext.aigateway.envoyproxy.io";

/// Which versions of a kind there are. The last one is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// `v1alpha1`.
    Alpha,
    /// `v1beta1`, and `v1alpha1` for old clients.
    Beta,
}

/// A kind.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    /// Whether it is attached to other objects (GEP-713).
    policy: bool,
    versions: Versions,
    schema: Value,
    status: Value,
}

/// All definitions, each a CustomResourceDefinition of `apiextensions.k8s.io/v1`, in a stable order.
#[must_use]
pub fn all() -> Vec<Value> {
    let upstream = |kind, plural, schema| Kind {
        group: GROUP,
        kind,
        plural,
        short_names: &[],
        policy: false,
        versions: Versions::Beta,
        schema,
        status: schema_of::<Status>(),
    };
    let own = |kind, plural, short_names, schema| Kind {
        group: OWN_GROUP,
        policy: true,
        versions: Versions::Alpha,
        short_names,
        status: schema_of::<KeyedStatus>(),
        ..upstream(kind, plural, schema)
    };
    let kinds = [
        upstream("AIGatewayRoute", "aigatewayroutes", schema_of::<AIGatewayRoute>()),
        upstream("AIServiceBackend", "aiservicebackends", schema_of::<AIServiceBackend>()),
        Kind {
            policy: true,
            ..upstream(
                "BackendSecurityPolicy",
                "backendsecuritypolicies",
                schema_of::<BackendSecurityPolicy>(),
            )
        },
        Kind {
            short_names: &["gwconfig"],
            status: schema_of::<KeyedStatus>(),
            ..upstream("GatewayConfig", "gatewayconfigs", schema_of::<GatewayConfig>())
        },
        upstream("MCPRoute", "mcproutes", schema_of::<MCPRoute>()),
        Kind {
            policy: true,
            versions: Versions::Alpha,
            ..upstream("QuotaPolicy", "quotapolicies", schema_of::<QuotaPolicy>())
        },
        own("TenantPolicy", "tenantpolicies", &[], schema_of::<TenantPolicy>()),
        own("UsageLimit", "usagelimits", &[], schema_of::<UsageLimit>()),
    ];
    kinds.iter().map(Kind::definition).collect()
}

/// The name of the file that a definition of [`all`] is kept in.
#[must_use]
pub fn file_name(definition: &Value) -> String {
    let part = |path| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{}_{}.yaml", part("/spec/group"), part("/spec/names/plural"))
}

/// A definition as a YAML document, which begins with `---`.
pub fn yaml(definition: &Value) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    Ok(format!("---\n{}", serde_saphyr::to_string_with_options(definition, options)?))
}

/// What is derived from a type.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

impl Kind {
    fn definition(&self) -> Value {
        let Self { group, kind, plural, short_names, policy, .. } = self;
        let mut metadata = json!({ "name": format!("{plural}.{group}") });
        if *policy {
            metadata["labels"] = json!({ "gateway.networking.k8s.io/policy": "direct" });
        }
        let mut names = json!({
            "kind": kind,
            "listKind": format!("{kind}List"),
            "plural": plural,
            "singular": kind.to_ascii_lowercase(),
        });
        if !short_names.is_empty() {
            names["shortNames"] = json!(short_names);
        }
        let versions = match self.versions {
            Versions::Alpha => vec![self.version("v1alpha1", false)],
            Versions::Beta => vec![self.version("v1alpha1", true), self.version("v1beta1", false)],
        };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": { "group": group, "names": names, "scope": "Namespaced", "versions": versions },
        })
    }

    fn version(&self, name: &str, deprecated: bool) -> Value {
        let mut version = json!({
            "name": name,
            "served": true,
            "storage": !deprecated,
            "additionalPrinterColumns": [
                { "name": "Status", "type": "string", "jsonPath": ".status.conditions[-1:].type" }
            ],
            "subresources": { "status": {} },
        });
        if deprecated {
            version["deprecated"] = json!(true);
            let group = self.group;
            let warning = format!("{group}/{name} is deprecated; write apiVersion {group}/v1beta1");
            version["deprecationWarning"] = json!(warning);
        }
        version["schema"] = json!({ "openAPIV3Schema": self.schema(deprecated) });
        version
    }

    fn schema(&self, deprecated: bool) -> Value {
        let mut schema = structural(&self.schema);
        if deprecated && self.kind == "BackendSecurityPolicy" {
            before_beta(&mut schema);
        }
        let mut properties = Map::new();
        for (name, description) in [
            ("apiVersion", "The group and version of this form of the object."),
            ("kind", "The kind of the object."),
        ] {
            properties.insert(name.to_owned(), json!({ "description": description, "type": "string" }));
        }
        properties.insert("metadata".to_owned(), json!({ "type": "object" }));
        properties.insert("spec".to_owned(), schema["properties"]["spec"].take());
        let mut status = structural(&self.status);
        status["description"] = json!("What has become of it.");
        properties.insert("status".to_owned(), status);
        let mut whole = json!({ "description": schema["description"].take(), "type": "object", "properties": properties });
        // Upstream's kinds can be written without a spec, and there may be such objects.
        if self.group == OWN_GROUP {
            whole["required"] = json!(["spec"]);
        }
        whole
    }
}

/// What a BackendSecurityPolicy was in `v1alpha1`.
fn before_beta(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"];
    spec["maxProperties"] = json!(3);
    if let Some(fields) = spec["properties"].as_object_mut() {
        fields.remove("credentialOverride");
    }
    spec["properties"]["gcpCredentials"]["x-kubernetes-validations"] = json!([{
        "rule": "has(self.credentialsFile) != has(self.workloadIdentityFederationConfig)",
        "message": "there must be exactly one of `credentialsFile` and `workloadIdentityFederationConfig`",
    }]);
}

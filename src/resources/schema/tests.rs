//! The shapes against the CRDs that users have installed.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::resources::{
    aigateway::{AIGatewayRoute, AIServiceBackend},
    quota_policy::QuotaPolicy,
    security::BackendSecurityPolicy,
};

/// Differences that are meant: `path: what`.
const MEANT: &[&str] = &[
    // An object without it says nothing.
    "spec: required true",
    // Left unsigned here, so that a CRD's `int32` maximum is spelt out.
    "spec.rules[].backendRefs[].priority: max",
    "spec.rules[].backendRefs[].weight: max",
    // Of earlier versions; ignored with a warning.
    "spec.timeouts: unknown to the CRD",
    // There cannot be less than nothing, nor more than can be counted exactly.
    "spec.serviceQuota.quota.limit: min",
    "spec.serviceQuota.quota.limit: max",
    "spec.perModelQuotas[].quota.defaultBucket.limit: min",
    "spec.perModelQuotas[].quota.defaultBucket.limit: max",
    "spec.perModelQuotas[].quota.bucketRules[].quota.limit: min",
    "spec.perModelQuotas[].quota.bucketRules[].quota.limit: max",
    // Ours.
    "spec.admission: unknown to the CRD",
    // It has a default.
    "spec.perModelQuotas[].quota.bucketRules[].clientSelectors[].path.value: required false",
];

fn crd(file: &str) -> Option<Value> {
    let root = std::env::var_os("AIGW_SHARED_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(root.join("crds").join(file)) else {
        assert!(std::env::var_os("CI").is_none(), "{} is not there", root.join("crds").join(file).display());
        println!("SKIPPED: {} is not there", root.join("crds").join(file).display());
        return None;
    };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 200 },
    };
    let crd: Value = serde_saphyr::from_str_with_options(&text, options).unwrap();
    let versions = crd["spec"]["versions"].as_array().unwrap();
    let version =
        versions.iter().find(|version| version["name"] == "v1beta1").or_else(|| versions.first()).unwrap();
    Some(version["schema"]["openAPIV3Schema"].clone())
}

fn compare(shape: &Shape, crd: &Value, path: &str, differences: &mut Vec<String>) {
    let mut differ = |what: String| differences.push(format!("{path}: {what}"));
    match shape {
        Shape::Any => {}
        Shape::Object(object) => compare_object(object, crd, path, differences),
        Shape::Map { value } => {
            compare(value, &crd["additionalProperties"], &format!("{path}{{}}"), differences)
        }
        Shape::List { item, min, max } => {
            if crd["type"] != "array" || crd["minItems"].as_u64().unwrap_or(0) != *min as u64 {
                differ("list".to_owned());
            }
            if crd["maxItems"].as_u64().unwrap_or(usize::MAX as u64) != *max as u64 {
                differ("max items".to_owned());
            }
            compare(item, &crd["items"], &format!("{path}[]"), differences);
        }
        Shape::Text(text) => {
            // Some are written twice over.
            let enumeration = crd.get("enum").unwrap_or_else(|| &crd["allOf"][0]["enum"]);
            let allowed: Vec<_> =
                enumeration.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let (mut ours, mut theirs) = (text.allowed.clone(), allowed);
            ours.sort();
            theirs.sort_unstable();
            if crd["type"] != "string" || ours != theirs {
                differ(format!("values {ours:?}, not {theirs:?}"));
            }
            if crd["minLength"].as_u64().unwrap_or(0) != text.min as u64 {
                differ("min length".to_owned());
            }
            if crd["maxLength"].as_u64() != text.max.map(|max| max as u64) {
                differ("max length".to_owned());
            }
            let pattern = text.pattern.as_ref().map(Regex::as_str);
            if crd["pattern"].as_str() != pattern {
                differ(format!("pattern {pattern:?}, not {}", crd["pattern"]));
            }
        }
        Shape::Integer { min, max } => {
            if crd["type"] != "integer" || crd["minimum"].as_i64().map(i128::from) != *min {
                differ("min".to_owned());
            }
            if crd["maximum"].as_i64().map(i128::from) != *max {
                differ("max".to_owned());
            }
        }
        Shape::Bool => {
            if crd["type"] != "boolean" {
                differ("type".to_owned());
            }
        }
        Shape::IntOrString { .. } => {
            if crd["x-kubernetes-int-or-string"] != true {
                differ("type".to_owned());
            }
        }
    }
}

fn compare_object(object: &Object, crd: &Value, path: &str, differences: &mut Vec<String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let Some(properties) = crd["properties"].as_object() else {
        return differences.push(format!("{path}: no object"));
    };
    let required = names(crd, "required");
    for name in properties.keys() {
        let known = object.fields.contains_key(name)
            || object.not_served.contains(name)
            || object.accepted.contains(name);
        if !known && !["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()) {
            differences.push(format!("{}: unknown to us", join(name)));
        }
    }
    for name in object.not_served.iter().chain(&object.accepted) {
        if !properties.contains_key(name) {
            differences.push(format!("{}: unknown to the CRD", join(name)));
        }
    }
    for (name, field) in &object.fields {
        let Some(theirs) = properties.get(name) else {
            differences.push(format!("{}: unknown to the CRD", join(name)));
            continue;
        };
        if field.required != required.contains(name) {
            differences.push(format!("{}: required {}", join(name), field.required));
        }
        compare(&field.shape, theirs, &join(name), differences);
    }
}

#[test]
fn shapes_agree_with_the_crds() {
    let kinds = [
        ("aigateway.envoyproxy.io_aigatewayroutes.yaml", Shape::of::<AIGatewayRoute>()),
        ("aigateway.envoyproxy.io_aiservicebackends.yaml", Shape::of::<AIServiceBackend>()),
        ("aigateway.envoyproxy.io_backendsecuritypolicies.yaml", Shape::of::<BackendSecurityPolicy>()),
        ("aigateway.envoyproxy.io_quotapolicies.yaml", Shape::of::<QuotaPolicy>()),
    ];
    for (file, shape) in kinds {
        let Some(crd) = crd(file) else { continue };
        let mut differences = Vec::new();
        compare(&shape, &crd, "", &mut differences);
        differences.retain(|difference| !MEANT.contains(&difference.as_str()));
        assert!(differences.is_empty(), "{file}:\n{}", differences.join("\n"));
    }
}

#[test]
fn shape_is_that_of_the_type() {
    #[derive(JsonSchema)]
    #[schemars(extend("x-not-served" = ["later"], "x-accepted" = ["never"]))]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Sample {
        #[schemars(length(min = 1, max = 3), regex(pattern = "^a"))]
        text: String,
        #[schemars(range(min = 2, max = 9))]
        number: Option<u16>,
        #[schemars(length(max = 4))]
        list: Vec<bool>,
        #[schemars(extend("x-literal" = true))]
        map: BTreeMap<String, String>,
        choice: Option<crate::config::CostType>,
    }
    let Shape::Object(object) = Shape::of::<Sample>() else { panic!("no object") };
    assert_eq!(
        (&object.not_served[..], &object.accepted[..]),
        (&["later".to_owned()][..], &["never".to_owned()][..])
    );
    let field = |name: &str| &object.fields[name];
    assert!(field("text").required && !field("number").required);
    let Shape::Text(text) = &field("text").shape else { panic!("no text") };
    assert_eq!((text.min, text.max, text.pattern.as_ref().unwrap().as_str()), (1, Some(3), "^a"));
    assert!(matches!(field("number").shape, Shape::Integer { min: Some(2), max: Some(9) }));
    assert!(
        matches!(&field("list").shape, Shape::List { item, min: 0, max: 4 } if matches!(**item, Shape::Bool))
    );
    assert!(matches!(field("map").shape, Shape::Map { .. }));
    assert_eq!(field("map").variables, Variables::Literal);
    let Shape::Text(choice) = &field("choice").shape else { panic!("no choice") };
    assert!(choice.allowed.contains(&"CEL".to_owned()) && choice.allowed.len() == 7);
}

//! From the schema that schemars derives to the structural schema that an API server takes.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

/// The formats that an API server checks; all others are this project's own.
const FORMATS: &[&str] = &["byte", "date-time", "int32", "int64", "uri"];

/// Keywords that mean the same on both sides.
const COMMON: &[&str] =
    &["minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"];

/// The structural form of a schema in which everything is inlined.
pub(super) fn structural(schema: &Value) -> Value {
    let schema = &whole(schema);
    let mut out = Map::new();
    let (constants, meanings) = constants(schema);
    let description = [schema["description"].as_str().map(plain), meanings].into_iter().flatten();
    let description = description.collect::<Vec<_>>().join("\n");
    if !description.is_empty() {
        out.insert("description".to_owned(), description.into());
    }
    if schema["x-kubernetes-int-or-string"] == true {
        out.insert("anyOf".to_owned(), json!([{ "type": "integer" }, { "type": "string" }]));
    } else if !constants.is_empty() {
        // A number can be one of several too.
        let kind = if constants.iter().all(Value::is_string) { "string" } else { "integer" };
        out.insert("type".to_owned(), kind.into());
        out.insert("enum".to_owned(), constants.into());
    } else if let Some(kind) = type_of(schema) {
        out.insert("type".to_owned(), kind.into());
    }
    numbers(schema, &mut out);
    if let Some(default) = schema.get("default").filter(|default| !is_empty(default)) {
        out.insert("default".to_owned(), default.clone());
    }
    for key in COMMON {
        if let Some(value) = schema.get(*key) {
            out.insert((*key).to_owned(), value.clone());
        }
    }
    if let Some(items) = schema.get("items") {
        out.insert("items".to_owned(), structural(items));
    }
    match (schema["properties"].as_object(), schema.get("additionalProperties")) {
        (Some(fields), _) => {
            let fields: Map<_, _> =
                fields.iter().map(|(name, field)| (name.clone(), structural(field))).collect();
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            if !required.is_empty() {
                out.insert("required".to_owned(), required.into());
            }
            out.insert("properties".to_owned(), fields.into());
        }
        (None, Some(value)) if value.is_object() => {
            out.insert("additionalProperties".to_owned(), structural(value));
        }
        _ => {}
    }
    extensions(schema, &mut out);
    Value::Object(out)
}

/// The schema without its alternative of being null: whoever may leave a field out does so. What the field says of itself comes
/// before what its type says.
fn whole(schema: &Value) -> Value {
    let options = schema["anyOf"].as_array().into_iter().flatten();
    let Some(only) = options.into_iter().find(|option| option["type"] != "null") else {
        return schema.clone();
    };
    let mut merged = only.as_object().cloned().unwrap_or_default();
    for (key, value) in schema.as_object().into_iter().flatten().filter(|(key, _)| *key != "anyOf") {
        merged.insert(key.clone(), value.clone());
    }
    Value::Object(merged)
}

fn type_of(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The values of an enumeration, and what they mean where that is said.
fn constants(schema: &Value) -> (Vec<Value>, Option<String>) {
    let listed = schema["enum"].as_array().into_iter().flatten().filter(|value| !value.is_null()).cloned();
    let mut values: Vec<_> = schema.get("const").cloned().into_iter().chain(listed).collect();
    let mut meanings = Vec::new();
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        let (variants, _) = constants(variant);
        if let (Some(name), Some(meaning)) =
            (variants.first().and_then(Value::as_str), variant["description"].as_str())
        {
            meanings.push(format!("- {name}: {}", plain(meaning)));
        }
        values.extend(variants);
    }
    (values, (!meanings.is_empty()).then(|| meanings.join("\n")))
}

/// Formats and ranges. Kubernetes knows signed integers of two sizes.
fn numbers(schema: &Value, out: &mut Map<String, Value>) {
    let mut maximum = schema.get("maximum").cloned();
    let most = maximum.as_ref().and_then(Value::as_u64);
    let format = match schema["format"].as_str() {
        Some("uint8" | "uint16" | "int8" | "int16") => Some("int32"),
        Some("uint32") if most.is_some_and(|most| most <= i32::MAX as u64) => {
            maximum = maximum.filter(|_| most != Some(i32::MAX as u64));
            Some("int32")
        }
        Some("uint32") => {
            maximum.get_or_insert_with(|| u32::MAX.into());
            Some("int64")
        }
        Some("uint64" | "uint") => Some("int64"),
        other => other.filter(|format| FORMATS.contains(format)),
    };
    for (key, value) in [
        ("format", format.map(Value::from)),
        ("minimum", schema.get("minimum").cloned()),
        ("maximum", maximum),
    ] {
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    }
}

/// What only Kubernetes knows, and what a field has otherwise there (`x-crd`, merged over the rest; null takes away).
fn extensions(schema: &Value, out: &mut Map<String, Value>) {
    for (key, value) in schema.as_object().into_iter().flatten() {
        if key.starts_with("x-kubernetes-") {
            out.insert(key.clone(), value.clone());
        }
    }
    let rules = ["x-field-rules", "x-rules"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    let rules: Vec<_> = rules.map(|rule| json!({ "rule": rule[0], "message": rule[1] })).collect();
    if !rules.is_empty() {
        out.insert("x-kubernetes-validations".to_owned(), rules.into());
    }
    for (key, value) in schema["x-crd"].as_object().into_iter().flatten() {
        match value {
            Value::Null => out.remove(key),
            value => out.insert(key.clone(), value.clone()),
        };
    }
}

/// Lists and mappings are empty if they are absent; to write that down would only fill objects.
fn is_empty(default: &Value) -> bool {
    match default {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Documentation without the links of rustdoc, on one line each paragraph.
fn plain(text: &str) -> String {
    static LINK: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\[`(?:[A-Za-z0-9_]+::)*([A-Za-z0-9_]+)`\]").ok());
    let text =
        text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n");
    match &*LINK {
        Some(link) => link.replace_all(&text, "`$1`").into_owned(),
        None => text,
    }
}

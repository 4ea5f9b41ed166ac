//! What is done to an object before it is looked at: unknown fields go, defaults come, nulls go.

use serde_json::Value;

use super::{Refusal, below};

fn is_true(schema: &Value, name: &str) -> bool {
    schema[name] == true
}

/// Whether fields that the schema does not name are kept.
fn keeps_unknown(schema: &Value) -> bool {
    is_true(schema, "x-kubernetes-preserve-unknown-fields") || is_true(schema, "additionalProperties")
}

/// Drops what the schema does not know, and names it.
pub(super) fn prune(value: &mut Value, schema: &Value, path: &str, unknown: &mut Vec<Refusal>) {
    match value {
        Value::Object(object) => {
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            object.retain(|name, value| {
                let path = below(path, name);
                if let Some(property) = properties.and_then(|properties| properties.get(name)).or(others) {
                    prune(value, property, &path, unknown);
                    return true;
                }
                if keeps_unknown(schema) {
                    return true;
                }
                unknown.push(Refusal { message: format!("unknown field `{name}`"), field: path });
                false
            });
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, &schema["items"], &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Whether nothing stands where something has to.
fn is_hole(value: &Value, schema: &Value) -> bool {
    value.is_null() && !is_true(schema, "nullable")
}

/// Fills in defaults, outermost first, so that those of defaults come too.
pub(super) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            let properties = schema["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                let Some(default) = property.get("default") else { continue };
                if object.get(name).is_none_or(|value| is_hole(value, property)) {
                    object.insert(name.clone(), default.clone());
                }
            }
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            for (name, value) in object.iter_mut() {
                let named = properties.and_then(|properties| properties.get(name));
                let Some(property) = named.or(others) else { continue };
                if named.is_none()
                    && is_hole(value, property)
                    && let Some(default) = property.get("default")
                {
                    *value = default.clone();
                }
                default(value, property);
            }
        }
        Value::Array(items) => {
            let schema = &schema["items"];
            for item in items {
                if is_hole(item, schema)
                    && let Some(default) = schema.get("default")
                {
                    *item = default.clone();
                }
                default(item, schema);
            }
        }
        _ => {}
    }
}

/// Takes members away that are null and may not be.
pub(super) fn drop_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            let properties = schema["properties"].as_object();
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            object.retain(|name, value| {
                let property = properties.and_then(|properties| properties.get(name)).or(others);
                let Some(property) = property else { return true };
                if is_hole(value, property) {
                    return false;
                }
                drop_nulls(value, property);
                true
            });
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(item, &schema["items"])),
        _ => {}
    }
}

//! Types, limits, patterns and lists: what OpenAPI's part of a schema demands.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;

use super::{MAX_REFUSALS, Refusal, below, formats};

/// Whole numbers beyond these are not exact in JSON.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// Names what `schema` forbids about `value`.
pub(super) fn check(value: &Value, schema: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    if refusals.len() > MAX_REFUSALS || (value.is_null() && schema["nullable"] == true) {
        return;
    }
    let mut refuse = |message: String| refusals.push(Refusal { field: path.to_owned(), message });
    if schema["x-kubernetes-int-or-string"] == true {
        if !is_integer(value) && !value.is_string() {
            refuse(format!("must be an integer or a string, not {}", kind(value)));
        }
    } else if let Some(wanted) = schema["type"].as_str()
        && !is(value, wanted)
    {
        return refuse(format!("must be of type {wanted}, not {}", kind(value)));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.iter().any(|allowed| same(allowed, value))
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        refuse(format!("{} is not supported; write one of {}", shown(value), allowed.join(", ")));
    }
    match value {
        Value::String(text) => string(text, schema, &mut refuse),
        Value::Number(_) => number(value, schema, &mut refuse),
        Value::Array(items) => array(items, schema, path, refusals),
        Value::Object(_) => object(value, schema, path, refusals),
        Value::Null | Value::Bool(_) => {}
    }
    junctors(value, schema, path, refusals);
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) if is_integer(value) => "an integer",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        _ => true,
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64()
        || (!value.is_u64()
            && value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= EXACT))
}

/// Numbers are equal by value.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// A value in a message, not too long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok())
}

fn string(text: &str, schema: &Value, refuse: &mut impl FnMut(String)) {
    let length = text.chars().count();
    if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
        refuse(format!("has {length} characters; at most {most} are allowed"));
    }
    if let Some(least) = limit(schema, "minLength").filter(|least| length < *least) {
        refuse(match least {
            1 => "must not be empty".to_owned(),
            _ => format!("has {length} characters; at least {least} are needed"),
        });
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !matches(pattern, text)
    {
        refuse(format!("{} does not match `{pattern}`", shown(&text.into())));
    }
    if let Some(format) = schema["format"].as_str()
        && !formats::is(format, text)
    {
        refuse(format!("{} is no {format}", shown(&text.into())));
    }
}

/// Whether the pattern is found in the text. A pattern that is none fits nothing.
fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let pattern = known.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn number(value: &Value, schema: &Value, refuse: &mut impl FnMut(String)) {
    let Some(number) = value.as_f64() else { return };
    let small = value.as_i64().is_none_or(|number| i32::try_from(number).is_ok());
    if schema["format"] == "int32" && schema["type"] == "integer" && !small {
        refuse(format!("{value} does not fit 32 bits"));
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if number > most || (exclusive && number >= most) {
            refuse(format!("{value} is too much; at most {most} is allowed"));
        }
    }
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if number < least || (exclusive && number <= least) {
            refuse(format!("{value} is too little; at least {least} is needed"));
        }
    }
    if let Some(unit) = schema["multipleOf"].as_f64()
        && (number / unit).fract() != 0.0
    {
        refuse(format!("{value} is no multiple of {unit}"));
    }
}

fn array(items: &[Value], schema: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    let mut refuse = |message| refusals.push(Refusal { field: path.to_owned(), message });
    if let Some(most) = limit(schema, "maxItems").filter(|most| items.len() > *most) {
        refuse(format!("has {} items; at most {most} are allowed", items.len()));
    }
    if let Some(least) = limit(schema, "minItems").filter(|least| items.len() < *least) {
        refuse(format!("has {} items; at least {least} are needed", items.len()));
    }
    for (index, item) in items.iter().enumerate() {
        check(item, &schema["items"], &format!("{path}[{index}]"), refusals);
    }
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let identity = |item: &Value| -> Option<String> {
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Some(item.to_string()),
            Some("map") => Some(
                keys.iter().map(|key| format!("{key}={},", item.get(key).unwrap_or(&Value::Null))).collect(),
            ),
            _ if schema["uniqueItems"] == true => Some(item.to_string()),
            _ => None,
        }
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(identity) = identity(item) else { break };
        if let Some(first) = seen.get(&identity) {
            let message = format!("is a duplicate of item {first}");
            refusals.push(Refusal { field: format!("{path}[{index}]"), message });
        } else {
            seen.insert(identity, index);
        }
    }
}

fn object(value: &Value, schema: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            refusals.push(Refusal { field: below(path, name), message: "is required".to_owned() });
        }
    }
    if let Some(most) = limit(schema, "maxProperties").filter(|most| object.len() > *most) {
        let message = format!("has {} members; at most {most} are allowed", object.len());
        refusals.push(Refusal { field: path.to_owned(), message });
    }
    if let Some(least) = limit(schema, "minProperties").filter(|least| object.len() < *least) {
        let message = format!("has {} members; at least {least} are needed", object.len());
        refusals.push(Refusal { field: path.to_owned(), message });
    }
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    for (name, value) in object {
        if let Some(property) = schema["properties"].get(name).or(others) {
            check(value, property, &below(path, name), refusals);
        }
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn junctors(value: &Value, schema: &Value, path: &str, refusals: &mut Vec<Refusal>) {
    let fits = |schema: &Value| {
        let mut refusals = Vec::new();
        check(value, schema, path, &mut refusals);
        refusals.is_empty()
    };
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(value, part, path, refusals);
    }
    let mut refuse = |message: &str| {
        refusals.push(Refusal { field: path.to_owned(), message: message.to_owned() });
    };
    if schema["anyOf"].as_array().is_some_and(|any| !any.iter().any(fits)) {
        refuse("fits none of the forms that it may have (anyOf)");
    }
    if schema["oneOf"].as_array().is_some_and(|one| one.iter().filter(|form| fits(form)).count() != 1) {
        refuse("must fit exactly one of the forms that it may have (oneOf)");
    }
    if schema.get("not").is_some_and(fits) {
        refuse("has a form that it must not have (not)");
    }
}

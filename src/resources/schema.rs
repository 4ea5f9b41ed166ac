//! The shape a document must have, derived once from the JSON schema of a Rust type.
//!
//! Extensions that the types carry: `x-not-served` (fields that are known but have no meaning yet: warned about),
//! `x-accepted` (fields passed over in silence), `x-open` (unknown fields are passed over), `x-literal` (no variables are
//! substituted), `x-lenient-variables` (variables that are not set stay as written).

use std::collections::BTreeMap;

use regex::Regex;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

#[cfg(test)]
mod tests;

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    Any,
    Bool,
    Integer { min: Option<i128>, max: Option<i128> },
    IntOrString { format: Format },
    Text(Text),
    List { item: Box<Self>, min: usize, max: usize },
    Map { value: Box<Self> },
    Object(Object),
}

/// What a string must look like.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The only values there are; empty means that any is.
    pub(super) allowed: Vec<String>,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    pub(super) pattern: Option<Regex>,
    pub(super) format: Format,
}

/// Formats that are checked beyond the pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Plain,
    Base64,
    DateTime,
    Decimal,
    Duration,
    Ip,
    Quantity,
}

/// Which fields there are.
#[derive(Debug, Default)]
pub(super) struct Object {
    pub(super) fields: BTreeMap<String, Field>,
    pub(super) not_served: Vec<String>,
    pub(super) accepted: Vec<String>,
    pub(super) open: bool,
}

/// A field of an object.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) required: bool,
    pub(super) variables: Variables,
}

/// How `${NAME}` is treated in a field's strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variables {
    /// Substituted; one that is not set is an error.
    Strict,
    /// Substituted where set.
    Lenient,
    /// Left alone.
    Literal,
}

impl Shape {
    /// The shape of what deserialises into `T`.
    pub(super) fn of<T: JsonSchema>() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<T>();
        Self::from_schema(schema.as_value())
    }

    fn from_schema(schema: &Value) -> Self {
        if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
            return Self::IntOrString { format: format(schema) };
        }
        if let Some(Value::Array(options)) = schema.get("anyOf")
            && let Some(only) = options.iter().find(|option| option["type"] != "null")
        {
            return Self::from_schema(only);
        }
        let constants = constants(schema);
        if !constants.is_empty() {
            return Self::Text(Text { allowed: constants, ..Text::default() });
        }
        match type_of(schema) {
            "boolean" => Self::Bool,
            "integer" => Self::Integer { min: integer(schema, "minimum"), max: integer(schema, "maximum") },
            "string" => Self::Text(Text {
                allowed: Vec::new(),
                min: size(schema, "minLength").unwrap_or(0),
                max: size(schema, "maxLength"),
                pattern: schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
                format: format(schema),
            }),
            "array" => Self::List {
                item: Box::new(Self::from_schema(&schema["items"])),
                min: size(schema, "minItems").unwrap_or(0),
                max: size(schema, "maxItems").unwrap_or(usize::MAX),
            },
            "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
                (None, Some(value)) => Self::Map { value: Box::new(Self::from_schema(value)) },
                _ => Self::Object(Object::from_schema(schema)),
            },
            _ => Self::Any,
        }
    }
}

impl Object {
    fn from_schema(schema: &Value) -> Self {
        let required = names(schema, "required");
        let fields = schema["properties"].as_object().into_iter().flatten().map(|(name, field)| {
            let variables = match (&field["x-literal"], &field["x-lenient-variables"]) {
                (Value::Bool(true), _) => Variables::Literal,
                (_, Value::Bool(true)) => Variables::Lenient,
                _ => Variables::Strict,
            };
            let field =
                Field { shape: Shape::from_schema(field), required: required.contains(name), variables };
            (name.clone(), field)
        });
        Self {
            fields: fields.collect(),
            not_served: names(schema, "x-not-served"),
            accepted: names(schema, "x-accepted"),
            open: schema["x-open"] == Value::Bool(true),
        }
    }
}

/// The values of an enumeration: either `enum`, or one `const` (or `enum`) per documented variant.
fn constants(schema: &Value) -> Vec<String> {
    let alone = schema["const"].as_str().map(str::to_owned);
    let variants = schema["oneOf"].as_array().into_iter().flatten().flat_map(constants);
    alone.into_iter().chain(names(schema, "enum")).chain(variants).collect()
}

fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(name) => name,
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("")
        }
        _ => "",
    }
}

fn names(schema: &Value, key: &str) -> Vec<String> {
    schema[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn integer(schema: &Value, key: &str) -> Option<i128> {
    schema[key].as_i64().map(i128::from).or_else(|| schema[key].as_u64().map(i128::from))
}

fn size(schema: &Value, key: &str) -> Option<usize> {
    schema[key].as_u64().and_then(|number| usize::try_from(number).ok())
}

fn format(schema: &Value) -> Format {
    match schema["format"].as_str() {
        Some("byte") => Format::Base64,
        Some("date-time") => Format::DateTime,
        Some("decimal") => Format::Decimal,
        Some("gateway-duration") => Format::Duration,
        Some("ip") => Format::Ip,
        Some("quantity") => Format::Quantity,
        _ => Format::Plain,
    }
}

//! L0. API bodies: typed where the gateway acts on them, opaque elsewhere.

pub mod anthropic;
pub mod cohere;
pub mod converse;
pub mod openai;
mod text;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use self::text::Text;

/// The dialects a backend can speak. Names are those of `AIServiceBackend.spec.schema.name`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ApiSchemaName {
    #[default]
    OpenAI,
    Cohere,
    AWSBedrock,
    AzureOpenAI,
    GCPVertexAI,
    GCPAnthropic,
    Anthropic,
    AWSAnthropic,
}

impl ApiSchemaName {
    /// Every dialect.
    pub const ALL: [Self; 8] = [
        Self::OpenAI,
        Self::Cohere,
        Self::AWSBedrock,
        Self::AzureOpenAI,
        Self::GCPVertexAI,
        Self::GCPAnthropic,
        Self::Anthropic,
        Self::AWSAnthropic,
    ];
}

/// Writes whole numbers without a fraction, whatever they came as.
fn number<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    /// Beyond it not every whole number is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match *number {
        Some(number) if number.fract() == 0.0 && number.abs() < EXACT => {
            // Exact: it is whole and in range.
            serializer.serialize_i64(number as i64)
        }
        number => number.serialize(serializer),
    }
}

/// Puts the members of a JSON schema into alphabetical order, except for the properties of an object: models fill those in in
/// the order in which they are declared.
pub fn sort_schema(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.sort_keys();
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                        named.values_mut().for_each(sort_schema);
                    }
                    // These hold values, not schemas.
                    ("default" | "const" | "enum" | "example" | "examples", _) => {}
                    (_, member) => sort_schema(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_schema),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_sorted_but_for_what_the_model_fills_in() {
        let mut schema = serde_json::json!({
            "type": "object",
            "required": ["why", "answer"],
            "properties": {"why": {"type": "string", "description": "d"}, "answer": {"default": {"b": 1, "a": 2}}},
            "anyOf": [{"type": "object", "items": {}}],
        });
        sort_schema(&mut schema);
        let expected = r#"{"anyOf":[{"items":{},"type":"object"}],"properties":{"why":{"description":"d","type":"string"},"answer":{"default":{"b":1,"a":2}}},"required":["why","answer"],"type":"object"}"#;
        assert_eq!(schema.to_string(), expected);
    }
}

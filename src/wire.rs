//! L0. API bodies: typed where the gateway acts on them, opaque elsewhere.

pub mod anthropic;
pub mod cohere;
pub mod openai;

use serde::{Deserialize, Serialize};

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

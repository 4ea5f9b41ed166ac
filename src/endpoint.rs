//! L1. The endpoints clients can call: which path is which, and what is read from its requests and answers.

use crate::wire::ApiSchemaName;

/// One endpoint of the client-facing API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `GET /v1/models`, answered by the gateway itself.
    Models,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 4] = [Self::ChatCompletions, Self::Completions, Self::Embeddings, Self::Models];

    /// The endpoint of a request path without its query, by exact comparison.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The path clients use.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Models => "/v1/models",
        }
    }

    /// The path below an OpenAI-schema backend's prefix.
    pub fn openai_suffix(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Models => "/models",
        }
    }

    /// The value of `gen_ai.operation.name`.
    pub fn operation(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat",
            Self::Completions => "completion",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
        }
    }

    /// Whether a request can ask for a streamed answer.
    pub fn streams(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether requests to this endpoint can be sent to a backend of that dialect.
    pub fn supports(self, schema: ApiSchemaName) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Embeddings => schema == ApiSchemaName::OpenAI,
            Self::Models => false,
        }
    }
}

/// The value of `gen_ai.provider.name` for a backend of that dialect.
pub fn provider_name(schema: ApiSchemaName) -> &'static str {
    match schema {
        ApiSchemaName::OpenAI => "openai",
        ApiSchemaName::Cohere => "cohere",
        ApiSchemaName::AWSBedrock => "aws.bedrock",
        ApiSchemaName::AzureOpenAI => "azure.openai",
        ApiSchemaName::GCPVertexAI => "gcp.vertex_ai",
        ApiSchemaName::GCPAnthropic => "gcp.anthropic",
        ApiSchemaName::Anthropic => "anthropic",
        ApiSchemaName::AWSAnthropic => "aws.anthropic",
    }
}

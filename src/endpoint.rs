//! L1. The endpoints clients can call: which path is which, where each goes at a backend of which dialect, and what its
//! requests say.

mod paths;
mod request;
mod target;

pub use self::paths::{InvalidPrefixes, Paths, Prefixes};
pub use self::request::{ModelRequest, Refused};
pub use self::target::ApiTarget;
use crate::wire::ApiSchemaName;

/// One endpoint of the client-facing API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
    ResponsesInputTokens,
    ImageGenerations,
    Speech,
    Transcriptions,
    Translations,
    Tokenize,
    Rerank,
    Messages,
    CountTokens,
    /// Answered by the gateway itself, in OpenAI's form.
    Models,
    /// Answered by the gateway itself, in Anthropic's form.
    AnthropicModels,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 15] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::ResponsesInputTokens,
        Self::ImageGenerations,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
        Self::Tokenize,
        Self::Rerank,
        Self::Messages,
        Self::CountTokens,
        Self::Models,
        Self::AnthropicModels,
    ];

    /// The endpoint of a default path without its query, by exact comparison; see [`Paths`] for others.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The path clients use, unless [`Paths`] says otherwise.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::ResponsesInputTokens => "/v1/responses/input_tokens",
            Self::ImageGenerations => "/v1/images/generations",
            Self::Speech => "/v1/audio/speech",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
            Self::Tokenize => "/tokenize",
            Self::Rerank => "/cohere/v2/rerank",
            Self::Messages => "/anthropic/v1/messages",
            Self::CountTokens => "/anthropic/v1/messages/count_tokens",
            Self::Models => "/v1/models",
            Self::AnthropicModels => "/anthropic/v1/models",
        }
    }

    /// The value of `gen_ai.operation.name`.
    pub fn operation(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat",
            Self::Completions => "completion",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::ResponsesInputTokens => "responses_input_tokens",
            Self::ImageGenerations => "image_generation",
            Self::Speech => "speech",
            Self::Transcriptions => "transcription",
            Self::Translations => "translation",
            Self::Tokenize => "tokenize",
            Self::Rerank => "rerank",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models | Self::AnthropicModels => "models",
        }
    }

    /// Whether its answers are text that the model makes up: what is not reported of them is counted as it passes.
    pub fn generates_text(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions | Self::Responses | Self::Messages)
    }

    /// Whether its streams report usage only if the request asks for it.
    pub fn usage_is_optional(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether its requests are `multipart/form-data`.
    pub fn is_multipart(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }
}

/// How errors look to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the APIs")]
pub enum Dialect {
    OpenAI,
    Anthropic,
    Cohere,
}

impl Dialect {
    /// That of an endpoint.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Messages | Endpoint::CountTokens | Endpoint::AnthropicModels => Self::Anthropic,
            Endpoint::Rerank => Self::Cohere,
            _ => Self::OpenAI,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_its_own_endpoint_and_nothing_else_is_one() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::of_path(endpoint.path()), Some(endpoint));
        }
        for path in ["", "/", "/v1/chat/completions/", "/v1/chat", "/V1/chat/completions", "v1/models"] {
            assert_eq!(Endpoint::of_path(path), None, "{path}");
        }
    }
}

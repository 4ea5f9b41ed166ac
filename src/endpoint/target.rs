//! Where an endpoint is at a backend.

use std::fmt::Write;

use super::Endpoint;
use crate::wire::ApiSchemaName;

/// A backend's dialect, and where it is mounted.
#[derive(Debug, Clone)]
pub struct ApiTarget {
    schema: ApiSchemaName,
    /// Path before the endpoint's own, without a slash at its end.
    prefix: String,
    version: String,
}

impl ApiTarget {
    /// OpenAI and Anthropic dialects are mounted under `prefix` (absent: `v1`; empty: nothing); Cohere's under its `version`
    /// (absent: `v2`); Azure's has an API version instead.
    pub fn new(schema: ApiSchemaName, prefix: Option<&str>, version: Option<&str>) -> Self {
        let version = version.unwrap_or_default();
        let prefix = match schema {
            ApiSchemaName::Cohere if version.is_empty() => "v2",
            ApiSchemaName::Cohere => version,
            // Empty is what a controller writes for a field that was not set; for OpenAI it says that there is no prefix.
            ApiSchemaName::Anthropic => prefix.filter(|prefix| !prefix.is_empty()).unwrap_or("v1"),
            _ => prefix.unwrap_or("v1"),
        };
        Self { schema, prefix: clean(prefix), version: version.to_owned() }
    }

    /// The dialect.
    pub fn schema(&self) -> ApiSchemaName {
        self.schema
    }

    /// Path and query of `endpoint` for `model`; nothing where the dialect has no such endpoint. Some dialects have another path
    /// for answers that stream.
    pub fn path(&self, endpoint: Endpoint, model: &str, streaming: bool) -> Option<String> {
        match self.schema {
            ApiSchemaName::OpenAI => match endpoint {
                Endpoint::Tokenize => Some("/tokenize".to_owned()),
                Endpoint::Rerank
                | Endpoint::Messages
                | Endpoint::CountTokens
                | Endpoint::Models
                | Endpoint::AnthropicModels => None,
                _ => endpoint.path().strip_prefix("/v1").map(|path| format!("{}{path}", self.prefix)),
            },
            ApiSchemaName::AzureOpenAI => {
                let version = &self.version;
                match endpoint {
                    Endpoint::ChatCompletions | Endpoint::Embeddings => {
                        let path = endpoint.path().trim_start_matches("/v1");
                        let model = segment(model);
                        Some(format!("/openai/deployments/{model}{path}?api-version={version}"))
                    }
                    Endpoint::Responses => Some(format!("/openai/responses?api-version={version}")),
                    Endpoint::ResponsesInputTokens => {
                        Some(format!("/openai/responses/input_tokens?api-version={version}"))
                    }
                    _ => None,
                }
            }
            ApiSchemaName::Anthropic => match endpoint {
                Endpoint::Messages | Endpoint::ChatCompletions => Some(format!("{}/messages", self.prefix)),
                Endpoint::CountTokens => Some("/v1/messages/count_tokens".to_owned()),
                _ => None,
            },
            ApiSchemaName::Cohere => {
                (endpoint == Endpoint::Rerank).then(|| format!("{}/rerank", self.prefix))
            }
            ApiSchemaName::AWSBedrock => (endpoint == Endpoint::ChatCompletions).then(|| {
                let operation = if streaming { "converse-stream" } else { "converse" };
                format!("/model/{}/{operation}", segment(model))
            }),
            ApiSchemaName::GCPVertexAI | ApiSchemaName::GCPAnthropic | ApiSchemaName::AWSAnthropic => None,
        }
    }

    /// Whether the model stands in the path, so that the body need not name it.
    pub fn names_model_in_path(&self, endpoint: Endpoint) -> bool {
        self.schema == ApiSchemaName::AzureOpenAI && endpoint == Endpoint::ChatCompletions
    }
}

/// One slash before each part, none at the end; nothing for an empty prefix.
fn clean(prefix: &str) -> String {
    prefix.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect()
}

/// A client's text as one path segment: whatever could end or change the segment is percent-encoded.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'~'
            | b':'
            | b'@'
            | b'='
            | b'+'
            | b'&'
            | b'$' => {
                encoded.push(char::from(byte));
            }
            // A name of dots alone would be read as "this folder" or "the one above".
            b'.' if !text.bytes().all(|byte| byte == b'.') => encoded.push('.'),
            // Writing to a string cannot fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(
        schema: ApiSchemaName,
        prefix: Option<&str>,
        version: Option<&str>,
        endpoint: Endpoint,
    ) -> Option<String> {
        ApiTarget::new(schema, prefix, version).path(endpoint, "m", false)
    }

    #[test]
    fn openai_is_mounted_under_its_prefix() {
        use ApiSchemaName::OpenAI;
        for (prefix, expected) in [
            (None, "/v1/chat/completions"),
            (Some(""), "/chat/completions"),
            (Some("/api//v2/"), "/api/v2/chat/completions"),
            (Some("openai/v1"), "/openai/v1/chat/completions"),
        ] {
            assert_eq!(path(OpenAI, prefix, None, Endpoint::ChatCompletions).as_deref(), Some(expected));
        }
        assert_eq!(path(OpenAI, Some("x"), None, Endpoint::Tokenize).as_deref(), Some("/tokenize"));
        let audio = path(OpenAI, None, None, Endpoint::Transcriptions);
        assert_eq!(audio.as_deref(), Some("/v1/audio/transcriptions"));
        assert_eq!(path(OpenAI, None, None, Endpoint::Rerank), None);
    }

    #[test]
    fn azure_names_the_deployment_and_the_version() {
        let azure = |endpoint| path(ApiSchemaName::AzureOpenAI, None, Some("2025-01-01-preview"), endpoint);
        let chat = "/openai/deployments/m/chat/completions?api-version=2025-01-01-preview";
        assert_eq!(azure(Endpoint::ChatCompletions).as_deref(), Some(chat));
        let responses = "/openai/responses?api-version=2025-01-01-preview";
        assert_eq!(azure(Endpoint::Responses).as_deref(), Some(responses));
        assert_eq!(azure(Endpoint::Completions), None);
    }

    #[test]
    fn cohere_and_anthropic_are_where_they_say() {
        assert_eq!(
            path(ApiSchemaName::Cohere, None, Some("v3"), Endpoint::Rerank).as_deref(),
            Some("/v3/rerank")
        );
        assert_eq!(path(ApiSchemaName::Cohere, None, None, Endpoint::Rerank).as_deref(), Some("/v2/rerank"));
        let anthropic = |prefix, endpoint| path(ApiSchemaName::Anthropic, prefix, None, endpoint);
        assert_eq!(anthropic(Some(""), Endpoint::Messages).as_deref(), Some("/v1/messages"));
        let count = anthropic(Some("api"), Endpoint::CountTokens);
        assert_eq!(count.as_deref(), Some("/v1/messages/count_tokens"));
        assert_eq!(anthropic(None, Endpoint::ChatCompletions).as_deref(), Some("/v1/messages"));
        assert_eq!(anthropic(None, Endpoint::Embeddings), None);
    }

    #[test]
    fn bedrock_names_the_model_in_the_path_and_streams_elsewhere() {
        let bedrock = ApiTarget::new(ApiSchemaName::AWSBedrock, None, None);
        let path = |model, streaming| bedrock.path(Endpoint::ChatCompletions, model, streaming);
        let nova = "us.amazon.nova-micro-v1:0";
        assert_eq!(path(nova, false).as_deref(), Some("/model/us.amazon.nova-micro-v1:0/converse"));
        let profile = path("arn:aws:bedrock:us-east-1:1:inference-profile/x", true);
        let expected = "/model/arn:aws:bedrock:us-east-1:1:inference-profile%2Fx/converse-stream";
        assert_eq!(profile.as_deref(), Some(expected));
        assert_eq!(bedrock.path(Endpoint::Embeddings, nova, false), None);
    }

    #[test]
    fn a_model_cannot_leave_its_path_segment() {
        let azure = ApiTarget::new(ApiSchemaName::AzureOpenAI, None, Some("v"));
        for (model, shown) in
            [("../x", "..%2Fx"), ("a?b#c", "a%3Fb%23c"), ("..", "%2E%2E"), ("gpt-4.1", "gpt-4.1")]
        {
            let expected = format!("/openai/deployments/{shown}/embeddings?api-version=v");
            assert_eq!(azure.path(Endpoint::Embeddings, model, false), Some(expected));
        }
    }
}

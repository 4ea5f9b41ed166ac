//! What a request says, and whether it says it well enough to be sent anywhere.

use super::Endpoint;
use crate::codec::multipart::Form;
use crate::wire::openai::{MalformedRequest, RequestPeek};

/// What the gateway acts on in a request for a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelRequest {
    /// The model; absent and `null` are the same.
    pub model: Option<String>,
    /// The client wants the answer as a stream.
    pub streaming: bool,
    /// The client asked for usage at the end of the stream.
    pub include_usage: bool,
}

/// A request that cannot be sent on; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// One word for logs and metrics.
    pub details: &'static str,
    /// What is wrong, where, and what is wanted.
    pub message: String,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { details: "malformed_request", message }
    }
}

impl ModelRequest {
    /// Reads the body of a request to `endpoint`. Only what would make a request meaningless to every provider is refused;
    /// the rest is for the provider to judge.
    pub fn read(endpoint: Endpoint, content_type: &str, body: &[u8]) -> Result<Self, Refused> {
        let is_form = Form::is_content_type(content_type);
        if endpoint.is_multipart() {
            if !is_form {
                let message =
                    format!("malformed request: expected multipart/form-data for {}", endpoint.path());
                return Err(message.into());
            }
            return Self::of_form(content_type, body);
        }
        if is_form {
            return Err("malformed request: multipart body not supported for this endpoint"
                .to_owned()
                .into());
        }
        let peek = RequestPeek::parse(body).map_err(|MalformedRequest(error)| Refused {
            details: "malformed_json",
            message: format!("malformed request: failed to parse JSON for {}: {error}", endpoint.path()),
        })?;
        check(endpoint, &peek).map_err(Refused::from)?;
        let streaming = match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Responses | Endpoint::Messages => {
                peek.stream
            }
            Endpoint::Speech => peek.stream_format.as_deref() == Some("sse"),
            _ => false,
        };
        Ok(Self { model: peek.model, streaming, include_usage: peek.include_usage })
    }

    fn of_form(content_type: &str, body: &[u8]) -> Result<Self, Refused> {
        let form = Form::parse(content_type, body).map_err(|error| format!("malformed request: {error}"))?;
        let text = |name: &str| form.text(name).map_err(|error| format!("malformed request: {error}"));
        let model = text("model")?.filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| "malformed request: the form field `model` is missing".to_owned())?;
        if !form.contains("file") {
            return Err("malformed request: the form field `file` is missing".to_owned().into());
        }
        if let Some(temperature) = text("temperature")?
            && temperature.trim().parse::<f64>().is_err()
        {
            return Err("malformed request: the form field `temperature` must be a number".to_owned().into());
        }
        let streaming = text("stream")?.is_some_and(|stream| stream.eq_ignore_ascii_case("true"));
        Ok(Self { model: Some(model.to_owned()), streaming, include_usage: false })
    }
}

/// The rules between members that an endpoint has.
fn check(endpoint: Endpoint, peek: &RequestPeek) -> Result<(), String> {
    let problem = match endpoint {
        Endpoint::Embeddings if peek.has_input && peek.has_messages => {
            "malformed request: `input` and `messages` exclude each other"
        }
        Endpoint::Messages | Endpoint::CountTokens
            if peek.model.as_deref().unwrap_or_default().is_empty() =>
        {
            "invalid request body: model field is required"
        }
        Endpoint::Tokenize if peek.model.as_deref().unwrap_or_default().is_empty() => {
            "malformed request: invalid tokenize request: model is required"
        }
        Endpoint::Tokenize if peek.has_messages && peek.has_prompt => {
            "malformed request: invalid tokenize request: `messages` and `prompt` exclude each other"
        }
        Endpoint::Tokenize if peek.continue_final_message && peek.add_generation_prompt != Some(false) => {
            "malformed request: invalid tokenize request: `continue_final_message` needs `add_generation_prompt` to be false"
        }
        _ => return Ok(()),
    };
    Err(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: Endpoint, body: &str) -> Result<ModelRequest, String> {
        ModelRequest::read(endpoint, "application/json", body.as_bytes()).map_err(|refused| refused.message)
    }

    #[test]
    fn what_makes_a_request_stream_depends_on_the_endpoint() {
        let body = r#"{"model":"m","stream":true,"stream_format":"sse"}"#;
        for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| !endpoint.is_multipart()) {
            let expected = matches!(
                endpoint,
                Endpoint::ChatCompletions
                    | Endpoint::Completions
                    | Endpoint::Responses
                    | Endpoint::Messages
                    | Endpoint::Speech
            );
            assert_eq!(read(endpoint, body).unwrap().streaming, expected, "{endpoint:?}");
        }
        assert!(!read(Endpoint::Speech, r#"{"model":"m","stream":true}"#).unwrap().streaming);
    }

    #[test]
    fn members_that_exclude_each_other_are_refused() {
        for (endpoint, body, part) in [
            (Endpoint::Embeddings, r#"{"model":"m","input":"a","messages":[]}"#, "exclude each other"),
            (Endpoint::Messages, r#"{"messages":[]}"#, "model field is required"),
            (Endpoint::CountTokens, r#"{"model":""}"#, "model field is required"),
            (Endpoint::Tokenize, r#"{"prompt":"a"}"#, "model is required"),
            (Endpoint::Tokenize, r#"{"model":"m","prompt":"a","messages":[]}"#, "exclude each other"),
            (
                Endpoint::Tokenize,
                r#"{"model":"m","messages":[],"continue_final_message":true}"#,
                "add_generation_prompt",
            ),
        ] {
            let error = read(endpoint, body).unwrap_err();
            assert!(error.contains(part), "{endpoint:?}: {error}");
        }
        let fine =
            r#"{"model":"m","messages":[],"continue_final_message":true,"add_generation_prompt":false}"#;
        assert!(read(Endpoint::Tokenize, fine).is_ok());
    }

    #[test]
    fn forms_and_json_are_each_taken_where_they_belong() {
        let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
                    --b\r\ncontent-disposition: form-data; name=\"stream\"\r\n\r\nTrue\r\n\
                    --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n\0\x01\r\n--b--\r\n";
        let content_type = "Multipart/Form-Data; boundary=b";
        let request = ModelRequest::read(Endpoint::Transcriptions, content_type, form.as_bytes()).unwrap();
        assert_eq!((request.model.as_deref(), request.streaming), (Some("whisper-1"), true));
        let error = ModelRequest::read(Endpoint::ChatCompletions, content_type, form.as_bytes()).unwrap_err();
        assert!(error.message.contains("multipart body not supported"), "{error}");
        let error = read(Endpoint::Transcriptions, "{}").unwrap_err();
        assert!(error.contains("expected multipart/form-data"), "{error}");
        let part = |name: &str, value: &str| {
            format!("--b\r\ncontent-disposition: form-data; name={name}\r\n\r\n{value}\r\n")
        };
        for (fields, missing) in [
            (part("model", "m"), "`file` is missing"),
            (part("file", "x"), "`model` is missing"),
            (
                part("model", "m") + &part("file", "x") + &part("temperature", "warm"),
                "`temperature` must be a number",
            ),
        ] {
            let body = fields + "--b--\r\n";
            let error =
                ModelRequest::read(Endpoint::Translations, content_type, body.as_bytes()).unwrap_err();
            assert!(error.message.contains(missing), "{error}");
        }
    }
}

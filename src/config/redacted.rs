//! The document to look at.

use serde_json::Value;

use super::Config;
use super::shown::{Document, Secrets};

impl Config {
    /// The document with every credential replaced. For people and tests; the processor cannot use it.
    #[must_use]
    pub fn redacted(&self) -> Value {
        // Serialising plain data of ours to memory fails for no input.
        serde_json::to_value(Document(self, Secrets::Redacted)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_credential_is_shown_and_everything_else_is() {
        let config: Config = serde_json::from_value(json!({
            "backends": [{
                "name": "default/b/route/r/rule/0/ref/0",
                "modelNameOverride": "other",
                "auth": {
                    "apiKey": {"key": "very"}, "azureAPIKey": {"key": "secret"}, "anthropicAPIKey": {"key": "indeed"},
                    "aws": {"credentialFileLiteral": "hush", "region": "us-east-1", "role": {
                        "arn": "arn:x", "session": "s",
                        "issuer": {"url": "https://issuer", "clientId": "c", "clientSecret": "psst"},
                    }},
                    "azure": {"accessToken": "quiet", "application": {
                        "tenantId": "tenant", "clientId": "c", "clientSecret": "silence",
                    }},
                    "gcp": {"accessToken": "", "region": "r", "projectName": "project", "credentialsFile": "mum"},
                    "credentialOverride": {"headerName": "x-brought"},
                },
                "httpHeaderMutation": {"set": [{"name": "x-a", "value": "b"}]},
                "httpBodyMutation": {"remove": ["user"]},
            }],
        }))
        .unwrap();
        let shown = config.redacted().to_string();
        for secret in ["\"very", "\"secret", "indeed", "hush", "psst", "quiet", "silence", "mum"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for part in [
            "anthropicAPIKey",
            "other",
            "x-a",
            "user",
            "us-east-1",
            "tenant",
            "project",
            "issuer",
            "x-brought",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}

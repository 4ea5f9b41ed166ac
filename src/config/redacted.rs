//! The document to look at.

use serde_json::{Value, json};

use super::{Auth, Backend, Config};

/// What stands for every secret.
const REDACTED: &str = "[REDACTED]";

impl Config {
    /// The document with every credential replaced. For people and tests; the processor cannot use it.
    #[must_use]
    pub fn redacted(&self) -> Value {
        // All fields by name: a new one has to be looked at for secrets before it can be shown.
        let Self {
            version,
            uuid,
            global_llm_request_costs,
            llm_request_costs,
            backends,
            models,
            models_by_host,
            unscoped_models,
            gateways,
        } = self;
        json!({
            "version": version,
            "uuid": uuid,
            "globalLLMRequestCosts": global_llm_request_costs,
            "llmRequestCosts": llm_request_costs,
            "backends": backends.iter().map(backend).collect::<Vec<_>>(),
            "models": models,
            "modelsByHost": models_by_host,
            "unscopedModels": unscoped_models,
            "gateways": gateways,
        })
    }
}

fn backend(backend: &Backend) -> Value {
    let Backend { name, model_name_override, schema, auth, header_mutation, body_mutation } = backend;
    let mut document = json!({ "name": name, "schema": schema });
    if let Some(model) = model_name_override {
        document["modelNameOverride"] = json!(model);
    }
    if let Some(Auth { api_key, azure_api_key, anthropic_api_key }) = auth {
        let kinds =
            [("apiKey", api_key), ("azureAPIKey", azure_api_key), ("anthropicAPIKey", anthropic_api_key)];
        for (kind, _) in kinds.iter().filter(|(_, key)| key.is_some()) {
            document["auth"][kind] = json!({ "key": REDACTED });
        }
    }
    if let Some(mutation) = header_mutation {
        document["httpHeaderMutation"] = json!(mutation);
    }
    if let Some(mutation) = body_mutation {
        document["httpBodyMutation"] = json!(mutation);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_shown_and_everything_else_is() {
        let config: Config = serde_json::from_value(json!({
            "backends": [{
                "name": "default/b/route/r/rule/0/ref/0",
                "modelNameOverride": "other",
                "auth": {"apiKey": {"key": "very"}, "azureAPIKey": {"key": "secret"}, "anthropicAPIKey": {"key": "indeed"}},
                "httpHeaderMutation": {"set": [{"name": "x-a", "value": "b"}]},
                "httpBodyMutation": {"remove": ["user"]},
            }],
        }))
        .unwrap();
        let shown = config.redacted().to_string();
        for secret in ["very", "secret", "indeed"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for part in ["anthropicAPIKey", "other", "x-a", "user"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}

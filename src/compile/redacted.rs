//! The processor's configuration as a document to look at.

use serde_json::{Value, json};

use crate::config::{Auth, Backend, Config};

/// What stands for every secret.
const REDACTED: &str = "[REDACTED]";

/// The document with every credential replaced. For people and tests; the processor cannot use it.
#[must_use]
pub fn redacted(config: &Config) -> Value {
    json!({
        "version": config.version,
        "uuid": config.uuid,
        "globalLLMRequestCosts": config.global_llm_request_costs,
        "llmRequestCosts": config.llm_request_costs,
        "backends": config.backends.iter().map(backend).collect::<Vec<_>>(),
        "models": config.models,
        "modelsByHost": config.models_by_host,
        "unscopedModels": config.unscoped_models,
        "gateways": config.gateways,
    })
}

fn backend(backend: &Backend) -> Value {
    let mut document = json!({ "name": backend.name, "schema": backend.schema });
    if let Some(model) = &backend.model_name_override {
        document["modelNameOverride"] = json!(model);
    }
    if let Some(Auth { api_key, azure_api_key, anthropic_api_key }) = &backend.auth {
        let kinds =
            [("apiKey", api_key), ("azureAPIKey", azure_api_key), ("anthropicAPIKey", anthropic_api_key)];
        for (kind, _) in kinds.iter().filter(|(_, key)| key.is_some()) {
            document["auth"][kind] = json!({ "key": REDACTED });
        }
    }
    if let Some(mutation) = &backend.header_mutation {
        document["httpHeaderMutation"] = json!(mutation);
    }
    if let Some(mutation) = &backend.body_mutation {
        document["httpBodyMutation"] = json!(mutation);
    }
    document
}

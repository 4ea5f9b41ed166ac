//! From text to a runtime.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::SourceError;
use super::version::Accept;
use crate::codec::any_case;
use crate::config::Config;
use crate::runtime::{Problem, Runtime};

/// Structs of our own part of the document, in which a misspelt name is a mistake.
const EXACT: &[&str] = &["Gateway", "Quota"];

/// A configuration that can be served.
#[derive(Debug)]
pub struct Loaded {
    /// What is served.
    pub runtime: Runtime,
    /// What of it is not.
    pub problems: Vec<Problem>,
    /// Identifies the edition in logs.
    pub uuid: String,
    /// The version of its writer.
    pub version: String,
}

/// Reads a document, YAML or JSON; the error is for people, and names line and column.
///
/// A configuration is as large as what it configures, and its author is trusted: the parser's limits for strangers' documents do
/// not apply.
pub fn parse(text: &str) -> Result<Config, String> {
    parse_as(text)
}

fn parse_as<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim_start().starts_with('{') {
        // Most of YAML's cost is not needed for JSON, which large configurations are in.
        let mut json = serde_json::Deserializer::from_str(text);
        let document = any_case::deserialize(&mut json, EXACT).map_err(|error| error.to_string())?;
        return json.end().map(|()| document).map_err(|error| error.to_string());
    }
    let options = serde_saphyr::options! { budget: None };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        any_case::deserialize(yaml, EXACT)
    })
    .map_err(|error| error.to_string())
}

/// What a document gives. `name` is the file's, for errors.
///
/// A document with gateways is written for this program: it serves every part that is right, and names the others. One
/// without was written by a controller of the Go gateway, which expects all of it or nothing to be taken.
pub(super) fn load(name: &str, content: &[u8], accept: &Accept) -> Result<Loaded, SourceError> {
    let malformed = |error: String| SourceError::Malformed { name: name.to_owned(), error };
    let text = std::str::from_utf8(content).map_err(|error| malformed(error.to_string()))?;
    if text.trim().is_empty() {
        // A file that is opened to be written anew is empty for a moment, and would be a document that serves nothing.
        return Err(malformed("it is empty".to_owned()));
    }
    let another = |version| SourceError::Version { name: name.to_owned(), version, accept: accept.clone() };
    let mut config = match parse(text) {
        Ok(config) => config,
        // Of the reasons for which a document of another version cannot be read, that is the one to know.
        Err(error) => match parse_as::<Edition>(text) {
            Ok(Edition { version: Some(version) }) if !accept.takes(&version) => {
                return Err(another(version));
            }
            _ => return Err(malformed(error)),
        },
    };
    let classic = config.gateways.is_empty();
    let (uuid, version) = (config.uuid.clone(), config.version.clone());
    // Our own compiler names no version: what it writes is read exactly, so that a document of another edition is refused
    // where it differs.
    if (classic || !version.is_empty()) && !accept.takes(&version) {
        return Err(another(version));
    }
    let mut nameless = Vec::new();
    if classic {
        keep_last_of_each_name(&mut config);
        nameless = costs_of_no_route(&config);
    }
    let (runtime, mut problems) = Runtime::new(config);
    problems.extend(nameless);
    if classic && !problems.is_empty() {
        return Err(SourceError::Rejected { name: name.to_owned(), problems });
    }
    Ok(Loaded { runtime, problems, uuid, version })
}

/// What can be read of a document that cannot.
#[derive(Deserialize)]
struct Edition {
    version: Option<String>,
}

/// Of backends that share a name, Go's map keeps the last.
fn keep_last_of_each_name(config: &mut Config) {
    let mut names = HashSet::new();
    config.backends.reverse();
    config.backends.retain(|backend| {
        let first = names.insert(backend.name.clone());
        if !first {
            tracing::warn!(
                backend = backend.name,
                "a name is used twice; the last backend of that name counts"
            );
        }
        first
    });
    config.backends.reverse();
}

fn costs_of_no_route(config: &Config) -> Vec<Problem> {
    let costs = config.llm_request_costs.iter().enumerate().filter(|(_, cost)| cost.route_name.is_empty());
    let problem = |index: usize| Problem {
        at: format!("llmRequestCosts[{index}].routeName"),
        message: "it is empty; a cost belongs to a route, as namespace/name".to_owned(),
    };
    costs.map(|(index, _)| problem(index)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn large(models: usize) -> Value {
        let headers = |index: usize| json!([{"name": "x-ai-eg-model", "value": format!("m{index}")}]);
        let matches: Vec<_> =
            (0..models).map(|index| json!({"headers": headers(index), "rule": 0})).collect();
        json!({
            "backends": [{"name": "b"}],
            "gateways": [{
                "authority": "a", "name": "d/gw", "models": {},
                "hosts": [{"hostname": "*", "matches": matches}],
                "rules": [{"route": "d/r", "backend": "b", "routingKey": "k"}],
            }],
        })
    }

    fn forms(document: &Value) -> [String; 2] {
        [document.to_string(), serde_saphyr::to_string(document).unwrap()]
    }

    fn loaded(document: &Value, accept: &str) -> Result<Loaded, SourceError> {
        load("the.file", document.to_string().as_bytes(), &accept.parse().unwrap())
    }

    #[test]
    fn large_documents_are_read_in_both_forms() {
        for text in forms(&large(20_000)) {
            let config = parse(&text).unwrap();
            assert_eq!(config.gateways[0].hosts[0].matches.len(), 20_000);
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let text = large(1).to_string().replace("routingKey", "routingKye");
        for text in forms(&serde_json::from_str(&text).unwrap()) {
            let error = parse(&text).unwrap_err();
            assert!(error.contains("routingKye") && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn a_controllers_document_is_read_as_go_does() {
        let document = json!({
            "Version": "dev", "UUID": "u", "futureField": {"x": [1]}, "mcpConfig": null, "modelsByHost": null,
            "globalllmrequestcosts": [{"MetadataKey": "all", "Type": "TotalToken"}],
            "llmRequestCosts": [{"ROUTEname": "d/r", "metadatakey": "k", "type": "CEL", "CEL": "1u", "backend": null}],
            "BACKENDS": [{
                "Name": "d/b/route/r/rule/0/ref/0", "Schema": {"Name": "OpenAI", "PREFIX": "v2"},
                "AUTH": {"apikey": {"KEY": "k"}}, "httpheadermutation": {"Set": [{"Name": "x-a", "Value": "b"}], "remove": null},
            }],
            "models": [{"Name": "m", "OwnedBy": "me", "CreatedAt": "2025-01-01T00:00:00Z"}, {"NAME": "n"}],
        });
        for text in forms(&document) {
            let config = parse(&text).unwrap();
            assert_eq!(config.version, "dev");
            assert_eq!(config.llm_request_costs[0].route_name, "d/r");
            assert_eq!(config.llm_request_costs[0].cost.cel.as_deref(), Some("1u"));
            assert_eq!(config.global_llm_request_costs[0].metadata_key, "all");
            let backend = &config.backends[0];
            assert_eq!(backend.schema.prefix.as_deref(), Some("v2"));
            assert!(backend.auth.as_ref().is_some_and(|auth| auth.api_key.is_some()));
            assert_eq!(backend.header_mutation.as_ref().map(|mutation| mutation.set.len()), Some(1));
            assert_eq!(config.models[1].name, "n");
        }
        assert_eq!(loaded(&document, "dev").unwrap().uuid, "u");
    }

    #[test]
    fn one_mistake_rejects_a_controllers_document_and_not_one_of_ours() {
        let mut document = large(1);
        for broken in [
            json!({"llmRequestCosts": [{"routeName": "d/r", "metadataKey": "k", "type": "CEL", "cel": "nonsense +"}]}),
            json!({"llmRequestCosts": [{"routeName": "d/r", "metadataKey": "k", "type": "CEL", "cel": "1u / input_tokens"}]}),
            json!({"backends": [{"name": "b"}, {"name": "c", "auth": {"azureAPIKey": {"key": " "}}}]}),
        ] {
            let Value::Object(members) = broken.clone() else { unreachable!() };
            let Err(SourceError::Rejected { problems, .. }) = loaded(&broken, "*") else {
                panic!("{broken}")
            };
            assert_eq!(problems.len(), 1);
            document.as_object_mut().unwrap().extend(members);
            assert_eq!(loaded(&document, "*").unwrap().problems.len(), 1, "{broken}");
            document = large(1);
        }
        // The name of a route is needed.
        let empty = json!({"llmRequestCosts": [{"routeName": "", "metadataKey": "k", "type": "TotalToken"}]});
        assert!(loaded(&empty, "*").unwrap_err().to_string().contains("llmRequestCosts[0].routeName"));
        let nameless = json!({"llmRequestCosts": [{"metadataKey": "k", "type": "TotalToken"}]});
        let error = loaded(&nameless, "*").unwrap_err().to_string();
        assert!(error.contains("routeName") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn limits_are_read_exactly() {
        let limit = json!({"id": "l", "name": "l", "metric": "Request", "amount": 1, "window": {"kind": "Fixed", "seconds": 60}});
        let with = |member: &str, limit: Value| json!({"quotas": [{"policy": "p", member: [limit]}]});
        let read = loaded(&with("limits", limit.clone()), "*").unwrap();
        assert_eq!(read.runtime.quotas().iter().count(), 1);
        let mut misspelt = limit.clone();
        misspelt["Amount"] = json!(2);
        for (document, name) in [(with("limit", limit), "limit"), (with("limits", misspelt), "Amount")] {
            let error = loaded(&document, "*").unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    /// The same document with letters of names in another case, as `flips` says; keys of maps stay.
    fn in_other_case(value: Value, flips: &mut impl Iterator<Item = bool>) -> Value {
        let flip = |name: String, flips: &mut dyn Iterator<Item = bool>| -> String {
            let other =
                |c: char| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            name.chars().map(|c| if flips.next().unwrap_or(false) { other(c) } else { c }).collect()
        };
        match value {
            Value::Array(items) => items.into_iter().map(|item| in_other_case(item, flips)).collect(),
            Value::Object(members) => {
                let member = |(name, value): (String, Value)| {
                    let name = if name.starts_with('*') { name } else { flip(name, flips) };
                    (name, in_other_case(value, flips))
                };
                Value::Object(members.into_iter().map(member).collect())
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn letter_case_of_names_means_nothing(flips in proptest::collection::vec(any::<bool>(), 400)) {
            let document = json!({
                "version": "dev", "uuid": "u",
                "globalLLMRequestCosts": [{"metadataKey": "all", "type": "TotalToken"}],
                "llmRequestCosts": [{"routeName": "d/r", "metadataKey": "k", "type": "CEL", "cel": "1u", "backend": "b", "model": "m"}],
                "backends": [{
                    "name": "b", "schema": {"name": "OpenAI", "prefix": "v2", "version": "x"}, "modelNameOverride": "n",
                    "auth": {"azureAPIKey": {"key": "k"}},
                    "httpHeaderMutation": {"set": [{"name": "x-a", "value": "b"}], "remove": ["x-b"]},
                    "httpBodyMutation": {"set": [{"path": "a", "value": "b"}], "remove": ["c"]},
                }],
                "models": [{"Name": "m", "OwnedBy": "me", "CreatedAt": "2025-01-01T00:00:00Z"}],
                "modelsByHost": {"*.example": [{"Name": "h", "OwnedBy": "me", "CreatedAt": ""}]},
                "unscopedModels": [{"Name": "u", "OwnedBy": "me", "CreatedAt": ""}],
            });
            let exact: Config = serde_json::from_value(document.clone()).unwrap();
            for text in forms(&in_other_case(document, &mut flips.into_iter())) {
                prop_assert_eq!(parse(&text).unwrap().redacted(), exact.redacted(), "{}", text);
            }
        }
    }

    #[test]
    fn of_backends_with_one_name_the_last_counts() {
        let backend = |model: &str| json!({"name": "b", "modelNameOverride": model});
        let document = json!({"backends": [backend("1"), {"name": "c"}, backend("2")]});
        let backends = loaded(&document, "*").unwrap().runtime.document()["backends"].clone();
        assert_eq!(backends.as_array().unwrap().len(), 2);
        assert_eq!(backends[1]["modelNameOverride"], "2");
    }

    #[test]
    fn the_version_has_to_fit() {
        let classic = json!({"version": "v1.1.0"});
        loaded(&classic, "v1.1.0").unwrap();
        loaded(&classic, "*").unwrap();
        let error = loaded(&classic, "dev").unwrap_err().to_string();
        for told in ["the.file", "\"v1.1.0\"", "\"dev\"", "AIGW_ACCEPT_VERSION"] {
            assert!(error.contains(told), "{error}");
        }
        assert!(matches!(loaded(&json!({}), "dev"), Err(SourceError::Version { .. })));
        for empty in ["", "\n "] {
            let read = load("the.file", empty.as_bytes(), &Accept::Any);
            assert!(matches!(read, Err(SourceError::Malformed { .. })));
        }
        // What was written for another version may not even be readable.
        let later = json!({"version": "v9", "backends": "none"});
        assert!(matches!(loaded(&later, "dev"), Err(SourceError::Version { .. })));
        assert!(matches!(loaded(&later, "v9"), Err(SourceError::Malformed { .. })));
        loaded(&large(1), "dev").unwrap();
        let mut ours = large(1);
        ours["version"] = json!("other");
        assert!(matches!(loaded(&ours, "dev"), Err(SourceError::Version { .. })));
    }
}

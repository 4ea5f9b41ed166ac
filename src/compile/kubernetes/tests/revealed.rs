//! A configuration with its secrets is read back as it was.

use proptest::prelude::*;
use serde_json::json;

use crate::config::Config;

proptest! {
    /// Every field that a credential can have, with any text in it.
    #[test]
    fn what_is_revealed_reads_back_as_the_same(
        texts in prop::collection::vec(any::<String>(), 24),
        present in any::<u32>(),
        model in prop::option::of(any::<String>()),
    ) {
        let maybe = |bit: u32, value: serde_json::Value| if present >> bit & 1 == 1 { value } else { json!(null) };
        let issuer = json!({
            "url": texts[0], "tokenEndpoint": maybe(0, json!(texts[1])), "clientId": texts[2], "clientSecret": texts[3],
            "scopes": [texts[4]], "audience": maybe(1, json!(texts[5])),
        });
        let document = json!({
            "version": texts[22], "uuid": texts[23],
            "backends": [{
                "name": texts[6], "modelNameOverride": model,
                "auth": {
                    "apiKey": maybe(2, json!({"key": texts[7]})),
                    "azureAPIKey": maybe(3, json!({"key": texts[8]})),
                    "anthropicAPIKey": maybe(4, json!({"key": texts[9]})),
                    "aws": maybe(5, json!({
                        "credentialFileLiteral": maybe(6, json!(texts[10])), "region": texts[11],
                        "profile": maybe(7, json!(texts[12])), "host": maybe(8, json!(texts[13])),
                        "role": maybe(9, json!({"arn": texts[14], "session": texts[15], "issuer": issuer})),
                    })),
                    "azure": maybe(10, json!({"accessToken": maybe(11, json!(texts[16])), "application": maybe(12, json!({
                        "tenantId": texts[17], "clientId": texts[18], "clientSecret": maybe(13, json!(texts[19])),
                        "issuer": maybe(14, issuer.clone()), "authority": maybe(15, json!(texts[20])),
                    }))})),
                    "gcp": maybe(16, json!({
                        "accessToken": maybe(17, json!(texts[16])), "region": texts[11], "projectName": texts[12],
                        "credentialsFile": maybe(18, json!(texts[13])),
                        "federation": maybe(19, json!({
                            "audience": texts[14], "serviceAccount": maybe(20, json!(texts[15])), "issuer": issuer,
                        })),
                    })),
                    "credentialOverride": maybe(21, json!({
                        "headerName": texts[21], "dynamicMetadataNamespace": texts[1], "dynamicMetadataKey": texts[2],
                        "fallbackToConfigured": present >> 22 & 1 == 1, "inputHeadersToRemove": [texts[4]],
                    })),
                },
                "httpHeaderMutation": maybe(23, json!({"set": [{"name": "x", "value": texts[5]}], "remove": ["y"]})),
                "httpBodyMutation": maybe(24, json!({"set": [{"path": texts[6], "value": texts[7]}]})),
            }],
        });
        let config: Config = serde_json::from_value(document.clone()).unwrap();
        let revealed = config.reveal();
        let text = std::str::from_utf8(revealed.bytes()).unwrap();
        let read = crate::source::parse(text).unwrap();
        let again = read.reveal();
        prop_assert_eq!(again.bytes(), revealed.bytes());
        // Nothing was left out: whatever was there is there.
        let shown: serde_json::Value = serde_json::from_slice(revealed.bytes()).unwrap();
        contains(&shown, &document)?;
    }
}

fn contains(whole: &serde_json::Value, part: &serde_json::Value) -> Result<(), TestCaseError> {
    match (whole, part) {
        (_, serde_json::Value::Null) => Ok(()),
        (whole, serde_json::Value::Object(members)) => {
            members.iter().try_for_each(|(name, member)| contains(&whole[name], member))
        }
        (whole, serde_json::Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(index, item)| contains(&whole[index], item))
        }
        (whole, part) => {
            prop_assert_eq!(whole, part);
            Ok(())
        }
    }
}

#[test]
fn its_debug_form_shows_no_secret() {
    let config: Config =
        serde_json::from_value(json!({"backends": [{"name": "b", "auth": {"apiKey": {"key": "hush"}}}]}))
            .unwrap();
    assert!(!format!("{:?}", config.reveal()).contains("hush"));
}

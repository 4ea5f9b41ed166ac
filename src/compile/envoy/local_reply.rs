//! Answers that Envoy makes itself, in the form of the gateway's other errors.
//!
//! The processor's own answers are local replies to Envoy too and pass here. They are told apart by the details Envoy
//! notes about a reply and by its response flags, which only replies of Envoy's own making carry.

use serde_json::{Value, json};

use super::access_log::filter;
use crate::endpoint::Dialect;
use crate::exchange::{CHALLENGE, unauthenticated_body};

/// What Envoy's authentication filters note about a refusal. Some of them answer 403.
const REFUSED: &str = "(response.code_details in ['missing_api_key', 'unknown_api_key', 'missing_credentials', \
     'missing_key_sources', 'client_not_allowed'] || response.code_details.endsWith('_for_basic_auth') || \
     response.code_details.startsWith('jwt_authn_access_denied'))";

/// Refusals of clients that do not prove who they are: alike whatever is wrong, in the client's dialect.
fn refusals() -> [Value; 3] {
    let refusal = |dialect, path: Option<&str>| {
        let place = path.map(|path| format!(" && request.path.startsWith('{path}')")).unwrap_or_default();
        let body = unauthenticated_body(dialect);
        json!({
            "filter": filter(&format!("{REFUSED}{place}")),
            "status_code": 401,
            // Some filters tell what is wrong, and which of them it was.
            "headers_to_add": [{
                "header": { "key": "www-authenticate", "value": CHALLENGE },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
            "body_format_override": {
                "text_format_source": { "inline_string": String::from_utf8_lossy(&body) },
                "content_type": "application/json",
            },
        })
    };
    [
        refusal(Dialect::Anthropic, Some("/anthropic/")),
        refusal(Dialect::Cohere, Some("/cohere/")),
        refusal(Dialect::OpenAI, None),
    ]
}

/// `authenticates`: whether Envoy asks clients who they are.
pub(super) fn configuration(authenticates: bool) -> Value {
    let mut configuration = usual();
    if authenticates && let Some(mappers) = configuration["mappers"].as_array_mut() {
        mappers.splice(0..0, refusals());
    }
    configuration
}

fn usual() -> Value {
    json!({
        "mappers": [
            mapper(
                filter("response.code_details == 'request_payload_too_large'"),
                413,
                "PayloadTooLarge",
                "the request body is larger than this gateway accepts; see bufferLimit of ClientTrafficPolicy",
            ),
            mapper(
                filter("response.code_details.startsWith('ext_proc_error')"),
                500,
                "InternalServerError",
                "the gateway's request processor did not answer",
            ),
            mapper(
                flags(503, &["UF", "UC", "UH", "UO", "UR", "LR", "UPE", "NC", "DF"]),
                503,
                "ServiceUnavailable",
                "the model's backend could not be reached (%RESPONSE_FLAGS%)",
            ),
            mapper(
                flags(502, &["UPE"]),
                502,
                "BadGateway",
                "the model's backend sent what is not HTTP (%RESPONSE_FLAGS%)",
            ),
            mapper(
                flags(504, &["UT", "SI", "DT", "UMSDR"]),
                504,
                "GatewayTimeout",
                "the model's backend did not answer in time (%RESPONSE_FLAGS%)",
            ),
            mapper(
                flags(408, &["SI"]),
                408,
                "RequestTimeout",
                "the request was not received in time",
            ),
        ],
    })
}

fn flags(status: u16, flags: &[&str]) -> Value {
    json!({
        "and_filter": {
            "filters": [
                {
                    "status_code_filter": {
                        "comparison": {
                            "op": "EQ",
                            "value": { "default_value": status, "runtime_key": "aigw.local_reply" },
                        },
                    },
                },
                { "response_flag_filter": { "flags": flags } },
            ],
        },
    })
}

/// `message` may hold Envoy's `%COMMANDS%`, of those whose values need no escape.
fn mapper(filter: Value, status: u16, kind: &str, message: &str) -> Value {
    // Text, and not Envoy's JSON format, which would sort the members.
    let body = json!({
        "type": "error",
        "error": { "type": kind, "code": status.to_string(), "message": message },
    });
    json!({
        "filter": filter,
        "body_format_override": {
            "text_format_source": { "inline_string": body.to_string() },
            "content_type": "application/json",
        },
    })
}

//! Access logs as an EnvoyProxy resource asks for them.

use serde_json::{Value, json};

use super::super::plan::{AccessLogPlan, LogFormat};

pub(super) fn write(plan: &AccessLogPlan) -> Value {
    let mut file = json!({
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": plan.path,
    });
    match &plan.format {
        LogFormat::Text(line) => {
            let end = if line.ends_with('\n') { "" } else { "\n" };
            file["log_format"] = json!({ "text_format_source": { "inline_string": format!("{line}{end}") } });
        }
        LogFormat::Json(members) => file["log_format"] = json!({ "json_format": members }),
        LogFormat::Default => {}
    }
    let mut log = json!({ "name": "envoy.access_loggers.file", "typed_config": file });
    match plan.matches.as_slice() {
        [] => {}
        [expression] => log["filter"] = filter(expression),
        expressions => {
            let filters: Vec<Value> = expressions.iter().map(|expression| filter(expression)).collect();
            log["filter"] = json!({ "and_filter": { "filters": filters } });
        }
    }
    log
}

/// A filter that holds where a CEL expression does.
pub(super) fn filter(expression: &str) -> Value {
    json!({
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        },
    })
}

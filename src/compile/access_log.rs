//! EnvoyProxies: the access logs that a Gateway's parameters ask for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::envoy_gateway::{
    EnvoyProxy, ProxyAccessLogFormat, ProxyAccessLogFormatType, ProxyAccessLogSetting, ProxyAccessLogType,
};
use crate::resources::gateway_api::Gateway;
use crate::resources::{Located, Snapshot};

use super::plan::{AccessLogPlan, LogFormat};

/// The access logs of a Gateway; none where nothing asks for one, since the processor logs every exchange itself.
pub(super) fn of(
    gateway: &Located<Gateway>,
    snapshot: &Snapshot,
    diagnostics: &mut Diagnostics,
) -> Vec<AccessLogPlan> {
    let Some(proxy) = parameters(gateway, snapshot, diagnostics) else { return Vec::new() };
    let Some(log) = proxy.spec.telemetry.as_ref().and_then(|telemetry| telemetry.access_log.as_ref()) else {
        return Vec::new();
    };
    if log.disable {
        return Vec::new();
    }
    let mut plans = Vec::new();
    for (index, setting) in log.settings.iter().enumerate() {
        let field = format!("spec.telemetry.accessLog.settings[{index}]");
        plans.extend(setting_plans(proxy, &field, setting, diagnostics));
    }
    plans
}

/// The EnvoyProxy of the Gateway, else that of its class.
fn parameters<'a>(
    gateway: &Located<Gateway>,
    snapshot: &'a Snapshot,
    diagnostics: &mut Diagnostics,
) -> Option<&'a Located<EnvoyProxy>> {
    let own = gateway
        .spec
        .infrastructure
        .as_ref()
        .and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
    if let Some(reference) = own.filter(|reference| reference.kind == "EnvoyProxy") {
        let found = snapshot.envoy_proxies.get(gateway.namespace(), &reference.name);
        if found.is_none() {
            let message = format!("there is no EnvoyProxy {}/{}", gateway.namespace(), reference.name);
            let help = suggest(&reference.name, snapshot.envoy_proxies.names_in(gateway.namespace()));
            diagnostics.push(gateway.warning("spec.infrastructure.parametersRef.name", message).help(help));
        }
        return found;
    }
    let class = snapshot.gateway_classes.get("", &gateway.spec.gateway_class_name)?;
    let reference = class.spec.parameters_ref.as_ref().filter(|reference| reference.kind == "EnvoyProxy")?;
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let found = snapshot.envoy_proxies.get(namespace, &reference.name);
    if found.is_none() {
        let message = format!("there is no EnvoyProxy {namespace}/{}", reference.name);
        diagnostics.push(class.warning("spec.parametersRef.name", message));
    }
    found
}

fn setting_plans(
    proxy: &Located<EnvoyProxy>,
    field: &str,
    setting: &ProxyAccessLogSetting,
    diagnostics: &mut Diagnostics,
) -> Vec<AccessLogPlan> {
    if setting.kind == Some(ProxyAccessLogType::Listener) {
        let message = "logs of refused connections are not written here; only those of requests are";
        diagnostics.push(proxy.warning(&format!("{field}.type"), message));
        return Vec::new();
    }
    for (index, expression) in setting.matches.iter().enumerate() {
        if let Some(error) = refusal(expression) {
            let message = format!("this is not a CEL expression: {error}");
            let help = "this access log is left out until it is mended";
            diagnostics.push(proxy.error(&format!("{field}.matches[{index}]"), message).help(help));
            return Vec::new();
        }
    }
    let mut plans = Vec::new();
    for (index, sink) in setting.sinks.iter().enumerate() {
        match &sink.file {
            Some(file) => plans.push(AccessLogPlan {
                path: file.path.clone(),
                format: setting.format.as_ref().map_or(LogFormat::Default, format),
                matches: setting.matches.clone(),
            }),
            None => {
                let message = "only the sink of type File is written here";
                diagnostics.push(
                    proxy.warning(&format!("{field}.sinks[{index}]"), message).help("add one of type File"),
                );
            }
        }
    }
    plans
}

/// Why an expression is no CEL. What is too large to be tried here is left to Envoy.
fn refusal(expression: &str) -> Option<String> {
    // The parser recurses once for each operator and bracket.
    let operators = expression
        .bytes()
        .filter(|byte| !byte.is_ascii_alphanumeric() && !byte.is_ascii_whitespace())
        .count();
    if expression.len() > 4096 || operators > 512 {
        return None;
    }
    match catch_unwind(AssertUnwindSafe(|| cel::Program::compile(expression))) {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it cannot be parsed".to_owned()),
    }
}

fn format(written: &ProxyAccessLogFormat) -> LogFormat {
    let text = || written.text.clone().map(LogFormat::Text);
    let json = || {
        let members = written.json.as_ref()?;
        Some(LogFormat::Json(
            members.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
        ))
    };
    let chosen = match written.kind {
        Some(ProxyAccessLogFormatType::Text) => text(),
        Some(ProxyAccessLogFormatType::Json) => json(),
        None => json().or_else(text),
    };
    chosen.unwrap_or(LogFormat::Default)
}

//! What the user reads when the gateway is up.

use std::fmt;
use std::net::SocketAddr;

use serde_json::json;

use crate::compile::{Compiled, Listener};
use crate::server::Listen;

use super::envoy_binary::EnvoyBinary;

/// How many models are named; the models endpoint has them all.
const MODELS_SHOWN: usize = 10;

/// What runs. Its text form is for people.
pub(super) struct Report<'a> {
    pub(super) compiled: &'a Compiled,
    /// The addresses Envoy says it listens on, by listener.
    pub(super) addresses: &'a [(String, SocketAddr)],
    pub(super) admin: Option<&'a Listen>,
    pub(super) envoy: &'a EnvoyBinary,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "aigw is ready, with Envoy {} ({})\n", self.envoy.version, self.envoy.path.display())?;
        for listener in &self.compiled.listeners {
            let title = format!("listener {}", listener.name);
            let Some(address) = self.bound(listener) else {
                writeln!(f, "  {title:<21} not open: Envoy refuses it")?;
                continue;
            };
            writeln!(f, "  {title:<21} {}", url(listener, address))?;
            if let Some(hostname) = &listener.hostname {
                writeln!(f, "  {:<21} {hostname} and others", "  for the host")?;
            }
            writeln!(f, "  {:<21} {}", "  models", models(listener))?;
        }
        for embedded in &self.compiled.embedded_backends {
            writeln!(f, "  {:<21} {} (answers without a model)", "test backend", embedded.name)?;
        }
        if let Some(admin) = self.admin.and_then(Listen::socket_addr) {
            writeln!(f, "  {:<21} http://{admin}/metrics", "metrics")?;
        }
        let open = |listener: &&Listener| listener.rules > 0 && self.bound(listener).is_some();
        if let Some(listener) = self.compiled.listeners.iter().find(open) {
            writeln!(f, "\nTry it:\n{}", self.curl(listener))?;
        }
        writeln!(f, "\nCtrl-C lets requests in flight end and stops everything.")
    }
}

impl Report<'_> {
    /// Where Envoy has opened a listener.
    fn bound(&self, listener: &Listener) -> Option<SocketAddr> {
        self.addresses.iter().find(|(name, _)| *name == listener.id).map(|(_, address)| *address)
    }

    fn curl(&self, listener: &Listener) -> String {
        let model = listener.models.first().map_or("MODEL", String::as_str);
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Hi." }] });
        let host = listener.hostname.as_ref();
        let host =
            host.map_or_else(String::new, |host| format!(" \\\n    -H {}", quote(&format!("Host: {host}"))));
        // The name in the certificate is hardly that of this machine.
        let insecure = if listener.tls { "--insecure " } else { "" };
        format!(
            "  curl {insecure}{}/v1/chat/completions \\\n    -H 'Content-Type: application/json'{host} \\\n    -d {}",
            self.bound(listener).map_or_else(String::new, |address| url(listener, address)),
            quote(&body.to_string()),
        )
    }
}

fn url(listener: &Listener, address: SocketAddr) -> String {
    let scheme = if listener.tls { "https" } else { "http" };
    if address.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

fn models(listener: &Listener) -> String {
    let named: Vec<String> =
        listener.models.iter().take(MODELS_SHOWN).map(|model| model.escape_debug().to_string()).collect();
    match (listener.models.len(), listener.rules) {
        (0, 0) => "none: no rule can be served".to_owned(),
        (0, _) => "those that the rules' expressions match".to_owned(),
        (all, _) if all > MODELS_SHOWN => format!("{} and {} more", named.join(", "), all - MODELS_SHOWN),
        _ => named.join(", "),
    }
}

/// As one word for a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::EnvoyConfig;
    use crate::config::Config;
    use crate::diagnostics::Diagnostics;

    fn listener(models: &[&str], hostname: Option<&str>) -> Listener {
        Listener {
            id: "default/gw/http".to_owned(),
            name: "http".to_owned(),
            port: 0,
            hostname: hostname.map(str::to_owned),
            tls: false,
            rules: 1,
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            described: Vec::new(),
        }
    }

    fn report(listener: Listener, bound: &str) -> String {
        let compiled = Compiled {
            config: Config::default(),
            envoy: EnvoyConfig::default(),
            diagnostics: Diagnostics::new(),
            options_fit: true,
            embedded_backends: Vec::new(),
            listeners: vec![listener],
        };
        let addresses = [("default/gw/http".to_owned(), bound.parse().expect("an address"))];
        let envoy = EnvoyBinary { path: "/bin/envoy".into(), version: "1.40.0".to_owned() };
        Report { compiled: &compiled, addresses: &addresses, admin: None, envoy: &envoy }.to_string()
    }

    #[test]
    fn the_curl_can_be_pasted_whatever_the_model_is_called() {
        let text = report(listener(&["it's \"x\""], Some("a.example.com")), "127.0.0.1:34567");
        assert!(text.contains("http://127.0.0.1:34567/v1/chat/completions"), "{text}");
        assert!(text.contains(r#"-d '{"model":"it'\''s \"x\"","#), "{text}");
        assert!(text.contains("-H 'Host: a.example.com'"), "{text}");
    }

    #[test]
    fn an_unspecified_address_is_shown_as_one_that_can_be_called() {
        let text = report(listener(&["m"], None), "0.0.0.0:1975");
        assert!(text.contains("http://localhost:1975"), "{text}");
        let many: Vec<String> = (0..12).map(|index| format!("m{index}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(report(listener(&many, None), "0.0.0.0:1975").contains("m9 and 2 more"));
    }
}

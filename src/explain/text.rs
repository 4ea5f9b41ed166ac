//! Explanations as text.

use std::fmt::Write;

use super::{BackendChoice, Explanation, FallsUnder, Outcome, ProviderRequest, Trial, Verdict};

/// How many matches that fail are shown one by one.
const SHOWN: usize = 20;

impl Explanation {
    /// As lines of text, each ended by a line feed.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        let mut out = format!("{}\n", paint("1", &format!("request {}", printable(&self.request))));
        let mut line = |name: &str, text: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {name:<11} {}", printable(text));
        };
        if let Some(listener) = &self.listener {
            line("listener", listener);
        }
        if let Some(hostname) = &self.hostname {
            line("host", if hostname == "*" { "* (any)" } else { hostname });
        }
        for (name, text) in self.trials() {
            line(name, &text);
        }
        for proof in &self.authentication {
            line("proves", proof);
        }
        if let Some(tenant) = &self.tenant {
            line("tenant", tenant);
        }
        if let Some(access) = &self.access {
            line("may use", access);
        }
        for FallsUnder { name, allows, backend, clients } in &self.limits {
            let backend = backend.as_ref().map(|backend| format!(" at {backend}")).unwrap_or_default();
            let clients = clients.as_ref().map(|clients| format!(", of {clients}")).unwrap_or_default();
            line("limit", &format!("{name}: {allows}{backend}{clients}"));
        }
        let answer = match &self.result {
            Verdict::Forwarded { backends, provider_request, .. } => {
                for backend in backends {
                    line("backend", &backend_line(backend, backends));
                    if let Some(reason) = &backend.refused {
                        line(" fails", reason);
                    }
                    for (name, text) in backend.provider_request.iter().flat_map(provider_lines) {
                        line(&format!(" {name}"), &text);
                    }
                }
                let lines = provider_request.iter().flat_map(provider_lines);
                lines.for_each(|(name, text)| line(name, &text));
                return out;
            }
            Verdict::Answered { status, reason } => format!("{status} by the gateway itself: {reason}"),
            Verdict::Unanswerable { reason } => reason.clone(),
        };
        let _ = writeln!(out, "  {:<11} {}", paint("1;33", "answer"), printable(&answer));
        out
    }

    fn trials(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let failed = self.matches.iter().filter(|trial| trial.outcome == Outcome::Failed);
        let hidden = failed.clone().count().saturating_sub(SHOWN);
        for trial in failed.take(SHOWN) {
            let because = trial.because.as_deref().unwrap_or_default();
            lines.push(("passed over", format!("{}: {because}", name(trial))));
        }
        if hidden > 0 {
            lines.push(("", format!("and {hidden} more, which --output json lists")));
        }
        if let Some(chosen) = self.matches.iter().find(|trial| trial.outcome == Outcome::Chosen) {
            let why = if chosen.conditions.is_empty() {
                "it takes every request".to_owned()
            } else {
                chosen.conditions.join(", ")
            };
            lines.push(("chosen", format!("{}: {why}", name(chosen))));
        }
        let untried = self.matches.iter().filter(|trial| trial.outcome == Outcome::NotTried).count();
        if untried > 0 {
            lines.push(("not tried", format!("{untried} more, which come later")));
        }
        lines
    }
}

fn name(trial: &Trial) -> String {
    format!("rule {} of {}", trial.rule, trial.route)
}

fn backend_line(backend: &BackendChoice, all: &[BackendChoice]) -> String {
    let BackendChoice { name, weight, priority, addresses, tls, provider_request: _, refused: _ } = backend;
    let mut text = format!("{name} at {}", addresses.join(", "));
    match tls {
        Some(hostname) => text.push_str(&format!(", TLS, certificate of {hostname}")),
        None => text.push_str(", without TLS"),
    }
    if all.iter().any(|other| other.priority != *priority) {
        text.push_str(&format!(", priority {priority}"));
    }
    let equals = all.iter().filter(|other| other.priority == *priority);
    if equals.clone().count() > 1 {
        let sum: u64 = equals.map(|other| u64::from(other.weight)).sum();
        text.push_str(&format!(", weight {weight} of {sum}"));
    }
    text
}

fn provider_lines(request: &ProviderRequest) -> Vec<(&'static str, String)> {
    let ProviderRequest { path, model, credential, headers_set, headers_removed, body_changed } = request;
    let mut lines = vec![("path", path.clone())];
    if !model.is_empty() {
        lines.push(("model", model.clone()));
    }
    lines.push(("credential", credential.clone().unwrap_or_else(|| "none".to_owned())));
    for (label, names) in [("sets", headers_set), ("removes", headers_removed)] {
        if !names.is_empty() {
            lines.push((label, names.join(", ")));
        }
    }
    if *body_changed {
        lines.push(("body", "changed on the way".to_owned()));
    }
    lines
}

/// Text of the user's, which must not drive the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            escaped.into_iter().flatten().chain((!character.is_control()).then_some(character))
        })
        .collect()
}

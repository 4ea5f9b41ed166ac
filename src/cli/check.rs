//! `aigw check`: everything that is wrong with the files, and what requests would get.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ColorChoice, ValueEnum};
use serde_json::json;

use crate::compile::{self, CompileOptions, Compiled, RoutingSecret, Sockets};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::explain::{Explanation, Question, explain};
use crate::resources::Source;
use crate::resources::admission::{Admission, Judged};
use crate::runtime::Runtime;
use crate::standalone::{self, Inputs};

/// Errors were found, or warnings where they count.
const FOUND: u8 = 1;
/// The command line is wrong, or a file cannot be read.
const USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Exit codes:
  0  nothing is wrong; there may be warnings
  1  something is wrong; with --strict, there are warnings
  2  the command line is wrong, or a file cannot be read

Requests (--request) are described by words with spaces between them:
  model=NAME  host=NAME  listener=NAME  path=/v1/...  header=name:value  tenant=ORGANISATION/TEAM/KEY (- for none)

Examples:
  aigw check examples/basic/basic.yaml examples/basic/openai.yaml
  aigw check --strict --output json config/
  aigw check --request 'model=gpt-4o-mini header=x-tenant:gold' config/
  aigw check --request 'model=gpt-4o-mini tenant=acme/research/ci' config/
  aigw check --schema-only config/";

/// Options of `aigw check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Options {
    /// Kubernetes-style YAML, as for `aigw run`: files, folders, globs, or `-` for standard input
    #[arg(value_name = "FILES")]
    files: Vec<String>,
    /// Explain which listener, rule and backend a request would get, and why; may be given several times
    #[arg(long = "request", value_name = "REQUEST")]
    requests: Vec<Question>,
    /// Say only what an API server with this gateway's CustomResourceDefinitions would say of each object by itself: types,
    /// limits, and the rules in CEL. Variables are not replaced
    #[arg(long, conflicts_with = "requests")]
    schema_only: bool,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// How the findings are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Whether text has colours; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON document, for CI
    Json,
}

/// Everything there is to say.
struct Report {
    files: usize,
    diagnostics: Diagnostics,
    compiled: Compiled,
    explanations: Vec<Explanation>,
}

/// Checks, prints, and says with which code to exit.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::new(&options.files)?;
    let (sources, unread) = inputs.read();
    let unreadable = unread.has_errors();
    let files = sources.len();
    if options.schema_only {
        return judge(options, sources, unread);
    }
    let (snapshot, findings) = standalone::parse(sources);
    let mut diagnostics = unread;
    diagnostics.extend(findings);
    let mut compiled = compile::compile(&snapshot, &compile_options());
    diagnostics.extend(std::mem::take(&mut compiled.diagnostics));
    let (runtime, problems) = Runtime::new(compiled.config.clone());
    // What the compiler lets through the processor takes; if not, that is to be known too.
    diagnostics.extend(problems.into_iter().map(|problem| Diagnostic::error(problem.to_string())));
    diagnostics.sort();
    let runtime = Arc::new(runtime);
    let explanations =
        options.requests.iter().map(|question| explain(&compiled, &runtime, question)).collect();
    let report = Report { files, diagnostics, compiled, explanations };
    let text = match options.output {
        Output::Text => report.text(wants_colour(options.color), inputs.notice()),
        Output::Json => format!("{:#}\n", report.json()),
    };
    print(&text)?;
    let found = report.diagnostics.has_errors() || (options.strict && !report.diagnostics.is_empty());
    Ok(match (unreadable, found) {
        (true, _) => ExitCode::from(USAGE),
        (false, true) => ExitCode::from(FOUND),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// What an API server would say of the objects.
fn judge(options: &Options, sources: Vec<Source>, unread: Diagnostics) -> anyhow::Result<ExitCode> {
    let (files, unreadable) = (sources.len(), unread.has_errors());
    let Judged { diagnostics: findings, own, foreign } = Admission::new().judge(sources);
    let mut diagnostics = unread;
    diagnostics.extend(findings);
    diagnostics.sort();
    let (errors, warnings) = (diagnostics.errors().count(), diagnostics.warnings().count());
    let text = match options.output {
        Output::Text => {
            let summary = format!(
                "{}, {} in {}: {} of this gateway's kinds, {} of others, of which nothing is said\n",
                count(errors, "error"),
                count(warnings, "warning"),
                count(files, "file"),
                count(own, "object"),
                foreign,
            );
            let findings = (!diagnostics.is_empty()).then(|| diagnostics.render(wants_colour(options.color)));
            findings.into_iter().chain([summary]).collect::<Vec<_>>().join("\n")
        }
        Output::Json => {
            let report = json!({
                "version": 1,
                "errors": errors,
                "warnings": warnings,
                "diagnostics": diagnostics,
                "objects": own,
                "others": foreign,
            });
            format!("{report:#}\n")
        }
    };
    print(&text)?;
    Ok(match (unreadable, errors > 0 || (options.strict && warnings > 0)) {
        (true, _) => ExitCode::from(USAGE),
        (false, true) => ExitCode::from(FOUND),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// As for a run; nothing of it that changes from one to the next is shown.
fn compile_options() -> CompileOptions {
    let folder = PathBuf::from("/run/aigw");
    CompileOptions {
        secret: RoutingSecret([0; 32]),
        ca_bundle: openssl_probe::probe().cert_file,
        listen_address: std::net::Ipv4Addr::LOCALHOST.into(),
        first_port: standalone::FIRST_PORT,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets {
            extproc: folder.join("extproc.sock"),
            envoy_admin: folder.join("envoy.sock"),
            embedded: folder,
        },
    }
}

fn wants_colour(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// To standard output. A reader that has left is none of our failures.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

impl Report {
    fn text(&self, colour: bool, notice: Option<&str>) -> String {
        let findings = (!self.diagnostics.is_empty()).then(|| self.diagnostics.render(colour));
        let explanations = self.explanations.iter().map(|explanation| explanation.render(colour));
        let summary = notice.map(|notice| format!("{notice}\n")).unwrap_or_default() + &self.summary();
        let parts: Vec<String> = findings.into_iter().chain(explanations).chain([summary]).collect();
        parts.join("\n")
    }

    fn summary(&self) -> String {
        let (errors, warnings) = (self.diagnostics.errors().count(), self.diagnostics.warnings().count());
        let listeners = &self.compiled.listeners;
        let rules: usize = listeners.iter().map(|listener| listener.rules).sum();
        format!(
            "{}, {} in {}: {} with {} that can be served\n",
            count(errors, "error"),
            count(warnings, "warning"),
            count(self.files, "file"),
            count(listeners.len(), "listener"),
            count(rules, "rule"),
        )
    }

    /// The form is part of the interface: members are added, and not taken away while `version` stays.
    fn json(&self) -> serde_json::Value {
        let listener = |listener: &compile::Listener| {
            json!({
                "id": listener.id,
                "name": listener.name,
                "rules": listener.rules,
                "models": listener.models,
            })
        };
        json!({
            "version": 1,
            "errors": self.diagnostics.errors().count(),
            "warnings": self.diagnostics.warnings().count(),
            "diagnostics": self.diagnostics,
            "listeners": self.compiled.listeners.iter().map(listener).collect::<Vec<_>>(),
            "requests": self.explanations,
        })
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

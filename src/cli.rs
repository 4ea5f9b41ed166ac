//! The command line: what is asked for, and who does it.

mod check;
#[cfg(feature = "controller")]
mod controller;
mod crds;
mod drop_in;
mod extproc;
mod go_flags;
mod health;
mod key;
mod shell;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::standalone;
use crate::telemetry::{LogFormat, init_logs, init_slog};
use crate::testbackend;

/// An Envoy AI gateway: one endpoint for many model providers, with routing, credentials and token accounting.
#[derive(Debug, Parser)]
#[command(name = "aigw", version, propagate_version = true, max_term_width = 110)]
struct Aigw {
    #[command(flatten)]
    logs: Logs,
    #[command(subcommand)]
    command: Command,
}

/// How this process logs.
#[derive(Debug, clap::Args)]
struct Logs {
    /// debug, info, warn or error; or a filter such as `warn,aigw::exchange=info`
    #[arg(
        long,
        global = true,
        alias = "logLevel",
        default_value = "info",
        value_name = "LEVEL",
        env = "AIGW_LOG_LEVEL"
    )]
    log_level: String,
    /// How a log line is written
    #[arg(
        long,
        global = true,
        alias = "logFormat",
        default_value = "text",
        value_name = "FORMAT",
        env = "AIGW_LOG_FORMAT"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole gateway on this machine, from Kubernetes-style files
    Run(Box<standalone::RunOptions>),
    /// Check files as `aigw run` would, and explain what requests would get
    Check(check::Options),
    /// Run the external processor alone: Envoy connects to it over gRPC
    Extproc(Box<extproc::Options>),
    /// Run the controller: makes what Envoy Gateway and the processors of a cluster are told of its objects
    #[cfg(feature = "controller")]
    Controller(Box<crate::controller::Options>),
    /// Manage the keys that clients show to the gateway
    Key(key::Options),
    /// Print the kinds of this gateway as CustomResourceDefinitions
    Crds(crds::Options),
    /// Run a stand-in for a model provider
    Testbackend(Box<testbackend::Args>),
    /// Ask a running gateway whether it serves
    Healthcheck(health::Options),
    /// Print a completion script for a shell
    Completions(shell::CompletionsOptions),
    /// Print the manual page
    Man(shell::ManOptions),
    /// Print the version
    Version,
}

/// What `aigw` does with these arguments.
pub fn aigw(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Aigw { logs, command } = match Aigw::try_parse_from(go_flags::of_controller(arguments)) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    if let Err(error) = init_logs(&logs.log_level, logs.log_format) {
        return fail(&anyhow::Error::msg(error));
    }
    finish(match command {
        Command::Check(options) => return check::run(&options).unwrap_or_else(|error| fail_usage(&error)),
        Command::Run(options) => block_on(async { Ok(standalone::run(*options).await?) }),
        Command::Extproc(options) => block_on(async { extproc::run(options.plan()?).await }),
        #[cfg(feature = "controller")]
        Command::Controller(options) => block_on(controller::run(*options)),
        Command::Key(options) => block_on(key::run(options)),
        Command::Crds(options) => crds::run(&options),
        Command::Testbackend(options) => block_on(run_testbackend(*options)),
        Command::Healthcheck(options) => block_on(health::run(options)),
        Command::Completions(options) => shell::completions(&options),
        Command::Man(options) => shell::man(&options),
        Command::Version => print_version(),
    })
}

/// What `extproc` does with these arguments, which are in the syntax of Go's `flag` package. Wrong ones end it with 1, as they
/// end the Go processor.
pub fn extproc(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match drop_in::GoFlags::try_parse_from(go_flags::translate(arguments)) {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => {
            usage(&error);
            return ExitCode::FAILURE;
        }
        Err(error) => return usage(&error),
    };
    if let Err(error) = init_slog(&flags.log_level, flags.log_format) {
        return fail(&anyhow::Error::msg(error));
    }
    finish(flags.plan().and_then(|plan| block_on(extproc::run(plan))))
}

async fn run_testbackend(testbackend::Args { listen, options }: testbackend::Args) -> anyhow::Result<()> {
    let backend = testbackend::start(listen, options).await?;
    tracing::info!(listen = %backend.local_addr(), "the test backend is ready");
    extproc::StopSignals::new()?.next().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn print_version() -> anyhow::Result<()> {
    println!("aigw {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Runs the command on all cores.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "logs may be off or in JSON; the reason for an exit is for people")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// As [`fail`], where the command line is to blame.
fn fail_usage(error: &anyhow::Error) -> ExitCode {
    fail(error);
    ExitCode::from(2)
}

/// Help and version are no errors; everything else exits with 2, as is usual.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be said if this cannot be printed.
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

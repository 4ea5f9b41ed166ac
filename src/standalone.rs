//! L5. The whole gateway on this machine: files in, Envoy and the processor running.
//!
//! ```text
//! files ─► Edition ─┬─► Runtime ─► processor (in this process, on a socket file)
//!    ▲              ├─► xds files ─► Envoy (child process)
//!    └─ Reloader    └─► embedded test backends (in this process, on socket files)
//! ```
//!
//! Everything that is started is owned by one value and ends with it: no process, socket or file stays behind.

mod admin;
mod autoconfig;
mod edition;
pub mod envoy_binary;
mod envoy_process;
mod input;
mod options;
mod ports;
mod reload;
mod report;
mod runtime_dir;
mod xds;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub use autoconfig::{AutoConfig, AutoConfigError};
pub use envoy_process::EnvoyProcessError;
pub use input::{FIRST_PORT, Inputs, parse};
pub use options::RunOptions;
pub use ports::PortError;

use crate::compile::{Compiled, EmbeddedBackend};
use crate::exchange::Settings;
use crate::resources::Memory;
use crate::runtime::Runtime;
use crate::server::{Listen, Processor, ProcessorOptions};
use crate::source::Slot;
use crate::testbackend;
use edition::Edition;
use envoy_binary::{EnvoyBinary, EnvoyBinaryError, Search};
use envoy_process::{EnvoyArguments, EnvoyProcess};
use input::variable;
use reload::Reloader;
use runtime_dir::RuntimeDir;
use xds::Xds;

/// Under which name this part logs.
const LOG: &str = "aigw::run";

/// How long the processor may take to end once Envoy is gone: nobody waits for an answer by then.
const PROCESSOR_GRACE: Duration = Duration::from_secs(2);

/// Why there is no gateway, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing was named, there is no default, and the environment names no provider.
    #[error("no files are named; {0}")]
    AutoConfig(#[from] AutoConfigError),
    /// Something that was named cannot be read; it has been reported.
    #[error("not every file could be read")]
    Unreadable,
    /// An option does not fit the files; it has been reported.
    #[error("the options do not fit the files")]
    Options,
    /// The files lead to no rule that sends requests anywhere; why has been reported.
    #[error("there is nothing to serve: no route of these files leads from a listener to a backend")]
    NothingToServe,
    /// Envoy takes no listener as it is; why has been reported.
    #[error("Envoy refuses every listener of these files")]
    Refused,
    /// A port is not free.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no Envoy.
    #[error(transparent)]
    EnvoyBinary(#[from] EnvoyBinaryError),
    /// Envoy does not run.
    #[error(transparent)]
    Envoy(#[from] EnvoyProcessError),
    /// The private folder cannot be made.
    #[error("the folder for sockets could not be made: {0}")]
    RuntimeDir(io::Error),
    /// A part in this process does not start.
    #[error("{part} could not be started: {reason}")]
    Part {
        /// Which part.
        part: String,
        /// What it says.
        reason: String,
    },
    /// This process's own streams or signals fail.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the gateway until it is told to stop. Returns `Ok` after an orderly end, and after `--print-envoy` and
/// `--print-config`. Must not be spawned: the thread it is called on has to live as long as the process, see
/// [`EnvoyProcessError`].
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let started = tokio::select! {
        started = Box::pin(start(&options)) => started?,
        () = signals.next() => return Ok(()),
    };
    let Some(mut gateway) = started else { return Ok(()) };
    let failure = tokio::select! {
        failure = gateway.envoy.ended() => Some(failure),
        () = gateway.reloader.follow() => None,
        () = signals.next() => None,
    };
    match failure {
        None => gateway.stop(&options, &mut signals).await,
        Some(_) => gateway.abandon().await,
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Everything that runs. Dropping it ends all of it at once.
struct Gateway {
    envoy: EnvoyProcess,
    processor: Processor,
    reloader: Reloader,
    /// Last, so that the files go when nobody uses them any more.
    _folder: RuntimeDir,
}

/// Starts the gateway; `None` where only something was to be printed.
async fn start(options: &RunOptions) -> Result<Option<Gateway>, RunError> {
    if options.print_resources {
        write(&AutoConfig::from_env(&variable)?.document)?;
        return Ok(None);
    }
    let inputs = Inputs::new(&options.files)?;
    if let Some(notice) = inputs.notice() {
        tracing::info!(target: LOG, "{notice}");
    }
    let seen = inputs.stamps();
    let mut memory = Memory::default();
    let (sources, unread) = inputs.read();
    let unreadable = unread.has_errors();
    input::tell(unread)?;
    if unreadable {
        return Err(RunError::Unreadable);
    }
    if options.only_prints() {
        let compile_options = input::compile_options(options, &options.runtime_folder_for_show())?;
        let (edition, findings) = Edition::first(sources, &compile_options, &mut memory);
        input::tell(findings)?;
        print(options, &edition.compiled)?;
        return Ok(None);
    }
    let folder = RuntimeDir::create(options.runtime_dir.as_deref()).map_err(RunError::RuntimeDir)?;
    let compile_options = input::compile_options(options, folder.path())?;
    let (edition, findings) = Edition::first(sources, &compile_options, &mut memory);
    input::tell(findings)?;
    let compiled = &edition.compiled;
    if !compiled.serves() {
        return Err(RunError::NothingToServe);
    }
    if !compiled.options_fit {
        return Err(RunError::Options);
    }
    check_ports(options, compiled)?;
    let search = Search::from_env(options.envoy.clone());
    let binary = search.find(&mut |notice| tracing::info!(target: LOG, "{notice}")).await?;
    let backends = start_backends(compiled).await?;
    let slot = Slot::default();
    let processor = start_processor(options, compiled, &folder, &slot)?;
    let mut xds = Xds::new(folder.path().to_owned());
    xds.write(&compiled.envoy)?;
    let mut envoy = start_envoy(options, compiled, &binary, &folder).await?;
    envoy.ready().await?;
    let addresses = envoy.admin.listeners().await?;
    for (listener, reason) in envoy.admin.refused_listeners().await? {
        // Whatever the compiler cannot know of: in an access log's format, in most cases.
        tracing::error!(target: LOG, "listener {listener} is not served, because Envoy refuses it: {reason}");
    }
    if addresses.is_empty() {
        return Err(RunError::Refused);
    }
    slot.ready().await;
    let report = report::Report { compiled, addresses: &addresses, admin: processor.admin(), envoy: &binary };
    write(&report.to_string())?;
    let (held, admin) = (compiled.envoy.clone(), envoy.admin.clone());
    let reloader = Reloader {
        memory,
        inputs,
        options: compile_options,
        edition,
        xds,
        admin,
        slot,
        backends,
        held,
        earlier: Vec::new(),
        seen,
    };
    Ok(Some(Gateway { envoy, processor, reloader, _folder: folder }))
}

fn print(options: &RunOptions, compiled: &Compiled) -> Result<(), RunError> {
    let document = if options.print_envoy { compiled.envoy.shown() } else { compiled.config.redacted() };
    // `{:#}` of a JSON value is indented JSON.
    write(&format!("{document:#}\n"))
}

/// To standard output. A reader that has left is none of our failures.
fn write(text: &str) -> Result<(), RunError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn check_ports(options: &RunOptions, compiled: &Compiled) -> Result<(), RunError> {
    for listener in &compiled.listeners {
        let purpose = format!("listener \"{}\"", listener.name);
        ports::check(
            options.listen_address,
            listener.port,
            &purpose,
            &format!("--listen {}=PORT", listener.name),
        )?;
    }
    let admin = options.admin_address();
    ports::check(
        admin.ip(),
        admin.port(),
        "/health and /metrics",
        "--admin-port PORT (0 lets the system choose)",
    )?;
    Ok(())
}

async fn start_backends(compiled: &Compiled) -> Result<Vec<(PathBuf, testbackend::Handle)>, RunError> {
    let mut handles = Vec::new();
    for embedded in &compiled.embedded_backends {
        let part = || format!("the embedded test backend of Service {}", embedded.name);
        let handle = testbackend::start(Listen::Unix(embedded.socket.clone()), backend_options(embedded))
            .await
            .map_err(|error| RunError::Part { part: part(), reason: error.to_string() })?;
        handles.push((embedded.socket.clone(), handle));
    }
    Ok(handles)
}

/// What its container's environment says. An id that no header can hold is left out, with a warning.
fn backend_options(embedded: &EmbeddedBackend) -> testbackend::Options {
    let id = embedded.env.get("TESTUPSTREAM_ID").and_then(|id| {
        let parsed = id.parse();
        if parsed.is_err() {
            let (name, id) = (&embedded.name, id.escape_default());
            tracing::warn!(target: LOG, "the TESTUPSTREAM_ID `{id}` of Service {name} cannot be sent in a header");
        }
        parsed.ok()
    });
    testbackend::Options { id, ..testbackend::Options::default() }
}

fn start_processor(
    options: &RunOptions,
    compiled: &Compiled,
    folder: &RuntimeDir,
    slot: &Slot,
) -> Result<Processor, RunError> {
    let (runtime, problems) = Runtime::new(compiled.config.clone());
    for problem in &problems {
        // What the compiler lets through the processor takes; if not, the rule is refused and the log says why.
        tracing::error!(target: LOG, "{problem}");
    }
    drop(slot.publish(runtime));
    let processor = ProcessorOptions {
        admin: Some(Listen::Tcp(options.admin_address())),
        settings: Settings { attributes: options.attributes.resolve(), ..Settings::default() },
        keys: options.keys.clone(),
        quotas: options.quotas.clone(),
        ..ProcessorOptions::new(Listen::Unix(folder.extproc_socket()), slot.clone())
    };
    Processor::start(processor)
        .map_err(|error| RunError::Part { part: "the processor".to_owned(), reason: format!("{error:#}") })
}

async fn start_envoy(
    options: &RunOptions,
    compiled: &Compiled,
    binary: &EnvoyBinary,
    folder: &RuntimeDir,
) -> Result<EnvoyProcess, RunError> {
    let config = folder.file("envoy.json");
    std::fs::write(&config, compiled.envoy.dynamic_bootstrap(folder.path()).to_string())?;
    let arguments = EnvoyArguments {
        config: &config,
        admin_socket: &compiled.envoy.admin_socket,
        log_level: &options.envoy_log_level,
        concurrency: options.envoy_concurrency,
    };
    Ok(EnvoyProcess::start(binary, &arguments).await?)
}

impl Gateway {
    /// Lets requests in flight end, as long as the options and the user's patience allow, and then ends everything.
    async fn stop(self, options: &RunOptions, signals: &mut Signals) {
        self.processor.begin_drain();
        let within = options.drain_timeout.0;
        tracing::info!(
            target: LOG,
            "stopping: requests in flight have {} s to end; once more Ctrl-C stops at once",
            within.as_secs()
        );
        let left = tokio::select! {
            left = self.envoy.drain(within) => Some(left),
            () = signals.next() => None,
        };
        match left {
            Some(0) => {}
            Some(left) => tracing::warn!(target: LOG, "{left} requests were still in flight and are cut off"),
            None => tracing::warn!(target: LOG, "stopping at once"),
        }
        let Self { envoy, processor, reloader, _folder } = self;
        envoy.stop().await;
        finish(processor, reloader).await;
    }

    /// Ends what is left after Envoy has gone by itself.
    async fn abandon(self) {
        let Self { envoy, processor, reloader, _folder } = self;
        drop(envoy);
        finish(processor, reloader).await;
    }
}

async fn finish(processor: Processor, reloader: Reloader) {
    processor.shutdown(PROCESSOR_GRACE).await;
    for (_, backend) in reloader.backends {
        backend.shutdown().await;
    }
}

/// The signals that ask for an end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

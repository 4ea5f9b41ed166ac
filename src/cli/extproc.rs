//! The data plane alone: `aigw extproc`, and what it has in common with `extproc`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::endpoint::{Paths, Prefixes};
use crate::exchange::Settings;
use crate::server::{Habits, KeyOptions, Listen, Processor, ProcessorOptions, QuotaOptions};
use crate::source::protocol::{is_gateway, is_replica};
use crate::source::{
    self, Accept, Controller, ControllerFiles, ControllerUrl, Location, Slot, Source, Watcher,
};
use crate::telemetry::AttributeOptions;

/// Options of `aigw extproc`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The first SIGINT or SIGTERM begins the end, the second ends it at once.

Examples:
  aigw extproc --config filter-config.yaml
  aigw extproc --config filter-config.yaml --listen unix:///run/aigw/extproc.sock --admin :1064
  aigw extproc --controller https://ai-gateway-controller.envoy-ai-gateway-system:1065 --controller-ca ca.crt \\
    --controller-cert tls.crt --controller-key tls.key --config-cache /var/cache/aigw")]
pub(super) struct Options {
    /// The compiled configuration, YAML or JSON; read again whenever it changes
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config_bundle", "controller"])]
    config: Option<PathBuf>,
    /// A folder with index.yaml and the parts of a configuration, instead of a file
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    config_bundle: Option<PathBuf>,
    #[command(flatten)]
    follow: FollowOptions,
    /// The version that configurations of a controller have to name; `*` takes any
    #[arg(long, default_value = "*", env = "AIGW_ACCEPT_VERSION", value_name = "VERSION")]
    accept_version: Accept,
    /// Where Envoy connects: `:1063`, `127.0.0.1:1063` or `unix:///path`
    #[arg(long, default_value = ":1063", value_name = "ADDRESS")]
    listen: Listen,
    /// Where /health, /metrics and /config are served
    #[arg(long, default_value = ":1064", value_name = "ADDRESS")]
    admin: Listen,
    /// Where tools (MCP) are to be served. They are not yet: the answer is 501
    #[arg(long, value_name = "ADDRESS")]
    mcp: Option<Listen>,
    /// Comes before the path of every endpoint
    #[arg(long, default_value = "/", value_name = "PATH")]
    root_prefix: String,
    /// What comes before the paths of each family of endpoints [default: openai:/,cohere:/cohere,anthropic:/anthropic]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIXES")]
    endpoint_prefixes: Prefixes,
    /// How long a message of Envoy may be, in bytes [default: no limit]
    #[arg(long, value_name = "BYTES")]
    max_message_size: Option<usize>,
    /// At level debug, log the shape of bodies, each text replaced by its length and the start of its SHA-256, and not
    /// only their length
    #[arg(long)]
    log_body_shapes: bool,
    /// How long to go on serving after a signal to stop, in seconds
    #[arg(long, default_value = "0", value_name = "SECONDS")]
    drain_delay: u64,
    /// How long exchanges may go on after that, in seconds
    #[arg(long, default_value = "30", value_name = "SECONDS")]
    drain_timeout: u64,
    #[command(flatten)]
    attributes: AttributeOptions,
    #[command(flatten)]
    keys: KeyOptions,
    #[command(flatten)]
    quotas: QuotaOptions,
}

/// Options that a controller takes the place of.
const FILES: [&str; 2] = ["config", "config_bundle"];

/// A controller to be configured by.
#[derive(Debug, clap::Args)]
struct FollowOptions {
    /// Be configured by the controller at https://HOST[:1065], instead of by files
    #[arg(
        long, value_name = "URL", conflicts_with_all = FILES,
        requires_all = ["controller_ca", "controller_cert", "controller_key"],
    )]
    controller: Option<ControllerUrl>,
    /// The authorities of the controller's certificate (PEM). This and the next two are read again for every connection
    #[arg(long, value_name = "FILE", requires = "controller", conflicts_with_all = FILES)]
    controller_ca: Option<PathBuf>,
    /// The certificate to show to the controller (PEM). Its names say which Gateways may be served: aigw://gateways/NAMESPACE/NAME
    #[arg(long, value_name = "FILE", requires = "controller", conflicts_with_all = FILES)]
    controller_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "controller", conflicts_with_all = FILES)]
    controller_key: Option<PathBuf>,
    /// Serve this Gateway, NAMESPACE/NAME, and no others that are not named; can be repeated [default: all that the certificate names]
    #[arg(long = "gateway", value_name = "GATEWAY", requires = "controller", conflicts_with_all = FILES, value_parser = gateway)]
    gateways: Vec<String>,
    /// Keep what is in force in this folder, credentials included, and begin with it if the controller is not there
    #[arg(long, value_name = "FOLDER", requires = "controller", conflicts_with_all = FILES)]
    config_cache: Option<PathBuf>,
    /// What the controller calls this processor in what it shows [default: the name of the host]
    #[arg(long, value_name = "NAME", env = "POD_NAME", value_parser = replica)]
    replica: Option<String>,
}

fn gateway(text: &str) -> Result<String, &'static str> {
    let valid = is_gateway(text).then(|| text.to_owned());
    valid.ok_or("this is no Gateway's name; write NAMESPACE/NAME")
}

fn replica(text: &str) -> Result<String, &'static str> {
    is_replica(text).then(|| text.to_owned()).ok_or("this is no name; write one word, such as a pod's name")
}

impl FollowOptions {
    fn controller(self, accept: &Accept) -> Option<Controller> {
        let Self {
            controller,
            controller_ca,
            controller_cert,
            controller_key,
            gateways,
            config_cache,
            replica,
        } = self;
        let files =
            ControllerFiles { ca: controller_ca?, certificate: controller_cert?, key: controller_key? };
        let host = || {
            let named =
                std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
            named.map(|name| name.trim().to_owned()).filter(|name| is_replica(name))
        };
        Some(Controller {
            url: controller?,
            files,
            gateways,
            cache: config_cache,
            replica: replica.or_else(host).unwrap_or_else(|| "extproc".to_owned()),
            accept: accept.clone(),
        })
    }
}

/// Where the configuration comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Files.
    Source(Source),
    /// A controller that pushes it.
    Controller(Controller),
}

/// What is to be run, whichever way it was asked for.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) listen: Listen,
    pub(super) admin: Listen,
    pub(super) mcp: Option<Listen>,
    pub(super) origin: Origin,
    pub(super) settings: Settings,
    pub(super) max_message: usize,
    pub(super) habits: Habits,
    pub(super) drain: Drain,
    pub(super) keys: KeyOptions,
    pub(super) quotas: QuotaOptions,
}

/// The time between a signal and the end.
#[derive(Debug)]
pub(super) struct Drain {
    /// Everything is served as before: whoever sends requests may not know yet.
    pub(super) delay: Duration,
    /// No connection is taken; streams may end. Nothing is no limit.
    pub(super) timeout: Option<Duration>,
}

impl Options {
    /// What they ask for.
    pub(super) fn plan(self) -> anyhow::Result<Plan> {
        let controller = self.follow.controller(&self.accept_version);
        let location = self.config_bundle.map(Location::Bundle).or_else(|| self.config.map(Location::File));
        Ok(Plan {
            listen: self.listen,
            admin: self.admin,
            mcp: self.mcp,
            origin: match controller {
                Some(controller) => Origin::Controller(controller),
                None => Origin::Source(Source {
                    location: location.context("--config is missing")?,
                    accept: self.accept_version,
                }),
            },
            settings: Settings {
                paths: Paths::new(&self.root_prefix, &self.endpoint_prefixes),
                attributes: self.attributes.resolve(),
                log_body_shapes: self.log_body_shapes,
                keys: None,
                keys_by_policy: false,
            },
            max_message: self.max_message_size.unwrap_or(usize::MAX),
            habits: Habits::Own,
            drain: Drain {
                delay: Duration::from_secs(self.drain_delay),
                timeout: Some(Duration::from_secs(self.drain_timeout)),
            },
            keys: self.keys,
            quotas: self.quotas,
        })
    }
}

/// Serves until told to stop. A configuration that cannot be used at start is an error; later ones are only reported.
pub(super) async fn run(plan: Plan) -> anyhow::Result<()> {
    let Plan { listen, admin, mcp, origin, settings, max_message, habits, drain, keys, quotas } = plan;
    let mut signals = StopSignals::new()?;
    if std::env::var_os("DISABLE_PPROF").is_some() {
        tracing::debug!("DISABLE_PPROF is set; no profiles are served in any case");
    }
    let slot = Slot::default();
    let processor = Processor::start(ProcessorOptions {
        admin: Some(admin),
        mcp,
        settings,
        max_message,
        habits,
        keys,
        quotas,
        ..ProcessorOptions::new(listen, slot.clone())
    })?;
    let hurried = match origin {
        Origin::Source(source) => {
            let mut watcher = Watcher::new(source, slot.clone());
            let watcher = tokio::task::spawn_blocking(move || watcher.first().map(|()| watcher)).await?;
            let watcher = watcher.context("the configuration cannot be used")?;
            slot.ready().await;
            announce(&processor);
            tokio::select! {
                hurried = stopping(&mut signals, &processor, drain.delay) => hurried,
                never = source::follow(watcher) => match never {},
            }
        }
        Origin::Controller(controller) => {
            let following = source::follow_controller(controller, slot.clone())?;
            let announced = async {
                let mut changes = slot.changes();
                // The slot is there for as long as this is.
                if slot.load().is_some() || changes.changed().await.is_ok() {
                    announce(&processor);
                }
                std::future::pending().await
            };
            tokio::select! {
                hurried = stopping(&mut signals, &processor, drain.delay) => hurried,
                never = Box::pin(following) => match never {},
                () = announced => false,
            }
        }
    };
    let enough = async {
        let timeout = async {
            match drain.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        if !hurried {
            tokio::select! {
                () = timeout => {}
                () = signals.next() => tracing::info!("told to stop again: not waiting any longer"),
            }
        }
    };
    processor.shutdown_unless(enough).await;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "supervisors wait for this very line")]
fn announce(processor: &Processor) {
    let version = source::STAMP;
    tracing::info!(version, listen = %processor.listen(), admin = processor.admin().map(tracing::field::display), "serving");
    eprintln!("AI Gateway External Processor is ready");
}

/// Resolves when the time to serve is over: after a signal and the delay. Says whether a second signal cut the delay short.
async fn stopping(signals: &mut StopSignals, processor: &Processor, delay: Duration) -> bool {
    signals.next().await;
    processor.begin_drain();
    let active = processor.active().count();
    tracing::info!(active, delay_seconds = delay.as_secs_f64(), "told to stop");
    let hurried = tokio::select! {
        () = tokio::time::sleep(delay) => false,
        () = signals.next() => true,
    };
    tracing::info!(active = processor.active().count(), "stopping");
    hurried
}

/// SIGINT and SIGTERM. From the moment this exists they do not end the process.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves at the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let line =
            Line::try_parse_from(["extproc"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        line.options.plan().map_err(|error| error.to_string())
    }

    fn source(plan: Plan) -> Source {
        let Origin::Source(source) = plan.origin else { panic!("another origin") };
        source
    }

    #[test]
    fn a_controller_takes_the_place_of_files() {
        let tls = ["--controller-ca", "a", "--controller-cert", "b", "--controller-key", "c"];
        let with = |more: &[&str]| plan(&[&tls[..], more].concat());
        let url = ["--controller", "https://c"];
        let named =
            with(&[&url[..], &["--gateway", "d/a", "--gateway=d/b", "--replica=r"]].concat()).unwrap();
        let Origin::Controller(controller) = named.origin else { panic!("another origin") };
        assert_eq!(
            (controller.gateways, controller.replica.as_str()),
            (vec!["d/a".into(), "d/b".into()], "r")
        );
        assert_eq!(controller.files.key, PathBuf::from("c"));
        assert!(plan(&url).unwrap_err().contains("--controller-ca"));
        assert!(with(&["--config", "f"]).unwrap_err().contains("cannot be used"));
        assert!(plan(&["--config=f", "--config-cache=c"]).unwrap_err().contains("cannot be used"));
        assert!(
            with(&["--controller", "https://c", "--config", "f"]).unwrap_err().contains("cannot be used")
        );
        assert!(with(&["--controller", "http://c"]).unwrap_err().contains("https://HOST"));
        assert!(with(&[&url[..], &["--gateway", "gw"]].concat()).unwrap_err().contains("NAMESPACE/NAME"));
    }

    #[test]
    fn a_configuration_is_a_file_or_a_bundle() {
        assert_eq!(source(plan(&["--config", "a"]).unwrap()).location, Location::File("a".into()));
        assert_eq!(source(plan(&["--config-bundle", "b"]).unwrap()).location, Location::Bundle("b".into()));
        assert!(plan(&[]).unwrap_err().contains("--config"));
        assert!(
            plan(&["--config", "a", "--config-bundle", "b"]).unwrap_err().contains("cannot be used with")
        );
    }

    #[test]
    fn what_the_go_processor_can_this_can_too() {
        let plan = plan(&[
            "--config=a",
            "--accept-version=v1",
            "--root-prefix=/ai",
            "--endpoint-prefixes=cohere:/c",
            "--max-message-size=9",
            "--mcp=:1",
            "--log-body-shapes",
            "--drain-delay=3",
        ])
        .unwrap();
        assert_eq!(plan.settings.paths, Paths::new("/ai", &"cohere:/c".parse().unwrap()));
        assert_eq!((plan.max_message, plan.mcp.is_some(), plan.habits), (9, true, Habits::Own));
        assert!(plan.settings.log_body_shapes);
        assert_eq!((plan.drain.delay.as_secs(), plan.drain.timeout), (3, Some(Duration::from_secs(30))));
        assert_eq!(source(plan).accept, Accept::Only("v1".to_owned()));
    }
}

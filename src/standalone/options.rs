//! The options of `aigw run`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::compile::PortOverride;
use crate::resources::types::GatewayDuration;
use crate::server::{KeyOptions, QuotaOptions};
use crate::telemetry::AttributeOptions;

const EXAMPLES: &str = "\
Examples:
  The first example, on http://127.0.0.1:1975:
    aigw run examples/basic/basic.yaml
  A provider besides; the file's ${VARIABLES} are taken from the environment:
    aigw run examples/basic/basic.yaml examples/basic/openai.yaml
  A folder, a glob, standard input:
    aigw run config/ 'more/*.yaml' -
  On another port, for the whole network:
    aigw run --listen http=8080 --listen-address 0.0.0.0 examples/basic/basic.yaml
  No file at all, everything to the provider whose key is in the environment:
    OPENAI_API_KEY=sk-... aigw run
  What Envoy would read:
    aigw run --print-envoy examples/basic/basic.yaml";

/// The command line of `aigw run`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunOptions {
    /// Kubernetes-style YAML: files, folders, globs, or `-` for standard input [default: config.yaml in
    /// $AIGW_CONFIG_HOME, or in ~/.config/aigw; if that is not there, what OPENAI_API_KEY, AZURE_OPENAI_API_KEY or
    /// ANTHROPIC_API_KEY in the environment makes]
    #[arg(value_name = "FILES")]
    pub files: Vec<String>,
    /// The port of a listener, by its name (or gateway/listener); 0 takes a free one. The first listener has 1975, the
    /// others the ports after it
    #[arg(long = "listen", value_name = "NAME=PORT", value_parser = parse_listen)]
    pub listen: Vec<PortOverride>,
    /// The address listeners listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), env = "AIGW_LISTEN_ADDRESS")]
    pub listen_address: IpAddr,
    /// The port of /health and /metrics on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 1064)]
    pub admin_port: u16,
    /// The Envoy to use [default: the one on PATH if it is supported, else one that is fetched once]
    #[arg(long, value_name = "PATH", env = "AIGW_ENVOY")]
    pub envoy: Option<PathBuf>,
    /// What Envoy itself logs: trace, debug, info, warn, error, critical or off
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = ["trace", "debug", "info", "warn", "error", "critical", "off"])]
    pub envoy_log_level: String,
    /// How many threads Envoy serves with [default: one a core]
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u32).range(1..))]
    pub envoy_concurrency: Option<u32>,
    /// How long requests in flight may take to end after Ctrl-C
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub drain_timeout: GatewayDuration,
    /// Where the private folder with sockets is made [default: the system's place for temporary files]
    #[arg(long, value_name = "FOLDER", env = "AIGW_RUNTIME_DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Print the resources that are made from the environment where no file is named, and exit. The key is not in them
    #[arg(long, conflicts_with_all = ["files", "print_envoy", "print_config"])]
    pub print_resources: bool,
    /// Print Envoy's configuration and exit
    #[arg(long, conflicts_with = "print_config")]
    pub print_envoy: bool,
    /// Print the processor's configuration, without its secrets, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Which request headers are told in telemetry.
    #[command(flatten)]
    pub attributes: AttributeOptions,
    /// The gateway's own keys.
    #[command(flatten)]
    pub keys: KeyOptions,
    /// Where quotas are kept.
    #[command(flatten)]
    pub quotas: QuotaOptions,
}

impl RunOptions {
    pub(super) fn only_prints(&self) -> bool {
        self.print_envoy || self.print_config
    }

    pub(super) fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.admin_port)
    }

    /// The folder that is named in what is printed. It is not made.
    pub(super) fn runtime_folder_for_show(&self) -> PathBuf {
        self.runtime_dir.clone().unwrap_or_else(std::env::temp_dir).join("aigw")
    }
}

fn parse_listen(text: &str) -> Result<PortOverride, String> {
    let (listener, port) = text.split_once('=').ok_or("write NAME=PORT, for example http=8080")?;
    let port = port.parse().map_err(|_| format!("`{port}` is not a port: a number from 0 to 65535"))?;
    if listener.is_empty() {
        return Err("name the listener before the `=`, for example http=8080".to_owned());
    }
    Ok(PortOverride { listener: listener.to_owned(), port })
}

/// A number alone is one of seconds.
fn parse_duration(text: &str) -> Result<GatewayDuration, String> {
    match text.parse() {
        Ok(seconds) => Ok(GatewayDuration(Duration::from_secs(u64::from(u32::min(seconds, 86_400))))),
        Err(_) => GatewayDuration::from_str(text).map_err(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: RunOptions,
    }

    fn parse(arguments: &[&str]) -> Result<RunOptions, String> {
        let arguments = std::iter::once("run").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).map(|command| command.options).map_err(|error| error.to_string())
    }

    #[test]
    fn listeners_and_durations() {
        let options =
            parse(&["--listen", "http=8080", "--listen", "gw/b=0", "--drain-timeout", "1m30s", "f"])
                .expect("fine");
        let ports: Vec<_> =
            options.listen.iter().map(|chosen| (chosen.listener.as_str(), chosen.port)).collect();
        assert_eq!(ports, [("http", 8080), ("gw/b", 0)]);
        assert_eq!(options.drain_timeout.0, Duration::from_secs(90));
        assert_eq!(parse(&["--drain-timeout", "5"]).expect("fine").drain_timeout.0, Duration::from_secs(5));
    }

    #[test]
    fn mistakes_are_explained() {
        for (arguments, words) in [
            (["--listen", "8080"], "NAME=PORT"),
            (["--listen", "http=99999"], "`99999` is not a port"),
            (["--listen", "=80"], "name the listener"),
            (["--drain-timeout", "soon"], "30s"),
            (["--print-envoy", "--print-config"], "cannot be used with"),
        ] {
            let error = parse(&arguments).expect_err("refused");
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }
}

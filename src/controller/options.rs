//! The options of `aigw controller`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::resources::types::GatewayDuration;
use crate::server::Listen;

const EXAMPLES: &str = "\
Runs in the cluster under its ServiceAccount, or anywhere with a kubeconfig. Several may run: the one that holds the Lease writes, the \
others stand by.

Examples:
  In the cluster:
    aigw controller
  From outside, one of one, with what it says in JSON:
    aigw controller --kubeconfig ~/.kube/config --leader-elect=false --log-format json
  For two namespaces only, beside another controller on the same machine:
    aigw controller --watch-namespaces team-a,team-b --config-listen :2065 --admin :9080";

/// The command line of `aigw controller`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// How to reach the API server [default: $KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where controller, processors and their Services are
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "envoy-ai-gateway-system")]
    pub system_namespace: String,
    /// The namespaces that are watched, besides its own [default: all]
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', alias = "watchNamespaces")]
    pub watch_namespaces: Vec<String>,
    /// Where processors fetch their configuration, over TLS with certificates on both sides
    #[arg(long, value_name = "ADDRESS", default_value = ":1065")]
    pub config_listen: Listen,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = ":8080")]
    pub admin: Listen,
    /// What the paths of requests begin with
    #[arg(long, value_name = "PATH", default_value = "/", alias = "rootPrefix")]
    pub root_prefix: String,
    /// Where processors listen for Envoy: the port of their Services
    #[arg(long, value_name = "PORT", default_value_t = 1063)]
    pub extproc_port: u16,
    /// The labels of the processors' pods
    #[arg(long, value_name = "NAME=VALUE,...", value_parser = parse_label, value_delimiter = ',',
        default_value = "app.kubernetes.io/name=ai-gateway-extproc")]
    pub extproc_selector: Vec<(String, String)>,
    /// Whether to write only while holding the Lease; without it, nothing else may write
    #[arg(long, value_name = "true|false", alias = "enableLeaderElection", action = clap::ArgAction::Set,
        default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub leader_elect: bool,
    /// The Lease, in the system namespace. Go's controller has the same: of both, only one writes
    #[arg(long, value_name = "NAME", default_value = "envoy-ai-gateway-controller")]
    pub lease_name: String,
    /// How long the Lease counts after it was renewed last
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: GatewayDuration,
    /// For how long its holder writes without having renewed it
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub renew_deadline: GatewayDuration,
    /// How often it is renewed, and looked at
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub retry_period: GatewayDuration,
    /// How long a change of routes waits for Envoy Gateway, and then for the processors, before it goes on without them
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub rollout_bound: GatewayDuration,
    /// How long old routes stay after the processors have changed over
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub rollout_grace: GatewayDuration,
}

fn parse_duration(text: &str) -> Result<GatewayDuration, String> {
    text.parse().map_err(|why: &str| why.to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        Err("the name is missing".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

impl Options {
    /// What keeps these options from being followed.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let (lease, deadline, retry) = (self.lease_duration.0, self.renew_deadline.0, self.retry_period.0);
        if lease < Duration::from_secs(1) {
            anyhow::bail!("--lease-duration is less than a second");
        }
        if deadline >= lease {
            anyhow::bail!(
                "--renew-deadline has to be shorter than --lease-duration, or two controllers write at once"
            );
        }
        if retry.is_zero() || retry * 2 > deadline {
            anyhow::bail!(
                "--retry-period has to be at most half of --renew-deadline, so that a renewal may fail once"
            );
        }
        if let Some(odd) =
            self.watch_namespaces.iter().find(|name| name.is_empty() || name.contains(['*', ' ', '/']))
        {
            anyhow::bail!("--watch-namespaces: `{odd}` is no namespace");
        }
        Ok(())
    }

    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        self.extproc_selector.iter().cloned().collect()
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

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let line = Line::try_parse_from(["controller"].iter().chain(arguments))
            .map_err(|error| error.to_string())?;
        line.options.check().map_err(|error| error.to_string())?;
        Ok(line.options)
    }

    #[test]
    fn defaults_are_those_of_the_charts() {
        let options = options(&[]).unwrap();
        assert_eq!(
            (options.config_listen.to_string(), options.admin.to_string()),
            ("[::]:1065".into(), "[::]:8080".into())
        );
        assert!(options.leader_elect && options.watch_namespaces.is_empty());
        assert_eq!(options.selector().len(), 1);
    }

    #[test]
    fn gos_names_of_flags_are_taken() {
        let options =
            options(&["--watchNamespaces=a,b", "--enableLeaderElection=false", "--rootPrefix=/ai"]).unwrap();
        assert_eq!(options.watch_namespaces, ["a", "b"]);
        assert!(!options.leader_elect);
        assert_eq!(options.root_prefix, "/ai");
    }

    #[test]
    fn times_that_let_two_lead_are_refused() {
        assert!(options(&["--renew-deadline=15s"]).unwrap_err().contains("two controllers"));
        assert!(options(&["--retry-period=6s"]).unwrap_err().contains("half"));
        assert!(
            options(&["--lease-duration=500ms", "--renew-deadline=400ms"]).unwrap_err().contains("a second")
        );
        assert!(options(&["--watch-namespaces=*"]).unwrap_err().contains("no namespace"));
    }
}

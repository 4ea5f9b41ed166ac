//! The command line of `extproc`: flags, defaults and meanings are those of the Go processor.

use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Parser};
use secrecy::{ExposeSecret as _, SecretString};

use super::extproc::{Drain, Origin, Plan};
use super::go_flags::{boolean, duration};
use crate::endpoint::{Paths, Prefixes};
use crate::exchange::Settings;
use crate::headers::HeaderMapping;
use crate::keystore::Location as KeyLocation;
use crate::server::{Habits, KeyOptions, Listen, QuotaOptions};
use crate::source::{self, Accept, Location, Source};
use crate::telemetry::{AttributeOptions, LogFormat};

/// The external processor of an Envoy AI gateway, with the flags of the Go implementation. Flags take one dash or two, and
/// `-flag value` or `-flag=value`.
#[derive(Debug, Parser)]
#[command(name = "extproc", max_term_width = 110, args_override_self = true)]
#[command(version = source::STAMP)]
#[command(after_help = "Example:
  extproc -configPath /etc/filter-config/filter-config.yaml -extProcAddr unix:///run/extproc.sock -adminPort 1064

The first SIGINT or SIGTERM starts the drain delay, after which no connection is taken any more and the process
ends with its last stream; the second ends it at once. Exit codes: 0 after a signal, 1 otherwise.

At level debug, headers and bodies are logged: credentials never, bodies only by their length, or with
-enableRedaction by their shape.")]
pub(super) struct GoFlags {
    /// The filter configuration, YAML or JSON, read again whenever it changes
    #[arg(long = "configPath", default_value = "", hide_default_value = true, value_name = "FILE")]
    config_path: OsString,
    /// A folder with index.yaml and the parts of a filter configuration; goes before -configPath
    #[arg(long = "configBundlePath", default_value = "", hide_default_value = true, value_name = "FOLDER")]
    config_bundle_path: OsString,
    /// Where Envoy connects: host:port or unix:///path
    #[arg(long = "extProcAddr", default_value = ":1063", value_name = "ADDRESS")]
    ext_proc_addr: Listen,
    /// The port of /health and /metrics, on all interfaces
    #[arg(long = "adminPort", default_value = "1064", value_name = "PORT")]
    admin_port: u16,
    /// debug, info, warn or error, in any case; or one of them and an offset, as info+2
    #[arg(long = "logLevel", default_value = "info", value_name = "LEVEL")]
    pub(super) log_level: String,
    /// text or json
    #[arg(long = "logFormat", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// At level debug, log the shape of bodies, each text in them replaced by its length and the start of its SHA-256
    #[arg(
        long = "enableRedaction", value_name = "true|false", action = ArgAction::Set, value_parser = boolean,
        default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true
    )]
    enable_redaction: bool,
    /// Request headers told in all telemetry: header:attribute,…
    #[arg(long = "requestHeaderAttributes", value_name = "MAPPING")]
    request_header_attributes: Option<HeaderMapping>,
    /// Request headers told as labels of metrics, besides those
    #[arg(long = "metricsRequestHeaderAttributes", value_name = "MAPPING")]
    metrics_request_header_attributes: Option<HeaderMapping>,
    /// Request headers told in dynamic metadata, besides those [default: agent-session-id:session.id]
    #[arg(long = "logRequestHeaderAttributes", value_name = "MAPPING")]
    log_request_header_attributes: Option<HeaderMapping>,
    /// Comes before the path of every endpoint
    #[arg(long = "rootPrefix", default_value = "/", value_name = "PATH")]
    root_prefix: String,
    /// What comes before the paths of each family of endpoints [default: openai:/,cohere:/cohere,anthropic:/anthropic]
    #[arg(long = "endpointPrefixes", default_value = "", hide_default_value = true, value_name = "PREFIXES")]
    endpoint_prefixes: Prefixes,
    /// How long a message of Envoy may be, in bytes [default: no limit]
    #[arg(
        long = "maxRecvMsgSize",
        default_value = "9223372036854775807",
        hide_default_value = true,
        value_name = "BYTES"
    )]
    max_recv_msg_size: usize,
    /// Where tools (MCP) are to be served: host:port or unix:///path. They are not yet: the answer is 501
    #[arg(long = "mcpAddr", default_value = "", hide_default_value = true, value_name = "ADDRESS")]
    mcp_addr: String,
    /// The version that configurations have to name; `*` takes any. Not a flag of the Go implementation
    #[arg(long = "versionString", default_value = source::STAMP, env = "AIGW_ACCEPT_VERSION", value_name = "VERSION")]
    version_string: Accept,
    /// How long to go on serving after a signal to stop. Not a flag of the Go implementation, which waits as long
    #[arg(long = "drainDelay", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    drain_delay: Duration,
    /// How long streams may go on after that [default: no limit]. Not a flag of the Go implementation
    #[arg(long = "drainTimeout", value_parser = duration, value_name = "DURATION")]
    drain_timeout: Option<Duration>,
    /// Keep quotas in this Redis. Not a flag of the Go implementation
    #[arg(long = "redis", env = "AIGW_REDIS", hide_env_values = true, value_name = "URL", value_parser = KeyLocation::unread)]
    redis: Option<SecretString>,
    /// The certificates to trust with rediss:// (PEM). Not a flag of the Go implementation
    #[arg(long = "redisCA", env = "AIGW_REDIS_CA", value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    #[command(flatten)]
    later: Later,
}

/// Flags that are checked and have no effect yet.
#[derive(Debug, clap::Args)]
struct Later {
    /// Request headers told in spans. There are no spans yet
    #[arg(long = "spanRequestHeaderAttributes", value_name = "MAPPING")]
    span_request_header_attributes: Option<HeaderMapping>,
    /// Encrypts MCP sessions. Without effect yet, as the four below
    #[arg(
        long = "mcpSessionEncryptionSeed",
        default_value = "default-insecure-seed",
        hide_default_value = true,
        value_name = "SEED"
    )]
    mcp_session_encryption_seed: SecretString,
    /// Derives a key from it
    #[arg(long = "mcpSessionEncryptionIterations", default_value = "100000", value_name = "COUNT")]
    mcp_session_encryption_iterations: u32,
    /// The seed of sessions from before a change
    #[arg(
        long = "mcpFallbackSessionEncryptionSeed",
        default_value = "",
        hide_default_value = true,
        value_name = "SEED"
    )]
    mcp_fallback_session_encryption_seed: SecretString,
    /// Derives a key from that
    #[arg(long = "mcpFallbackSessionEncryptionIterations", default_value = "100000", value_name = "COUNT")]
    mcp_fallback_session_encryption_iterations: u32,
    /// How long writing an answer of MCP may take
    #[arg(long = "mcpWriteTimeout", default_value = "2m0s", value_parser = duration, value_name = "DURATION")]
    mcp_write_timeout: Duration,
}

impl GoFlags {
    /// What they ask for. Fails where flags that are right by themselves make no sense together.
    pub(super) fn plan(self) -> anyhow::Result<Plan> {
        let location = match (self.config_bundle_path, self.config_path) {
            (bundle, _) if !bundle.is_empty() => Location::Bundle(bundle.into()),
            (_, file) if !file.is_empty() => Location::File(file.into()),
            _ => bail!(
                "there is nothing to serve: name a file with -configPath or a folder with -configBundlePath"
            ),
        };
        let mcp = match self.mcp_addr.as_str() {
            "" => None,
            address => Some(address.parse().context("-mcpAddr")?),
        };
        let attributes = AttributeOptions {
            request_header_attributes: self.request_header_attributes,
            metrics_request_header_attributes: self.metrics_request_header_attributes,
            log_request_header_attributes: self.log_request_header_attributes,
        };
        Ok(Plan {
            listen: self.ext_proc_addr,
            admin: Listen::Tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.admin_port)),
            mcp,
            origin: Origin::Source(Source { location, accept: self.version_string }),
            settings: Settings {
                paths: Paths::new(&self.root_prefix, &self.endpoint_prefixes),
                attributes: attributes.resolve(),
                log_body_shapes: self.enable_redaction,
                keys: None,
                keys_by_policy: false,
            },
            max_message: self.max_recv_msg_size,
            habits: Habits::Go,
            drain: Drain { delay: self.drain_delay, timeout: self.drain_timeout },
            keys: KeyOptions::default(),
            // The flags are those of the Go processor, so the environment says.
            quotas: QuotaOptions {
                redis: self.redis.filter(|url| !url.expose_secret().is_empty()),
                redis_ca: self.redis_ca,
                quota_journal: path_from("AIGW_QUOTA_JOURNAL"),
                quota_snapshot: path_from("AIGW_QUOTA_SNAPSHOT"),
                ..QuotaOptions::default()
            },
        })
    }
}

/// What a variable of the environment names, if it is set.
fn path_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::go_flags::translate;
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let arguments = ["extproc"].iter().chain(arguments).map(OsString::from);
        let flags = GoFlags::try_parse_from(translate(arguments)).map_err(|error| error.to_string())?;
        flags.plan().map_err(|error| format!("{error:#}"))
    }

    fn source(plan: &Plan) -> &Source {
        let Origin::Source(source) = &plan.origin else { panic!("another origin") };
        source
    }

    #[test]
    fn the_command_is_sound() {
        GoFlags::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_go_processor() {
        let plan = plan(&["-configPath", "a"]).unwrap();
        assert_eq!(plan.listen.to_string(), "[::]:1063");
        assert_eq!(plan.admin.to_string(), "[::]:1064");
        assert_eq!(plan.mcp, None);
        assert_eq!(source(&plan).location, Location::File("a".into()));
        assert_eq!(source(&plan).accept, Accept::Only(source::STAMP.to_owned()));
        assert_eq!(plan.settings.paths, Paths::default());
        assert!(!plan.settings.log_body_shapes);
        assert_eq!(plan.max_message, usize::MAX / 2);
        assert_eq!((plan.drain.delay, plan.drain.timeout), (Duration::from_secs(15), None));
    }

    #[test]
    fn every_flag_is_taken() {
        let plan = plan(&[
            "-configPath",
            "a",
            "--configBundlePath=b",
            "-extProcAddr",
            "unix:///tmp/s",
            "-adminPort=0",
            "-logLevel",
            "Info+2",
            "-logFormat",
            "json",
            "-enableRedaction",
            "-requestHeaderAttributes",
            "a:b",
            "-spanRequestHeaderAttributes",
            "",
            "-metricsRequestHeaderAttributes",
            "c:d",
            "-logRequestHeaderAttributes",
            "",
            "-rootPrefix",
            "/ai",
            "-endpointPrefixes",
            "openai:/o",
            "-maxRecvMsgSize",
            "1024",
            "-mcpAddr",
            ":1",
            "-mcpSessionEncryptionSeed",
            "s",
            "-mcpSessionEncryptionIterations",
            "5",
            "-mcpFallbackSessionEncryptionSeed",
            "",
            "-mcpFallbackSessionEncryptionIterations",
            "6",
            "-mcpWriteTimeout",
            "1h2m0.5s",
            "-versionString",
            "*",
            "-configPath",
            "again",
            "-drainDelay",
            "0",
            "-drainTimeout",
            "1m",
        ])
        .unwrap();
        assert_eq!(source(&plan).location, Location::Bundle("b".into()));
        assert_eq!(source(&plan).accept, Accept::Any);
        assert_eq!(plan.settings.paths, Paths::new("/ai", &"openai:/o".parse().unwrap()));
        assert_eq!(plan.settings.attributes.metrics, "a:b,c:d".parse().unwrap());
        assert_eq!(plan.settings.attributes.logs, "a:b".parse().unwrap());
        assert!(plan.settings.log_body_shapes);
        assert_eq!((plan.max_message, plan.mcp.unwrap().to_string()), (1024, "[::]:1".to_owned()));
        assert_eq!((plan.drain.delay, plan.drain.timeout), (Duration::ZERO, Some(Duration::from_secs(60))));
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (arguments, told) in [
            (&[][..], "-configBundlePath"),
            (&["-configPath", ""], "-configBundlePath"),
            (&["-configPath", "a", "-unknown", "b"], "--unknown"),
            (&["-configPath", "a", "-logFormat", "xml"], "logFormat"),
            (&["-configPath", "a", "-endpointPrefixes", "gemini:/g"], "gemini"),
            (&["-configPath", "a", "-endpointPrefixes", "openai"], "endpointPrefixes"),
            (&["-configPath", "a", "-metricsRequestHeaderAttributes", "a"], "metricsRequestHeaderAttributes"),
            (&["-configPath", "a", "-spanRequestHeaderAttributes", "a:"], "spanRequestHeaderAttributes"),
            (&["-configPath", "a", "-enableRedaction=yes"], "enableRedaction"),
            // Go would take it for true, and everything that follows for no flag.
            (&["-configPath", "a", "-enableRedaction", "false"], "unexpected argument 'false'"),
            (&["-configPath", "a", "-mcpWriteTimeout", "2"], "mcpWriteTimeout"),
            (&["-configPath", "a", "-mcpAddr", "nowhere"], "-mcpAddr"),
            (&["-configPath", "a", "-maxRecvMsgSize", "-1"], "maxRecvMsgSize"),
            (&["-configPath"], "configPath"),
        ] {
            let error = plan(arguments).map(drop).unwrap_err();
            assert!(error.contains(told), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let arguments =
            ["extproc", "--mcpSessionEncryptionSeed=hush", "--mcpFallbackSessionEncryptionSeed=hush"];
        let flags = GoFlags::try_parse_from(arguments).unwrap();
        assert!(!format!("{flags:?}").contains("hush"));
    }
}

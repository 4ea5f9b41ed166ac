//! `aigw key`: the gateway's own keys, managed.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::keys::{Grant, KeyId, ModelPattern, Network, Record, Timestamp};
use crate::keystore::{Created, Location, Manager, Store, parse_duration};

const EXAMPLES: &str = "\
Examples:
  A key that is good for everything; it is printed once:
    aigw key create --store file:keys.jsonl --name ci
  One of a team, for 90 days, for some models, from one network:
    aigw key create --store redis://127.0.0.1/0 --name search-prod --organisation acme --team search \\
      --expires-in 90d --model 'gpt-4o*' --model claude-sonnet-4 --source 10.0.0.0/8 --metadata ticket=OPS-42
  All keys, and one:
    aigw key list --store file:keys.jsonl
    aigw key show --store file:keys.jsonl 4fTq0ZkW1xYb
  A new key in the place of one, which is good for a day still:
    aigw key rotate --store file:keys.jsonl 4fTq0ZkW1xYb --grace 24h
  No longer good, on every processor within a second:
    aigw key revoke --store file:keys.jsonl 4fTq0ZkW1xYb
  Just the key, for a script:
    KEY=$(aigw key create --store file:keys.jsonl --name ci --output json | jq -r .key)

`aigw run --keys STORE` and `aigw extproc --keys STORE` let the clients in that show one of these keys.";

/// Options of `aigw key`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and print it, the only time it can be
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),
    /// List all keys, without their secrets, which nobody has
    List(Common),
    /// Show one key
    Show(One),
    /// Make a key in the place of one, which is good for a while still
    Rotate(Rotate),
    /// Take a key back
    Revoke(One),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Where the keys are: file:PATH, redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… for TLS,
    /// redis+unix:///SOCKET. A password is better named in the environment, where other users do not see it
    #[arg(long, value_name = "STORE", env = "AIGW_KEYS", hide_env_values = true, value_parser = Location::unread)]
    store: SecretString,
    /// The certificates to trust with rediss:// (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", env = "AIGW_KEYS_CA")]
    store_ca: Option<PathBuf>,
    /// How the answer is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    common: Common,
    /// What people call the key
    #[arg(long)]
    name: String,
    /// Whose it is
    #[arg(long)]
    organisation: Option<String>,
    /// Which team's it is
    #[arg(long)]
    team: Option<String>,
    /// From when on it is no longer good, as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", conflicts_with = "expires_in")]
    expires: Option<Timestamp>,
    /// How long it is good, as 90d or 12h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires_in: Option<Duration>,
    /// A Gateway it is good at; may be given again [default: all]
    #[arg(long = "gateway", value_name = "NAMESPACE/NAME")]
    gateways: Option<Vec<String>>,
    /// A model it is good for, or the beginning of names with `*`; may be given again [default: all]
    #[arg(long = "model", value_name = "MODEL")]
    models: Option<Vec<ModelPattern>>,
    /// A network or an address it is good from; may be given again [default: all]
    #[arg(long = "source", value_name = "NETWORK")]
    sources: Option<Vec<Network>>,
    /// Something to find it by; may be given again
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// The name of the quota that holds for it
    #[arg(long)]
    quota: Option<String>,
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    common: Common,
    /// What is between the first and the second `-` of the key
    id: String,
}

impl One {
    /// Read here and not by the command line, whose complaint would repeat a whole key.
    fn split(self) -> anyhow::Result<(Common, KeyId)> {
        let id = self.id.parse()?;
        Ok((self.common, id))
    }
}

#[derive(Debug, clap::Args)]
struct Rotate {
    #[command(flatten)]
    one: One,
    /// How long the old key is good still
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Does what was asked for.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let text = match options.action {
        Action::Create(options) => {
            let (common, grant) = options.split(now);
            made(&manager(&common)?.create(grant, now).await?, common.output, now)
        }
        Action::List(common) => {
            let (records, problems) = manager(&common)?.list().await?;
            for problem in problems {
                tracing::warn!("{problem}");
            }
            list(&records, common.output, now)
        }
        Action::Show(one) => {
            let (common, id) = one.split()?;
            shown(&manager(&common)?.show(id).await?, common.output, now)
        }
        Action::Revoke(one) => {
            let (common, id) = one.split()?;
            let record = manager(&common)?.revoke(id, now).await?;
            match common.output {
                Output::Json => shown(&record, Output::Json, now),
                Output::Text => format!("key {id} ({}) is revoked\n", record.grant.name),
            }
        }
        Action::Rotate(Rotate { one, grace }) => {
            let (common, id) = one.split()?;
            made(&manager(&common)?.rotate(id, grace, now).await?, common.output, now)
        }
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("the answer could not be written")
}

fn manager(common: &Common) -> anyhow::Result<Manager> {
    let location: Location = common.store.expose_secret().parse().context("--store cannot be used")?;
    Ok(Manager::new(Store::new(&location, common.store_ca.as_deref())?))
}

impl Create {
    fn split(self, now: SystemTime) -> (Common, Grant) {
        let Self {
            common,
            name,
            organisation,
            team,
            expires,
            expires_in,
            gateways,
            models,
            sources,
            metadata,
            quota,
        } = self;
        let expires = expires.or_else(|| expires_in.map(|within| Timestamp::of(now).after(within)));
        let metadata = BTreeMap::from_iter(metadata);
        (common, Grant { name, organisation, team, expires, gateways, models, sources, metadata, quota })
    }
}

/// The one place where a key is written.
fn made(created: &Created, output: Output, now: SystemTime) -> String {
    let Created { record, key } = created;
    match output {
        Output::Json => {
            let mut value = record.describe(now);
            if let Some(members) = value.as_object_mut() {
                members.insert("key".to_owned(), json!(key.expose_secret()));
            }
            format!("{value:#}\n")
        }
        Output::Text => {
            let note = match record.rotated_from {
                Some(old) => {
                    format!("It takes the place of {old}, which is good for the time of grace still.\n")
                }
                None => String::new(),
            };
            format!(
                "{}\n\nThis is key {} ({}). It is not shown again: only a hash of it is kept.\n{note}",
                key.expose_secret(),
                record.id,
                record.grant.name
            )
        }
    }
}

fn shown(record: &Record, output: Output, now: SystemTime) -> String {
    let value = record.describe(now);
    if output == Output::Json {
        return format!("{value:#}\n");
    }
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::String(value) => value.clone(),
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().unwrap_or_default());
                items.collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        text.push_str(&format!("{:<14}{value}\n", format!("{name}:")));
    }
    text
}

fn list(records: &[Record], output: Output, now: SystemTime) -> String {
    if output == Output::Json {
        let all: Vec<_> = records.iter().map(|record| record.describe(now)).collect();
        return format!("{:#}\n", serde_json::Value::from(all));
    }
    let mut rows = vec![["ID", "STATUS", "NAME", "ORGANISATION", "TEAM", "EXPIRES"].map(str::to_owned)];
    for record in records {
        let grant = &record.grant;
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        rows.push([
            record.id.to_string(),
            record.standing(now).to_string(),
            grant.name.clone(),
            or(&grant.organisation),
            or(&grant.team),
            record.ends().map_or_else(|| "never".to_owned(), |time| time.to_string()),
        ]);
    }
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

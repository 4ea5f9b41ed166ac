//! How fast the gateway is, against no gateway and against one that does nothing, in one run on one machine.
//!
//! `bench/RESULTS.md` says how to read what comes out.

mod alone;
mod edits;
mod floor;
mod load;
mod peers;
mod procfs;
mod provider;
mod ratelimit;
mod redis;
mod report;
mod rig;
mod run;
mod slow;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

/// Measures the gateway.
#[derive(Debug, Parser)]
#[command(max_term_width = 110)]
struct Bench {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Measure direct, floor and ours, and print the tables
    Run(run::Options),
    /// Measure other gateways, which have to be installed
    Peers(peers::Options),
    /// Measure quotas in Redis against `envoyproxy/ratelimit`
    Ratelimit(ratelimit::Options),
    /// Be the do-nothing processor
    Floor { socket: PathBuf, key: String },
    /// Be the fake provider
    Provider,
}

/// One thread: the machine's others are for what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Bench::parse().part {
        Part::Run(options) => LocalSet::new().run_until(run::run(&options)).await,
        Part::Peers(options) => LocalSet::new().run_until(peers::run(&options)).await,
        Part::Ratelimit(options) => LocalSet::new().run_until(ratelimit::run(&options)).await,
        Part::Floor { socket, key } => floor::serve(&socket, &key).await,
        Part::Provider => provider::serve().await,
    }
}

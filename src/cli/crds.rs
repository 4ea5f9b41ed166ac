//! `aigw crds`: the kinds of this gateway, for an API server.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;

use crate::resources::crd;

/// Options of `aigw crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aigw crds | kubectl apply --server-side -f -
  aigw crds --output manifests/crds")]
pub(super) struct Options {
    /// Write a file for each kind into this folder [default: all of them to standard output]
    #[arg(long, alias = "out", value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Prints the definitions, or writes them.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let definitions = crd::all();
    let Some(folder) = &options.output else {
        let mut out = io::stdout().lock();
        for definition in &definitions {
            out.write_all(crd::yaml(definition)?.as_bytes())?;
        }
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for definition in &definitions {
        let file = folder.join(crd::file_name(definition));
        std::fs::write(&file, crd::yaml(definition)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

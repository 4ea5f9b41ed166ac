//! What shells and `man` want to know of the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;

use super::Aigw;

/// The name of the command.
const NAME: &str = "aigw";

/// Options of `aigw completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(aigw completions bash)
  aigw completions zsh > \"${fpath[1]}/_aigw\"
  aigw completions fish > ~/.config/fish/completions/aigw.fish")]
pub(super) struct CompletionsOptions {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Options of `aigw man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aigw man | man -l -
  aigw man --out ~/.local/share/man/man1")]
pub(super) struct ManOptions {
    /// Write a page for each command into this folder [default: the page of `aigw`, to standard output]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints the script for a shell.
pub(super) fn completions(options: &CompletionsOptions) -> anyhow::Result<()> {
    use clap_complete::Shell;
    let shell = match options.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Aigw::command(), NAME, &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}

/// Prints the manual page, or writes all of them.
pub(super) fn man(options: &ManOptions) -> anyhow::Result<()> {
    match &options.out {
        None => clap_mangen::Man::new(Aigw::command()).render(&mut io::stdout().lock())?,
        Some(folder) => pages(folder).with_context(|| folder.display().to_string())?,
    }
    Ok(())
}

fn pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Aigw::command(), folder)
}

//! The user's files, compiled, with everything there is to say about them said.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::compile::{self, CompileOptions, Compiled, RoutingSecret, Sockets};
use crate::diagnostics::Diagnostics;
use crate::resources::{self, Snapshot, load};

use super::{RunError, RunOptions, runtime_dir};

/// The port of the first listener.
const FIRST_PORT: u16 = 1975;

/// Reads the files, or the default one.
pub(super) fn read(options: &RunOptions) -> Result<Snapshot, RunError> {
    let files = if options.files.is_empty() { vec![default_file()?] } else { options.files.clone() };
    let (sources, unread) = load::load(&files, &mut io::stdin().lock());
    let (snapshot, findings) = resources::parse(sources, &|name| std::env::var(name).ok());
    let fatal = unread.has_errors();
    let mut all = unread;
    all.extend(findings);
    tell(all)?;
    if fatal { Err(RunError::Unreadable) } else { Ok(snapshot) }
}

fn default_file() -> Result<String, RunError> {
    let folder = std::env::var_os("AIGW_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/aigw")));
    let file = folder.map(|folder| folder.join("config.yaml"));
    match file.as_deref().filter(|file| file.is_file()).and_then(Path::to_str) {
        Some(file) => Ok(file.to_owned()),
        None => Err(RunError::NoFiles(file)),
    }
}

/// Compiles for a run whose sockets are in `folder`.
pub(super) fn compile(
    snapshot: &Snapshot,
    options: &RunOptions,
    folder: &Path,
) -> Result<Compiled, RunError> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("this system gives no random numbers"))?;
    let mut compiled = compile::compile(
        snapshot,
        &CompileOptions {
            secret: RoutingSecret(secret),
            ca_bundle: openssl_probe::probe().cert_file,
            listen_address: options.listen_address,
            first_port: FIRST_PORT,
            ports: options.listen.clone(),
            sockets: Sockets {
                extproc: folder.join(runtime_dir::EXTPROC_SOCKET),
                envoy_admin: folder.join(runtime_dir::ENVOY_SOCKET),
                embedded: folder.to_owned(),
            },
        },
    );
    tell(std::mem::take(&mut compiled.diagnostics))?;
    Ok(compiled)
}

/// Prints findings to standard error: what is printed on request stays a document.
fn tell(mut findings: Diagnostics) -> io::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    findings.sort();
    let mut out = io::stderr().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    writeln!(out, "{}", findings.render(colour))
}

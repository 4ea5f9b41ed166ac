//! The user's files, compiled, with everything there is to say about them said.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::compile::{self, CompileOptions, Compiled, RoutingSecret, Sockets};
use crate::diagnostics::Diagnostics;
use crate::resources::load::{self, Stamp};
use crate::resources::{Memory, Snapshot, Source};

use super::autoconfig::{self, AutoConfig};
use super::{RunError, RunOptions, runtime_dir};

/// The port of the first listener.
pub const FIRST_PORT: u16 = 1975;

/// What the user named on the command line, to be read as often as it changes.
#[derive(Debug)]
pub struct Inputs {
    files: Vec<String>,
    /// Standard input can be read once only.
    stdin: Vec<u8>,
    /// What the environment made, where there are no files.
    made: Option<Source>,
    notice: Option<String>,
}

impl Inputs {
    /// The named files; without any the default one, and without that what the environment says.
    pub fn new(files: &[String]) -> Result<Self, RunError> {
        let mut stdin = Vec::new();
        if files.iter().any(|file| file == "-") {
            io::stdin().lock().read_to_end(&mut stdin)?;
        }
        let mut inputs = Self { files: files.to_vec(), stdin, made: None, notice: None };
        if files.is_empty() {
            match default_file() {
                Some(file) => {
                    inputs.notice = Some(format!("no files: {file} is used"));
                    inputs.files.push(file);
                }
                None => {
                    let AutoConfig { document, summary } = AutoConfig::from_env(&variable)?;
                    inputs.made = Some(Source::new(autoconfig::SOURCE, document));
                    inputs.notice = Some(summary);
                }
            }
        }
        Ok(inputs)
    }

    /// Where the texts come from, for the user to know, if not from files that were named.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The texts as they are now, and what could not be read.
    #[must_use]
    pub fn read(&self) -> (Vec<Source>, Diagnostics) {
        let (mut sources, unread) = load::load(&self.files, &mut self.stdin.as_slice());
        sources.extend(self.made.clone());
        (sources, unread)
    }

    /// How the files look from outside.
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        load::stamps(&self.files)
    }
}

/// Texts to objects; variables are taken from the environment.
#[must_use]
pub fn parse(sources: Vec<Source>) -> (Snapshot, Diagnostics) {
    parse_again(sources, &mut Memory::default())
}

/// As [`parse`], with the help of what an earlier call with the same memory read.
pub(super) fn parse_again(sources: Vec<Source>, memory: &mut Memory) -> (Snapshot, Diagnostics) {
    memory.parse(sources, &variable)
}

/// A variable of this process's environment, if it is text.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn default_file() -> Option<String> {
    let folder = std::env::var_os("AIGW_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/aigw")));
    let file = folder?.join("config.yaml");
    file.is_file().then(|| file.to_str().map(str::to_owned)).flatten()
}

/// How to compile for a run whose sockets are in `folder`. The same for every reload of that run, so that what did not change
/// keeps its routing key.
pub(super) fn compile_options(options: &RunOptions, folder: &Path) -> Result<CompileOptions, RunError> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("this system gives no random numbers"))?;
    Ok(CompileOptions {
        secret: RoutingSecret(secret),
        ca_bundle: openssl_probe::probe().cert_file,
        listen_address: options.listen_address,
        first_port: FIRST_PORT,
        ports: options.listen.clone(),
        client_addresses: options.keys.keys.is_some(),
        sockets: Sockets {
            extproc: folder.join(runtime_dir::EXTPROC_SOCKET),
            envoy_admin: folder.join(runtime_dir::ENVOY_SOCKET),
            embedded: folder.to_owned(),
        },
    })
}

/// Compiles, and takes the findings apart.
pub(super) fn compile(snapshot: &Snapshot, options: &CompileOptions) -> (Compiled, Diagnostics) {
    let mut compiled = compile::compile(snapshot, options);
    let findings = std::mem::take(&mut compiled.diagnostics);
    (compiled, findings)
}

/// Prints findings to standard error: what is printed on request stays a document.
pub(super) fn tell(mut findings: Diagnostics) -> io::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    findings.sort();
    let mut out = io::stderr().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    writeln!(out, "{}", findings.render(colour))
}

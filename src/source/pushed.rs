//! A configuration that a controller pushes, Gateway by Gateway.
//!
//! ```text
//! controller ─► Incoming: documents ─► Editions: what of each Gateway is to be compiled ─► Runtime of a Gateway ─┐
//!     ▲                                              │                                                           │
//!     └── Verdict, once it is in force ◄─────────────┴─► Cache                Slot ◄─ Runtime::joined of all ◄───┘
//! ```
//!
//! A Gateway is compiled when its own document changes, and comes into force by itself; one that cannot be used leaves its last
//! good one, and the others, as they are. While no controller is there, everything stays.

mod cache;
mod connect;
mod editions;
mod follow;
mod incoming;
mod status;

use std::convert::Infallible;
use std::path::PathBuf;

pub use self::connect::{ControllerFiles, ControllerUrl, InvalidControllerUrl};
use self::follow::Follower;
pub use self::status::{GatewayStatus, Pushed, PushedStatus};
use super::{Accept, Slot};

/// A controller to be configured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Where it is.
    pub url: ControllerUrl,
    /// Whom to trust and what to show. Read anew for every connection.
    pub files: ControllerFiles,
    /// The Gateways to serve, as `namespace/name`; none: all that the certificate names.
    pub gateways: Vec<String>,
    /// A folder in which to keep what is in force, for a start without a controller.
    pub cache: Option<PathBuf>,
    /// What this processor calls itself.
    pub replica: String,
    /// Whose documents are taken.
    pub accept: Accept,
}

/// Keeps a slot in step with a controller, until dropped. It has something in force once the controller has said everything there is, or,
/// if it does not come, by what was kept on disk.
///
/// # Errors
/// A folder for the cache that cannot be used.
pub fn follow_controller(
    controller: Controller,
    slot: Slot,
) -> anyhow::Result<impl Future<Output = Infallible> + Send> {
    Ok(Follower::new(controller, slot)?.run())
}

/// Reads what may be a file of the cache, as a start does, and writes it again. For the fuzzer.
pub fn read_cache_any(file: &[u8]) -> Option<Vec<u8>> {
    cache::read_any(file)
}

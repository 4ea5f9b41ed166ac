//! `aigw controller`: runs until told to stop.

use tokio_util::sync::CancellationToken;

use super::extproc::StopSignals;
use crate::controller::{self, Options};

/// Runs the controller. The first SIGINT or SIGTERM lets it end its writes and give its Lease back, the second ends it at once.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = StopSignals::new()?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(controller::run(options, stop.clone()));
    tokio::select! {
        ended = &mut running => return ended,
        () = signals.next() => tracing::info!("told to stop"),
    }
    stop.cancel();
    tokio::select! {
        ended = running => ended,
        () = signals.next() => {
            tracing::info!("told to stop again: not waiting any longer");
            Ok(())
        }
    }
}

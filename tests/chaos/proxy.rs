//! A slow network.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use crate::support::{Dice, spawn};

/// Passes everything on late, as long as the test runs: each piece by a few milliseconds, and some by more than a processor waits for.
/// Returns what to connect to.
pub(crate) async fn slow(socket: PathBuf, seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    spawn(async move {
        let mut dice = Dice::new(seed);
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&socket).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            spawn(late(from_client, to_server, Dice::new(dice.from(0, u64::MAX - 1))));
            spawn(late(from_server, to_client, Dice::new(dice.from(0, u64::MAX - 1))));
        }
    });
    format!("redis://{address}")
}

async fn late(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    mut dice: Dice,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        // The processors wait for a second.
        let most = if dice.percent(1) { 1500 } else { 12 };
        tokio::time::sleep(Duration::from_millis(dice.from(most / 4, most))).await;
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    _ = to.shutdown().await;
}

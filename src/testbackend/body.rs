//! The answer on its way out: pace, compression, faults, trailers and counting.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use hyper::body::Frame;

use super::answer::Pieces;
use super::encode::Encoder;
use super::knobs::Fault;
use super::record::{Exchange, Outcome};

const GARBAGE: &[u8] = b"\xff\xfe\x00data: {\"choices\":[{\x80\n\ndata:\n\n";

/// What is left to send.
pub(super) struct Sender {
    pub(super) exchange: Exchange,
    pub(super) pieces: Pieces,
    pub(super) encoder: Encoder,
    pub(super) pace: Duration,
    pub(super) fault: Option<Fault>,
    pub(super) trailers: Option<HeaderMap>,
    next: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pieces,
    Trailers,
    Done,
}

impl Sender {
    pub(super) fn new(exchange: Exchange, pieces: Pieces, encoder: Encoder) -> Self {
        let (pace, next, stage) = (Duration::ZERO, 0, Stage::Pieces);
        Self { exchange, pieces, encoder, pace, fault: None, trailers: None, next, stage }
    }

    /// The frames. Whoever polls sets the speed: nothing is made ahead.
    pub(super) fn frames(self) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
        stream::unfold(self, |mut sender| async move { sender.step().await.map(|item| (item, sender)) })
    }

    async fn step(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        match self.stage {
            Stage::Pieces => self.piece().await,
            Stage::Trailers => self.finish(),
            Stage::Done => None,
        }
    }

    async fn piece(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let more = self.fault == Some(Fault::Endless) || self.pieces.get(self.next).is_some();
        if self.next > 0 && more && !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        let here = |after: u32| self.next == after as usize;
        match self.fault {
            Some(Fault::Reset(after)) if here(after) => return Some(Err(self.fail(true).await)),
            Some(Fault::Close(after)) if here(after) => return Some(Err(self.fail(false).await)),
            Some(Fault::Stall(after)) if here(after) => {
                self.exchange.end(Outcome::Faulted);
                std::future::pending::<()>().await;
            }
            Some(Fault::Garbage(after)) if here(after) => {
                self.fault = None;
                return Some(Ok(self.send(Bytes::from_static(GARBAGE))));
            }
            _ => {}
        }
        let piece = match self.fault {
            Some(Fault::Endless) => self.pieces.get_endless(self.next),
            Some(Fault::Cut(after)) if here(after) => {
                self.stage = Stage::Done;
                self.exchange.end(Outcome::Faulted);
                let piece = self.pieces.get(self.next)?;
                piece.slice(..piece.len() / 2)
            }
            _ => match self.pieces.get(self.next) {
                Some(piece) => piece,
                None => return self.tail(),
            },
        };
        self.next += 1;
        // With a content-length nobody asks for what comes after the last byte.
        let plain = self.fault.is_none() && self.encoder.name().is_none() && self.trailers.is_none();
        if plain && self.pieces.get(self.next).is_none() {
            self.exchange.end(Outcome::Completed);
        }
        match self.encoder.push(piece) {
            Ok(bytes) => Some(Ok(self.send(bytes))),
            Err(e) => Some(Err(e)),
        }
    }

    /// The encoder's last bytes, then the trailers.
    fn tail(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        self.stage = Stage::Trailers;
        match std::mem::replace(&mut self.encoder, Encoder::Identity).finish() {
            Ok(bytes) if bytes.is_empty() => self.finish(),
            Ok(bytes) => Some(Ok(self.send(bytes))),
            Err(e) => Some(Err(e)),
        }
    }

    fn finish(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        self.stage = Stage::Done;
        self.exchange.end(Outcome::Completed);
        self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))
    }

    fn send(&self, bytes: Bytes) -> Frame<Bytes> {
        self.exchange.sent(bytes.len());
        Frame::data(bytes)
    }

    async fn fail(&mut self, reset: bool) -> io::Error {
        // One round through the scheduler lets the connection flush what it was given before it is torn down.
        tokio::task::yield_now().await;
        self.exchange.end(Outcome::Faulted);
        if reset {
            self.exchange.connection.set_reset();
        }
        io::Error::new(io::ErrorKind::ConnectionReset, "the fault that was asked for")
    }
}

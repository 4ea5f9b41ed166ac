//! The way of one thread to the server: steps that come while calls are under way are done together, in the next call.
//!
//! A step alone is sent at once. Where many come, the server reads and writes a bucket once for all of them, and a processor wakes
//! once for their answers; what one call costs grows with its steps by a fraction of what each costs by itself.

use std::time::Duration;

use ::redis::Value;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::super::StoreError;
use super::Server;
use super::call::Step;
use super::link::{Own, Patience};

/// How many steps one call does at most: the server does nothing else meanwhile.
const MOST: usize = 64;
/// How many calls are under way before steps gather, and how long they do where no answer comes.
const AT_ONCE: usize = 2;
const SOON: Duration = Duration::from_millis(4);
/// How many steps may wait. Who comes later waits for room.
const WAITING: usize = 4096;

/// Where steps are left, and what brings them to the server.
pub(super) struct Lane {
    steps: mpsc::Sender<Wish>,
    /// With whoever drives it.
    queue: Mutex<mpsc::Receiver<Wish>>,
    own: Own,
}

/// A step, and where its answer goes.
struct Wish {
    step: Step,
    answer: oneshot::Sender<Result<Value, StoreError>>,
}

impl Lane {
    /// A lane on the connection that all share.
    pub(super) fn shared() -> Self {
        Self::on(Own::none())
    }

    /// A lane with a connection of its own, so that its steps wake no other thread than the one that drives it.
    pub(super) fn own() -> Self {
        Self::on(Own::wanted())
    }

    fn on(own: Own) -> Self {
        let (steps, queue) = mpsc::channel(WAITING);
        Self { steps, queue: Mutex::new(queue), own }
    }

    /// Has a step done. Who does not wait for the answer any more has it done or not.
    pub(super) async fn ask(&self, step: Step) -> Result<Value, StoreError> {
        let (answer, answered) = oneshot::channel();
        let away = |_| StoreError::Away("nobody speaks to the store any more".to_owned());
        self.steps.send(Wish { step, answer }).await.map_err(|_| away(()))?;
        answered.await.map_err(|_| away(())).flatten()
    }

    /// Brings steps to the server until dropped. Whoever calls it while another drives it takes over from that one.
    pub(super) async fn drive(&self, server: &Server) {
        tokio::join!(self.own.follow(&server.link), self.gather(server));
    }

    async fn gather(&self, server: &Server) {
        let mut queue = self.queue.lock().await;
        let (mut calls, mut batch) = (FuturesUnordered::new(), Vec::with_capacity(MOST));
        let mut last = Instant::now();
        loop {
            let full = calls.len() >= AT_ONCE && last.elapsed() < SOON;
            tokio::select! {
                biased;
                Some(()) = calls.next() => {}
                () = sleep_until(last + SOON), if full => {}
                count = queue.recv_many(&mut batch, MOST), if !full => {
                    // The sender is in `self`, so it is never 0.
                    if count > 0 {
                        last = Instant::now();
                        calls.push(self.call(server, std::mem::replace(&mut batch, Vec::with_capacity(MOST))));
                    }
                }
            }
        }
    }

    /// Does these steps in one call, or one by one where the server refuses that.
    async fn call(&self, server: &Server, mut batch: Vec<Wish>) {
        let mut patience = Patience::new();
        let answers = loop {
            let connected = self.own.or(server.link.connected().await);
            // What nobody waits for any more is settled as what never came.
            batch.retain(|wish| !wish.answer.is_closed());
            if batch.is_empty() {
                return;
            }
            let call = server.call(batch.iter().map(|wish| &wish.step));
            match server.link.attempt(&connected, &call).await {
                Ok(Value::Array(answers)) if answers.len() == batch.len() => break Ok(answers),
                Ok(_) => break Err(server.strange()),
                // What is wrong with one of them is no reason to do none.
                Err(failure) if failure.refused && batch.len() > 1 => {
                    let alone = batch.into_iter().map(|wish| Box::pin(self.call(server, vec![wish])));
                    join_all(alone).await;
                    return;
                }
                Err(failure) => {
                    if !patience.again(&failure).await {
                        break Err(failure.error);
                    }
                }
            }
        };
        let mut answers = answers.map(Vec::into_iter);
        for wish in batch {
            let answer = match &mut answers {
                Ok(answers) => answers.next().ok_or_else(|| server.strange()),
                Err(error) => Err(error.clone()),
            };
            // Who does not wait any more does not need it.
            drop(wish.answer.send(answer));
        }
    }
}

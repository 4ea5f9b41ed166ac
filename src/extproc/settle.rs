//! Settlement at the edge: every exchange is handed to the settler exactly once, whatever ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::registry::Registry;
use crate::exchange::{Attempt, Exchange, Input, NoAnswer, Now, Settlement, Step, Violation};
use crate::quota::Verdict;
use crate::quotastore::Desk;

/// How many exchanges are being served by this process.
#[derive(Debug, Clone, Default)]
pub struct ActiveExchanges(Arc<AtomicU64>);

impl ActiveExchanges {
    /// The number at this moment.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where guards leave settlements. Never blocks; what is left here is worked off by one task, in order.
#[derive(Debug, Clone)]
pub struct Settler {
    settlements: mpsc::UnboundedSender<Settlement>,
    active: ActiveExchanges,
    desk: Desk,
}

/// A settler that tells `desk` what quotas were used, and the queue its settlements come out of. The queue ends once every exchange is settled and every clone
/// of the settler is gone.
pub fn settler(desk: Desk) -> (Settler, mpsc::UnboundedReceiver<Settlement>) {
    let (settlements, queue) = mpsc::unbounded_channel();
    (Settler { settlements, active: ActiveExchanges::default(), desk }, queue)
}

impl Settler {
    /// The count of exchanges that are not settled yet.
    pub fn active(&self) -> ActiveExchanges {
        self.active.clone()
    }

    /// The same settler for another thread, whose quotas are asked for and settled there while it runs what is returned.
    pub(super) fn beside(&self) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (desk, driving) = self.desk.beside();
        (Self { desk, ..self.clone() }, driving)
    }

    /// Where quotas are asked for and settled.
    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Takes charge of an exchange.
    pub(super) fn guard(&self, exchange: Exchange, registry: Arc<Registry>) -> Guard {
        self.active.0.fetch_add(1, Ordering::Relaxed);
        Guard { exchange, settler: self.clone(), registry, registered: false }
    }

    /// Takes charge of an attempt.
    pub(super) fn attempt(&self, attempt: Attempt) -> Box<AttemptGuard> {
        Box::new(AttemptGuard { attempt, desk: self.desk.clone() })
    }
}

/// Owns an attempt and settles what it had reserved, at the latest when it is dropped.
#[derive(Debug)]
pub(super) struct AttemptGuard {
    pub(super) attempt: Attempt,
    desk: Desk,
}

impl AttemptGuard {
    /// Settles what is to be settled so far.
    pub(super) fn settle(&mut self) {
        for settle in self.attempt.settles() {
            self.desk.settle(settle);
        }
    }

    /// Nothing more will come. Harmless to call again.
    pub(super) fn end(&mut self) {
        self.attempt.finish(Instant::now());
        self.settle();
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Owns an exchange and settles it when it is over or, at the latest, when it is dropped: a gRPC stream that ends for any
/// reason (client gone, provider gone, Envoy gone, shutdown) drops its guard. As long as it lives, attempts find its request.
#[derive(Debug)]
pub(super) struct Guard {
    exchange: Exchange,
    settler: Settler,
    registry: Arc<Registry>,
    registered: bool,
}

impl Guard {
    /// Hands a message to the exchange, and settles it if that was the last.
    pub(super) fn handle(&mut self, input: Input, now: Now) -> Result<Step, Violation> {
        let is_request = matches!(input, Input::RequestBody { .. });
        let step = self.exchange.handle(input, now);
        self.after(now, is_request, &step);
        step
    }

    /// Hands the exchange the store's answer to its question.
    pub(super) fn answered(
        &mut self,
        answer: Result<Verdict, NoAnswer>,
        now: Now,
    ) -> Result<Step, Violation> {
        let step = self.exchange.answered(answer, now);
        self.after(now, true, &step);
        step
    }

    fn after(&mut self, now: Now, is_request: bool, step: &Result<Step, Violation>) {
        if step.is_err() || self.exchange.is_over() {
            self.settle(now.monotonic);
        } else if is_request && let Some(handover) = self.exchange.handover() {
            self.registry.insert(self.exchange.id(), Arc::clone(handover));
            self.registered = true;
        }
    }

    /// Settles the exchange as it is. Harmless to call again.
    pub(super) fn settle(&mut self, now: Instant) {
        if let Some(settlement) = self.exchange.settle(now) {
            // At once, and not with the others: the client's next request may need what this one gives back.
            for settle in settlement.settles() {
                self.settler.desk.settle(settle);
            }
            // The queue is gone only after the process was told to stop without waiting.
            let _ = self.settler.settlements.send(settlement);
            self.settler.active.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.settle(Instant::now());
        if self.registered {
            self.registry.remove(self.exchange.id());
        }
    }
}

//! Spares exchanges the wait for a store that does not answer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so many failures in a row nobody waits any more.
const FAILURES: u32 = 3;
/// Every so often one tries all the same.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Whether asking is worth it.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    failures: u32,
    next_try: Instant,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { failures: 0, next_try: now }))
    }

    /// Whether to ask now. Once the store failed too often, one in a while is let through.
    pub(super) fn lets(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failures < FAILURES {
            return true;
        }
        let due = now >= state.next_try;
        if due {
            state.next_try = now + TRY_EVERY;
        }
        due
    }

    /// The store answered.
    pub(super) fn worked(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failures = 0;
    }

    /// It did not.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures == FAILURES {
            state.next_try = now + TRY_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_does_not_answer_is_left_alone_but_for_a_try() {
        let start = Instant::now();
        let breaker = Breaker::new(start);
        for _ in 0..FAILURES {
            assert!(breaker.lets(start));
            breaker.failed(start);
        }
        assert!(!breaker.lets(start));
        let later = start + TRY_EVERY;
        assert!(breaker.lets(later), "one tries");
        assert!(!breaker.lets(later), "one only");
        breaker.worked();
        assert!(breaker.lets(later) && breaker.lets(later));
    }
}

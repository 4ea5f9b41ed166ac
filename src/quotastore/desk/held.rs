//! The leases of this process that are to be renewed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::quota::ReservationId;

/// Which leases are held, and when each is to be renewed.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<ReservationId, Lease>>);

#[derive(Debug, Clone, Copy)]
struct Lease {
    length: Duration,
    due: Instant,
}

impl Held {
    /// Renewed from now on whenever a third of its length has passed.
    pub(super) fn insert(&self, id: ReservationId, length: Duration) {
        let lease = Lease { length, due: Instant::now() + length / 3 };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, lease);
    }

    /// Not renewed any more.
    pub(super) fn remove(&self, id: ReservationId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Those that are to be renewed now, with their lengths in milliseconds. They are due again after another third.
    pub(super) fn due(&self) -> Vec<(ReservationId, u64)> {
        let now = Instant::now();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = held.iter_mut().filter(|(_, lease)| lease.due <= now).map(|(id, lease)| {
            lease.due = now + lease.length / 3;
            (*id, u64::try_from(lease.length.as_millis()).unwrap_or(u64::MAX))
        });
        due.collect()
    }
}

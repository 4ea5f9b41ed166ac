//! The ledger: what buckets hold, and every step on them, as functions of the store's time. The memory store runs it; the script of
//! the Redis store does the same, and one suite of tests is run on both.
//!
//! A reservation is a *lease*: what it holds stands in its buckets under the second in which it runs out. A step on a bucket first
//! moves out what has run out, so nothing has to look for dead leases, and no step's cost grows with the number of those that live.

mod admission;
mod bucket;
mod place;

pub use self::admission::{Room, admit};
pub use self::bucket::Bucket;
pub use self::place::{Instance, OVERFLOW, Place, Shared};
use super::{Ask, Claim, Grant, MAX_AMOUNT, Mode, OnExpiry, Reading, Refusal, Window};

/// The longest lease, in milliseconds: who wants more renews it.
pub const MAX_LEASE: u64 = 3_600_000;
/// How long what nobody counts any more is kept, in milliseconds, in case clocks differ.
pub const SLACK: u64 = 600_000;
/// How long what is known of a reservation stays after its lease ran out, in milliseconds, and how long a settlement is remembered that
/// nobody has confirmed.
pub const REMEMBERED: u64 = 25 * 3_600_000;
/// How long a settlement is remembered once it is confirmed, in milliseconds: for a reserving that was overtaken by it.
pub const CONFIRMED: u64 = 300_000;

/// What a reservation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The second since the epoch in which it runs out.
    pub slot: u64,
    /// How long the answer may get, in tokens.
    pub output: u64,
    /// Of each claim, in their order.
    pub parts: Vec<Part>,
}

/// What a reservation holds of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How much.
    pub held: u64,
    /// What becomes of it.
    pub on_expiry: OnExpiry,
}

/// Holds the bounds of all claims in their buckets, or nothing. `buckets` are those of the claims, in their order, no two the same.
pub fn reserve(ask: &Ask, now: u64, buckets: &mut [Bucket]) -> Result<(Lease, Grant), Refusal> {
    for bucket in buckets.iter_mut() {
        bucket.sweep(now);
    }
    let rooms: Vec<Room> =
        ask.claims.iter().zip(buckets.iter()).map(|(claim, bucket)| room(claim, bucket)).collect();
    let output = match admit(ask, &rooms) {
        Ok(output) => output,
        Err(claim) => return Err(Refusal { claim, readings: readings(ask, buckets), now }),
    };
    let slot = slot(ask.lease.as_millis(), now, buckets);
    let hold = |(claim, bucket): (&Claim, &mut Bucket)| {
        let bound = match claim.mode {
            Mode::Reserve => claim.bound.at(output),
            Mode::Record => 0,
        };
        let on_expiry = match claim.window {
            Window::InFlight => OnExpiry::Refund,
            _ => claim.on_expiry,
        };
        Part { held: bucket.hold(bound, slot, on_expiry), on_expiry }
    };
    let parts = ask.claims.iter().zip(buckets.iter_mut()).map(hold).collect();
    Ok((Lease { slot, output, parts }, Grant { output, readings: readings(ask, buckets), now }))
}

/// What a reservation that was made is answered when it is asked for again.
pub fn again(ask: &Ask, lease: &Lease, now: u64, buckets: &mut [Bucket]) -> Grant {
    for bucket in buckets.iter_mut() {
        bucket.sweep(now);
    }
    Grant { output: lease.output, readings: readings(ask, buckets), now }
}

/// Makes a lease last `length` milliseconds from now at least. Whether it had not run out yet is returned: what has stays so.
pub fn renew(lease: &mut Lease, length: u128, now: u64, buckets: &mut [Bucket]) -> bool {
    for bucket in buckets.iter_mut() {
        bucket.sweep(now);
    }
    let slot = slot(length, now, buckets).max(lease.slot);
    // A bucket may be ahead of the others if the clock went back: what ran out in one stays so, the others follow in their time.
    if buckets.iter().any(|bucket| bucket.has_swept(lease.slot)) {
        return false;
    }
    for (part, bucket) in lease.parts.iter().zip(buckets.iter_mut()) {
        bucket.release(part.held, lease.slot, part.on_expiry);
        bucket.hold(part.held, slot, part.on_expiry);
    }
    lease.slot = slot;
    true
}

/// Ends a reservation: gives back what it holds, or corrects what it was charged when it ran out, and charges what was spent.
/// `spent` is of each part.
pub fn settle(lease: &Lease, spent: &[u64], now: u64, buckets: &mut [Bucket]) {
    let parts = lease.parts.iter().zip(spent.iter().copied().chain(std::iter::repeat(0)));
    for ((part, spent), bucket) in parts.zip(buckets.iter_mut()) {
        bucket.sweep(now);
        if !bucket.has_swept(lease.slot) {
            bucket.release(part.held, lease.slot, part.on_expiry);
        } else if part.on_expiry == OnExpiry::Charge {
            bucket.uncharge(part.held, lease.slot.saturating_mul(1000));
        }
        bucket.charge(spent, now, now);
    }
}

/// Charges what was spent without a reservation. `spent` is of each bucket.
pub fn charge(spent: &[u64], now: u64, buckets: &mut [Bucket]) {
    for (spent, bucket) in spent.iter().zip(buckets) {
        bucket.sweep(now);
        bucket.charge(*spent, now, now);
    }
}

/// The second in which a lease of that length runs out. Later than everything that has been moved out of these buckets, even if the
/// clock went back since.
fn slot(length: u128, now: u64, buckets: &[Bucket]) -> u64 {
    let length = u64::try_from(length).unwrap_or(MAX_LEASE).clamp(1, MAX_LEASE);
    let from = buckets.iter().map(|bucket| bucket.swept().saturating_mul(1000)).fold(now, u64::max);
    from.saturating_add(length).div_ceil(1000)
}

fn room(claim: &Claim, bucket: &Bucket) -> Room {
    let amount = claim.amount.min(MAX_AMOUNT);
    Room(amount.checked_sub(bucket.spent()).and_then(|rest| rest.checked_sub(bucket.held())))
}

fn readings(ask: &Ask, buckets: &[Bucket]) -> Vec<Reading> {
    ask.claims
        .iter()
        .zip(buckets)
        .map(|(claim, bucket)| bucket.reading(claim.amount.min(MAX_AMOUNT)))
        .collect()
}

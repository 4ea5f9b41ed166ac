//! One bucket: what is spent, and what is held until when.

use std::collections::BTreeMap;

use super::{Instance, MAX_LEASE};
use crate::quota::{MAX_AMOUNT, OnExpiry, Reading};

/// A rolling window is counted in so many parts, and one more for the part that is under way.
const PARTS: u64 = 60;

/// What one limit counts for one subject, in one window.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bucket {
    window: Instance,
    spent: u64,
    held: u64,
    /// Up to and with this second, what ran out has been moved out. Never goes back.
    swept: u64,
    /// By the second in which it runs out.
    holds: BTreeMap<u64, Hold>,
    /// What is spent, by the part of a rolling window.
    parts: BTreeMap<u64, u64>,
}

/// What runs out in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Hold {
    refund: u64,
    charge: u64,
}

impl Bucket {
    /// An empty one.
    pub fn new(window: Instance) -> Self {
        Self { window, spent: 0, held: 0, swept: 0, holds: BTreeMap::new(), parts: BTreeMap::new() }
    }

    /// How much is spent, as of the last [`Bucket::sweep`].
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// How much is held, as of the last [`Bucket::sweep`].
    pub fn held(&self) -> u64 {
        self.held
    }

    /// The second up to which what ran out has been moved out.
    pub fn swept(&self) -> u64 {
        self.swept
    }

    /// Whether a lease that runs out in that second has run out here.
    pub fn has_swept(&self, slot: u64) -> bool {
        slot <= self.swept
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.spent == 0 && self.held == 0
    }

    /// From when on, in milliseconds, nothing that is in it now counts.
    pub fn over_at(&self) -> u64 {
        let held = self.holds.last_key_value().map(|(slot, _)| slot.saturating_mul(1000));
        let spent = match self.window {
            Instance::Rolling { length } => {
                self.parts.last_key_value().map(|(part, _)| leaves(*part, length))
            }
            Instance::InFlight | Instance::Aligned { .. } => None,
        };
        self.window.over_after(held.unwrap_or(0)).max(spent.unwrap_or(0))
    }

    /// Moves out what has run out by now: leases, and what a rolling window has left behind.
    pub fn sweep(&mut self, now: u64) {
        self.swept = self.swept.max(now / 1000);
        while let Some(entry) = self.holds.first_entry().filter(|entry| *entry.key() <= self.swept) {
            let (slot, hold) = entry.remove_entry();
            self.held = self.held.saturating_sub(hold.refund).saturating_sub(hold.charge);
            self.charge(hold.charge, slot.saturating_mul(1000), now);
        }
        if let Instance::Rolling { length } = self.window {
            let first = (now / granule(length)).saturating_sub(PARTS);
            while let Some(entry) = self.parts.first_entry().filter(|entry| *entry.key() < first) {
                self.spent = self.spent.saturating_sub(entry.remove());
            }
        }
    }

    /// What was kept of a bucket, taken up again by a clock that may not be the one it was filled by; nothing if nothing in it counts.
    /// What is dated later than a step of now could date it is dated so, and no sum is believed. Nobody knows the leases that it holds:
    /// all run out.
    pub fn resume(&self, now: u64) -> Option<Self> {
        let last = now.saturating_add(MAX_LEASE).div_ceil(1000);
        let mut bucket = Self::new(self.window);
        for (slot, hold) in &self.holds {
            bucket.hold(hold.refund, (*slot).min(last), OnExpiry::Refund);
            bucket.hold(hold.charge, (*slot).min(last), OnExpiry::Charge);
        }
        match self.window {
            Instance::Rolling { length } => {
                for (part, amount) in &self.parts {
                    bucket.charge(*amount, part.saturating_mul(granule(length)).min(now), now);
                }
            }
            Instance::InFlight | Instance::Aligned { .. } => bucket.charge(self.spent, now, now),
        }
        bucket.sweep(now);
        (!bucket.is_empty() && bucket.over_at() > now).then_some(bucket)
    }

    /// Holds that much until a second. What is held in all stays below [`MAX_AMOUNT`]; how much was added is returned.
    pub fn hold(&mut self, amount: u64, slot: u64, on_expiry: OnExpiry) -> u64 {
        let amount = amount.min(MAX_AMOUNT.saturating_sub(self.held));
        if amount > 0 {
            let hold = self.holds.entry(slot).or_default();
            match on_expiry {
                OnExpiry::Refund => hold.refund += amount,
                OnExpiry::Charge => hold.charge += amount,
            }
            self.held += amount;
        }
        amount
    }

    /// Holds that much less.
    pub fn release(&mut self, amount: u64, slot: u64, on_expiry: OnExpiry) {
        let Some(hold) = self.holds.get_mut(&slot) else { return };
        let share = match on_expiry {
            OnExpiry::Refund => &mut hold.refund,
            OnExpiry::Charge => &mut hold.charge,
        };
        let amount = amount.min(*share);
        *share -= amount;
        self.held = self.held.saturating_sub(amount);
        if *hold == Hold::default() {
            self.holds.remove(&slot);
        }
    }

    /// Counts that much as spent at a moment that is not after `now`. At most [`MAX_AMOUNT`] is spent in all.
    pub fn charge(&mut self, amount: u64, at: u64, now: u64) {
        let amount = amount.min(MAX_AMOUNT.saturating_sub(self.spent));
        match self.window {
            _ if amount == 0 => {}
            Instance::InFlight => {}
            Instance::Aligned { .. } => self.spent += amount,
            Instance::Rolling { length } => {
                let (part, first) = (at / granule(length), (now / granule(length)).saturating_sub(PARTS));
                if part >= first {
                    *self.parts.entry(part).or_default() += amount;
                    self.spent += amount;
                }
            }
        }
    }

    /// Takes back a charge of that moment, as far as it counts still.
    pub fn uncharge(&mut self, amount: u64, at: u64) {
        match self.window {
            Instance::InFlight => {}
            Instance::Aligned { .. } => self.spent = self.spent.saturating_sub(amount),
            Instance::Rolling { length } => {
                let part = at / granule(length);
                let Some(charged) = self.parts.get_mut(&part) else { return };
                let amount = amount.min(*charged);
                *charged -= amount;
                self.spent = self.spent.saturating_sub(amount);
                if *charged == 0 {
                    self.parts.remove(&part);
                }
            }
        }
    }

    /// Its state by a limit's amount.
    pub fn reading(&self, amount: u64) -> Reading {
        let resets_at = match self.window {
            Instance::InFlight => 0,
            Instance::Aligned { end, .. } => end,
            Instance::Rolling { length } => {
                self.parts.first_key_value().map_or(0, |(part, _)| leaves(*part, length))
            }
        };
        Reading { amount, spent: self.spent, held: self.held, resets_at }
    }
}

impl Instance {
    /// From when on, in milliseconds, what is charged or runs out at that moment counts no longer.
    pub fn over_after(&self, at: u64) -> u64 {
        match *self {
            Self::InFlight => at,
            Self::Aligned { end, .. } => at.max(end),
            Self::Rolling { length } => leaves(at / granule(length), length),
        }
    }
}

/// How long a part of a rolling window is, in milliseconds.
fn granule(length: u64) -> u64 {
    length.div_ceil(PARTS).max(1)
}

/// When a part of a rolling window counts no longer.
fn leaves(part: u64, length: u64) -> u64 {
    part.saturating_add(PARTS + 1).saturating_mul(granule(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_000;
    const ROLLING: Instance = Instance::Rolling { length: 3_600_000 };

    fn windows() -> impl Strategy<Value = Instance> {
        prop_oneof![
            Just(ROLLING),
            Just(Instance::InFlight),
            Just(Instance::Aligned { start: NOW, end: NOW + 7_200_000 })
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_is_taken_up_as_it_would_be_found(
            window in windows(),
            steps in prop::collection::vec((any::<bool>(), 1..1000u64, 0..MAX_LEASE, 1..600_000u64), 0..20),
            away in 0..7_200_000u64,
        ) {
            let (mut bucket, mut now) = (Bucket::new(window), NOW);
            for (charge, amount, lease, wait) in steps {
                bucket.sweep(now);
                let on_expiry = if charge { OnExpiry::Charge } else { OnExpiry::Refund };
                bucket.hold(amount, (now + lease).div_ceil(1000), on_expiry);
                bucket.charge(amount, now, now);
                now += wait;
            }
            now += away;
            let resumed = bucket.resume(now);
            bucket.sweep(now);
            // As all that could still be asked for by its name.
            let counts = !bucket.is_empty() && bucket.over_at() > now;
            prop_assert_eq!(resumed, counts.then_some(bucket));
        }

        #[test]
        fn no_number_is_believed(
            window in windows(), sums: [u64; 3], now: u64,
            holds in prop::collection::btree_map(any::<u64>(), (any::<u64>(), any::<u64>()), 0..9),
            parts in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..9),
        ) {
            let [spent, held, swept] = sums;
            let hold = |(slot, (refund, charge))| (slot, Hold { refund, charge });
            let holds = holds.into_iter().map(hold).collect();
            let hostile = Bucket { window, spent, held, swept, holds, parts };
            if let Some(resumed) = hostile.resume(now) {
                prop_assert!(resumed.spent <= MAX_AMOUNT && resumed.held <= MAX_AMOUNT);
                prop_assert_eq!(resumed.resume(now), Some(resumed));
            }
        }
    }

    #[test]
    fn a_clock_that_was_ahead_is_made_up_for() {
        let ahead = NOW + 10 * 365 * 86_400_000;
        let mut bucket = Bucket::new(ROLLING);
        bucket.sweep(ahead);
        bucket.charge(30, ahead, ahead);
        bucket.hold(20, ahead / 1000 + 60, OnExpiry::Charge);
        let mut resumed = bucket.resume(NOW).unwrap();
        assert_eq!((resumed.spent(), resumed.held(), resumed.swept()), (30, 20, NOW / 1000));
        resumed.sweep(NOW + MAX_LEASE + 2 * 3_600_000);
        assert!(resumed.is_empty());
    }
}

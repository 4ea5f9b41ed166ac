//! What is in the store as values, to be kept and taken up again.

use super::{Buckets, MemoryStore, Subjects, lock};
use crate::quota::ledger::{Bucket, Instance, MAX_LEASE};

/// The name of its bucket, and until when it counts.
type Subject = (String, u64);

/// Buckets, and subjects of limits with until when they count. Reservations are in it by what they hold: nobody who would renew or end them
/// outlives the process.
#[derive(Debug, Default)]
pub(in crate::quotastore) struct Copied {
    pub(in crate::quotastore) buckets: Vec<(String, Bucket)>,
    pub(in crate::quotastore) subjects: Vec<(String, Instance, Vec<Subject>)>,
}

impl MemoryStore {
    /// Whether anything was done since this was last asked.
    pub(in crate::quotastore) fn changed(&self) -> bool {
        let changed = |buckets: &std::sync::Mutex<Buckets>| std::mem::take(&mut lock(buckets).changed);
        // All of them, whatever the first says.
        self.0.buckets.iter().map(changed).fold(false, |any, one| any | one)
    }

    /// What every shard has when it is come to; the others go on meanwhile.
    pub(in crate::quotastore) fn copies(&self) -> impl Iterator<Item = Copied> {
        self.0.buckets.iter().map(|shard| {
            let shard = lock(shard);
            let bucket = |(name, bucket): (&String, &Bucket)| (name.clone(), bucket.clone());
            let subjects = |(name, subjects): (&String, &Subjects)| {
                // In an order, so that what is the same reads the same.
                let until = subjects.order.iter().map(|(until, name)| (name.clone(), *until));
                (name.clone(), subjects.window, until.collect())
            };
            Copied {
                buckets: shard.buckets.map.iter().map(bucket).collect(),
                subjects: shard.lists.iter().map(subjects).collect(),
            }
        })
    }

    /// Takes up what another had, as far as it still counts by this clock.
    pub(in crate::quotastore) fn resume(&self, kept: Copied) {
        let now = self.now();
        for (name, bucket) in kept.buckets {
            if let Some(bucket) = bucket.resume(now) {
                self.change(&name, |shard| drop(shard.buckets.map.insert(name.clone(), bucket)));
            }
        }
        for (list, window, subjects) in kept.subjects {
            self.change(&list, |shard| {
                let own = shard.lists.entry(list.clone()).or_insert_with(|| Subjects::new(window));
                // No subject that is touched now would count any longer.
                let longest = own.window.over_after(now.saturating_add(MAX_LEASE + 1000));
                for (name, until) in subjects {
                    own.touch(&name, until.min(longest));
                }
                own.forget(now);
            });
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Buckets)) {
        if let Some(shard) = self.0.buckets.get(self.index(name)) {
            change(&mut lock(shard));
        }
    }
}

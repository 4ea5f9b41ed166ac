//! Quotas in Redis (7 or newer, or Valkey), for any number of processors. One script call does a step, or several at once.
//!
//! | key | type | holds | expires |
//! | --- | --- | --- | --- |
//! | `{aigw}:q:b:LIMIT:SUBJECT:WINDOW` | hash | a bucket: `s` spent, `h` held, `h123`/`c123` what of it is given back/charged in second 123, `t` up to which second that was done, `m` the last such second, `r45` what is spent in part 45 of a rolling window, `f` the first such part, `x` when nothing in it counts any more | ten minutes after that |
//! | `{aigw}:q:l:ID` | string | a reservation: the second it runs out, the answer's length, and for each bucket what is held, `h` or `c`, and the bucket's name; `S` once it is settled | 25 hours after it ran out or was settled; five minutes after a settlement is confirmed |
//! | `{aigw}:q:n:LIMIT:WINDOW` | sorted set | the buckets of a limit whose subjects clients choose, by when they count no longer | ten minutes after the last |
//!
//! `WINDOW` is `f` (in flight), `rLENGTH` (rolling) or `aSTART-END` (of the calendar), in milliseconds. All keys have one hash tag,
//! as one step is atomic over all its buckets: it is one call on one server, that of a cluster which keeps the tag's slot. Another tag
//! ([`RedisOptions::prefix`]) is another account. Time is Redis'; all numbers are integers below 2^53. A user needs `~{aigw}:q:*` and
//! `+evalsha +eval +time +get +set +pexpire +pexpireat +hget +hmget +hset +hdel +zscore +zcount +zadd +zrange +zremrangebyscore`, in a
//! cluster `+cluster|slots +asking`, with [`RedisOptions::replicas`] `+wait`; of Sentinels `+sentinel|master`.
//!
//! Every step may be asked for twice: a reservation and its end are known by its id. So what a server did whose answer was lost is not
//! done again, and what a server did that another has replaced without having heard of it is.

mod call;
mod find;
mod lane;
mod link;
mod place;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redis::{ConnectionInfo, FromRedisValue, Pipeline, cmd, from_redis_value};
use futures_util::future::try_join_all;

use self::call::{Call, Kind as Does, Script, Step};
use self::lane::Lane;
use self::link::Link;
use self::place::Kind;
pub use self::place::{InvalidPlace, RedisOptions, RedisPlace};
use super::{Answer, StoreError, check};
use crate::quota::ledger::{CONFIRMED, MAX_LEASE, Place};
use crate::quota::{
    Ask, Claim, Grant, Group, MAX_AMOUNT, Mode, OnExpiry, Reading, Refusal, ReservationId, Settle, Settled,
    Verdict, Window,
};

/// Quotas in a Redis. Clones are handles of the same.
#[derive(Clone)]
pub struct RedisStore {
    server: Arc<Server>,
    lane: Arc<Lane>,
    /// That of the shared connection.
    first: Arc<Lane>,
}

/// What all who ask it know of the server.
struct Server {
    link: Link,
    /// What all keys begin with.
    prefix: String,
    /// Instead of Redis' own, in milliseconds; 0: Redis' own.
    clock: AtomicU64,
    script: Script,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisStore({})", self.server.link.name)
    }
}

impl RedisStore {
    /// The store of one server; nothing is connected before its background task runs. `ca` is a file of certificates (PEM) to
    /// trust in the place of the system's.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(info: ConnectionInfo, ca: Option<&Path>) -> Result<Self, StoreError> {
        let options = RedisOptions { ca: ca.map(Path::to_owned), ..RedisOptions::default() };
        Self::open(RedisPlace(Kind::Single(Box::new(info))), &options)
    }

    /// The store at that place; nothing is connected before its background task runs.
    ///
    /// # Errors
    /// The certificates or the prefix cannot be used.
    pub fn open(place: RedisPlace, options: &RedisOptions) -> Result<Self, StoreError> {
        let prefix = options.key_prefix().map_err(StoreError::Away)?;
        let link = Link::new(place, options, format!("{prefix}l:")).map_err(StoreError::Away)?;
        let server = Server { link, prefix, clock: AtomicU64::new(0), script: Script::new() };
        let lane = Arc::new(Lane::shared());
        Ok(Self { server: Arc::new(server), first: Arc::clone(&lane), lane })
    }

    /// The same store for another thread, which has a connection of its own while it runs [`RedisStore::drive`]; nothing is answered
    /// before.
    pub(super) fn beside(&self) -> Self {
        Self { lane: Arc::new(Lane::own()), ..self.clone() }
    }

    /// Brings what this handle and its clones are asked for to the server, until dropped.
    pub(super) async fn drive(&self) {
        self.lane.drive(&self.server).await;
    }

    /// Counts by that clock from now on, and not by the server's: for tests.
    #[doc(hidden)]
    pub fn set_clock(&self, now: u64) {
        self.server.clock.store(now, Ordering::SeqCst);
    }

    /// Connects, and again whenever the connection is lost, until dropped.
    pub(super) async fn connect(&self) {
        tokio::join!(self.server.link.keep(), self.first.drive(&self.server));
    }

    /// The server's time.
    pub(super) async fn now(&self) -> Result<u64, StoreError> {
        match self.server.clock.load(Ordering::SeqCst) {
            0 => {
                let mut connected = self.server.link.connected().await;
                let time = cmd("TIME").query_async(&mut connected.connection).await;
                let (seconds, micros): (u64, u64) = time.map_err(|error| self.server.link.away(&error))?;
                Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
            }
            clock => Ok(clock),
        }
    }

    pub(super) async fn reserve(&self, ask: &Ask) -> Result<Answer, StoreError> {
        check(&ask.claims.iter().collect::<Vec<_>>())?;
        // By this machine's clock, as far as it is known to differ: the one that the ask was made by. The server says whether it
        // is over.
        match self.reserve_in(ask, |window| window).await {
            Err(StoreError::Stale { now }) => {
                let next = |window: Window| match window {
                    Window::Aligned { end, next_end, .. } if now >= end => {
                        Window::Aligned { start: end, end: next_end, next_end }
                    }
                    other => other,
                };
                self.reserve_in(ask, next).await
            }
            answer => answer,
        }
    }

    async fn reserve_in(&self, ask: &Ask, window: impl Fn(Window) -> Window) -> Result<Answer, StoreError> {
        let mut step = self.step(Does::Reserve, &ask.id);
        let groups = ask.groups.iter().map(|group| if *group == Group::Any { 'o' } else { 'a' });
        let lease = u64::try_from(ask.lease.as_millis()).unwrap_or(MAX_LEASE).clamp(1, MAX_LEASE);
        let wanted = ask.output.wanted.min(MAX_AMOUNT);
        step.arg(lease).arg(wanted).arg(ask.output.least.min(wanted)).arg(groups.collect::<String>());
        for claim in &ask.claims {
            let window = window(claim.window);
            let ends = match window {
                Window::Aligned { end, .. } => end,
                Window::InFlight | Window::Rolling { .. } => 0,
            };
            self.place(&mut step, &Place::new(claim, window.at_or_first()));
            let per = claim.bound.per_output;
            let holds = if claim.mode == Mode::Reserve { "h" } else { "p" };
            let charge = claim.on_expiry == OnExpiry::Charge && claim.window != Window::InFlight;
            step.arg(claim.amount.min(MAX_AMOUNT)).arg(claim.bound.fixed.min(MAX_AMOUNT)).arg(per.numerator);
            step.arg(per.denominator.max(1)).arg(holds).arg(u8::from(claim.shadow));
            step.arg(if charge { "c" } else { "h" }).arg(claim.group.saturating_add(1)).arg(ends);
        }
        let reply: Vec<u64> = self.invoke(step).await?;
        self.verdict(ask, &reply)
    }

    /// Reads the script's reply.
    fn verdict(&self, ask: &Ask, reply: &[u64]) -> Result<Answer, StoreError> {
        let strange = || self.server.strange();
        let (status, now, rest) = match reply {
            [2, _, ..] => return Err(StoreError::Ended),
            [3, now, ..] => return Err(StoreError::Stale { now: *now }),
            [status, now, rest @ ..] => (*status, *now, rest),
            _ => return Err(strange()),
        };
        let [result, overflowed, rest @ ..] = rest else { return Err(strange()) };
        let readings: Vec<Reading> = ask
            .claims
            .iter()
            .zip(rest.chunks_exact(3))
            .filter_map(|(claim, reading)| match reading {
                [spent, held, resets_at] => Some(Reading {
                    amount: claim.amount.min(MAX_AMOUNT),
                    spent: *spent,
                    held: *held,
                    resets_at: *resets_at,
                }),
                _ => None,
            })
            .collect();
        if readings.len() != ask.claims.len() {
            return Err(strange());
        }
        let verdict = match status {
            1 => Verdict::Granted(Grant { output: *result, readings, now }),
            0 => {
                let claim = usize::try_from(*result)
                    .ok()
                    .filter(|claim| *claim < ask.claims.len())
                    .ok_or_else(strange)?;
                Verdict::Refused(Refusal { claim, readings, now })
            }
            _ => return Err(strange()),
        };
        Ok(Answer { verdict, overflowed: *overflowed })
    }

    pub(super) async fn renew(&self, leases: &[(ReservationId, u64)]) -> Result<Vec<bool>, StoreError> {
        let calls = leases.iter().map(|(id, length)| async move {
            let mut step = self.step(Does::Renew, id);
            // Its buckets are known to the server only.
            step.may_touch_others();
            step.arg((*length).clamp(1, MAX_LEASE));
            self.invoke::<u64>(step).await.map(|alive| alive == 1)
        });
        try_join_all(calls).await
    }

    /// Ends one reservation.
    pub(super) async fn settle(&self, settle: &Settle) -> Result<Settled, StoreError> {
        let claims: Vec<&Claim> = settle.spent.iter().map(|(claim, _)| claim).collect();
        check(&claims)?;
        let mut step = self.step(Does::Settle, &settle.id);
        for (claim, spent) in &settle.spent {
            let (own, next) = match claim.window {
                Window::Aligned { end, .. } => (claim.window.at_or_first(), end),
                _ => (claim.window.at_or_first(), 0),
            };
            self.place(&mut step, &Place::new(claim, own));
            let later = Place::new(claim, claim.window.at_or_last(next));
            if next > 0 {
                step.key(self.key('b', &later.own));
                if let Some(shared) = &later.shared {
                    step.key(self.key('b', &shared.overflow));
                }
            }
            step.arg((*spent).min(MAX_AMOUNT)).arg(next).arg(later.own);
        }
        match self.invoke::<u64>(step).await? {
            0 => Ok(Settled::Done),
            1 => Ok(Settled::Before),
            _ => Ok(Settled::Unreserved),
        }
    }

    pub(super) async fn confirm(&self, ids: &[ReservationId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut all = Pipeline::with_capacity(ids.len());
        for id in ids {
            all.cmd("PEXPIRE").arg(self.key('l', id)).arg(CONFIRMED).ignore();
        }
        self.server.link.leave(&all).await
    }

    /// A step for that reservation.
    fn step(&self, kind: Does, id: &ReservationId) -> Step {
        let mut step = Step::new(kind);
        step.key(self.key('l', id)).arg(id.to_string());
        step
    }

    /// A bucket's names as arguments, and all keys it may come to use.
    fn place(&self, step: &mut Step, place: &Place) {
        step.key(self.key('b', &place.own)).arg(&place.own);
        match &place.shared {
            Some(shared) => {
                step.key(self.key('b', &shared.overflow)).key(self.key('n', &shared.list));
                step.arg(&shared.overflow).arg(&shared.list).arg(shared.most);
            }
            None => {
                step.arg("").arg("").arg(0);
            }
        }
    }

    fn key(&self, kind: char, name: &impl std::fmt::Display) -> String {
        format!("{}{kind}:{name}", self.server.prefix)
    }

    async fn invoke<T: FromRedisValue>(&self, step: Step) -> Result<T, StoreError> {
        let value = self.lane.ask(step).await?;
        from_redis_value(value).map_err(|_| self.server.strange())
    }
}

impl Server {
    fn call<'a>(&'a self, steps: impl IntoIterator<Item = &'a Step>) -> Call<'a> {
        let clock = self.clock.load(Ordering::SeqCst);
        Call { script: &self.script, clock, prefix: &self.prefix, steps: steps.into_iter().collect() }
    }

    fn strange(&self) -> StoreError {
        StoreError::Away(format!("{}: its answer makes no sense", self.link.name))
    }
}

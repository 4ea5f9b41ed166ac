//! Stores of quotas: the same steps on all of them, held against each other and against an account that knows nothing of how they
//! count.

pub(crate) mod stores;
mod together;
mod topologies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ai_gateway::quota::{
    Ask, Bound, BucketKey, Claim, Group, Mode, OnExpiry, OutputCap, PerOutput, ReservationId, Settle,
    Settled, Verdict, Window,
};
use ai_gateway::quotastore::{Away, Desk, DeskOptions, Store, StoreError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::sync::CancellationToken;

use self::stores::{Timed, Topologies, connect, on_all};
use crate::support::redis::Redis;
use crate::support::{until, valkey};

/// The most the account's limits allow.
pub(crate) const AMOUNT: u64 = 1000;

/// In the order of their times: Redis forgets what is over by its own clock.
pub(crate) fn start() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap() / 1000 * 1000 + 3_600_000
}

pub(crate) fn options(deadline: Duration) -> DeskOptions {
    DeskOptions { deadline, flush: Duration::from_secs(30) }
}

/// What a desk does in the background.
pub(crate) struct Background {
    stop: CancellationToken,
    running: tokio::task::JoinSet<()>,
}

/// A desk before this store that is connected, renews and settles.
pub(crate) fn attended(store: &Store, deadline: Duration) -> (Desk, Background) {
    let (desk, background) = Desk::new(store.clone(), options(deadline));
    let (stop, mut running) = (CancellationToken::new(), tokio::task::JoinSet::new());
    running.spawn(background.run(stop.clone()));
    (desk, Background { stop, running })
}

impl Background {
    /// Returns when everything is settled.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap();
    }
}

fn id(exchange: u64) -> ReservationId {
    // Each test has buckets and reservations of its own, as each has a Redis of its own.
    ReservationId { process: 1, exchange, part: 0 }
}

pub(crate) fn claim(limit: &str, window: Window) -> Claim {
    Claim {
        bucket: BucketKey { limit: limit.into(), subject: "".into() },
        amount: AMOUNT,
        window,
        bound: Bound { fixed: 10, per_output: PerOutput { numerator: 1, denominator: 1 } },
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    }
}

pub(crate) const MINUTE: Window = Window::Rolling { length: 60_000 };

pub(crate) fn ask(exchange: u64, wanted: u64, least: u64, claims: Vec<Claim>) -> Ask {
    let output = OutputCap { wanted, least };
    Ask { id: id(exchange), claims, groups: vec![Group::All], output, lease: Duration::from_secs(10) }
}

pub(crate) fn settle(ask: &Ask, spent: u64) -> Settle {
    Settle { id: ask.id, spent: ask.claims.iter().map(|claim| (claim.clone(), spent)).collect() }
}

/// Spent and held of the first claim, after a step.
pub(crate) fn first(verdict: &Verdict) -> (u64, u64) {
    let reading = match verdict {
        Verdict::Granted(grant) => &grant.readings[0],
        Verdict::Refused(refusal) => &refusal.readings[0],
    };
    (reading.spent, reading.held)
}

/// Asks for more than there can ever be: a look at the first claim's bucket.
pub(crate) async fn look(store: &Store, claim: &Claim) -> (u64, u64) {
    let mut claim = claim.clone();
    claim.bound = Bound::fixed(AMOUNT * 1000);
    claim.mode = Mode::Reserve;
    let looking = ask(u64::MAX, 0, 0, vec![claim]);
    first(&store.reserve(&looking).await.unwrap().verdict)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_through_its_life() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        timed.set(now);
        let asked = ask(1, 490, 490, vec![claim("a", MINUTE)]);
        let granted = store.reserve(&asked).await.unwrap();
        assert_eq!(first(&granted.verdict), (0, 500));
        assert_eq!(store.reserve(&asked).await.unwrap(), granted, "asked again, nothing more is held");
        timed.set(now + 8_000);
        assert_eq!(store.renew(&[(asked.id, 10_000)]).await.unwrap(), [true]);
        timed.set(now + 17_000);
        assert_eq!(look(store, &asked.claims[0]).await, (0, 500), "it was renewed");
        assert_eq!(store.settle(&settle(&asked, 123)).await.unwrap(), Settled::Done);
        assert_eq!(store.settle(&settle(&asked, 123)).await.unwrap(), Settled::Before);
        assert_eq!(look(store, &asked.claims[0]).await, (123, 0));
        assert_eq!(store.reserve(&asked).await.unwrap_err(), StoreError::Ended);
        assert_eq!(store.renew(&[(asked.id, 10_000)]).await.unwrap(), [false]);
        let lost = ask(2, 0, 0, vec![claim("a", MINUTE)]);
        assert_eq!(store.settle(&settle(&lost, 7)).await.unwrap(), Settled::Unreserved);
        assert_eq!(store.settle(&settle(&lost, 7)).await.unwrap(), Settled::Before);
        assert_eq!(look(store, &asked.claims[0]).await, (130, 0));
        timed.set(now + 17_000 + 62_000);
        assert_eq!(look(store, &asked.claims[0]).await, (0, 0), "the window has rolled on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_is_charged_or_given_back_and_corrected_by_a_late_end() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        for (number, on_expiry, expired) in [(1, OnExpiry::Charge, 500), (2, OnExpiry::Refund, 0)] {
            timed.set(now);
            let name = format!("limit{number}");
            let asked = ask(number, 490, 0, vec![Claim { on_expiry, ..claim(&name, MINUTE) }]);
            store.reserve(&asked).await.unwrap();
            timed.set(now + 9_999);
            assert_eq!(look(store, &asked.claims[0]).await, (0, 500));
            timed.set(now + 10_000);
            assert_eq!(look(store, &asked.claims[0]).await, (expired, 0));
            assert_eq!(store.renew(&[(asked.id, 10_000)]).await.unwrap(), [false]);
            assert_eq!(store.settle(&settle(&asked, 20)).await.unwrap(), Settled::Done);
            assert_eq!(look(store, &asked.claims[0]).await, (20, 0));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_in_a_window_is_charged_to_it() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        let window = Window::Aligned { start: now, end: now + 5_000, next_end: now + 10_000 };
        timed.set(now + 4_000);
        let asked = ask(1, 490, 0, vec![claim("a", window)]);
        store.reserve(&asked).await.unwrap();
        timed.set(now + 5_000);
        assert_eq!(look(store, &asked.claims[0]).await, (0, 0), "a new window");
        store.settle(&settle(&asked, 400)).await.unwrap();
        assert_eq!(look(store, &asked.claims[0]).await, (0, 0));
        timed.set(now + 10_000);
        let late = store.reserve(&ask(2, 0, 0, asked.claims.clone())).await.unwrap_err();
        assert_eq!(late, StoreError::Stale { now: now + 10_000 });
    })
    .await;
}

/// What one limit refuses is not counted by the others: envoyproxy/ratelimit#185.
#[tokio::test(flavor = "multi_thread")]
async fn all_claims_have_room_or_nothing_is_held() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        timed.set(now);
        let (a, b) = (claim("a", MINUTE), Claim { amount: 50, ..claim("b", MINUTE) });
        let refused = store.reserve(&ask(1, 100, 100, vec![a.clone(), b.clone()])).await.unwrap().verdict;
        let Verdict::Refused(refusal) = refused else { panic!("no room in b") };
        assert_eq!(refusal.claim, 1);
        assert_eq!(look(store, &a).await, (0, 0));
        // One of them is enough where they share, and a shadow is only counted.
        let mut shared = ask(2, 100, 100, vec![a.clone(), b.clone()]);
        shared.groups = vec![Group::Any];
        let granted = store.reserve(&shared).await.unwrap().verdict;
        assert!(matches!(granted, Verdict::Granted(_)), "{granted:?}");
        assert_eq!((look(store, &a).await, look(store, &b).await), ((0, 110), (0, 110)));
        let shadow = ask(3, 100, 100, vec![Claim { shadow: true, ..b.clone() }]);
        assert!(matches!(store.reserve(&shadow).await.unwrap().verdict, Verdict::Granted(_)));
        assert_eq!(look(store, &b).await, (0, 220));
        // An answer is made as short as what is left.
        let short = ask(4, 5_000, 1, vec![a.clone()]);
        let Verdict::Granted(grant) = store.reserve(&short).await.unwrap().verdict else { panic!("room") };
        assert_eq!((grant.output, grant.readings[0].remaining()), (AMOUNT - 110 - 10, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_beyond_what_a_limit_may_have_share_a_bucket() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        timed.set(now);
        let of = |subject: u64| Claim {
            bucket: BucketKey { limit: "a".into(), subject: format!("{subject:032x}").into() },
            most_subjects: Some(2),
            ..claim("a", MINUTE)
        };
        for (exchange, (subject, overflowed)) in (1..).zip([(1, 0), (2, 0), (3, 1), (4, 1), (1, 0)]) {
            let asked = ask(exchange, 90, 0, vec![of(subject)]);
            assert_eq!(store.reserve(&asked).await.unwrap().overflowed, overflowed, "{subject}");
            store.settle(&settle(&asked, 30)).await.unwrap();
        }
        assert_eq!(look(store, &of(9)).await, (60, 0), "of 3 and 4");
        assert_eq!(look(store, &of(1)).await, (60, 0), "its own, twice");
    })
    .await;
}

/// What one tenant's clients choose takes nothing from another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fills_its_subjects_leaves_another_tenant_all_of_its_own() {
    on_all(async |timed| {
        let (store, now) = (&timed.store, start());
        timed.set(now);
        let of = |owner: &str, subject: u64| Claim {
            bucket: BucketKey { limit: "a".into(), subject: format!("{owner}.{subject:032x}").into() },
            most_subjects: Some(3),
            ..claim("a", MINUTE)
        };
        for subject in 0..20 {
            let asked = ask(subject, 490, 490, vec![of("aa", subject)]);
            store.reserve(&asked).await.unwrap();
        }
        // What was refused was paid nowhere: the rest shares one bucket, which is full.
        assert_eq!(look(store, &of("aa", 99)).await, (0, 1000));
        for subject in 0..3 {
            let asked = ask(100 + subject, 490, 490, vec![of("bb", subject)]);
            let answer = store.reserve(&asked).await.unwrap();
            assert_eq!((first(&answer.verdict), answer.overflowed), ((0, 500), 0));
        }
        assert_eq!(look(store, &of("bb", 99)).await, (0, 0), "its rest is its own, too");
        assert_eq!(look(store, &of("cc", 0)).await, (0, 0));
    })
    .await;
}

/// Clients' values make neither more keys nor longer ones, whatever they are.
#[tokio::test(flavor = "multi_thread")]
async fn redis_holds_no_more_buckets_than_a_limit_may_have() {
    let Some(redis) = Redis::start().await else { return };
    let timed = Timed::redis(&redis);
    timed.set(start());
    for subject in 0..500_u64 {
        let bucket =
            BucketKey { limit: "l:tt:1m".into(), subject: format!("{:032x}.{subject:032x}", 7).into() };
        let claims = vec![Claim { bucket, most_subjects: Some(50), ..claim("a", MINUTE) }];
        let asked = ask(subject, 0, 0, claims);
        timed.store.reserve(&asked).await.unwrap();
        timed.store.settle(&settle(&asked, 1)).await.unwrap();
        timed.store.confirm(&[asked.id]).await.unwrap();
    }
    let keys = redis.command(&["KEYS", "{aigw}:q:*"]);
    let count = |kind: &str| keys.lines().filter(|key| key.contains(kind)).count();
    assert_eq!((count(":q:b:"), count(":q:n:")), (51, 1), "{keys}");
    assert!(keys.lines().all(|key| key.trim().len() < 130), "{keys}");
    let lasting = redis.command(&["EVAL", "local n = 0 for _, k in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', k) < 0 then n = n + 1 end end return n", "0"]);
    assert_eq!(lasting, "0", "every key ends by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_numbers_are_exact_in_all_stores() {
    let Some(redis) = Redis::start().await else { return };
    let (memory, other) = (Timed::memory(), Timed::redis(&redis));
    let now = start();
    memory.set(now);
    other.set(now);
    let most = ai_gateway::quota::MAX_AMOUNT;
    let numbers = [1, 2, 3, 7, 999_999_937, 999_999_999, 1_000_000_000];
    let mut exchange = 0;
    for numerator in numbers {
        for denominator in numbers {
            for amount in [1_000_003, most / 3, most - 1, most] {
                exchange += 1;
                let bound = Bound { fixed: amount / 7, per_output: PerOutput { numerator, denominator } };
                let name = format!("n{exchange}");
                let claims = vec![Claim { amount, bound, ..claim(&name, MINUTE) }];
                let asked = ask(exchange, most, 0, claims);
                let expected = memory.store.reserve(&asked).await.unwrap();
                assert_eq!(other.store.reserve(&asked).await.unwrap(), expected, "{asked:?}");
            }
        }
    }
}

/// A step of the random runs.
#[derive(Debug, Clone)]
enum Step {
    Reserve {
        exchange: u64,
        wanted: u64,
        clamp: bool,
        limits: u8,
        edit: u64,
    },
    Renew {
        exchange: u64,
    },
    Settle {
        exchange: u64,
        spent: u64,
    },
    Wait {
        milliseconds: u64,
    },
    /// The process ends, and the next one goes on with a snapshot, if the store is in it.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let exchange = 0..24u64;
    let reserve = (exchange.clone(), 1..400u64, any::<bool>(), 1..16u8, 0..4u64).prop_map(
        |(exchange, wanted, clamp, limits, edit)| Step::Reserve { exchange, wanted, clamp, limits, edit },
    );
    let step = prop_oneof![
        4 => reserve,
        1 => exchange.clone().prop_map(|exchange| Step::Renew { exchange }),
        3 => (exchange, 0..300u64).prop_map(|(exchange, spent)| Step::Settle { exchange, spent }),
        2 => (1..9_000u64).prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// The limits of the random runs; `bits` says which of them, `edit` by how much they are lowered.
fn limits(bits: u8, edit: u64, now: u64) -> Vec<Claim> {
    let start = now / 30_000 * 30_000;
    let aligned = Window::Aligned { start, end: start + 30_000, next_end: start + 60_000 };
    let all = [
        claim("rolling", MINUTE),
        Claim { on_expiry: OnExpiry::Refund, ..claim("aligned", aligned) },
        Claim { bound: Bound::fixed(1), amount: 6, ..claim("flying", Window::InFlight) },
        Claim { mode: Mode::Record, ..claim("record", MINUTE) },
    ];
    let chosen = all.into_iter().enumerate().filter(|(index, _)| bits & (1 << index) != 0);
    chosen.map(|(_, claim)| Claim { amount: claim.amount - claim.amount * edit / 10, ..claim }).collect()
}

/// What a plain account knows of one reservation.
#[derive(Debug, Clone)]
struct Known {
    ask: Ask,
    output: u64,
    until: u64,
    expired: bool,
}

/// Every charge with its time, and every hold; sums are made anew whenever they are asked for.
#[derive(Debug, Default)]
struct Account {
    held: BTreeMap<u64, Known>,
    /// Reservations of processes that are gone: nobody renews or settles them.
    left: Vec<Known>,
    ended: BTreeMap<u64, ()>,
    charges: Vec<(String, u64, i128)>,
}

impl Account {
    /// As names of buckets: those of windows of the calendar differ.
    fn bucket(claim: &Claim) -> String {
        match claim.window {
            Window::Aligned { start, .. } => format!("{}@{start}", claim.bucket.limit),
            _ => claim.bucket.limit.to_string(),
        }
    }

    fn run_out(&mut self, now: u64) {
        let all = self.held.values_mut().chain(&mut self.left);
        for known in all.filter(|known| !known.expired && known.until <= now) {
            known.expired = true;
            for claim in &known.ask.claims {
                if claim.on_expiry == OnExpiry::Charge
                    && claim.mode == Mode::Reserve
                    && claim.window != Window::InFlight
                {
                    let amount = i128::from(claim.bound.at(known.output));
                    self.charges.push((Self::bucket(claim), known.until, amount));
                }
            }
        }
    }

    fn held(&self, bucket: &str) -> u64 {
        let alive = self.held.values().chain(&self.left).filter(|known| !known.expired);
        let claims = alive.flat_map(|known| known.ask.claims.iter().map(move |claim| (claim, known.output)));
        let own = claims.filter(|(claim, _)| Self::bucket(claim) == bucket && claim.mode == Mode::Reserve);
        own.map(|(claim, output)| claim.bound.at(output)).sum()
    }

    fn spent(&self, claim: &Claim, now: u64) -> u64 {
        let bucket = Self::bucket(claim);
        let counts = |at: u64| match claim.window {
            Window::InFlight => false,
            Window::Aligned { .. } => true,
            // In seconds, of which it has sixty and the one that is under way.
            Window::Rolling { .. } => at / 1000 + 60 >= now / 1000,
        };
        let own = self.charges.iter().filter(|(of, at, _)| *of == bucket && counts(*at));
        u64::try_from(own.map(|(_, _, amount)| amount).sum::<i128>()).unwrap()
    }

    fn settle(&mut self, exchange: u64, spent: u64, claims: &[Claim], now: u64) -> Settled {
        if self.ended.insert(exchange, ()).is_some() {
            return Settled::Before;
        }
        let known = self.held.remove(&exchange);
        for claim in known.as_ref().map_or(claims, |known| &known.ask.claims) {
            let bucket = Self::bucket(claim);
            if let Some(known) = &known
                && known.expired
                && claim.on_expiry == OnExpiry::Charge
                && claim.mode == Mode::Reserve
                && claim.window != Window::InFlight
            {
                let amount = i128::from(claim.bound.at(known.output));
                self.charges.push((bucket.clone(), known.until, -amount));
            }
            self.charges.push((bucket, now, i128::from(spent)));
        }
        if known.is_some() { Settled::Done } else { Settled::Unreserved }
    }
}

/// A store's readings are the account's, and it grants just what there is room for.
fn check(account: &Account, asked: &Ask, verdict: &Verdict, again: bool, now: u64) {
    let readings = match verdict {
        Verdict::Granted(grant) => &grant.readings,
        Verdict::Refused(refusal) => &refusal.readings,
    };
    let mut fits = true;
    for (claim, reading) in asked.claims.iter().zip(readings) {
        let (spent, held) = (account.spent(claim, now), account.held(&Account::bucket(claim)));
        assert_eq!((reading.spent, reading.held), (spent, held), "{claim:?}");
        fits &= match (verdict, claim.mode) {
            (Verdict::Granted(_), Mode::Reserve) if !again => spent + held <= claim.amount,
            (Verdict::Granted(_), Mode::Record) if !again => spent + held < claim.amount,
            (Verdict::Refused(_), Mode::Reserve) => {
                spent + held + claim.bound.at(asked.output.least) <= claim.amount
            }
            (Verdict::Refused(_), Mode::Record) => spent + held < claim.amount,
            _ => true,
        };
    }
    assert_eq!(fits, matches!(verdict, Verdict::Granted(_)), "{verdict:?}");
}

/// Runs the steps on one store, and holds every answer against the account.
async fn run(timed: &Timed, steps: &[Step], run: u64) {
    let mut timed = timed.clone();
    let (mut now, mut account) = (start() / 30_000 * 30_000, Account::default());
    let mut process = ReservationId { process: run << 8, exchange: 0, part: 0 };
    let own = |mut claims: Vec<Claim>| {
        for claim in &mut claims {
            claim.bucket.limit = format!("{}{run}", claim.bucket.limit).into();
        }
        claims
    };
    for step in steps {
        timed.set(now);
        account.run_out(now);
        let store = &timed.store;
        match step {
            Step::Wait { milliseconds } => now += milliseconds,
            Step::Restart if matches!(store, Store::Memory(_)) => {
                timed = timed.restarted();
                process.process += 1;
                account.left.extend(std::mem::take(&mut account.held).into_values());
                account.ended.clear();
            }
            Step::Restart => {}
            Step::Renew { exchange } => {
                let id = ReservationId { exchange: *exchange, ..process };
                let alive = store.renew(&[(id, 10_000)]).await.unwrap();
                let known = account.held.get_mut(exchange).filter(|known| !known.expired);
                assert_eq!(alive, [known.is_some()], "{step:?}");
                if let Some(known) = known {
                    known.until = (now + 10_000).div_ceil(1000) * 1000;
                }
            }
            Step::Settle { exchange, spent } => {
                let id = ReservationId { exchange: *exchange, ..process };
                let known = account.held.get(exchange);
                let claims = known.map_or_else(|| own(limits(1, 0, now)), |known| known.ask.claims.clone());
                let spends = claims.iter().map(|claim| (claim.clone(), *spent)).collect();
                let settled = store.settle(&Settle { id, spent: spends }).await.unwrap();
                assert_eq!(settled, account.settle(*exchange, *spent, &claims, now), "{step:?}");
            }
            Step::Reserve { exchange, wanted, clamp, limits: bits, edit } => {
                let id = ReservationId { exchange: *exchange, ..process };
                let least = if *clamp { 1 } else { *wanted };
                let asked = match account.held.get(exchange) {
                    Some(known) => known.ask.clone(),
                    None => Ask { id, ..ask(0, *wanted, least, own(limits(*bits, *edit, now))) },
                };
                let answer = store.reserve(&asked).await;
                if account.ended.contains_key(exchange) {
                    assert_eq!(answer.unwrap_err(), StoreError::Ended);
                    continue;
                }
                // The windows of one that is asked for again may be over; it is the same reservation all the same.
                let verdict = answer.unwrap().verdict;
                let again = account.held.contains_key(exchange);
                if let Verdict::Granted(grant) = &verdict {
                    if !again {
                        assert!(grant.output >= asked.output.least && grant.output <= asked.output.wanted);
                        let until = (now + 10_000).div_ceil(1000) * 1000;
                        let known = Known { ask: asked.clone(), output: grant.output, until, expired: false };
                        account.held.insert(*exchange, known);
                    }
                } else {
                    assert!(!again, "asked again, refused: {step:?}");
                }
                check(&account, &asked, &verdict, again, now);
            }
        }
    }
    // When all leases have run out, nothing is held, and what is spent is what was charged.
    now += 11_000;
    timed.set(now);
    account.run_out(now);
    for claim in own(limits(15, 0, now)) {
        let (spent, held) = look(&timed.store, &claim).await;
        assert_eq!((spent, held), (account.spent(&claim, now), 0), "{claim:?}");
    }
}

/// Reserving, renewing, settling, waiting and editing limits in any order, each store for itself.
#[test]
fn random_steps_agree_with_a_plain_account() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(Redis::start());
    let valkey = runtime.block_on(valkey::start());
    let topologies = runtime.block_on(Topologies::get());
    let _entered = runtime.enter();
    let mut stores = vec![(Timed::memory(), 512)];
    stores.extend(redis.iter().map(|redis| (Timed::redis(redis), 64)));
    stores.extend(valkey.iter().map(|valkey| (Timed::redis(valkey), 64)));
    stores.extend(topologies.iter().flat_map(|all| all.stores()).map(|timed| (timed, 16)));
    for (timed, cases) in stores {
        let runs = AtomicU64::new(0);
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&steps(), |steps| {
            let number = runs.fetch_add(1, Ordering::SeqCst);
            runtime.block_on(run(&timed, &steps, number));
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{:?}: {error}", timed.store));
    }
}

/// Checks and charges are one step, whichever of several processors does it: Kuadrant/limitador#520; each has not a budget of its own:
/// maximhq/bifrost#3547.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_spend_no_more_than_there_is() {
    let Some(redis) = Redis::start().await else { return };
    let stop = CancellationToken::new();
    // Four processors with connections of their own, sixteen clients each.
    let mut desks = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let options = options(Duration::from_secs(30));
        let (desk, background) = Desk::new(Store::Redis(connect(&redis.url())), options);
        running.spawn(background.run(stop.clone()));
        desks.push(desk);
    }
    let mut clients = tokio::task::JoinSet::new();
    for (number, desk) in (0..64u64).map(|number| (number, desks[number as usize % 4].clone())) {
        clients.spawn(async move {
            let mut spent = 0;
            for turn in 0..20 {
                let hour = Window::Rolling { length: 3_600_000 };
                let claims = vec![Claim { amount: 5_000, ..claim("all", hour) }];
                let asked = Arc::new(ask(number * 100 + turn, 40, 5, claims));
                if let Ok(Verdict::Granted(grant)) = desk.reserve(Arc::clone(&asked)).await {
                    let reading = grant.readings[0];
                    assert!(reading.spent + reading.held <= reading.amount, "{reading:?}");
                    desk.hold(&asked);
                    let used = 10 + grant.output / 2;
                    spent += used;
                    desk.settle(settle(&asked, used));
                }
            }
            spent
        });
    }
    let mut spent = 0;
    while let Some(done) = clients.join_next().await {
        spent += done.unwrap();
    }
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    assert!(desks.iter().all(|desk| desk.unsettled() == 0), "all is settled");
    assert!(spent > 4_900 && spent <= 5_000, "{spent}");
    let store = Store::Redis(connect(&redis.url()));
    let hour = Claim { amount: 5_000, ..claim("all", Window::Rolling { length: 3_600_000 }) };
    assert_eq!(look(&store, &hour).await, (spent, 0));
}

/// Trouble with Redis neither loses nor doubles what was used: BerriAI/litellm#30460.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_redis_is_away_is_settled_once_it_is_back() {
    let Some(mut redis) = Redis::start().await else { return };
    let store = Store::Redis(connect(&redis.url()));
    let (desk, background) = attended(&store, Duration::from_secs(5));
    let asked = Arc::new(ask(1, 90, 90, vec![claim("a", MINUTE)]));
    assert!(matches!(desk.reserve(Arc::clone(&asked)).await, Ok(Verdict::Granted(_))));
    redis.kill();
    desk.settle(settle(&asked, 42));
    let (other, _) = Desk::new(store.clone(), options(Duration::from_millis(20)));
    let away = other.reserve(Arc::new(ask(2, 0, 0, vec![claim("a", MINUTE)]))).await;
    assert!(matches!(away, Err(Away(StoreError::Away(_)))), "{away:?}");
    redis.run().await;
    until("it is settled", async || look(&store, &asked.claims[0]).await == (42, 0)).await;
    background.end().await;
    assert_eq!(desk.unsettled(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_in_redis_is_tagged_and_expires() {
    let Some(redis) = Redis::start().await else { return };
    let store = Store::Redis(connect(&redis.url()));
    let mut claims = vec![claim("a", MINUTE), claim("b", Window::InFlight)];
    claims[0].most_subjects = Some(1);
    let (settled, held) = (ask(1, 5, 5, claims.clone()), ask(2, 5, 5, claims));
    store.reserve(&settled).await.unwrap();
    store.settle(&settle(&settled, 3)).await.unwrap();
    store.confirm(&[settled.id]).await.unwrap();
    store.reserve(&held).await.unwrap();
    let keys = redis.command(&["KEYS", "*"]);
    assert_eq!(keys.lines().count(), 5, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("{aigw}:q:"), "{key}");
        let left: i64 = redis.command(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} {left}");
    }
    // A script that is forgotten is loaded again.
    redis.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.settle(&settle(&held, 4)).await.unwrap(), Settled::Done);
    assert_eq!(look(&store, &Claim { most_subjects: Some(1), ..claim("a", MINUTE) }).await, (7, 0));
}

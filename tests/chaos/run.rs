//! One run: the processors, the clients, and what goes wrong meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::account::{Account, Durable, Sums};
use crate::clients::{self, Provider, Shared, client};
use crate::processors::{self, Processors};
use crate::support::{say, within};
use crate::world::{AMOUNT, Later, World, bucket};

/// A run, as seen by what goes wrong in it.
pub(crate) struct Run {
    pub(crate) processors: Processors,
    shared: Arc<Shared>,
    over: Arc<AtomicBool>,
}

/// How a run is set up.
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) provider: Provider,
    /// What the processors are told of their Redis.
    pub(crate) redis: Vec<String>,
    /// The servers that the test looks into meanwhile.
    pub(crate) servers: Vec<String>,
    /// What it connects to when all is over.
    pub(crate) afterwards: String,
    pub(crate) durable: Durable,
}

impl Setup {
    /// Nothing may be overspent, at no moment.
    fn strict(&self) -> bool {
        self.provider == Provider::Honest && self.durable == Durable::Yes
    }
}

/// The seeds of this test, as the environment asks.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
    };
    let first = number("AIGW_CHAOS_SEED", 1);
    first..first + number("AIGW_CHAOS_SEEDS", 20)
}

impl Run {
    /// Waits until so many hundredths of the limit have been used. There has to be something left then.
    pub(crate) async fn used(&self, percent: u64) {
        let account = &self.shared.account;
        self.wait("enough is used", || account.delivered() >= AMOUNT * percent / 100).await;
    }

    /// Waits until so many more requests have been turned away because nobody could say whether there was room.
    pub(crate) async fn turned_away(&self, count: u64) {
        let away = &self.shared.account.away;
        let before = away.load(Ordering::SeqCst);
        self.wait("requests are turned away", || away.load(Ordering::SeqCst) >= before + count).await;
    }

    /// Waits until so many more requests have been let in, or until nobody asks any more.
    pub(crate) async fn admitted(&self, count: u64) {
        let admitted = &self.shared.account.admitted;
        let before = admitted.load(Ordering::SeqCst);
        let enough = || admitted.load(Ordering::SeqCst) >= before + count || self.over.load(Ordering::SeqCst);
        self.wait("requests are let in", enough).await;
    }

    async fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                assert!(!self.over.load(Ordering::SeqCst), "it is all over before this: {what}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(what, waiting).await;
    }
}

/// Runs the clients to their end while `fault` does what it does, and holds what Redis counts against the test's own account.
pub(crate) async fn run(setup: &Setup, fault: impl AsyncFnOnce(&mut Run)) -> Sums {
    let folder = tempfile::Builder::new().prefix("chaos-").tempdir().expect("a folder");
    let world = World::create(folder.path());
    let processors = Processors::start(folder.path(), &setup.redis).await;
    let shared = Arc::new(Shared {
        world,
        account: Account::default(),
        processors: processors.reached(),
        provider: setup.provider,
        strict: setup.strict(),
    });
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..clients::COUNT {
        tasks.spawn(client(Arc::clone(&shared), number, setup.seed));
    }
    let running = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        over.store(true, Ordering::SeqCst);
    };
    let mut run = Run { processors, shared: Arc::clone(&shared), over: Arc::clone(&over) };
    let watching = watch(&shared, &setup.servers, &over);
    // A client that fails ends it all, and nothing that is waited for outlives it.
    tokio::join!(running, watching, fault(&mut run));
    run.processors.stop().await;
    let kills: Vec<u64> = shared.processors.iter().map(processors::Reached::killed).collect();
    let later = Later::new(&setup.afterwards);
    let sums = shared.account.settle(&later, &kills, setup.durable).await;
    check(setup, &sums);
    sums
}

fn check(setup: &Setup, sums: &Sums) {
    assert!(sums.delivered > AMOUNT / 2, "the limit was never near: {sums:?}");
    if setup.strict() {
        assert!(sums.spent <= AMOUNT && sums.seen <= AMOUNT, "{sums:?}");
        assert_eq!(sums.overspend, 0, "{sums:?}");
    } else if setup.durable == Durable::Yes {
        assert!(sums.overcharge <= sums.excess_in_flight, "{sums:?}");
        assert!(sums.overspend <= sums.excess_in_flight + sums.untold, "{sums:?}");
    }
}

/// Looks at what is spent and held, all the time, on all servers: one that is no master any more has what was so once.
async fn watch(shared: &Shared, servers: &[String], over: &AtomicBool) {
    let any = [(":path", "/v1/chat/completions"), ("x-client", ""), ("x-exchange", "")];
    let body = br#"{"model":"m","messages":[]}"#;
    let key = bucket(&shared.world.claims(&any, body).all);
    let mut connections: Vec<_> =
        servers.iter().map(|url| (redis::Client::open(url.as_str()).expect("a URL"), None)).collect();
    while !over.load(Ordering::SeqCst) {
        for (client, connection) in &mut connections {
            let look = async {
                if connection.is_none() {
                    *connection = client.get_multiplexed_async_connection().await.ok();
                }
                let mut own = connection.clone()?;
                let mut command = redis::cmd("HMGET");
                command.arg(&key).arg("s").arg("h");
                command.query_async::<(Option<u64>, Option<u64>)>(&mut own).await.ok()
            };
            // It may be stopped, or gone, or another's.
            match tokio::time::timeout(Duration::from_millis(500), look).await {
                Ok(Some((spent, held))) => {
                    let seen = spent.unwrap_or(0) + held.unwrap_or(0);
                    shared.account.seen.fetch_max(seen, Ordering::SeqCst);
                    assert!(
                        seen <= AMOUNT || !shared.strict,
                        "{spent:?} spent and {held:?} held, of {AMOUNT}"
                    );
                }
                _ => *connection = None,
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Says what all runs of a test came to.
pub(crate) fn report(name: &str, runs: &[Sums]) {
    let sum = |of: fn(&Sums) -> u64| runs.iter().map(of).sum::<u64>();
    let most = |of: fn(&Sums) -> u64| runs.iter().map(of).max().unwrap_or(0);
    say(&format!(
        "\nchaos {name}: {} runs, {} let in, {} refused, {} turned away, {} left by their clients, {} charged what was held; limit {AMOUNT}, \
         most seen spent and held {}, most charged {}, most delivered {}, most in flight {}, most overspent {}{}",
        runs.len(),
        sum(|run| run.admitted),
        sum(|run| run.refused),
        sum(|run| run.away),
        sum(|run| run.left),
        sum(|run| run.expired),
        most(|run| run.seen),
        most(|run| run.spent),
        most(|run| run.delivered),
        most(|run| run.most_flying),
        most(|run| run.overspend),
        if most(|run| run.excess_in_flight) == 0 {
            String::new()
        } else {
            format!(
                ": {} by Redis' count, at most {} for the requests in flight, and {} that nobody was told of",
                most(|run| run.overcharge),
                most(|run| run.excess_in_flight),
                most(|run| run.untold),
            )
        },
    ));
}

//! What goes wrong, and what holds all the same.

use crate::account::{Durable, Sums};
use crate::clients::Provider;
use crate::proxy;
use crate::run::{Run, Setup, report, run, seeds};
use crate::support::redis::Redis;
use crate::support::topology::{Cluster, Node, Sentinels};
use crate::support::{Dice, until};

/// Of processors that are given this URL.
fn at(url: String, servers: Vec<String>, seed: u64) -> Setup {
    let redis = vec!["--redis".to_owned(), url.clone()];
    Setup { seed, provider: Provider::Honest, redis, servers, afterwards: url, durable: Durable::Yes }
}

fn setup(redis: &Redis, seed: u64) -> Setup {
    at(redis.url(), vec![redis.url()], seed)
}

/// Runs a test for every seed, each with a Redis of its own.
async fn each_seed(name: &str, body: impl AsyncFn(Redis, u64) -> Sums) {
    each_of(name, Redis::start, body).await;
}

/// Runs a test for every seed, each with servers of its own.
async fn each_of<T>(name: &str, start: impl AsyncFn() -> Option<T>, body: impl AsyncFn(T, u64) -> Sums) {
    let mut runs = Vec::new();
    for seed in seeds() {
        let Some(servers) = start().await else { return };
        runs.push(body(servers, seed).await);
    }
    report(name, &runs);
}

/// Guarantee: what is spent and held never exceeds the limit, so nothing is overspent; every exchange is charged what it used, once, and
/// nothing stays held of those that have ended (BerriAI/litellm#27639, #36926, #40050).
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent() {
    each_seed("plain", async |redis, seed| run(&setup(&redis, seed), async |_: &mut Run| {}).await).await;
}

/// Guarantee: the same. Exchanges whose processor is killed are charged what was held for them once their leases have run out: never
/// less than they used, never twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_processors_are_killed() {
    each_seed("processor killed", async |redis, seed| {
        let mut dice = Dice::new(seed);
        let faults = async |run: &mut Run| {
            for percent in [15, 40] {
                run.used(percent).await;
                run.processors.kill_and_restart(dice.from(0, 3) as usize).await;
                run.admitted(1).await;
            }
        };
        run(&setup(&redis, seed), faults).await
    })
    .await;
}

/// Guarantee: the same, where Redis writes every command to its disk before it answers (`appendfsync always`). Requests are turned away
/// while it is gone (`onStoreFailure: Closed`), and what ends meanwhile is settled once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_redis_is_killed() {
    each_seed("Redis killed", async |mut redis, seed| {
        let setup = setup(&redis, seed);
        let faults = async |run: &mut Run| {
            for percent in [15, 40] {
                run.used(percent).await;
                redis.kill();
                run.turned_away(8).await;
                redis.run().await;
                run.admitted(1).await;
            }
        };
        run(&setup, faults).await
    })
    .await;
}

/// Guarantee: the same. A question that Redis answers too late is settled with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_redis_stops_for_a_while() {
    each_seed("Redis paused", async |redis, seed| {
        let faults = async |run: &mut Run| {
            for percent in [15, 40] {
                run.used(percent).await;
                redis.signal("STOP");
                run.turned_away(8).await;
                redis.signal("CONT");
                run.admitted(1).await;
            }
        };
        run(&setup(&redis, seed), faults).await
    })
    .await;
}

/// Guarantee: the same, of a network that is slow, and for some pieces slower than a processor waits.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_redis_is_slow() {
    each_seed("Redis slow", async |redis, seed| {
        let slow = proxy::slow(redis.folder().join("redis.sock"), seed).await;
        let setup = Setup { redis: vec!["--redis".to_owned(), slow], ..setup(&redis, seed) };
        run(&setup, async |_: &mut Run| {}).await
    })
    .await;
}

/// Guarantee: what is overspent is bounded by the requests in flight: it is no more than by how much those used more than was held for
/// them. (What comes on top is what streams used that their clients left: nobody tells a gateway by how much their prompts were longer than
/// estimated.) Here each prompt is three times as long as estimated, and answers are up to three times as long as the provider was told to
/// make them at most.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_wild_provider_overspends_is_bounded_by_the_requests_in_flight() {
    each_seed("wild provider", async |redis, seed| {
        let setup = Setup { provider: Provider::Wild, ..setup(&redis, seed) };
        run(&setup, async |_: &mut Run| {}).await
    })
    .await;
}

fn urls(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(Node::url).collect()
}

/// Kills the master, waits for another, and starts the old one again, which becomes its replica.
async fn fail_over(sentinels: &mut Sentinels, run: &Run) {
    run.used(25).await;
    let old = sentinels.master();
    sentinels.servers[old].kill();
    until("there is another master", async || sentinels.master() != old).await;
    run.admitted(1).await;
    sentinels.servers[old].run().await;
    run.admitted(1).await;
}

/// Guarantee: the same, where a step counts as done only once a replica has it too (`--redis-wait-replicas 1`), and the Sentinels choose
/// the replica that has most, as they do.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_sentinels_fail_over_and_replicas_are_waited_for() {
    each_of(
        "failover, waiting for a replica",
        async || Sentinels::start(2).await,
        async |mut sentinels, seed| {
            let mut setup = at(sentinels.url(), urls(&sentinels.servers), seed);
            setup.redis.extend(["--redis-wait-replicas", "1"].map(str::to_owned));
            run(&setup, async |run: &mut Run| fail_over(&mut sentinels, run).await).await
        },
    )
    .await;
}

/// Guarantee: what Redis acknowledged last may be lost with its master, reservations as well as settlements; nothing is charged twice,
/// nothing stays held. What was lost may be spent again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_charged_twice_where_sentinels_fail_over() {
    each_of(
        "failover",
        async || Sentinels::start(2).await,
        async |mut sentinels, seed| {
            let setup = Setup { durable: Durable::No, ..at(sentinels.url(), urls(&sentinels.servers), seed) };
            run(&setup, async |run: &mut Run| fail_over(&mut sentinels, run).await).await
        },
    )
    .await;
}

/// Guarantee: the same as of one server that keeps its word. The keys move from one server to the next, some at a time, and back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overspent_where_a_cluster_is_resharded() {
    each_of(
        "cluster resharded",
        async || Cluster::start(0).await,
        async |cluster, seed| {
            let setup = at(cluster.url(), urls(&cluster.nodes), seed);
            let faults = async |run: &mut Run| {
                for percent in [15, 30, 45] {
                    run.used(percent).await;
                    let to = (cluster.owner("aigw") + 1) % 3;
                    let from = cluster.begin_move("aigw", to);
                    for _ in 0..10 {
                        cluster.move_keys("aigw", from, to, 50);
                        tokio::task::yield_now().await;
                    }
                    cluster.end_move("aigw", from, to);
                    run.admitted(1).await;
                }
            };
            run(&setup, faults).await
        },
    )
    .await;
}

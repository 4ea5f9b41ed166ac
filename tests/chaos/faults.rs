//! What goes wrong, and what holds all the same.

use crate::account::Durable;
use crate::clients::Provider;
use crate::proxy;
use crate::run::{Run, Setup, report, run, seeds};
use crate::support::Dice;
use crate::support::redis::Redis;

fn setup(redis: &Redis, seed: u64) -> Setup {
    let url = redis.url();
    Setup { seed, provider: Provider::Honest, redis: url.clone(), direct: url, durable: Durable::Yes }
}

/// Runs a test for every seed, each with a Redis of its own.
async fn each_seed(name: &str, body: impl AsyncFn(Redis, u64) -> crate::account::Sums) {
    let mut runs = Vec::new();
    for seed in seeds() {
        let Some(redis) = Redis::start().await else { return };
        runs.push(body(redis, seed).await);
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
                redis.signal("-STOP");
                run.turned_away(8).await;
                redis.signal("-CONT");
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
        run(&Setup { redis: slow, ..setup(&redis, seed) }, async |_: &mut Run| {}).await
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

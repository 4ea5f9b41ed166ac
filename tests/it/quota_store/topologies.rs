//! Redis alone, under Sentinels and as a Cluster: what is counted survives servers that go, keys that move and users that may do little.

use std::sync::Arc;
use std::time::Duration;

use ai_gateway::quota::{Claim, Settled, Verdict};
use ai_gateway::quotastore::{Away, Desk, RedisOptions, RedisStore, Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stores::{connect, connect_with};
use super::{MINUTE, ask, claim, look, options, settle};
use crate::support::topology::{Cluster, Node, Sentinels};
use crate::support::until;

const HOUR: ai_gateway::quota::Window = ai_gateway::quota::Window::Rolling { length: 3_600_000 };

/// What README says that a user needs.
const ALLOWED: &str = "+evalsha +eval +time +get +set +pexpire +pexpireat +hget +hmget +hset +hdel +zscore +zcount +zadd +zrange \
                       +zremrangebyscore";

/// A step of each kind.
async fn lives(store: &Store) {
    let claims = vec![Claim { most_subjects: Some(1), ..claim("a", MINUTE) }, claim("b", MINUTE)];
    let asked = ask(1, 90, 90, claims);
    let granted = store.reserve(&asked).await.unwrap().verdict;
    assert!(matches!(granted, Verdict::Granted(_)), "{granted:?}");
    assert_eq!(store.renew(&[(asked.id, 10_000)]).await.unwrap(), [true]);
    assert_eq!(store.settle(&settle(&asked, 42)).await.unwrap(), Settled::Done);
    store.confirm(&[asked.id]).await.unwrap();
    store.now().await.unwrap();
    assert_eq!(look(store, &asked.claims[0]).await, (42, 0));
}

/// A desk under load: what its clients used is `spent`.
struct Load {
    desk: Desk,
    stop: CancellationToken,
    clients: JoinSet<u64>,
    running: JoinSet<()>,
}

impl Load {
    /// Eight clients that ask, use half of what they asked for, and say so, until told to stop.
    fn start(store: &RedisStore, first: u64) -> Self {
        let (desk, background) = Desk::new(Store::Redis(store.clone()), options(Duration::from_millis(500)));
        let (stop, mut clients, mut running) = (CancellationToken::new(), JoinSet::new(), JoinSet::new());
        running.spawn(background.run(CancellationToken::new()));
        for client in 0..8u64 {
            let (desk, stop) = (desk.clone(), stop.clone());
            clients.spawn(async move {
                let (mut spent, mut turn) = (0, 0);
                while !stop.is_cancelled() {
                    turn += 1;
                    let claims = vec![Claim { amount: 1 << 40, ..claim("load", HOUR) }];
                    let asked = Arc::new(ask(first + client * 1_000_000 + turn, 10, 10, claims));
                    // Whether it was let in or nobody knows: by policy it may have been, and has cost something.
                    let answer = desk.reserve(Arc::clone(&asked)).await;
                    assert!(!matches!(answer, Ok(Verdict::Refused(_))), "{answer:?}");
                    if answer.is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    desk.settle(settle(&asked, 7));
                    spent += 7;
                }
                spent
            });
        }
        Self { desk, stop, clients, running }
    }

    /// Ends it, waits until all is delivered, and says what was spent.
    async fn end(mut self) -> u64 {
        self.stop.cancel();
        let mut spent = 0;
        while let Some(client) = self.clients.join_next().await {
            spent += client.unwrap();
        }
        until("all is delivered", async || self.desk.unsettled() == 0).await;
        self.running.shutdown().await;
        spent
    }
}

async fn load_is_granted(load: &Load, number: u64) {
    // Each time under another id: what has ended is not granted again.
    let mut number = number;
    until("requests are let in", async || {
        number += 1;
        let asked = Arc::new(ask(number, 0, 0, vec![claim("other", HOUR)]));
        let answer = load.desk.reserve(Arc::clone(&asked)).await;
        load.desk.settle(settle(&asked, 0));
        answer.is_ok()
    })
    .await;
}

/// All that the load used, and nothing else, is spent, and nothing is held.
async fn all_is_charged_once(store: &RedisStore, spent: u64) {
    let store = Store::Redis(store.clone());
    assert!(spent > 0);
    let all = Claim { amount: 1 << 40, bound: ai_gateway::quota::Bound::fixed(0), ..claim("load", HOUR) };
    let reading = match store.reserve(&ask(u64::MAX - 1, 0, 0, vec![all])).await.unwrap().verdict {
        Verdict::Granted(grant) => grant.readings[0],
        Verdict::Refused(refusal) => refusal.readings[0],
    };
    assert_eq!((reading.spent, reading.held), (spent, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_no_more_than_is_documented() {
    let Some(node) = Node::start(&["--port", "PORT", "--dir", "FOLDER"]).await else { return };
    let rules = format!("ACL SETUSER gateway on >p%40ss ~{{aigw}}:q:* {ALLOWED} +select");
    assert_eq!(node.command(&rules.split_whitespace().collect::<Vec<_>>()), "OK");
    let url = format!("redis://gateway:p%2540ss@127.0.0.1:{}/3", node.port());
    lives(&Store::Redis(connect(&url))).await;
    assert!(node.command(&["-n", "3", "KEYS", "*"]).contains("{aigw}:q:"), "in the database that was named");
    assert_eq!(node.command(&["KEYS", "*"]), "");
    // Without one of them: what is missing is said, and nothing else.
    assert_eq!(node.command(&["ACL", "SETUSER", "gateway", "-hset"]), "OK");
    let refused =
        Store::Redis(connect(&url)).reserve(&ask(9, 1, 1, vec![claim("c", MINUTE)])).await.unwrap_err();
    let StoreError::Away(reason) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("ACL") && !reason.contains("p%40ss"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_a_cluster_needs_no_more_than_is_documented_and_scripts_are_loaded_where_they_are_missing()
{
    let Some(cluster) = Cluster::start(0).await else { return };
    let rules = format!("ACL SETUSER gateway on >pass ~{{aigw}}:q:* {ALLOWED} +cluster|slots +asking");
    for node in &cluster.nodes {
        assert_eq!(node.command(&rules.split_whitespace().collect::<Vec<_>>()), "OK");
    }
    let url = cluster.url().replace("://", "://gateway:pass@");
    let store = connect(&url);
    lives(&Store::Redis(store.clone())).await;
    let owner = &cluster.nodes[cluster.owner("aigw")];
    assert!(owner.command(&["KEYS", "*"]).contains("{aigw}:q:"));
    for node in &cluster.nodes {
        node.command(&["SCRIPT", "FLUSH"]);
    }
    let asked = ask(5, 1, 1, vec![claim("e", MINUTE)]);
    Store::Redis(store).reserve(&asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_other_prefixes_do_not_touch_each_other() {
    let Some(node) = Node::start(&["--port", "PORT", "--dir", "FOLDER"]).await else { return };
    let of = |prefix: &str| {
        let options = RedisOptions { prefix: Some(prefix.to_owned()), ..RedisOptions::default() };
        Store::Redis(connect_with(&node.url(), &options))
    };
    let (one, two) = (of("one"), of("two"));
    let asked = ask(1, 90, 90, vec![claim("a", MINUTE)]);
    one.reserve(&asked).await.unwrap();
    assert_eq!(look(&one, &asked.claims[0]).await, (0, 100));
    assert_eq!(look(&two, &asked.claims[0]).await, (0, 0));
    assert_eq!(two.settle(&settle(&asked, 5)).await.unwrap(), Settled::Unreserved);
    assert_eq!(look(&one, &asked.claims[0]).await, (0, 100));
}

/// Writes an authority, and certificates and keys signed by it, for a server of that name, into a folder.
fn certificates(folder: &std::path::Path, server: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Not the name of those that it signs: they would pass for signed by themselves.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new([server.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_show_certificates_and_are_shown_one() {
    let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().unwrap();
    certificates(folder.path(), "127.0.0.1");
    let tls = "--port 0 --tls-port PORT --dir FOLDER --tls-cert-file FOLDER/server.pem --tls-key-file FOLDER/server.key \
               --tls-ca-cert-file FOLDER/ca.pem --tls-auth-clients yes --cluster-enabled yes --tls-cluster yes \
               --cluster-port BUSPORT";
    let cli = "--tls --cacert FOLDER/ca.pem --cert FOLDER/client.pem --key FOLDER/client.key";
    let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
    let Some(node) = Node::start_in(folder, &words(tls), &words(cli)).await else { return };
    assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    until("it is a cluster", async || node.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
    let file = |name: &str| Some(node.folder().join(name));
    let identity = file("client.pem").zip(file("client.key"));
    let options = RedisOptions { ca: file("ca.pem"), identity, ..RedisOptions::default() };
    for scheme in ["rediss", "rediss-cluster"] {
        let url = format!("{scheme}://127.0.0.1:{}", node.port());
        lives_under(&url, &RedisOptions { prefix: Some(scheme.to_owned()), ..options.clone() }).await;
        // Who shows none, or trusts another authority, does not get in.
        for wrong in without_a_part(&options) {
            nobody_is_let_in(&url, &wrong).await;
        }
    }
    let plain = RedisStore::open("redis://127.0.0.1:1".parse().unwrap(), &options).unwrap_err();
    assert!(plain.to_string().contains("rediss"), "{plain}");
}

/// Options that show no certificate, and that trust another authority.
fn without_a_part(options: &RedisOptions) -> [RedisOptions; 2] {
    [RedisOptions { identity: None, ..options.clone() }, RedisOptions { ca: None, ..options.clone() }]
}

async fn nobody_is_let_in(url: &str, options: &RedisOptions) {
    let store = connect_with(url, options);
    let (desk, _) = Desk::new(Store::Redis(store), super::options(Duration::from_millis(300)));
    let away = desk.reserve(Arc::new(ask(7, 1, 1, vec![claim("a", MINUTE)]))).await;
    assert!(matches!(away, Err(Away(StoreError::Away(_)))), "{away:?}");
}

/// Sentinels and servers ask for certificates and for users of their own, and are known by a name, as those of certificates are.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_speak_tls_and_have_users_too() {
    let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().unwrap();
    certificates(folder.path(), "localhost");
    let Some(mut redis) = Sentinels::start_tls(1, folder.path(), "theirs").await else { return };
    for sentinel in &redis.sentinels {
        let rules = ["ACL", "SETUSER", "guest", "on", ">p&ss", "-@all", "+sentinel|master"];
        assert_eq!(sentinel.command(&rules), "OK");
    }
    let rules = format!("ACL SETUSER gateway on >pass ~{{aigw}}:q:* {ALLOWED}");
    for server in &redis.servers {
        assert_eq!(server.command(&rules.split_whitespace().collect::<Vec<_>>()), "OK");
    }
    let file = |name: &str| Some(folder.path().join(name));
    let identity = file("client.pem").zip(file("client.key"));
    let options = RedisOptions { ca: file("ca.pem"), identity, ..RedisOptions::default() };
    let with = |user: &str, sentinel: &str| {
        redis.url().replace("://", &format!("://{user}@"))
            + &format!("?sentinel-user=guest&sentinel-password={sentinel}")
    };
    let url = with("gateway:pass", "p%26ss");
    lives_under(&url, &options).await;
    for wrong in without_a_part(&options) {
        nobody_is_let_in(&url, &wrong).await;
    }
    for wrong in [
        with("gateway:wrong", "p%26ss"),
        with("gateway:pass", "wrong"),
        redis.url(),
        url.replace("rediss", "redis"),
    ] {
        let shown = if wrong.starts_with("rediss") { options.clone() } else { RedisOptions::default() };
        nobody_is_let_in(&wrong, &shown).await;
    }
    let store = connect_with(&url, &options);
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    redis.servers[0].kill();
    until("the replica is promoted", async || redis.master() == 1).await;
    load_is_granted(&load, 200_000_000).await;
    load.end().await;
}

async fn lives_under(url: &str, options: &RedisOptions) {
    lives(&Store::Redis(connect_with(url, options))).await;
}

/// With one replica that has everything before it counts, a failover loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_killed_is_replaced_and_all_is_charged_once() {
    let Some(mut redis) = Sentinels::start(1).await else { return };
    let options = RedisOptions { replicas: 1, ..RedisOptions::default() };
    let store = connect_with(&redis.url(), &options);
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    redis.servers[0].kill();
    until("the replica is promoted", async || redis.master() == 1).await;
    // It has no replica now, and nothing counts before it has one.
    redis.servers[0].run().await;
    redis.replicated().await;
    load_is_granted(&load, 200_000_000).await;
    let spent = load.end().await;
    all_is_charged_once(&store, spent).await;
}

/// No connection breaks, and yet nobody waits longer than the deadline, and the new master is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_stopped_is_left_for_another() {
    let Some(redis) = Sentinels::start(1).await else { return };
    let store = connect(&redis.url());
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    redis.servers[0].signal("STOP");
    until("the replica is promoted", async || redis.master() == 1).await;
    load_is_granted(&load, 200_000_000).await;
    redis.servers[0].signal("CONT");
    redis.replicated().await;
    load_is_granted(&load, 300_000_000).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_becomes_a_replica_is_told_and_used_again_once_it_is_not() {
    let Some(node) = Node::start(&["--port", "PORT", "--dir", "FOLDER"]).await else { return };
    let store = connect(&node.url());
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    assert_eq!(node.command(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    until("nobody is let in", async || {
        load.desk.reserve(Arc::new(ask(300_000_000, 0, 0, vec![claim("other", HOUR)]))).await.is_err()
    })
    .await;
    assert_eq!(node.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    load_is_granted(&load, 200_000_000).await;
    let spent = load.end().await;
    all_is_charged_once(&store, spent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_under_load_loses_nothing() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let store = connect(&cluster.url());
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    for round in 1..=3u64 {
        let to = (cluster.owner("aigw") + 1) % 3;
        let from = cluster.begin_move("aigw", to);
        cluster.move_keys("aigw", from, to, 20);
        cluster.end_move("aigw", from, to);
        assert_eq!(cluster.owner("aigw"), to);
        load_is_granted(&load, 100_000_000 * (round + 1)).await;
    }
    let spent = load.end().await;
    all_is_charged_once(&store, spent).await;
}

/// Between two servers, what has gone over as a whole is done there, and the rest waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_while_a_slot_is_under_way_is_settled_where_it_has_gone() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let redis = connect(&cluster.url());
    let store = Store::Redis(redis);
    let asked = ask(1, 90, 90, vec![claim("a", MINUTE)]);
    store.reserve(&asked).await.unwrap();
    let to = (cluster.owner("aigw") + 1) % 3;
    let from = cluster.begin_move("aigw", to);
    assert_eq!(cluster.move_keys("aigw", from, to, 100), 2);
    assert_eq!(store.settle(&settle(&asked, 42)).await.unwrap(), Settled::Done);
    assert_eq!(store.settle(&settle(&asked, 42)).await.unwrap(), Settled::Before);
    // One that begins is neither here nor there, and nothing of it is done.
    let late = ask(2, 90, 90, vec![claim("a", MINUTE)]);
    let (desk, _) = Desk::new(store.clone(), options(Duration::from_millis(100)));
    assert!(matches!(desk.reserve(Arc::new(late.clone())).await, Err(Away(StoreError::Away(_)))));
    cluster.end_move("aigw", from, to);
    assert_eq!(look(&store, &asked.claims[0]).await, (42, 0));
    store.reserve(&late).await.unwrap();
    assert_eq!(look(&store, &asked.claims[0]).await, (42, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_is_replaced_by_its_replica_and_all_is_charged_once() {
    let Some(mut cluster) = Cluster::start(3).await else { return };
    let owner = cluster.owner("aigw");
    let options = RedisOptions { replicas: 1, ..RedisOptions::default() };
    let store = connect_with(&cluster.url(), &options);
    let load = Load::start(&store, 0);
    load_is_granted(&load, 100_000_000).await;
    cluster.nodes[owner].kill();
    until("its replica is promoted", async || cluster.owner("aigw") == owner + 3).await;
    cluster.nodes[owner].run().await;
    load_is_granted(&load, 200_000_000).await;
    let spent = load.end().await;
    all_is_charged_once(&store, spent).await;
}

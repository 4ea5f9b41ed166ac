//! The gateway's own keys: what both stores have in common, Redis as it fails, and the command line.

mod admin;
mod cli;
mod gateway;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ai_gateway::keys::{Grant, Index, KeyId, Refusal, Standing};
use ai_gateway::keystore::{Created, Location, ManageError, Manager, Store, StoreError, Write, follow};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::support::redis::Redis;
use crate::support::{spawn, until};

const STALE: Duration = Duration::from_secs(600);

fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn open(location: &str) -> Store {
    Store::new(&location.parse::<Location>().unwrap(), None).unwrap()
}

fn file(folder: &TempDir) -> Store {
    open(&format!("file:{}", folder.path().join("keys.jsonl").display()))
}

pub(crate) async fn create(manager: &Manager, name: &str) -> Created {
    manager.create(Grant::named(name), now()).await.unwrap()
}

fn text(created: &Created) -> &[u8] {
    created.key.expose_secret().as_bytes()
}

/// An index that follows the store until the test's end, as that of a processor.
fn processor(store: &Store) -> Arc<Index> {
    let index = Arc::new(Index::new(STALE));
    let (store, following) = (store.clone(), Arc::clone(&index));
    spawn(async move { follow(store, &following, Instant::now).await });
    index
}

fn verify(index: &Index, key: &Created) -> Result<KeyId, Refusal> {
    index.verify(text(key), now(), Instant::now()).map(|record| record.id)
}

/// Runs a test's body on both stores.
async fn on_both(body: impl AsyncFn(Store)) {
    let folder = tempfile::tempdir().unwrap();
    body(file(&folder)).await;
    if let Some(redis) = Redis::start().await {
        body(open(&redis.url())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_through_its_life_in_both_stores() {
    on_both(async |store| {
        let manager = Manager::new(store.clone());
        let first = create(&manager, "first").await;
        let id = first.record.id;
        assert_eq!(manager.show(id).await.unwrap(), first.record);
        let second = manager.rotate(id, Duration::from_secs(3600), now()).await.unwrap();
        let old = manager.show(id).await.unwrap();
        assert_eq!((old.rotated_to, second.record.rotated_from), (Some(second.record.id), Some(id)));
        assert_eq!(old.standing(now()), Standing::Retiring);
        let gone = manager.revoke(id, now()).await.unwrap();
        assert_eq!(gone.standing(now()), Standing::Revoked);
        let later = now() + Duration::from_secs(60);
        assert_eq!(manager.revoke(id, later).await.unwrap(), gone, "it says since when");
        assert!(matches!(
            manager.rotate(id, Duration::ZERO, now()).await.unwrap_err(),
            ManageError::Over(_, "revoked")
        ));
        let nobody: KeyId = "000000000000".parse().unwrap();
        assert_eq!(manager.show(nobody).await.unwrap_err(), ManageError::NoSuchKey(nobody));
        assert_eq!(manager.revoke(nobody, now()).await.unwrap_err(), ManageError::NoSuchKey(nobody));
        let (all, problems) = manager.list().await.unwrap();
        assert_eq!((all.len(), problems.len()), (2, 0));
        let index = processor(&store);
        until("the index is there", async || verify(&index, &second).is_ok()).await;
        assert!(verify(&index, &first).is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_whole_or_not_at_all() {
    on_both(async |store| {
        let manager = Manager::new(store.clone());
        let (a, b) = (create(&manager, "a").await, create(&manager, "b").await);
        let held = store.get(a.record.id).await.unwrap().unwrap();
        let mut changed = held.record.clone();
        changed.grant.name = "changed".into();
        // The second part finds a record where none is to be: the first is not done either.
        let writes = vec![Write::instead(held.clone(), changed.clone()), Write::new(b.record.clone())];
        assert_eq!(store.write(writes).await.unwrap_err(), StoreError::Conflict);
        assert_eq!(manager.show(a.record.id).await.unwrap(), a.record);
        store.write(vec![Write::instead(held.clone(), changed.clone())]).await.unwrap();
        // What was read before that is no longer there.
        assert_eq!(
            store.write(vec![Write::instead(held, a.record.clone())]).await.unwrap_err(),
            StoreError::Conflict
        );
        assert_eq!(manager.show(a.record.id).await.unwrap(), changed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_made_at_once_are_all_there() {
    on_both(async |store| {
        // Each writer as a process of its own would be: with a store, and so a lock or a connection, of its own.
        let (writers, each) = if matches!(store, Store::File(_)) { (10, 20) } else { (50, 20) };
        let index = processor(&store);
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let manager = Manager::new(store.clone());
                async move {
                    let mut made = Vec::new();
                    for n in 0..each {
                        made.push(create(&manager, &format!("{writer}-{n}")).await);
                    }
                    made
                }
            })
            .collect();
        let mut joined = tokio::task::JoinSet::from_iter(tasks);
        let mut made = Vec::new();
        while let Some(keys) = joined.join_next().await {
            made.extend(keys.unwrap());
        }
        assert_eq!(made.len(), writers * each);
        let (records, problems) = Manager::new(store).list().await.unwrap();
        assert_eq!((records.len(), problems.len()), (writers * each, 0));
        until("all have come", async || made.iter().all(|key| verify(&index, key).is_ok())).await;
        assert_eq!(index.len(), made.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_many_at_once_is_made_by_each() {
    on_both(async |store| {
        let manager = Manager::new(store);
        let key = create(&manager, "contested").await;
        let id = key.record.id;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let manager = manager.clone();
            all.spawn(async move { manager.rotate(id, Duration::from_secs(60), now()).await });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap().unwrap();
        }
        assert_eq!(manager.list().await.unwrap().0.len(), 6);
    })
    .await;
}

/// What is measured is told, and what is asserted is that it happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_under_load_is_live_on_every_processor() {
    on_both(async |store| {
        let kind = if matches!(store, Store::File(_)) { "file" } else { "redis" };
        let manager = Manager::new(store.clone());
        let mut keys = Vec::new();
        for n in 0..20 {
            keys.push(create(&manager, &format!("k{n}")).await);
        }
        let processors = [processor(&store), processor(&store)];
        until("both are ready", async || {
            processors.iter().all(|index| keys.iter().all(|key| verify(index, key).is_ok()))
        })
        .await;
        let stop = tokio_util::sync::CancellationToken::new();
        let load = || {
            let (manager, stop) = (manager.clone(), stop.clone());
            async move {
                let mut made = 0_usize;
                while !stop.is_cancelled() {
                    create(&manager, "load").await;
                    made += 1;
                }
                made
            }
        };
        let mut loading = tokio::task::JoinSet::new();
        loading.spawn(load());
        loading.spawn(load());
        let mut slowest = Duration::ZERO;
        for key in &keys {
            manager.revoke(key.record.id, now()).await.unwrap();
            let since = Instant::now();
            until("it is refused everywhere", async || {
                processors.iter().all(|index| verify(index, key).is_err())
            })
            .await;
            slowest = slowest.max(since.elapsed());
        }
        stop.cancel();
        let mut made = keys.len();
        while let Some(count) = loading.join_next().await {
            made += count.unwrap();
        }
        println!("{kind}: slowest of {} revocations under load of {made} keys: {slowest:?}", keys.len());
        until("nothing is lost", async || processors.iter().all(|index| index.len() == made)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_takes_nothing_with_it() {
    let Some(mut redis) = Redis::start().await else { return };
    let store = open(&redis.url());
    let manager = Manager::new(store.clone());
    let (kept, revoked) = (create(&manager, "kept").await, create(&manager, "revoked").await);
    let index = processor(&store);
    until("the index is there", async || verify(&index, &kept).is_ok()).await;
    manager.revoke(revoked.record.id, now()).await.unwrap();
    redis.kill();
    let error = manager.create(Grant::named("meanwhile"), now()).await.unwrap_err();
    assert!(matches!(error, ManageError::Store(StoreError::Away(_))), "{error}");
    // Known keys serve, and once the store is stale nobody does; the clock is an argument.
    let confirmed = index.confirmed().unwrap();
    assert!(verify(&index, &kept).is_ok());
    let late = confirmed + STALE * 2;
    assert_eq!(index.verify(text(&kept), now(), late).unwrap_err(), Refusal::Unavailable);
    redis.run().await;
    until("it is heard of again", async || index.confirmed() > Some(confirmed)).await;
    until("the revocation holds", async || verify(&index, &revoked).is_err()).await;
    assert!(verify(&index, &kept).is_ok());
    // The same manager, with a connection that broke, goes on.
    let new = create(&manager, "new").await;
    until("changes come again", async || verify(&index, &new).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_everything_lets_nobody_in() {
    let Some(redis) = Redis::start().await else { return };
    let store = open(&redis.url());
    let key = create(&Manager::new(store.clone()), "lost").await;
    let index = processor(&store);
    until("the index is there", async || verify(&index, &key).is_ok()).await;
    redis.command(&["FLUSHALL"]);
    until("it is gone", async || verify(&index, &key).is_err()).await;
    assert!(index.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_redis_that_make_no_sense_are_refused_by_name() {
    let Some(redis) = Redis::start().await else { return };
    let store = open(&redis.url());
    let manager = Manager::new(store.clone());
    let (good, victim) = (create(&manager, "good").await, create(&manager, "victim").await);
    let index = processor(&store);
    until("the index is there", async || verify(&index, &victim).is_ok()).await;
    let records = "{aigw-keys}:records";
    let json = redis.command(&["HGET", records, good.record.id.as_str()]);
    // Under another id, not JSON at all, and not even an id.
    redis.command(&["HSET", records, "AAAAAAAAAAAA", &json]);
    redis.command(&["HSET", records, victim.record.id.as_str(), "{]"]);
    redis.command(&["HSET", records, "\u{1b}[2J", "x"]);
    redis.command(&["ZADD", "{aigw-keys}:changed", "1000", victim.record.id.as_str()]);
    redis.command(&["SET", "{aigw-keys}:version", "1000"]);
    let (all, problems) = manager.list().await.unwrap();
    let ids: Vec<_> = all.iter().map(|record| record.id).collect();
    assert_eq!(ids, [good.record.id]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.contains('\u{1b}')), "{problems:?}");
    until("the victim is refused", async || verify(&index, &victim).is_err()).await;
    assert!(verify(&index, &good).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processors_user_may_only_read() {
    let Some(redis) = Redis::start().await else { return };
    let keys = "~{aigw-keys}:*";
    let reads = ["+get", "+hscan", "+hmget", "+zrangebyscore", "+subscribe", "+select"];
    let reader = ["ACL", "SETUSER", "reader", "on", ">geheim", keys, "&{aigw-keys}:changes"];
    assert_eq!(redis.command(&[&reader[..], &reads[..]].concat()), "OK");
    let key = create(&Manager::new(open(&redis.url())), "k").await;
    let as_user =
        |user: &str, password: &str| open(&format!("{}?user={user}&pass={password}&db=0", redis.url()));
    let index = processor(&as_user("reader", "geheim"));
    until("it reads", async || verify(&index, &key).is_ok()).await;
    let denied =
        Manager::new(as_user("reader", "geheim")).create(Grant::named("n"), now()).await.unwrap_err();
    assert!(denied.to_string().contains("ACL"), "{denied}");
    let wrong = Manager::new(as_user("reader", "falsch")).list().await.unwrap_err().to_string();
    assert!(wrong.contains("user and password") && !wrong.contains("falsch"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tls_is_verified() {
    let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("cert.pem", certified.cert.pem());
    write("key.pem", certified.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("other.pem", other.cert.pem());
    // Nobody else takes it between here and there, in all likelihood; Redis does not tell which one it took.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let arguments = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        "FOLDER/cert.pem",
        "--tls-key-file",
        "FOLDER/key.pem",
        "--tls-auth-clients",
        "no",
    ];
    let Some(redis) = Redis::start_in(folder, &arguments).await else { return };
    let location: Location = format!("rediss://localhost:{port}").parse().unwrap();
    let manager = |ca: Option<&str>| {
        let ca = ca.map(|name| redis.folder().join(name));
        Manager::new(Store::new(&location, ca.as_deref()).unwrap())
    };
    let key = create(&manager(Some("cert.pem")), "k").await;
    assert_eq!(manager(Some("cert.pem")).show(key.record.id).await.unwrap(), key.record);
    for untrusted in [None, Some("other.pem")] {
        assert!(manager(untrusted).list().await.is_err(), "{untrusted:?}");
    }
}

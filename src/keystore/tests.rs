//! The file; what both stores have in common, and Redis, are held to tests from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::keys::{Grant, Index};

fn file() -> (TempDir, PathBuf, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.jsonl");
    let store = Store::new(&Location::File(path.clone()), None).unwrap();
    (folder, path, store)
}

async fn create(store: &Store, name: &str) -> Created {
    Manager::new(store.clone()).create(Grant::named(name), SystemTime::now()).await.unwrap()
}

#[test]
fn names_of_stores_are_read_and_passwords_are_not_told() {
    let shown = |text: &str| text.parse::<Location>().map(|location| format!("{location} {location:?}"));
    assert_eq!(shown("file:/a/b").unwrap(), "file:/a/b file:/a/b");
    assert_eq!(shown("file:///a/b").unwrap(), "file:/a/b file:/a/b");
    let redis = shown("redis://me:geheim@example.com:7000/3").unwrap();
    assert!(redis.contains("example.com:7000") && !redis.contains("geheim"), "{redis}");
    assert!(shown("redis+unix:///run/redis.sock").unwrap().contains("/run/redis.sock"));
    assert!(shown("rediss://example.com").is_ok());
    for bad in
        ["", "file:", "keys.jsonl", "http://me:geheim@x", "redis://me:geheim@x:port", "rediss://x/#insecure"]
    {
        let error = shown(bad).unwrap_err().to_string();
        assert!(error.contains("file:PATH") && !error.contains("geheim"), "{bad}: {error}");
    }
}

#[test]
fn durations() {
    let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
    assert_eq!(seconds("30d"), Ok(30 * 86_400));
    assert_eq!(seconds("1h30m5s"), Ok(5_405));
    assert_eq!(seconds("0s"), Ok(0));
    assert_eq!(parse_duration("1m50ms"), Ok(Duration::from_millis(60_050)));
    for bad in ["", "5", "h", "5w", "-1s", "1h5", "99999999999999999999s", "300000000000000d", "5é"] {
        assert!(seconds(bad).unwrap_err().contains("30d"), "{bad}");
    }
}

#[tokio::test]
async fn the_file_is_for_its_owner_and_says_what_it_is() {
    let (_folder, path, store) = file();
    let created = create(&store, "a").await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"aigwKeys\":1}\n") && text.ends_with("}\n"), "{text}");
    let secret = secrecy::ExposeSecret::expose_secret(&created.key);
    assert!(text.contains(created.record.id.as_str()) && !text.contains(&secret[18..30]), "{text}");
    // Only the file and its lock: nothing half-written is left.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
}

#[tokio::test]
async fn lines_that_cannot_be_read_are_named_and_kept_and_the_others_count() {
    let (_folder, path, store) = file();
    let (good, doubled) = (create(&store, "good").await, create(&store, "doubled").await);
    let mut text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("doubled")).unwrap().to_owned();
    text.push_str(&format!("{{\"id\": 3}}\n\n{line}\nnonsense\n"));
    fs::write(&path, &text).unwrap();
    let snapshot = store.all().await.unwrap();
    let ids: Vec<_> = snapshot.records.iter().map(|record| record.id).collect();
    assert_eq!(ids, [good.record.id]);
    let told = snapshot.problems.join("\n");
    for part in ["keys.jsonl:4:", "keys.jsonl:7:", doubled.record.id.as_str(), "more than once"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    create(&store, "new").await;
    let after = fs::read_to_string(&path).unwrap();
    assert!(after.contains("nonsense") && after.contains("{\"id\": 3}"), "{after}");
    assert_eq!(store.all().await.unwrap().records.len(), 2);
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_not_touched() {
    let (_folder, path, store) = file();
    let manager = Manager::new(store.clone());
    for (text, reason) in [
        ("precious\n".to_owned(), "no file of keys"),
        (format!("{{\"aigwKeys\":1}}\n{}\n", "x".repeat(70_000)), "longer than"),
    ] {
        fs::write(&path, &text).unwrap();
        let error = store.all().await.unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("keys.jsonl"), "{error}");
        assert!(manager.create(Grant::named("n"), SystemTime::now()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let (_folder, _, nothing) = file();
    assert!(nothing.all().await.unwrap_err().to_string().contains("aigw key create"));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&Location::File(folder.path().to_owned()), None).unwrap();
    assert!(store.all().await.unwrap_err().to_string().contains("no file"));
}

#[tokio::test]
async fn a_file_that_others_may_write_to_is_told_of() {
    let (_folder, path, store) = file();
    create(&store, "a").await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(store.all().await.unwrap().problems[0].contains("chmod 600"));
}

/// The clock is the test's: what is shown is that the index hears nothing of a store that is away, and what follows.
#[tokio::test]
async fn a_file_that_is_away_lets_known_keys_in_until_they_are_stale() {
    let (_folder, path, store) = file();
    let created = create(&store, "a").await;
    let key = secrecy::ExposeSecret::expose_secret(&created.key).to_owned();
    let stale = Duration::from_secs(600);
    let index = Arc::new(Index::new(stale));
    let start = Instant::now();
    let looks = Arc::new(AtomicU64::new(0));
    // A second passes at each look.
    let clock = {
        let looks = Arc::clone(&looks);
        move || start + Duration::from_secs(looks.fetch_add(1, Ordering::SeqCst))
    };
    let following = {
        let index = Arc::clone(&index);
        async move { follow(store, &index, clock).await }
    };
    let story = async {
        let verify = |at: Instant| index.verify(key.as_bytes(), SystemTime::now(), at);
        until(|| verify(start).is_ok()).await;
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let gone = looks.load(Ordering::SeqCst);
        until(|| looks.load(Ordering::SeqCst) > gone + 2).await;
        // Looked again and again, and nothing was heard.
        let last = index.confirmed().unwrap();
        assert!(last <= start + Duration::from_secs(gone));
        assert!(verify(last + stale).is_ok());
        let unavailable = crate::keys::Refusal::Unavailable;
        assert_eq!(verify(last + stale + Duration::from_secs(1)).unwrap_err(), unavailable);
        fs::write(&path, text).unwrap();
        until(|| index.confirmed() > Some(last)).await;
    };
    tokio::select! {
        () = following => unreachable!("it never ends"),
        () = story => {}
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

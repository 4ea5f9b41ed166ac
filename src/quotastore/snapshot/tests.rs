use std::sync::atomic::AtomicU64;

use super::*;
use crate::quota::{
    Ask, Bound, BucketKey, Claim, Group, Mode, OnExpiry, OutputCap, PerOutput, ReservationId, Settle,
    Verdict, Window,
};

const NOW: u64 = 1_790_000_000_000;
const HOUR: u64 = 3_600_000;

fn claim(limit: &str, window: Window) -> Claim {
    Claim {
        bucket: BucketKey { limit: limit.into(), subject: "".into() },
        amount: 1000,
        window,
        bound: Bound { fixed: 0, per_output: PerOutput { numerator: 1, denominator: 1 } },
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    }
}

fn rolling() -> Claim {
    claim("a", Window::Rolling { length: HOUR })
}

fn ask(exchange: u64, tokens: u64, claim: Claim) -> Ask {
    Ask {
        id: ReservationId { process: 1, exchange, part: 0 },
        claims: vec![claim],
        groups: vec![Group::All],
        output: OutputCap { wanted: tokens, least: tokens },
        lease: Duration::from_secs(10),
    }
}

/// A store with a clock that is set.
fn store(now: &Arc<AtomicU64>) -> MemoryStore {
    let now = Arc::clone(now);
    MemoryStore::new(move || now.load(Ordering::SeqCst), 1 << 10)
}

fn at(now: u64) -> MemoryStore {
    store(&Arc::new(AtomicU64::new(now)))
}

fn spend(store: &MemoryStore, exchange: u64, tokens: u64, claim: &Claim) {
    let asked = ask(exchange, tokens, claim.clone());
    assert!(matches!(store.reserve(&asked).unwrap().verdict, Verdict::Granted(_)));
    store.settle(&Settle { id: asked.id, spent: vec![(claim.clone(), tokens)] }).unwrap();
}

/// What is spent and held, by a look that holds nothing.
fn look(store: &MemoryStore, claim: &Claim) -> (u64, u64) {
    let looking = ask(u64::MAX, 1 << 40, claim.clone());
    let Verdict::Refused(refusal) = store.reserve(&looking).unwrap().verdict else { panic!("so much?") };
    (refusal.readings[0].spent, refusal.readings[0].held)
}

fn options(folder: &Path) -> SnapshotOptions {
    // Nothing is written but when it is asked for.
    SnapshotOptions { file: folder.join("quotas"), interval: Duration::from_secs(3600) }
}

#[test]
fn what_was_used_goes_on_counting_in_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOW));
    let first = store(&now);
    let snapshot = Snapshot::open(options(folder.path()), &first).unwrap();
    spend(&first, 1, 30, &rolling());
    let _held = first.reserve(&ask(2, 500, rolling())).unwrap();
    drop(snapshot);
    now.fetch_add(5_000, Ordering::SeqCst);

    let next = store(&now);
    let snapshot = Snapshot::open(options(folder.path()), &next).unwrap();
    assert_eq!(look(&next, &rolling()), (30, 500), "a reservation is held as long as it would have been");
    // An edited amount counts from now on, as in a process that runs.
    let less = Claim { amount: 540, ..rolling() };
    assert!(matches!(next.reserve(&ask(3, 11, less.clone())).unwrap().verdict, Verdict::Refused(_)));
    assert!(matches!(next.reserve(&ask(4, 10, less)).unwrap().verdict, Verdict::Granted(_)));
    now.fetch_add(20_000, Ordering::SeqCst);
    assert_eq!(look(&next, &rolling()), (540, 0), "all ran out, and is charged");
    drop(snapshot);
    now.fetch_add(2 * HOUR, Ordering::SeqCst);

    let last = store(&now);
    drop(Snapshot::open(options(folder.path()), &last).unwrap());
    assert_eq!(look(&last, &rolling()), (0, 0), "the window has rolled on");
    let left = std::fs::read(folder.path().join("quotas")).unwrap();
    let content = format::read(&left).unwrap();
    assert!(content.kept.buckets.is_empty(), "what is over is not kept: {content:?}");
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(folder.path().join("quotas")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn windows_that_are_over_are_forgotten_and_others_are_not() {
    let window = Window::Aligned { start: NOW, end: NOW + HOUR, next_end: NOW + 2 * HOUR };
    let first = at(NOW);
    spend(&first, 1, 30, &claim("a", window));
    let bytes = take_snapshot(&first);
    for (now, spent) in [(NOW + HOUR - 1, 30), (NOW + HOUR, 0), (NOW - 1, 30)] {
        let next = at(now);
        assert!(resume_snapshot(&next, &bytes));
        assert_eq!(look(&next, &claim("a", window)).0, spent, "at {now}");
    }
}

#[test]
fn subjects_that_have_buckets_of_their_own_keep_them() {
    let of = |subject: &str| Claim {
        bucket: BucketKey { limit: "a".into(), subject: subject.into() },
        most_subjects: Some(1),
        ..rolling()
    };
    let (first, next) = (at(NOW), at(NOW));
    spend(&first, 1, 30, &of("one"));
    spend(&first, 2, 40, &of("two"));
    assert!(resume_snapshot(&next, &take_snapshot(&first)));
    assert_eq!((look(&next, &of("one")), look(&next, &of("three"))), ((30, 0), (40, 0)));
    let much_later = at(NOW + 2 * HOUR);
    assert!(resume_snapshot(&much_later, &take_snapshot(&first)));
    spend(&much_later, 3, 50, &of("three"));
    assert_eq!((look(&much_later, &of("three")), look(&much_later, &of("one"))), ((50, 0), (0, 0)));
}

/// Found by the fuzz target.
#[test]
fn a_list_that_comes_twice_counts_by_its_first_window() {
    let list = |length: u64| serde_json::json!({"Subjects": ["a:r", {"Rolling": {"length": length}}, [["a:one:r", u64::MAX]]]});
    let (first, next) = (at(NOW), at(NOW));
    assert!(resume_snapshot(&first, &snapshot_of(&[list(30_000), list(60_000)])));
    let kept = take_snapshot(&first);
    assert!(resume_snapshot(&next, &kept));
    assert_eq!(take_snapshot(&next), kept);
}

#[tokio::test]
async fn a_file_is_written_when_something_was_done_only() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let store = at(NOW);
    let snapshot = Snapshot::open(options.clone(), &store).unwrap();
    let written = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&options.file).unwrap());
    let first = written();
    snapshot.written().await;
    assert_eq!(written(), first);
    spend(&store, 1, 30, &rolling());
    snapshot.written().await;
    assert_ne!(written(), first);
    assert_eq!(format::read(&std::fs::read(&options.file).unwrap()).unwrap().kept.buckets.len(), 1);
}

/// By itself, and not only when it is asked to.
#[test]
fn a_process_that_is_killed_has_left_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = SnapshotOptions { interval: Duration::from_millis(10), ..options(folder.path()) };
    let store = at(NOW);
    let _snapshot = Snapshot::open(options.clone(), &store).unwrap();
    spend(&store, 1, 30, &rolling());
    loop {
        let next = at(NOW);
        assert!(resume_snapshot(&next, &std::fs::read(&options.file).unwrap()), "always a whole one");
        if look(&next, &rolling()) == (30, 0) {
            break;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_and_another_s_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let aside = folder.path().join("quotas.unreadable");
    let whole = {
        let store = at(NOW);
        spend(&store, 1, 30, &rolling());
        take_snapshot(&store)
    };
    for damaged in [&whole[..whole.len() / 2], b"AIG", b"AIGWQS9\nwhat comes later"] {
        std::fs::write(&options.file, damaged).unwrap();
        let store = at(NOW);
        drop(Snapshot::open(options.clone(), &store).unwrap());
        assert_eq!(look(&store, &rolling()), (0, 0));
        assert_eq!(std::fs::read(&aside).unwrap(), damaged);
        assert!(format::read(&std::fs::read(&options.file).unwrap()).is_ok(), "a new one");
    }
    std::fs::write(&options.file, "somebody's letters").unwrap();
    let problem = Snapshot::open(options.clone(), &at(NOW)).unwrap_err().to_string();
    assert!(problem.contains("quotas") && problem.contains("name another file"), "{problem}");
    assert_eq!(std::fs::read(&options.file).unwrap(), b"somebody's letters");
    let of_a_folder = SnapshotOptions { file: folder.path().to_owned(), ..options };
    assert!(matches!(Snapshot::open(of_a_folder, &at(NOW)), Err(SnapshotError::Foreign(_))));
    std::fs::write(&options.file, "").unwrap();
    assert!(Snapshot::open(options, &at(NOW)).is_ok(), "as mktemp leaves it");
}

#[tokio::test]
async fn a_disk_that_fails_is_counted_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let store = at(NOW);
    let snapshot = Snapshot::open(options.clone(), &store).unwrap();
    // Nothing can be written where a folder is.
    let fresh = folder.path().join("quotas.new");
    std::fs::create_dir(&fresh).unwrap();
    spend(&store, 1, 30, &rolling());
    snapshot.written().await;
    snapshot.written().await;
    assert_eq!(snapshot.failed(), 2);
    std::fs::remove_dir(&fresh).unwrap();
    snapshot.written().await;
    assert_eq!(snapshot.failed(), 2);
    let next = at(NOW);
    assert!(resume_snapshot(&next, &std::fs::read(&options.file).unwrap()));
    assert_eq!(look(&next, &rolling()), (30, 0));
}

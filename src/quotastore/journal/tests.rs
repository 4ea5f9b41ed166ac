use super::*;
use crate::quota::{Bound, BucketKey, Claim, Mode, OnExpiry, Window};

fn settle(exchange: u64) -> Settle {
    let claim = Claim {
        bucket: BucketKey { limit: "l".into(), subject: "".into() },
        amount: 1000,
        window: Window::InFlight,
        bound: Bound::fixed(1),
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    };
    Settle { id: ReservationId { process: 1, exchange, part: 0 }, spent: vec![(claim, exchange)] }
}

fn options(folder: &Path, most: u64) -> JournalOptions {
    JournalOptions { folder: folder.to_owned(), sync: Sync::Always, most }
}

fn reopen(options: &JournalOptions) -> Vec<u64> {
    let (_, owed) = Journal::open(options).unwrap();
    owed.iter().map(|settle| settle.id.exchange).collect()
}

#[tokio::test]
async fn what_is_owed_comes_out_of_the_journal_again_and_what_is_paid_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1 << 20);
    let (journal, owed) = Journal::open(&options).unwrap();
    assert_eq!(owed, []);
    for exchange in 1..=3 {
        journal.owe(&settle(exchange));
    }
    assert_eq!(journal.paid(vec![]).await.unwrap(), [], "all is written before this is answered");
    journal.owe(&settle(4));
    let safe = journal.paid(vec![settle(2).id, settle(4).id]).await.unwrap();
    assert_eq!(safe.len(), 2, "synced: it never comes again");
    drop(journal);
    let mut owed = reopen(&options);
    owed.sort_unstable();
    assert_eq!(owed, [1, 3]);
    assert_eq!(reopen(&options).len(), 2, "as long as it is owed");
}

#[tokio::test]
async fn a_store_may_forget_only_what_is_certain_never_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions { sync: Sync::Never, ..options(folder.path(), 1 << 20) };
    let (journal, _) = Journal::open(&options).unwrap();
    journal.owe(&settle(1));
    journal.paid(vec![]).await.unwrap();
    assert_eq!(journal.paid(vec![settle(1).id]).await.unwrap(), [], "the power may fail");
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1 << 20);
    let first = Journal::open(&options).unwrap();
    let problem = Journal::open(&options).unwrap_err();
    assert!(problem.to_string().contains("a folder of its own"), "{problem}");
    drop(first);
    Journal::open(&options).unwrap();
}

#[test]
fn a_file_that_is_no_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settlements.journal");
    std::fs::write(&path, "somebody's letters").unwrap();
    let problem = Journal::open(&options(folder.path(), 1 << 20)).unwrap_err();
    assert!(problem.to_string().contains("move it away"), "{problem}");
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's letters");
}

#[tokio::test]
async fn a_full_journal_counts_what_it_cannot_take_and_makes_room_of_what_is_paid() {
    let folder = tempfile::tempdir().unwrap();
    let record = encode(&Entry::Settle(wall(), settle(10))).unwrap().len() as u64;
    let options = options(folder.path(), record * 10 + 9);
    let (journal, _) = Journal::open(&options).unwrap();
    for exchange in 10..30 {
        journal.owe(&settle(exchange));
    }
    journal.paid(vec![]).await.unwrap();
    assert_eq!(journal.lost(), 10);
    let all = (10..30).map(|exchange| settle(exchange).id).collect();
    journal.paid(all).await.unwrap();
    for exchange in 30..40 {
        journal.owe(&settle(exchange));
    }
    journal.paid(vec![]).await.unwrap();
    assert_eq!(journal.lost(), 10, "there is room again");
    assert!(std::fs::metadata(folder.path().join("settlements.journal")).unwrap().len() <= options.most);
    drop(journal);
    assert_eq!(reopen(&options).len(), 10);
}

#[test]
fn what_is_older_than_the_store_remembers_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let old = Entry::Settle(wall() - TOO_OLD - 1, settle(1));
    let young = Entry::Settle(wall(), settle(2));
    let bytes = [MAGIC, &encode(&old).unwrap(), &encode(&young).unwrap(), b"torn"].concat();
    std::fs::write(folder.path().join("settlements.journal"), bytes).unwrap();
    assert_eq!(reopen(&options(folder.path(), 1 << 20)), [2]);
}

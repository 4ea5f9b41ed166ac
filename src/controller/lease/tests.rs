use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

fn record(version: &str, holder: &str) -> Record {
    Record { version: version.to_owned(), holder: holder.to_owned(), duration: TIMING.duration }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_lease_that_nobody_holds_is_taken_at_once() {
    let start = Instant::now();
    let mut candidate = Candidate::new("me".to_owned(), TIMING);
    assert_eq!(candidate.look(None, start), Step::Create);
    assert_eq!(candidate.look(Some(&record("1", "")), start), Step::Take);
    assert_eq!(candidate.standing(start), Standing::Unknown);
    candidate.written("2".to_owned(), start);
    assert_eq!(candidate.standing(start), Standing::Leads(start + seconds(10)));
    assert_eq!(candidate.look(Some(&record("2", "me")), start), Step::Renew);
}

#[test]
fn anothers_lease_is_taken_when_it_has_not_changed_for_its_whole_time() {
    let start = Instant::now();
    let mut candidate = Candidate::new("me".to_owned(), TIMING);
    assert_eq!(candidate.look(Some(&record("1", "other")), start), Step::Stand);
    assert_eq!(candidate.standing(start), Standing::Follows);
    assert_eq!(candidate.look(Some(&record("1", "other")), start + seconds(14)), Step::Stand);
    // Renewed: counted anew from when that was seen, whatever the lease says of times.
    assert_eq!(candidate.look(Some(&record("2", "other")), start + seconds(16)), Step::Stand);
    assert_eq!(candidate.look(Some(&record("2", "other")), start + seconds(30)), Step::Stand);
    assert_eq!(candidate.look(Some(&record("2", "other")), start + seconds(31)), Step::Take);
}

#[test]
fn a_lease_of_short_duration_is_left_to_its_holder_for_ours() {
    let start = Instant::now();
    let mut candidate = Candidate::new("me".to_owned(), TIMING);
    let short = Record { duration: seconds(1), ..record("1", "other") };
    assert_eq!(candidate.look(Some(&short), start), Step::Stand);
    assert_eq!(candidate.look(Some(&short), start + seconds(14)), Step::Stand);
    let long = Record { duration: seconds(60), ..record("2", "other") };
    assert_eq!(candidate.look(Some(&long), start + seconds(14)), Step::Stand);
    assert_eq!(candidate.look(Some(&long), start + seconds(73)), Step::Stand);
    assert_eq!(candidate.look(Some(&long), start + seconds(74)), Step::Take);
}

#[test]
fn leadership_ends_by_itself_counted_from_before_the_last_write() {
    let start = Instant::now();
    let mut candidate = Candidate::new("me".to_owned(), TIMING);
    candidate.written("1".to_owned(), start);
    assert_eq!(candidate.standing(start + seconds(9)), Standing::Leads(start + seconds(10)));
    assert_eq!(candidate.standing(start + seconds(10)), Standing::Unknown);
    candidate.written("2".to_owned(), start + seconds(11));
    candidate.beaten();
    assert_eq!(candidate.standing(start + seconds(11)), Standing::Unknown);
}

/// An API server that keeps a lease, and candidates whose looks, writes and answers happen in any order and at any time.
#[derive(Debug, Clone)]
enum Happens {
    /// Time passes, in milliseconds.
    Passes(u64),
    /// A candidate reads the lease and begins to write, if it wants to.
    Looks(usize),
    /// What a candidate has begun to write reaches the API server.
    Arrives(usize),
    /// The answer reaches the candidate.
    Answered(usize),
    /// The answer is lost.
    Lost(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let who = 0..3_usize;
    prop_oneof![
        (0..9000_u64).prop_map(Happens::Passes),
        who.clone().prop_map(Happens::Looks),
        who.clone().prop_map(Happens::Arrives),
        who.clone().prop_map(Happens::Answered),
        who.prop_map(Happens::Lost),
    ]
}

#[derive(Default)]
struct Flight {
    begun: Option<(Instant, String)>,
    answer: Option<Result<(String, Instant), ()>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is delayed or lost: never do two lead.
    #[test]
    fn two_never_lead(story in proptest::collection::vec(happens(), 1..120)) {
        let mut now = Instant::now();
        let mut lease: Option<Record> = None;
        let mut versions = 0_u32;
        let mut candidates: Vec<_> =
            (0..3).map(|index| (Candidate::new(index.to_string(), TIMING), Flight::default())).collect();
        for event in story {
            match event {
                Happens::Passes(milliseconds) => now += Duration::from_millis(milliseconds),
                Happens::Looks(who) => {
                    let (candidate, flight) = &mut candidates[who];
                    if flight.begun.is_none() && flight.answer.is_none() {
                        let step = candidate.look(lease.as_ref(), now);
                        if step != Step::Stand {
                            let version = lease.as_ref().map(|lease| lease.version.clone());
                            flight.begun = Some((now, version.unwrap_or_default()));
                        }
                    }
                }
                Happens::Arrives(who) => {
                    let (_, flight) = &mut candidates[who];
                    if let Some((begun, expected)) = flight.begun.take() {
                        let current = lease.as_ref().map(|lease| lease.version.clone()).unwrap_or_default();
                        flight.answer = Some(if current == expected {
                            versions += 1;
                            lease = Some(record(&versions.to_string(), &who.to_string()));
                            Ok((versions.to_string(), begun))
                        } else {
                            Err(())
                        });
                    }
                }
                Happens::Answered(who) => {
                    let (candidate, flight) = &mut candidates[who];
                    match flight.answer.take() {
                        Some(Ok((version, begun))) => candidate.written(version, begun),
                        Some(Err(())) => candidate.beaten(),
                        None => {}
                    }
                }
                Happens::Lost(who) => candidates[who].1.answer = None,
            }
            let leading = candidates
                .iter_mut()
                .filter_map(|(candidate, _)| matches!(candidate.standing(now), Standing::Leads(_)).then_some(()));
            prop_assert!(leading.count() <= 1);
        }
    }
}

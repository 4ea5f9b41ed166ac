//! Tokio's time stands still unless everybody waits, and the wall clock goes with it: nothing here depends on how fast it runs.

use std::collections::VecDeque;
use std::time::UNIX_EPOCH;

use serde_json::json;
use tokio::time::Instant;

use super::super::*;
use crate::auth::{Secret, SignError};

/// Gives what the test says, in order; the last again and again.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Answer>, Vec<Duration>)>>);

type Answer = Result<(&'static str, u64), &'static str>;

impl Script {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new((answers.into_iter().collect(), Vec::new()))))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

struct Scripted {
    script: Script,
    clock: Clock,
}

impl Fetch for Scripted {
    async fn fetch(&self, _: &Source) -> Result<Held, FetchError> {
        let mut script = self.script.0.lock().unwrap();
        let now = (self.clock)();
        script.1.push(now.duration_since(UNIX_EPOCH).unwrap());
        let answer = match script.0.len() {
            1 => script.0[0],
            _ => script.0.pop_front().unwrap(),
        };
        let (token, seconds) = answer.map_err(|problem| FetchError(problem.to_owned()))?;
        let expires = (seconds > 0).then(|| now + Duration::from_secs(seconds));
        Ok(Held { secret: Secret::bearer(token).unwrap(), expires })
    }
}

fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || UNIX_EPOCH + Duration::from_secs(1_000) + start.elapsed())
}

fn runtime(secret: &str) -> Runtime {
    let (runtime, problems) = Runtime::new(
        serde_json::from_value(json!({
            "backends": [{
                "name": "default/azure/route/r/rule/0/ref/0",
                "auth": {"azure": {"application": {"tenantId": "t", "clientId": "c", "clientSecret": secret}}},
            }],
        }))
        .unwrap(),
    );
    assert!(problems.is_empty(), "{problems:?}");
    runtime
}

fn token(runtime: &Runtime, clock: &Clock) -> Result<String, SignError> {
    let held = runtime.cells()[0].1.load(clock())?;
    let Secret::Header(value) = &held.secret else { panic!("no header") };
    Ok(secrecy::ExposeSecret::expose_secret(value).to_owned())
}

/// Does `test` while a keeper works by `script`.
async fn kept(script: &Script, test: impl AsyncFnOnce(Keeper, Clock)) {
    let (keeper, clock) = (Keeper::default(), clock());
    let fetch = Scripted { script: script.clone(), clock: Arc::clone(&clock) };
    tokio::select! {
        () = keeper.clone().run(fetch, Arc::clone(&clock), || 0.0) => unreachable!("it runs until dropped"),
        () = test(keeper.clone(), Arc::clone(&clock)) => {}
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_credential_is_renewed_ahead_of_its_end() {
    let script = Script::of([Ok(("one", 1000)), Ok(("two", 1000))]);
    kept(&script, async |keeper, clock| {
        let runtime = runtime("s");
        assert!(matches!(token(&runtime, &clock), Err(SignError::Unavailable(_))));
        keeper.ready(&runtime, LONG).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer one");
        tokio::time::sleep(Duration::from_secs(799)).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer one");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer two");
        assert_eq!(script.count(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_old_until_it_expires_and_shows() {
    let script = Script::of([Ok(("one", 1000)), Err("down")]);
    kept(&script, async |keeper, clock| {
        let runtime = runtime("s");
        keeper.ready(&runtime, LONG).await;
        tokio::time::sleep(Duration::from_secs(900)).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer one");
        let status = keeper.status();
        assert_eq!((&*status[0].service, status[0].fetched), ("default/azure", true));
        assert_eq!(status[0].expires, Some(UNIX_EPOCH + Duration::from_secs(2000)));
        assert_eq!(status[0].problem, Some(FetchError("down".to_owned())));
        assert!(status[0].failures > 1, "{status:?}");
        // Failures are not answered by a storm: at most one fetch in half a minute, in the end.
        assert!(script.count() < 12, "{}", script.count());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(matches!(token(&runtime, &clock), Err(SignError::Unavailable(_))));
        script.0.lock().unwrap().0 = [Ok(("two", 1000))].into();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer two");
        assert_eq!(keeper.status()[0].problem, None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_configuration_fetches_only_what_is_new() {
    let script = Script::of([Ok(("one", 0)), Ok(("two", 0))]);
    kept(&script, async |keeper, clock| {
        let first = runtime("s");
        keeper.ready(&first, LONG).await;
        let again = runtime("s");
        keeper.adopt(&again);
        assert_eq!(token(&again, &clock).unwrap(), "Bearer one");
        drop(first);
        for _ in 0..100 {
            keeper.adopt(&runtime("s"));
        }
        assert_eq!(script.count(), 1);
        let other = runtime("t");
        keeper.ready(&other, LONG).await;
        assert_eq!((token(&other, &clock).unwrap(), script.count()), ("Bearer two".to_owned(), 2));
        assert_eq!(token(&again, &clock).unwrap(), "Bearer one");
        // Nobody needs it any more: it is forgotten, and not fetched again.
        drop((other, again));
        tokio::time::sleep(LONG).await;
        assert_eq!((keeper.status(), script.count()), (Vec::new(), 2));
        let back = runtime("s");
        keeper.ready(&back, LONG).await;
        assert_eq!((token(&back, &clock).unwrap(), script.count()), ("Bearer two".to_owned(), 3));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_first_does_not_hold_up_whoever_waits() {
    let script = Script::of([Err("down"), Ok(("one", 10))]);
    kept(&script, async |keeper, clock| {
        let runtime = runtime("s");
        let before = Instant::now();
        keeper.ready(&runtime, LONG).await;
        // One failure is answer enough for whoever waits.
        assert!(before.elapsed() < Duration::from_secs(1));
        assert!(matches!(token(&runtime, &clock), Err(SignError::Unavailable(_))));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(token(&runtime, &clock).unwrap(), "Bearer one");
    })
    .await;
}

#[test]
fn renewals_and_retries_are_spread() {
    let now = UNIX_EPOCH;
    let in_an_hour = Some(now + LONG);
    assert_eq!(renewal(in_an_hour, now, 0.0), Duration::from_secs(2880));
    assert_eq!(renewal(in_an_hour, now, 1.0), Duration::from_secs(2520));
    assert_eq!(renewal(Some(now), now, 0.0), Duration::from_secs(1));
    assert_eq!(renewal(None, now, 0.0), REREAD);
    assert_eq!((backoff(1, 0.0), backoff(1, 1.0)), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!(backoff(u32::MAX, 1.0), MAX_BACKOFF);
}

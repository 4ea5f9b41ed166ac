//! Attempts at another process than the router's: what they ask for, under which name, and what is settled there.

use super::super::super::attempted::{ATTEMPT_HEADER, Attempted};
use super::super::super::{TOLD_KEY, Told};
use super::*;
use crate::mutation::MetadataValue;

/// As the attempt's process names it.
const OWN: ExchangeId = ExchangeId { process: 2, number: 9 };

/// What a process without the request gets to see of it: by Envoy's word and the router's.
fn arrival(routed: &Change, backend: &str, count: u32) -> Arrival {
    let told = routed.metadata.0.iter().find_map(|(key, value)| match value {
        MetadataValue::Text(text) if key == TOLD_KEY => Told::parse(text),
        _ => None,
    });
    assert!(told.is_some(), "{routed:?}");
    Arrival {
        host_backend: Some(backend.to_owned()),
        count: Some(count),
        id: Some(ID),
        routing_key: Some("k1".into()),
        told,
        ..Arrival::default()
    }
}

struct There {
    attempt: Attempt,
    now: Instant,
}

impl There {
    fn new(runtime: &Arc<Runtime>, arrival: Arrival) -> Self {
        let mut attempt = Attempt::new(arrival, None, runtime.scope(AUTHORITY), Arc::default());
        attempt.reserves_as(OWN, 0);
        Self { attempt, now: Instant::now() }
    }

    fn send(&mut self, input: Input) -> Step {
        self.attempt.handle(input, at(self.now)).unwrap()
    }

    /// The request, as far as an attempt sees it.
    fn request(&mut self, body: &Value) -> Step {
        let own = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("x-ai-eg-original-path", "/v1/chat/completions"),
        ];
        change(self.send(Input::RequestHeaders { headers: headers(&own), end_of_stream: false }));
        self.send(Input::RequestBody { body: body.to_string().into(), end_of_stream: true })
    }

    fn answered(&mut self, answer: Result<Verdict, NoAnswer>) -> Step {
        self.attempt.answered(answer, at(self.now)).unwrap()
    }

    fn response(&mut self, status: &str, own: &[(&str, &str)]) -> Change {
        let head = [&[(":status", status)], own].concat();
        change(self.send(Input::ResponseHeaders { headers: headers(&head), end_of_stream: false }))
    }

    /// What is settled once the stream is gone.
    fn settled(&mut self) -> Vec<(ReservationId, Vec<u64>)> {
        self.attempt.finish(self.now);
        self.attempt.finish(self.now);
        let settles = self.attempt.settles();
        settles.map(|settle| (settle.id, settle.spent.iter().map(|(_, spent)| *spent).collect())).collect()
    }
}

/// A request that the router's stream has let in, and what that said.
fn routed(runtime: &Arc<Runtime>, own: &[(&str, &str)], grant: u64) -> Change {
    let mut run = Run::new(runtime);
    let head = [&[(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "ai.example")], own];
    run.send(Input::RequestHeaders { headers: headers(&head.concat()), end_of_stream: false });
    let body = chat("attempts").to_string().into();
    let ask = asked(run.send(Input::RequestBody { body, end_of_stream: true }));
    change(run.answered(granted(&ask, grant)))
}

fn started(runtime: &Arc<Runtime>) -> (There, Arc<Ask>) {
    let mut there = There::new(runtime, arrival(&routed(runtime, &[], 500), SECOND, 1));
    let ask = asked(there.request(&chat("attempts")));
    (there, ask)
}

const ID_THERE: ReservationId = ReservationId { process: 2, exchange: 9, part: 0 };

#[test]
fn it_asks_for_its_backends_limits_under_a_name_of_its_own_and_settles_what_was_used() {
    let runtime = per_attempt(json!({}));
    let (mut there, ask) = started(&runtime);
    assert_eq!((ask.id, ask.claims.len(), ask.output.wanted), (ID_THERE, 1, 500));
    assert_eq!(&*ask.claims[0].bucket.limit, &*{
        let mut run = Run::new(&runtime);
        run.sent(&chat("attempts"));
        asked(attempt(&run, &runtime, SECOND, 1).1).claims[0].bucket.limit.clone()
    });
    let sent = change(there.answered(granted(&ask, 500)));
    assert!(matches!(sent.body, BodyChange::Replace(_)), "the model is another");
    let answer = there.response("200", JSON);
    assert_eq!(set(&answer, "x-ratelimit-remaining-tokens"), Some("99990"));
    there.send(Input::ResponseBody { body: ANSWER.into(), end_of_stream: true });
    assert_eq!(there.settled(), [(ID_THERE, vec![30])]);
    assert_eq!(there.settled(), []);
}

#[test]
fn whatever_ends_it_settles_it() {
    let runtime = per_attempt(json!({}));
    // The client leaves while the store is asked.
    let (mut there, _) = started(&runtime);
    assert_eq!(there.settled(), [(ID_THERE, vec![0])]);
    // An error, after which Envoy tries another.
    let (mut there, ask) = started(&runtime);
    change(there.answered(granted(&ask, 500)));
    there.response("503", JSON);
    assert_eq!(there.settled(), [(ID_THERE, vec![0])]);
    // No answer at all: nobody knows what the provider has done with the prompt.
    let (mut there, ask) = started(&runtime);
    change(there.answered(granted(&ask, 500)));
    assert_eq!(there.settled(), [(ID_THERE, vec![ask.claims[0].bound.fixed])]);
    // A stream that breaks off.
    let (mut there, ask) = started(&runtime);
    change(there.answered(granted(&ask, 500)));
    there.response("200", SSE);
    for _ in 0..40 {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n";
        there.send(Input::ResponseBody { body: event.into(), end_of_stream: false });
    }
    let spent = there.settled()[0].1[0] - ask.claims[0].bound.fixed;
    assert!((40..120).contains(&spent), "{spent}");
}

#[test]
fn a_refusal_there_is_one_here_and_holds_nothing() {
    for (policy, answer, status, details) in [
        (json!({}), None, 429, refusal::EXCEEDED),
        (json!({"onStoreFailure": "Closed"}), Some(NoAnswer::Away), 503, refusal::UNAVAILABLE),
    ] {
        let runtime = per_attempt(policy);
        let (mut there, ask) = started(&runtime);
        let refused = reply(there.answered(answer.map_or_else(|| full(&ask), Err)));
        assert_eq!((refused.status, refused.details), (status, details));
        let held = if status == 429 { vec![] } else { vec![(ID_THERE, vec![0])] };
        assert_eq!(there.settled(), held);
        let word = refused.headers.iter().find(|(name, _)| *name == ATTEMPT_HEADER).unwrap();
        assert_eq!(Attempted::parse(&word.1, ID).unwrap().refused, Some(details));
        // The router's stream knows it for what it is.
        let mut run = Run::new(&runtime);
        run.sent(&chat("attempts"));
        let passed = run.response(&status.to_string(), &[(ATTEMPT_HEADER, &word.1)]);
        assert!(passed.headers.remove.iter().any(|removed| removed == ATTEMPT_HEADER));
        assert_eq!(run.exchange.settle(run.now).unwrap().outcome, Outcome::Refused(details));
    }
}

/// Nobody passes where limits apply and it cannot be said which.
#[test]
fn without_the_routers_word_nothing_is_sent() {
    let runtime = per_attempt(json!({}));
    let mut arrived = arrival(&routed(&runtime, &[], 500), SECOND, 1);
    arrived.told = None;
    let refused = reply(There::new(&runtime, arrived).request(&chat("attempts")));
    assert_eq!((refused.status, refused.details), (503, refusal::UNAVAILABLE));
}

#[test]
fn limits_go_by_the_client_as_the_router_knows_it() {
    let mut of_team = of_backend("three", "default/three");
    of_team["per"] = json!([{"by": "Header", "name": "x-team"}, {"by": "Organisation"}]);
    let runtime = runtime(json!({}), &[limit("all", "TotalToken"), of_team]);
    let bucket = |team: &str| {
        let routed = routed(&runtime, &[("x-team", team), ("x-secret", "s")], 500);
        assert!(!format!("{:?}", routed.metadata).contains("x-secret"), "limits do not look at it");
        // A backend that was tried before has taken the header off.
        let mut there = There::new(&runtime, arrival(&routed, SECOND, 2));
        asked(there.request(&chat("attempts"))).claims[0].bucket.clone()
    };
    assert_eq!(bucket("red"), bucket("red"));
    assert_ne!(bucket("red"), bucket("blue"));
    let mut run = Run::new(&runtime);
    let own =
        [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "a"), ("x-team", "red")];
    run.send(Input::RequestHeaders { headers: headers(&own), end_of_stream: false });
    let body = chat("attempts").to_string().into();
    let ask = asked(run.send(Input::RequestBody { body, end_of_stream: true }));
    change(run.answered(granted(&ask, 500)));
    let here = asked(attempt(&run, &runtime, SECOND, 1).1).claims[0].bucket.clone();
    assert_eq!(bucket("red"), here, "the same wherever the attempt lands");
}

#[test]
fn what_the_router_was_granted_is_kept_to_there() {
    let runtime = per_attempt(json!({"clamp": 50}));
    for (backend, own) in [(FIRST, 500), (SECOND, 200)] {
        let mut there = There::new(&runtime, arrival(&routed(&runtime, &[], 400), backend, 1));
        let ask = asked(there.request(&chat("attempts")));
        assert_eq!(ask.output.wanted, 400);
        let sent = change(there.answered(granted(&ask, own.min(400))));
        let BodyChange::Replace(body) = &sent.body else { panic!("{sent:?}") };
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["max_tokens"], json!(own.min(400)));
        let answer = there.response("200", JSON);
        assert_eq!(set(&answer, headers::CLAMPED), Some(&*own.min(400).to_string()));
    }
}

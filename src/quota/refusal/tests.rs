use super::super::claim::{Bound, BucketKey, Claim, OnExpiry, OutputCap, PerOutput};
use super::super::{Class, Group, Metric, Prices, ReservationId, Selector, Terms, WindowRule};
use super::*;

const NOW: u64 = 1_795_480_200_000;
const MINUTE: Window = Window::Aligned { start: NOW - 30_000, end: NOW + 30_000, next_end: NOW + 90_000 };
const MONTH: Window = Window::Aligned { start: 0, end: NOW + 86_400_000, next_end: NOW + 9_000_000_000 };

fn limit(name: &str, metric: Metric) -> Arc<Limit> {
    Arc::new(Limit {
        name: name.into(),
        id: name.into(),
        selector: Selector::default(),
        per: Vec::new(),
        metric,
        amount: 1,
        window: WindowRule::InFlight,
        mode: Mode::Reserve,
        shadow: false,
        any_of: None,
        most_subjects: None,
        terms: Arc::new(Terms::default()),
    })
}

/// An ask with one claim, and the refusal of it.
fn case(window: Window, fixed: u64, reading: Reading) -> (Ask, Refusal) {
    let bound = Bound { fixed, per_output: PerOutput { numerator: 1, denominator: 1 } };
    let claim = Claim {
        bucket: BucketKey { limit: "l".into(), subject: "".into() },
        amount: reading.amount,
        window,
        bound,
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    };
    let ask = Ask {
        id: ReservationId { process: 1, exchange: 1, part: 0 },
        claims: vec![claim],
        groups: vec![Group::All],
        output: OutputCap { wanted: 4_000, least: 100 },
        lease: std::time::Duration::from_secs(60),
    };
    (ask, Refusal { claim: 0, readings: vec![reading], now: NOW })
}

fn shown(reply: &LocalReply) -> String {
    let headers: Vec<String> = reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    format!("{}\n{}\n\n{body:#}", reply.status, headers.join("\n"))
}

/// Clients know who has refused them: tensorzero/tensorzero#3678.
#[test]
fn a_refusal_says_in_every_dialect_which_limit_how_much_and_when() {
    let reading = Reading { amount: 10_000, spent: 3_000, held: 6_500, resets_at: NOW + 30_000 };
    let (ask, refusal) = case(MINUTE, 1_200, reading);
    let limits = [limit("team-minute", Metric::Tokens(Class::Total))];
    for dialect in [Dialect::OpenAI, Dialect::Anthropic, Dialect::Cohere] {
        let reply = refused(dialect, &ask, &limits, &refusal);
        insta::assert_snapshot!(format!("tokens_{dialect:?}"), shown(&reply));
        insta::assert_snapshot!(format!("away_{dialect:?}"), shown(&unavailable(dialect)));
    }
}

#[test]
fn what_will_not_fit_soon_is_called_insufficient_and_not_tried_again() {
    let empty = Reading { amount: 1_000, spent: 0, held: 0, resets_at: 0 };
    let money = Metric::Money(Arc::new(Prices::new("USD", [])));
    let spent = Reading { amount: 5_000_000, spent: 4_999_990, held: 0, resets_at: NOW + 86_400_000 };
    let running = Reading { amount: 4, spent: 0, held: 4, resets_at: 0 };
    for (name, metric, window, reading, fixed) in [
        ("never", Metric::Tokens(Class::Total), MINUTE, empty, 1_200),
        ("money", money, MONTH, spent, 900),
        (
            "requests",
            Metric::Requests,
            Window::Rolling { length: 60_000 },
            Reading { amount: 9, spent: 9, held: 0, resets_at: NOW + 500 },
            1,
        ),
        ("in_flight", Metric::InFlight, Window::InFlight, running, 1),
    ] {
        let (mut ask, refusal) = case(window, fixed, reading);
        ask.claims[0].bound.per_output.numerator = u64::from(name == "never");
        let reply = refused(Dialect::OpenAI, &ask, &[limit(name, metric)], &refusal);
        insta::assert_snapshot!(name, shown(&reply));
    }
}

#[test]
fn a_refusal_that_names_no_claim_is_no_panic() {
    let (ask, mut refusal) = case(MINUTE, 1, Reading { amount: 1, spent: 1, held: 0, resets_at: 0 });
    refusal.claim = 7;
    assert_eq!(refused(Dialect::OpenAI, &ask, &[limit("l", Metric::Requests)], &refusal).status, 503);
}

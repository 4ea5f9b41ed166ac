use super::*;
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::quota::{
    Bound, Class, Dimension, End, Metric, OnError, PerOutput, Price, Prices, Selector, Terms, Used, Window,
    WindowRule,
};
use crate::tenant::Tenant;
use crate::usage::TokenUsage;

const ID: ReservationId = ReservationId { process: 1, exchange: 2, part: 0 };
const MINUTE: WindowRule = WindowRule::Fixed(60_000);

fn limit(name: &str, metric: Metric) -> Limit {
    let window = if matches!(metric, Metric::InFlight) { WindowRule::InFlight } else { MINUTE };
    Limit {
        name: name.into(),
        id: Limit::id_of(name, &metric, &window),
        selector: Selector::default(),
        per: Vec::new(),
        metric,
        amount: 100,
        window,
        mode: Mode::Reserve,
        shadow: false,
        any_of: None,
        most_subjects: None,
        terms: Arc::default(),
    }
}

fn total(name: &str) -> Limit {
    limit(name, Metric::Tokens(Class::Total))
}

fn estimate(prompt: u64, output: Option<u64>) -> Estimate {
    Estimate { prompt, output, unsaid: false, answers: 1 }
}

fn prepare(limits: Vec<Limit>, stage: Stage, estimate: Estimate) -> Option<Prepared> {
    prepare_at(limits, stage, estimate, Endpoint::ChatCompletions)
}

fn prepare_at(limits: Vec<Limit>, stage: Stage, estimate: Estimate, endpoint: Endpoint) -> Option<Prepared> {
    let (tenant, headers) = (Tenant::anonymous(), Headers::default());
    let facts = Facts {
        tenant: &tenant,
        key_quota: None,
        gateway: Some("d/gw"),
        route: Some("d/r"),
        backend: (stage != Stage::Router).then_some("d/b/route/r/rule/0/ref/0"),
        asked_model: "asked",
        sent_model: (stage != Stage::Router).then_some("sent"),
        headers: &headers,
        endpoint,
        source: None,
    };
    Quotas::new(limits).prepare(stage, &facts, estimate, ID, 90_000)
}

fn names(prepared: &Prepared) -> Vec<&str> {
    prepared.limits.iter().map(|limit| &*limit.name).collect()
}

#[test]
fn a_request_that_falls_under_no_limit_asks_nothing() {
    assert!(prepare(vec![], Stage::Whole, estimate(1, None)).is_none());
    let other = Selector { asked_models: vec!["other".into()], ..Selector::default() };
    assert!(
        prepare(vec![Limit { selector: other, ..total("l") }], Stage::Whole, estimate(1, None)).is_none()
    );
}

#[test]
fn a_claim_says_what_the_request_may_cost_at_most() {
    let prepared = prepare(vec![total("l")], Stage::Whole, estimate(10, Some(20))).unwrap();
    let claim = &prepared.ask.claims[0];
    assert_eq!(claim.bound.at(prepared.ask.output.wanted), 30);
    assert_eq!(claim.window, Window::Aligned { start: 60_000, end: 120_000, next_end: 180_000 });
    assert_eq!((&*claim.bucket.limit, &*claim.bucket.subject), ("l:total:1m", ""));
    assert_eq!((claim.amount, claim.group, prepared.ask.id), (100, 0, ID));
    assert_eq!(prepared.ask.groups, [Group::All]);
    assert_eq!((prepared.clamp, prepared.on_away), (false, OnAway::Open));
}

#[test]
fn several_answers_cost_several_times_as_much() {
    let three = Estimate { answers: 3, ..estimate(10, Some(20)) };
    let prepared = prepare(vec![total("l"), limit("n", Metric::Requests)], Stage::Whole, three).unwrap();
    let bounds: Vec<_> = prepared.ask.claims.iter().map(|claim| claim.bound.at(20)).collect();
    assert_eq!(bounds, [70, 1]);
    assert_eq!(prepared.ask.claims[0].bound.per_output, PerOutput { numerator: 3, denominator: 1 });
}

#[test]
fn limits_are_asked_where_enough_is_known() {
    let per = |name: &str, dimension| Limit { per: vec![dimension], ..total(name) };
    let attached = |name: &str, target| {
        let selector = Selector { targets: vec![target], ..Selector::default() };
        Limit { selector, ..total(name) }
    };
    let limits = || {
        vec![
            total("all"),
            limit("money", Metric::Money(Arc::default())),
            per("per-backend", Dimension::Backend),
            per("per-key", Dimension::Key),
            attached("backend", Target::Backend("d/b".into())),
            attached("gateway", Target::Gateway("d/gw".into())),
            attached("elsewhere", Target::Gateway("d/other".into())),
        ]
    };
    let asked = |stage| {
        let prepared = prepare(limits(), stage, estimate(1, None)).unwrap();
        names(&prepared).join(" ")
    };
    assert_eq!(asked(Stage::Router), "all per-key gateway");
    assert_eq!(asked(Stage::Attempt), "money per-backend backend");
    assert_eq!(asked(Stage::Whole), "all money per-backend per-key backend gateway");
}

#[test]
fn a_limit_that_is_attached_twice_is_asked_once() {
    let targets = vec![Target::Gateway("d/gw".into()), Target::Route("d/r".into())];
    let selector = Selector { targets, ..Selector::default() };
    let prepared = prepare(vec![Limit { selector, ..total("l") }], Stage::Router, estimate(1, None)).unwrap();
    assert_eq!(prepared.ask.claims.len(), 1);
}

#[test]
fn limits_of_which_one_is_enough_are_a_group() {
    let of = |name: &str, group: Option<&str>| Limit { any_of: group.map(Into::into), ..total(name) };
    let limits = vec![of("a", Some("x")), of("b", None), of("c", Some("y")), of("d", Some("x"))];
    let prepared = prepare(limits, Stage::Whole, estimate(1, None)).unwrap();
    let groups: Vec<_> = prepared.ask.claims.iter().map(|claim| claim.group).collect();
    assert_eq!(groups, [1, 0, 2, 1]);
    assert_eq!(prepared.ask.groups, [Group::All, Group::Any, Group::Any]);
}

fn terms(terms: Terms) -> Limit {
    Limit { terms: Arc::new(terms), ..total("l") }
}

#[test]
fn an_answer_is_as_long_as_the_request_says_or_as_policies_say() {
    let outputs = |outputs: &[(&str, u64)]| {
        terms(Terms {
            outputs: outputs.iter().map(|(glob, tokens)| ((*glob).into(), *tokens)).collect(),
            ..Terms::default()
        })
    };
    let wanted = |limits: Vec<Limit>, output| {
        prepare(limits, Stage::Whole, estimate(1, output)).unwrap().ask.output.wanted
    };
    assert_eq!(wanted(vec![total("l")], None), DEFAULT_OUTPUT);
    assert_eq!(wanted(vec![outputs(&[("asked", 1), ("se*", 7), ("*", 9)])], None), 7);
    // The largest is a bound for all.
    assert_eq!(wanted(vec![outputs(&[("*", 7)]), outputs(&[("*", 8)])], None), 8);
    assert_eq!(wanted(vec![outputs(&[("*", 7)])], Some(3)), 3);
}

#[test]
fn what_makes_up_no_text_has_no_answer_to_reserve_for() {
    let prepared =
        prepare_at(vec![total("l")], Stage::Whole, estimate(5, Some(99)), Endpoint::Embeddings).unwrap();
    assert_eq!(prepared.ask.output, OutputCap { wanted: 0, least: 0 });
    assert_eq!(prepared.ask.claims[0].bound.at(0), 5);
}

#[test]
fn an_answer_is_cut_only_where_an_enforced_policy_says_so() {
    let clamp = |least| Terms { clamp: Some(least), ..Terms::default() };
    let output = |limits, output| {
        let prepared = prepare(limits, Stage::Whole, estimate(1, Some(output))).unwrap();
        (prepared.clamp, prepared.ask.output.least)
    };
    assert_eq!(output(vec![total("l")], 50), (false, 50));
    assert_eq!(output(vec![terms(clamp(10)), terms(clamp(20)), total("l")], 50), (true, 20));
    assert_eq!(output(vec![terms(clamp(80))], 50), (true, 50));
    assert_eq!(output(vec![Limit { shadow: true, ..terms(clamp(10)) }], 50), (false, 50));
    assert_eq!(output(vec![Limit { mode: Mode::Record, ..terms(clamp(10)) }], 50), (false, 50));
}

#[test]
fn one_policy_that_closes_is_enough_unless_it_only_watches() {
    let closed = Terms { on_away: OnAway::Closed, ..Terms::default() };
    let on_away = |limits| prepare(limits, Stage::Whole, estimate(1, None)).unwrap().on_away;
    assert_eq!(on_away(vec![total("l"), terms(closed.clone())]), OnAway::Closed);
    assert_eq!(on_away(vec![total("l"), Limit { shadow: true, ..terms(closed) }]), OnAway::Open);
}

#[test]
fn the_store_s_clock_moves_the_windows_and_nothing_else() {
    let mut prepared = prepare(vec![total("l")], Stage::Whole, estimate(10, None)).unwrap();
    let before = prepared.ask.claims[0].clone();
    prepared.move_to(120_000);
    let window = Window::Aligned { start: 120_000, end: 180_000, next_end: 240_000 };
    assert_eq!(prepared.ask.claims[0], Claim { window, ..before });
}

#[test]
fn requests_at_the_same_time_are_counted_while_they_last() {
    let prepared = prepare(vec![limit("l", Metric::InFlight)], Stage::Whole, estimate(10, None)).unwrap();
    let claim = &prepared.ask.claims[0];
    assert_eq!((claim.window, claim.bound), (Window::InFlight, Bound::fixed(1)));
    let usage = TokenUsage { total: Some(5), ..TokenUsage::default() };
    assert_eq!(prepared.limits[0].cost(&used(&usage, End::Answered)), 0);
}

fn used(usage: &TokenUsage, end: End) -> Used<'_> {
    Used { usage, prompt: 10, end, model: "sent", backend: "d/b", route: "d/r" }
}

#[test]
fn what_a_request_costs_depends_on_how_it_ended() {
    let usage = TokenUsage { input: Some(9), output: Some(3), total: Some(12), ..TokenUsage::default() };
    let unknown = TokenUsage::default();
    let free = terms(Terms::default());
    let charged = terms(Terms { on_error: OnError::Charge, ..Terms::default() });
    for (limit, usage, end, cost) in [
        (&free, &usage, End::Answered, 12),
        // The provider did not say: the prompt was sent.
        (&free, &unknown, End::Answered, 10),
        (&free, &unknown, End::Abandoned, 10),
        (&free, &unknown, End::Failed, 0),
        (&free, &usage, End::Failed, 0),
        (&free, &unknown, End::Unsent, 0),
        (&charged, &usage, End::Failed, 12),
        (&charged, &unknown, End::Failed, 10),
        (&charged, &unknown, End::Unsent, 0),
    ] {
        assert_eq!(limit.cost(&used(usage, end)), cost, "{end:?} {usage:?} {:?}", limit.terms.on_error);
    }
    let requests = limit("l", Metric::Requests);
    let cost = |end| requests.cost(&used(&unknown, end));
    assert_eq!([End::Answered, End::Abandoned, End::Failed, End::Unsent].map(cost), [1, 1, 0, 0]);
}

#[test]
fn money_is_counted_for_the_model_that_is_asked_in_the_end() {
    let prices = |model: &str| {
        let price = Price { input: 1_000_000, output: 2_000_000, ..Price::default() };
        Metric::Money(Arc::new(Prices::new("USD", [(model.to_owned(), price)])))
    };
    let limits = vec![limit("sent", prices("sent")), limit("asked", prices("asked"))];
    let prepared = prepare(limits, Stage::Whole, estimate(10, Some(5))).unwrap();
    let bounds: Vec<_> = prepared.ask.claims.iter().map(|claim| claim.bound.at(5)).collect();
    assert_eq!(bounds, [20, 0]);
    let usage = TokenUsage { input: Some(4), output: Some(2), ..TokenUsage::default() };
    assert_eq!(prepared.limits[0].cost(&used(&usage, End::Answered)), 8);
}

#[test]
fn buckets_keep_their_names_when_amounts_are_edited_and_change_them_with_what_is_counted() {
    let id = |name, metric: &Metric, window: &WindowRule| Limit::id_of(name, metric, window).to_string();
    let (requests, money) = (Metric::Requests, Metric::Money(Arc::default()));
    assert_eq!(id("u/d/p/l", &requests, &MINUTE), "u/d/p/l:requests:1m");
    assert_eq!(id("u/d/p/l", &money, &WindowRule::Rolling(60_000)), "u/d/p/l:money:rolling-1m");
    let odd = ["{a} b\n", "_a__b_", "{a} b\r"].map(|name| id(name, &requests, &MINUTE));
    assert!(odd[0].starts_with("_a__b_-") && odd[1] == "_a__b_:requests:1m" && odd[0] != odd[2], "{odd:?}");
    assert!(
        odd.iter()
            .flat_map(|id| id.chars())
            .all(|letter| letter.is_ascii_alphanumeric() || "_-:".contains(letter))
    );
}

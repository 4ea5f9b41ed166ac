use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn tenant(organisation: &str, team: &str, key: &str) -> Tenant {
    Tenant { organisation: Tenant::part(organisation), team: Tenant::part(team), key: Tenant::part(key) }
}

fn facts<'a>(tenant: &'a Tenant, headers: &'a Headers) -> Facts<'a> {
    Facts {
        tenant,
        key_quota: Some("small"),
        gateway: Some("d/gw"),
        route: Some("d/r"),
        backend: Some("d/openai/route/r/rule/0/ref/0"),
        asked_model: "gpt-4o",
        sent_model: Some("gpt-4o-2024"),
        headers,
        endpoint: Endpoint::ChatCompletions,
        source: Some(IpAddr::from([10, 1, 2, 3])),
    }
}

fn test(what: What) -> Test {
    Test { any_of: vec![what], invert: false }
}

#[test]
fn a_selector_wants_everything_it_names() {
    let (tenant, headers) = (tenant("acme", "web", "ci"), headers(&[]));
    let facts = facts(&tenant, &headers);
    let all = Selector::default();
    let backend = |name: &str| vec![Target::Backend(name.into())];
    let acme = |key: Option<&str>| Tenants {
        organisation: Some("acme".into()),
        key: key.map(Into::into),
        ..Tenants::default()
    };
    let anonymous = Tenants { anonymous: true, ..Tenants::default() };
    for (selector, selected) in [
        (all.clone(), true),
        (Selector { targets: backend("d/openai"), ..all.clone() }, true),
        (Selector { targets: backend("d/open"), ..all.clone() }, false),
        (
            Selector {
                targets: vec![Target::Gateway("d/other".into()), Target::Route("d/r".into())],
                ..all.clone()
            },
            true,
        ),
        (Selector { targets: vec![Target::Gateway("d/r".into())], ..all.clone() }, false),
        (Selector { tenants: vec![acme(None)], ..all.clone() }, true),
        (Selector { tenants: vec![acme(Some("other")), acme(Some("ci"))], ..all.clone() }, true),
        (Selector { tenants: vec![acme(Some("other"))], ..all.clone() }, false),
        (Selector { tenants: vec![anonymous.clone()], ..all.clone() }, false),
        (Selector { key_quota: Some("small".into()), ..all.clone() }, true),
        (Selector { key_quota: Some("large".into()), ..all.clone() }, false),
        (Selector { asked_models: vec!["gpt-*".into()], ..all.clone() }, true),
        (Selector { asked_models: vec!["gpt-4o-2024".into()], ..all.clone() }, false),
        (Selector { sent_models: vec!["gpt-4o-2024".into()], ..all.clone() }, true),
        (Selector { except_sent_models: vec!["gpt-4o-2024".into()], ..all.clone() }, false),
        (Selector { tests: vec![test(What::HeaderPresent("x".into()))], ..all.clone() }, false),
    ] {
        assert_eq!(selector.selects(&facts), selected, "{selector:?}");
    }
    let nobody = Tenant::anonymous();
    assert!(
        Selector { tenants: vec![anonymous], ..all.clone() }.selects(&Facts { tenant: &nobody, ..facts })
    );
    assert!(!Selector { tenants: vec![acme(None)], ..all }.selects(&Facts { tenant: &nobody, ..facts }));
}

#[test]
fn every_part_of_a_request_can_be_tested() {
    let tenant = Tenant::anonymous();
    let headers = headers(&[
        (":method", "POST"),
        (":path", "/v1/chat/completions?tier=a%2Fb+c&tier=gold&bad=%zz#top"),
        ("x-tier", "gold"),
        ("x-tier", "silver"),
        ("x-ai-eg-forged", "1"),
        ("x-ai-eg-model", "forged"),
    ]);
    let facts = facts(&tenant, &headers);
    let exact = |name: &str, value: &str| What::Header(Condition::exact(name, value));
    let path = |value: &str| What::Path(Condition::exact(":path", value));
    let parameter = |name: &str, value: &str| What::Parameter(name.into(), Condition::exact(name, value));
    for (what, passes) in [
        (exact("x-tier", "gold"), true),
        (exact("x-tier", "silver"), true),
        (exact("x-tier", "gold,silver"), false),
        (exact("x-none", ""), false),
        // The gateway's own headers are what the gateway says.
        (exact("x-ai-eg-model", "gpt-4o"), true),
        (exact("x-ai-eg-model", "forged"), false),
        (What::HeaderPresent("x-ai-eg-forged".into()), false),
        (What::Header(Condition::regex("x-tier", "go.*").unwrap()), true),
        (What::Header(Condition::regex("x-tier", "go").unwrap()), false),
        (What::HeaderPrefix("x-tier".into(), b"sil".to_vec()), true),
        (What::HeaderPrefix("x-tier".into(), b"old".to_vec()), false),
        (What::HeaderPresent("x-tier".into()), true),
        (What::Method("POST".into()), true),
        (What::Method("GET".into()), false),
        (path("/v1/chat/completions"), true),
        (path("/v1/chat"), false),
        (What::PathPrefix("/v1/chat".into()), true),
        (What::PathPrefix("/".into()), true),
        (What::PathPrefix("/v1/cha".into()), false),
        (parameter("tier", "a/b c"), true),
        (parameter("tier", "gold"), true),
        (parameter("bad", "%zz"), true),
        (What::ParameterPresent("tier".into()), true),
        (What::ParameterPresent("top".into()), false),
        (What::Source("10.1.0.0/16".parse().unwrap()), true),
        (What::Source("10.2.0.0/16".parse().unwrap()), false),
    ] {
        assert_eq!(test(what.clone()).passes(&facts), passes, "{what:?}");
        let inverted = Test { any_of: vec![what.clone()], invert: true };
        assert_eq!(inverted.passes(&facts), !passes, "not {what:?}");
    }
}

#[test]
fn of_a_test_with_several_values_one_is_enough() {
    let (tenant, headers) = (Tenant::anonymous(), headers(&[(":method", "PUT")]));
    let methods = vec![What::Method("POST".into()), What::Method("PUT".into())];
    assert!(Test { any_of: methods.clone(), invert: false }.passes(&facts(&tenant, &headers)));
    assert!(!Test { any_of: methods, invert: true }.passes(&facts(&tenant, &headers)));
}

#[test]
fn a_client_without_an_address_does_not_evade_a_limit_by_address() {
    let (tenant, headers) = (Tenant::anonymous(), headers(&[]));
    let facts = Facts { source: None, ..facts(&tenant, &headers) };
    for invert in [false, true] {
        let any_of = vec![What::Source("10.0.0.0/8".parse().unwrap())];
        assert!(Test { any_of, invert }.passes(&facts));
    }
}

#[test]
fn an_address_is_the_same_however_it_is_written() {
    let (tenant, headers) = (Tenant::anonymous(), headers(&[]));
    let of = |source: &str| {
        subject(
            &[Dimension::Source],
            &Facts { source: Some(source.parse().unwrap()), ..facts(&tenant, &headers) },
        )
    };
    assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
}

#[test]
fn one_bucket_has_no_subject_and_the_others_have_a_digest() {
    let (tenant, headers) = (tenant("acme", "", ""), headers(&[]));
    let facts = facts(&tenant, &headers);
    assert_eq!(&*subject(&[], &facts), "");
    let digest = subject(&[Dimension::Organisation, Dimension::Header("x".into())], &facts);
    assert!(digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
}

#[test]
fn a_team_is_told_apart_from_one_of_the_same_name_elsewhere() {
    let headers = headers(&[]);
    let of = |dimension: &Dimension, organisation, team, key| {
        let tenant = tenant(organisation, team, key);
        subject(std::slice::from_ref(dimension), &facts(&tenant, &headers))
    };
    assert_ne!(of(&Dimension::Team, "a", "web", ""), of(&Dimension::Team, "b", "web", ""));
    assert_eq!(of(&Dimension::Team, "a", "web", "x"), of(&Dimension::Team, "a", "web", "y"));
    assert_ne!(of(&Dimension::Key, "a", "web", "x"), of(&Dimension::Key, "a", "app", "x"));
    assert_ne!(of(&Dimension::Organisation, "", "", "x"), of(&Dimension::Organisation, "x", "", ""));
}

#[test]
fn who_chooses_is_told_by_what_clients_do_not_choose() {
    let of = |per: &[Dimension], tenant: &Tenant, value: &str| {
        let headers = headers(&[("x-a", value)]);
        let subject = owned_subject(per, &facts(tenant, &headers));
        subject.split_once('.').map(|(owner, subject)| (owner.to_owned(), subject.to_owned()))
    };
    let chosen = [Dimension::Header("x-a".into())];
    let (web, app) = (tenant("acme", "web", "k1"), tenant("acme", "app", "k2"));
    let other = tenant("other", "web", "k1");
    let owner = |per: &[Dimension], tenant: &Tenant, value: &str| of(per, tenant, value).unwrap().0;
    // Whatever is chosen, it is the same who chooses.
    assert_eq!(owner(&chosen, &web, "1"), owner(&chosen, &app, "2"));
    assert_ne!(owner(&chosen, &web, "1"), owner(&chosen, &other, "1"), "an organisation is on its own");
    assert_ne!(owner(&chosen, &web, "1"), owner(&chosen, &Tenant::anonymous(), "1"));
    let team = [Dimension::Team, Dimension::Header("x-a".into())];
    assert_ne!(owner(&team, &web, "1"), owner(&team, &app, "1"), "a team, where teams are told apart");
    // The bucket of a value is everybody's where only values are told apart, as it was configured.
    assert_eq!(of(&chosen, &web, "1").unwrap().1, of(&chosen, &other, "1").unwrap().1);
    assert_eq!(of(&[Dimension::Team], &web, "1"), None, "nothing is chosen");
}

#[test]
fn values_that_look_alike_are_not_the_same() {
    let tenant = Tenant::anonymous();
    let of = |values: &[&str]| {
        let headers: Headers = values.iter().map(|value| ("x-a".to_owned(), (*value).to_owned())).collect();
        subject(&[Dimension::Header("x-a".into())], &facts(&tenant, &headers))
    };
    let long = "x".repeat(100_000);
    let lists: [&[&str]; 15] = [
        &[],
        &[""],
        &["", ""],
        &["a"],
        &["A"],
        &["a", "b"],
        &["b", "a"],
        &["a,b"],
        &["a, b"],
        // The same to the eye: composed, and with a mark that combines.
        &["\u{e9}"],
        &["e\u{301}"],
        &["a\u{200b}"],
        &["a\0b"],
        &[&long],
        &[&long[1..]],
    ];
    let names: HashMap<_, _> = lists.iter().map(|values| (of(values), values)).collect();
    assert_eq!(names.len(), lists.len());
    assert!(names.keys().all(|name| name.len() == 32), "a name is as long however long the values are");
}

#[test]
fn a_tenants_name_cannot_be_written_so_that_it_is_anothers() {
    let headers = headers(&[]);
    let of = |tenant: &Tenant| subject(&[Dimension::Key], &facts(tenant, &headers));
    let names = [
        tenant("acme", "web", ""),
        tenant("acme/web", "", ""),
        tenant("acme", "", "web"),
        tenant("ACME", "web", ""),
        tenant("acme", "web/", ""),
        tenant("acme", "-", ""),
        tenant("acme", "w\u{e9}b", ""),
        tenant("acme", "we\u{301}b", ""),
        tenant("\u{430}cme", "web", ""),
        Tenant::anonymous(),
        tenant("-", "", ""),
    ];
    let buckets: HashMap<_, _> = names.iter().map(|tenant| (of(tenant), tenant)).collect();
    assert_eq!(buckets.len(), names.len());
    for nothing in ["", "a\0", "a\n", "\u{85}", &"x".repeat(257)] {
        assert_eq!(Tenant::part(nothing), None, "{nothing:?}");
    }
}

/// Texts that are likely to be taken for one another.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "", "a", "b", "ab", "a,b", "a/b", "/", "-", ":", "}", "a}b", "\u{1}a", "a\u{0}"
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,3}",
    ]
}

fn part() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(hostile().prop_map(Into::into))
}

prop_compose! {
    fn tenants()(organisation in part(), team in part(), key in part()) -> Tenant {
        Tenant { organisation, team, key }
    }
}

proptest! {
    #[test]
    fn two_tenants_never_share_a_bucket(tenants in prop::collection::vec(tenants(), 2..20)) {
        let headers = headers(&[]);
        let mut seen: HashMap<Arc<str>, &Tenant> = HashMap::new();
        for tenant in &tenants {
            let bucket = subject(&[Dimension::Key], &facts(tenant, &headers));
            if let Some(other) = seen.insert(bucket, tenant) {
                prop_assert_eq!(other, tenant);
            }
        }
    }

    #[test]
    fn no_values_of_headers_are_taken_for_others(
        lists in prop::collection::vec((prop::collection::vec(hostile(), 0..3), prop::collection::vec(hostile(), 0..3)), 2..20),
    ) {
        let tenant = Tenant::anonymous();
        let per = [Dimension::Header("x-a".into()), Dimension::Header("x-b".into())];
        let mut seen = HashMap::new();
        for (a, b) in &lists {
            let named = |name: &'static str, values: &[String]| {
                values.iter().map(|value| (name, value.clone())).collect::<Vec<_>>()
            };
            let headers: Headers = named("x-a", a).into_iter().chain(named("x-b", b)).collect();
            let bucket = subject(&per, &facts(&tenant, &headers));
            // Nothing of a client's text is in the name.
            prop_assert!(bucket.len() == 32 && bucket.bytes().all(|byte| byte.is_ascii_hexdigit()));
            if let Some(other) = seen.insert(bucket, (a, b)) {
                prop_assert_eq!(other, (a, b));
            }
        }
    }

    #[test]
    fn any_path_can_be_asked_about(path in "\\PC{0,40}", name in "\\PC{0,8}") {
        let tenant = Tenant::anonymous();
        let headers = headers(&[(":path", &path)]);
        let facts = facts(&tenant, &headers);
        let _ = (facts.path(), facts.parameter(&name));
    }
}

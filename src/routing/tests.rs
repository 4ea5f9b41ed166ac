use std::collections::BTreeMap;

use proptest::prelude::*;

use super::regex::compile;
use super::*;

const INDEX: &str = INDEX_HEADER;

/// A condition as text: header, whether the value is an expression, value.
type Plain<'a> = (&'a str, bool, &'a str);

fn exact<'a>(name: &'a str, value: &'a str) -> Plain<'a> {
    (name, false, value)
}

fn regex<'a>(name: &'a str, value: &'a str) -> Plain<'a> {
    (name, true, value)
}

/// The entries as a matcher whose rules are their positions.
fn matcher(entries: &[Vec<Plain<'_>>]) -> Matcher {
    let condition = |(name, is_regex, value): &Plain<'_>| {
        if *is_regex { Condition::regex(name, value).expect("usable") } else { Condition::exact(name, value) }
    };
    let entry = |(rule, plain): (usize, &Vec<Plain<'_>>)| Entry {
        conditions: plain.iter().map(condition).collect(),
        rule,
    };
    Matcher::new(entries.iter().enumerate().map(entry).collect())
}

/// The position of the entry that a request with these headers gets.
fn find(entries: &[Vec<Plain<'_>>], headers: &[(&str, &str)]) -> Option<usize> {
    matcher(entries).find(lookup(headers))
}

fn lookup<'h>(headers: &'h [(&str, &str)]) -> impl Fn(&str) -> Vec<&'h [u8]> {
    move |name| headers.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.as_bytes()).collect()
}

#[track_caller]
fn assert_regex(expression: &str, matching: &[&str], others: &[&str]) {
    let compiled = compile(expression).unwrap_or_else(|error| panic!("{error}"));
    for value in matching {
        assert!(compiled.is_match(value.as_bytes()), "{expression} should match {value:?}");
    }
    for value in others {
        assert!(!compiled.is_match(value.as_bytes()), "{expression} should not match {value:?}");
    }
}

mod matching {
    use super::*;

    #[test]
    fn the_first_entry_that_holds_decides() {
        let entries = [
            vec![exact(INDEX, "a"), exact("x-tenant", "t")],
            vec![regex(INDEX, "a|b")],
            vec![exact(INDEX, "a")],
            vec![],
        ];
        assert_eq!(find(&entries, &[(INDEX, "a"), ("x-tenant", "t")]), Some(0));
        assert_eq!(find(&entries, &[(INDEX, "a")]), Some(1));
        assert_eq!(find(&entries, &[(INDEX, "c")]), Some(3));
        assert_eq!(find(&entries, &[]), Some(3));
        assert_eq!(find(&entries[..3], &[(INDEX, "c")]), None);
        assert_eq!(find(&entries[2..], &[(INDEX, "a")]), Some(0));
    }

    #[test]
    fn an_absent_header_never_matches() {
        assert_eq!(find(&[vec![regex("x-a", ".*")]], &[]), None);
        assert_eq!(find(&[vec![exact("x-a", "")]], &[]), None);
    }

    #[test]
    fn an_empty_value_is_a_value() {
        assert_eq!(find(&[vec![exact("x-a", "")]], &[("x-a", "")]), Some(0));
        assert_eq!(find(&[vec![exact("x-a", "")]], &[("x-a", "b")]), None);
        assert_eq!(find(&[vec![regex("x-a", ".*")]], &[("x-a", "")]), Some(0));
    }

    #[test]
    fn of_several_values_any_will_do_and_they_are_not_joined() {
        let headers = [("x-a", "1"), ("x-a", "2")];
        assert_eq!(find(&[vec![exact("x-a", "1,2")], vec![exact("x-a", "2")]], &headers), Some(1));
        assert_eq!(find(&[vec![regex("x-a", "1,.")], vec![regex("x-a", "1")]], &headers), Some(1));
        assert_eq!(find(&[vec![exact("x-a", "1"), regex("x-a", "2")]], &headers), Some(0));
        let models = [(INDEX, "b"), (INDEX, "a")];
        assert_eq!(find(&[vec![exact(INDEX, "a")], vec![exact(INDEX, "b")]], &models), Some(0));
    }

    #[test]
    fn an_entry_can_demand_two_values_of_one_header_and_then_never_holds() {
        let entries =
            [vec![exact(INDEX, "a"), exact(INDEX, "b")], vec![exact(INDEX, "a"), regex(INDEX, "[a-c]")]];
        assert_eq!(find(&entries, &[(INDEX, "a")]), Some(1));
        assert_eq!(find(&entries, &[(INDEX, "b")]), None);
    }

    #[test]
    fn a_header_is_looked_up_once() {
        let matcher = matcher(&vec![vec![regex("x-a", "b"), regex("x-b", "c")]; 100]);
        let calls = std::cell::RefCell::new(BTreeMap::<String, usize>::new());
        let found = matcher.find(|name| {
            *calls.borrow_mut().entry(name.to_owned()).or_default() += 1;
            if name == "x-a" { vec![&b"b"[..]] } else { Vec::new() }
        });
        assert_eq!(found, None);
        assert!(calls.into_inner().values().all(|count| *count == 1));
    }

    #[test]
    fn an_unusable_expression_is_named() {
        let error = Condition::regex("x-b", "a(b").unwrap_err().to_string();
        assert_eq!(error, "the regular expression `a(b` cannot be used: unclosed group");
    }

    #[test]
    fn hosts_do_not_share_entries() {
        let entry = |model: &str, rule| Entry { conditions: vec![Condition::exact(INDEX, model)], rule };
        let hosts = [
            ("a.example", vec![entry("m", 1)]),
            ("*", vec![entry("m", 2), entry("n", 3)]),
            ("a*", Vec::new()),
        ];
        let (router, errors) = Router::new(hosts.map(|(name, entries)| (name.to_owned(), entries)).into());
        assert_eq!(errors, [HostError::Invalid("a*".to_owned())]);
        assert_eq!(router.select("a.example:80", lookup(&[(INDEX, "m")])), Some(1));
        assert_eq!(router.select("a.example", lookup(&[(INDEX, "n")])), None);
        assert_eq!(router.select("b.example", lookup(&[(INDEX, "m")])), Some(2));
    }
}

mod expressions {
    use super::*;

    #[test]
    fn match_whole_values() {
        assert_regex("gpt-.*|o[13]", &["gpt-5", "gpt-", "o3"], &["xgpt-5", "o2", "o3x", ""]);
        assert_regex("^a$", &["a"], &["ab", "a\n"]);
        assert_regex("(?i)gpt", &["GPT", "gPt"], &["gpt5"]);
        assert_regex("", &[""], &["a"]);
        assert_regex(".", &["a"], &["\n", "ab", "é"]);
    }

    #[test]
    fn perl_classes_are_ascii() {
        assert_regex(r"\d+", &["12"], &["٣"]);
        assert_regex(r"\w+", &["a_1"], &["é"]);
        assert_regex(r"\W", &["-"], &["a"]);
        assert_regex(r"\W\W", &["é"], &["é-"]);
        assert_regex(r"[\w.-]+", &["gpt-4.1_x"], &["é", "a b"]);
        assert_regex(r"[^\s]+", &["a\u{a0}b"], &["a b"]);
        assert_regex(r"[\D]+", &["٣"], &["3"]);
        assert_regex(r"a\b.b", &["a b"], &["aab"]);
    }

    #[test]
    fn what_stands_for_itself_in_re2_does_here() {
        assert_regex("[[a]", &["[", "a"], &["b"]);
        assert_regex("[a&&b]", &["a", "&", "b"], &["c"]);
        assert_regex("[a~~b]", &["~"], &["c"]);
        assert_regex("[]a]", &["]", "a"], &["b"]);
        assert_regex("[^]a]", &["b"], &["]", "a"]);
        assert_regex("[[:alpha:]_]+", &["a_"], &["1"]);
        assert_regex(r"\<a\>", &["<a>"], &["a"]);
        assert_regex("a{", &["a{"], &["a"]);
        assert_regex("a{,2}", &["a{,2}"], &["a"]);
        assert_regex("{a}", &["{a}"], &["a"]);
        assert_regex("a]", &["a]"], &["a"]);
        assert_regex("a{2,}", &["aa", "aaa"], &["a"]);
        assert_regex(r"\Qa.b\E.", &["a.bc"], &["axbc"]);
        assert_regex(r"\x{c3}\x{a9}\pL\p{Latin}", &["éaa"], &["éa1", "éaα"]);
        assert_regex("(?P<n>a)(?<m>b)(?:c)(?s:.)", &["abc\n"], &["abc"]);
        assert_regex(r"\C\C", &["é"], &["e"]);
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for expression in [
            "(",
            ")",
            "a)(b",
            "[a",
            "*",
            r"\",
            "(?x)a #",
            "(?u)a",
            "(?=a)",
            "(?!a)",
            "(?R)a",
            r"\u0061",
            r"\1",
            "a{1001}",
            "a{1,9999999999999}",
            r"[\z]",
        ] {
            assert!(compile(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn cost_is_bounded() {
        let error = compile("((a{100}){100}){100}").unwrap_err();
        assert_eq!(error.reason, "compiled it would take more than 1048576 bytes");
        assert!(compile(&"(".repeat(4000)).is_err());
        assert!(compile(&"a".repeat(5000)).unwrap_err().to_string().len() < 400);
    }
}

mod hosts {
    use super::*;

    fn serve(names: &[&'static str], authority: &str) -> Option<&'static str> {
        let (hosts, errors) = Hosts::new(names.iter().map(|name| ((*name).to_owned(), *name)));
        assert_eq!(errors, []);
        hosts.find(authority).copied()
    }

    #[test]
    fn the_most_specific_name_serves() {
        let names = ["*", "*.com", "*.example.com", "api.example.com", "*.api.example.com"];
        for (authority, expected) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM:8080", "api.example.com"),
            ("x.api.example.com", "*.api.example.com"),
            ("x.y.example.com", "*.example.com"),
            ("example.com", "*.com"),
            (".com", "*"),
            ("com", "*"),
            ("", "*"),
            ("[::1]:80", "*"),
            ("a.com.", "*"),
        ] {
            assert_eq!(serve(&names, authority), Some(expected), "{authority}");
        }
        assert_eq!(serve(&names[2..], "a.org"), None);
    }

    #[test]
    fn ports_are_cut_off() {
        assert_eq!(serve(&["[::1]"], "[::1]:80"), Some("[::1]"));
        assert_eq!(serve(&["[::1]"], "[::1]"), Some("[::1]"));
        assert_eq!(serve(&["a"], "a:80"), Some("a"));
        assert_eq!(serve(&["a"], "a:"), Some("a"));
    }

    #[test]
    fn names_must_be_names_and_different() {
        for name in ["", "*a", "a.*", "*.", "*.*", "*.a*", "a*b"] {
            let (hosts, errors) = Hosts::new([(name.to_owned(), ())]);
            assert_eq!((errors, hosts.find(name)), (vec![HostError::Invalid(name.to_owned())], None));
        }
        for (a, b) in [("a", "A"), ("*.a", "*.A"), ("*", "*")] {
            let (hosts, errors) = Hosts::new([(a.to_owned(), 1), (b.to_owned(), 2)]);
            assert_eq!(
                (errors, hosts.find("x.a").or_else(|| hosts.find("a"))),
                (vec![HostError::Duplicate(b.to_owned())], Some(&1))
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_trying_every_name(
            names in prop::collection::btree_set(prop_oneof![Just("*".to_owned()), "(\\*\\.)?[ab](\\.[ab]){0,2}"], 0..6),
            host in "[abAB.]{0,6}(:80)?",
        ) {
            let (table, errors) = Hosts::new(names.iter().map(|name| (name.clone(), name.clone())));
            prop_assert_eq!(errors, []);
            let bare = host.trim_end_matches(":80").to_lowercase();
            let serves = |name: &&String| match name.strip_prefix('*') {
                Some(suffix) => bare.ends_with(suffix) && bare.len() > suffix.len() || suffix.is_empty(),
                None => **name == bare,
            };
            // Exact before wildcards, longer before shorter.
            let best = names.iter().filter(serves).max_by_key(|name| (!name.starts_with('*'), name.len()));
            prop_assert_eq!(table.find(&host), best);
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_trying_every_entry(
        entries in prop::collection::vec(
            prop::collection::vec(
                (
                    prop::sample::select(vec![INDEX, "x-a", "x-b"]),
                    any::<bool>(),
                    prop::sample::select(vec!["", "a", "b", "ab", "a|b", "a,b", "a.*", "[ab]+"]),
                ),
                0..3,
            ),
            0..12,
        ),
        headers in prop::collection::vec(
            (prop::sample::select(vec![INDEX, "x-a", "x-b"]), prop::sample::select(vec!["", "a", "b", "ab", "c"])),
            0..4,
        ),
    ) {
        let header = lookup(&headers);
        let holds = |(name, is_regex, value): &Plain<'_>| header(name).iter().any(|found| match is_regex {
            false => *found == value.as_bytes(),
            true => ::regex::bytes::Regex::new(&format!("^(?:{value})$")).unwrap().is_match(found),
        });
        let expected = entries.iter().position(|entry| entry.iter().all(holds));
        prop_assert_eq!(find(&entries, &headers), expected);
    }

    #[test]
    fn hostile_expressions_never_panic(expression in prop_oneof!["\\PC{0,12}", "[\\\\\\[\\](){}^?*+|a-c0-9dwsbQE:&~,<>P]{0,16}"], value in any::<Vec<u8>>()) {
        if let Ok(compiled) = compile(&expression) {
            let _ = compiled.is_match(&value);
        }
    }
}

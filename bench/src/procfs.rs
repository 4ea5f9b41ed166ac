//! What a process costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time (user and system) of all threads so far. `schedstat` counts nanoseconds; where a kernel has none, `stat` and
/// its ticks have to do.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { return ticks(pid) };
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    if sum == 0 { ticks(pid) } else { Ok(Duration::from_nanos(sum)) }
}

fn ticks(pid: u32) -> anyhow::Result<Duration> {
    /// `getconf CLK_TCK` of every Linux that this runs on.
    const PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((field(11) + field(12)) * 1000 / PER_SECOND))
}

/// Resident memory in bytes.
pub fn rss(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// A process that this one started.
pub fn child(pid: u32) -> anyhow::Result<u32> {
    let mut children = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        children += &fs::read_to_string(task?.path().join("children")).unwrap_or_default();
    }
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("it has no child")
}

/// Cores and model of the processor.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']))
}

/// The load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

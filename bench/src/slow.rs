//! Many slow streams at once: what a processor adds to the first event and to the time between two.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use memchr::memmem;
use tokio::task::JoinSet;

use crate::load::{Call, Connection};
use crate::procfs;
use crate::provider::{self, EVENTS, GAP, SENT};
use crate::rig::{Listener, Rig};

/// 20 events a second.
const GAP_MS: u64 = 50;

/// What the streams through one listener came to; times in milliseconds.
#[derive(Debug)]
pub struct Slow {
    pub listener: Listener,
    pub events: usize,
    pub first_p50: f64,
    pub first_p99: f64,
    /// From the provider's writing an event to the client's having it.
    pub delay_p50: f64,
    pub delay_p99: f64,
    pub gap_p50: f64,
    pub gap_p99: f64,
    /// CPU microseconds an event.
    pub envoy: f64,
    pub processor: f64,
    /// Of the processor, with all streams open.
    pub rss: u64,
}

#[derive(Default)]
struct Times {
    first: Vec<u64>,
    delay: Vec<u64>,
    gap: Vec<u64>,
}

pub async fn measure(rig: &Rig, listener: Listener, streams: usize, seconds: u64) -> anyhow::Result<Slow> {
    let mut call = Call::chat(80, true);
    let events = seconds * 1000 / GAP_MS;
    call.headers = vec![(GAP, GAP_MS.to_string()), (EVENTS, events.to_string())];
    let call = Rc::new(call);
    let envoy = rig.envoy.pid();
    let processor = rig.processor(listener);
    let cpu = |pid: Option<u32>| pid.map_or(Ok(Duration::ZERO), procfs::cpu);
    let before = (cpu(Some(envoy))?, cpu(processor)?);

    let mut clients = JoinSet::new();
    for index in 0..streams {
        let mut connection = Connection::open(rig.address(listener)).await?;
        let call = Rc::clone(&call);
        // Spread over one second: users do not start at the same moment.
        let delay = Duration::from_millis(1000 * index as u64 / streams as u64);
        clients.spawn_local(async move {
            tokio::time::sleep(delay).await;
            stream(&mut connection, &call).await
        });
    }
    tokio::time::sleep(Duration::from_millis(500 + seconds * 500)).await;
    let rss = processor.map_or(Ok(0), procfs::rss)?;
    let mut all = Times::default();
    while let Some(times) = clients.join_next().await {
        let times = times??;
        all.first.extend(times.first);
        all.delay.extend(times.delay);
        all.gap.extend(times.gap);
    }
    let after = (cpu(Some(envoy))?, cpu(processor)?);
    let count = all.delay.len();
    let each = |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / count as f64;
    let [first, delay, gap] = [all.first, all.delay, all.gap].map(quantiles);
    Ok(Slow {
        listener,
        events: count,
        first_p50: first.0,
        first_p99: first.1,
        delay_p50: delay.0,
        delay_p99: delay.1,
        gap_p50: gap.0,
        gap_p99: gap.1,
        envoy: each(before.0, after.0),
        processor: each(before.1, after.1),
        rss,
    })
}

async fn stream(connection: &mut Connection, call: &Call) -> anyhow::Result<Times> {
    let mut times = Times::default();
    let start = Instant::now();
    let mut body = connection.send(call).await?.into_body();
    let mut last = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // `[DONE]` comes right after the last event.
        let Some(at) = memmem::find(&data, SENT.as_bytes()) else { continue };
        let digits = data[at + SENT.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let sent = digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        times.delay.push(provider::now().saturating_sub(sent));
        let now = Instant::now();
        match last.replace(now) {
            None => times.first.push(micros(now - start)),
            Some(last) => times.gap.push(micros(now - last)),
        }
    }
    Ok(times)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// p50 and p99 in milliseconds.
fn quantiles(mut values: Vec<u64>) -> (f64, f64) {
    values.sort_unstable();
    let at = |quantile: f64| {
        let index = (values.len().saturating_sub(1) as f64 * quantile).round() as usize;
        values.get(index).copied().unwrap_or_default() as f64 / 1000.0
    };
    (at(0.5), at(0.99))
}

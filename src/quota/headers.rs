//! What answers say of a client's limits, in headers that OpenAI's and Anthropic's clients read.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Counted, Limit, Reading};
use crate::endpoint::Dialect;

/// Says how many tokens an answer may have, where a policy has lowered that or set it in the first place.
pub const CLAMPED: &str = "x-aigw-output-clamped";

/// Providers and the gateway say under these what they count for requests and tokens: the provider's own limits are none of the
/// client's business.
pub const PREFIXES: [&str; 2] = ["x-ratelimit-", "anthropic-ratelimit-"];

/// The headers that tell of limits on requests and on tokens: of each kind, the one with the least left. Limits of other kinds, shadow
/// ones and those without a window are not told of. `now` is the store's time.
pub fn headers<'a>(
    dialect: Dialect,
    readings: impl IntoIterator<Item = (&'a Arc<Limit>, &'a Reading)>,
    now: u64,
) -> Vec<(&'static str, String)> {
    let (mut requests, mut tokens) = (None, None);
    for (limit, reading) in readings.into_iter().filter(|(limit, _)| !limit.shadow) {
        let tightest = match limit.counted() {
            Counted::Requests => &mut requests,
            Counted::Tokens => &mut tokens,
            Counted::Units | Counted::Money(_) | Counted::InFlight => continue,
        };
        if tightest.is_none_or(|known: &Reading| reading.remaining() < known.remaining()) {
            *tightest = Some(reading);
        }
    }
    let mut told = Vec::with_capacity(12);
    for (reading, openai, anthropic) in [
        (
            requests,
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
        ),
        (
            tokens,
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
            [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
        ),
    ] {
        let Some(reading) = reading else { continue };
        let (amount, remaining) = (reading.amount.to_string(), reading.remaining().to_string());
        if dialect == Dialect::Anthropic {
            let values = [amount.clone(), remaining.clone(), moment(reading.resets_at.max(now))];
            told.extend(anthropic.into_iter().zip(values));
        }
        told.extend(openai.into_iter().zip([amount, remaining, duration(until(reading, now))]));
    }
    told
}

/// How long it is until a bucket has something back, in milliseconds.
pub(super) fn until(reading: &Reading, now: u64) -> u64 {
    reading.resets_at.saturating_sub(now)
}

/// A length of time as OpenAI writes it: `12ms`, `1s`, `6m0s`, `25h0m0s`. Seconds are rounded up.
pub(super) fn duration(milliseconds: u64) -> String {
    if milliseconds > 0 && milliseconds < 1_000 {
        return format!("{milliseconds}ms");
    }
    let seconds = milliseconds.div_ceil(1_000);
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A moment in whole seconds, in UTC: `2026-11-24T00:30:00Z`. Rounded up, so that it is not too early.
pub(super) fn moment(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds.div_ceil(1_000)).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "never".to_owned(), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (milliseconds, text) in [
            (0, "0s"),
            (12, "12ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (360_000, "6m0s"),
            (3_599_001, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
        assert_eq!(moment(1_795_480_199_001), "2026-11-24T00:30:00Z");
        assert_eq!(moment(u64::MAX), "never");
    }
}

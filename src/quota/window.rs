//! When what is spent is forgotten: windows as they are configured, and the one a moment falls into.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp, ToSpan};

use super::Window;

/// The shortest window, in milliseconds.
pub const MIN_LENGTH: u64 = 1_000;

/// The longest window that is not the calendar's, in milliseconds: 366 days.
pub const MAX_LENGTH: u64 = 366 * 24 * 3_600_000;

/// The windows of a limit. Which one a moment falls into depends on that moment only, so that all processors agree.
#[derive(Clone, PartialEq)]
pub enum WindowRule {
    /// Nothing is spent: what is held counts, and nothing else.
    InFlight,
    /// Windows of that many milliseconds, each beginning at a whole multiple since the Unix epoch: hours and days are those of UTC.
    Fixed(u64),
    /// Windows of the calendar in a time zone.
    Calendar(Unit, Zone),
    /// The last so many milliseconds, at every moment.
    Rolling(u64),
}

/// A part of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the calendar")]
pub enum Unit {
    Minute,
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    Year,
}

/// A time zone of the IANA database, as it is built into the program.
#[derive(Clone, PartialEq)]
pub struct Zone(TimeZone);

/// A name that is none of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no time zone; write one of the IANA database, such as `Europe/Berlin`")]
pub struct UnknownZone {
    name: String,
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The time zone of that name.
    ///
    /// # Errors
    /// When the database has none of that name.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::UTC);
        }
        let found = TimeZoneDatabase::bundled().get(name);
        found.map(Self).map_err(|_| UnknownZone { name: name.chars().take(64).collect() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Every name there is, for suggestions.
    #[must_use]
    pub fn names() -> Vec<String> {
        TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect()
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for WindowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tag())
    }
}

impl Unit {
    /// Its name in tags and texts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// About how long it is, in milliseconds.
    fn nominal(self) -> u64 {
        const DAY: u64 = 24 * 3_600_000;
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
            Self::Year => 365 * DAY,
        }
    }

    /// The first day of the one that `date` is in, and what leads to the next.
    fn of(self, date: Date) -> Option<(Date, Span)> {
        Some(match self {
            Self::Minute | Self::Hour | Self::Day => (date, 1.day()),
            Self::Week => {
                let since_monday = i64::from(date.weekday().to_monday_zero_offset());
                (date.checked_sub(since_monday.days()).ok()?, 1.week())
            }
            Self::Month => (date.first_of_month(), 1.month()),
            Self::Year => (date.first_of_year(), 1.year()),
        })
    }
}

impl WindowRule {
    /// The window at a moment, in milliseconds since the Unix epoch. An aligned one contains the moment, and ends when the next
    /// one starts.
    #[must_use]
    pub fn at(&self, now: u64) -> Window {
        let (start, end, next_end) = match self {
            Self::InFlight => return Window::InFlight,
            Self::Rolling(length) => return Window::Rolling { length: *length },
            Self::Fixed(length) => fixed(*length, now),
            Self::Calendar(unit, zone) => {
                calendar(*unit, &zone.0, now).unwrap_or_else(|| fixed(unit.nominal(), now))
            }
        };
        Window::Aligned { start, end, next_end }
    }

    /// A word that tells windows of different kinds and lengths apart: part of the names of buckets, of ASCII letters, digits and
    /// `-` only.
    #[must_use]
    pub fn tag(&self) -> String {
        match self {
            Self::InFlight => "inflight".to_owned(),
            Self::Fixed(length) => length_text(*length),
            Self::Calendar(unit, zone) if zone == &Zone::UTC => unit.word().to_owned(),
            Self::Calendar(unit, zone) => {
                let place = zone.name().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
                format!("{}-{place}", unit.word())
            }
            Self::Rolling(length) => format!("rolling-{}", length_text(*length)),
        }
    }
}

/// For people.
impl fmt::Display for WindowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight => f.write_str("at the same time"),
            Self::Fixed(length) => write!(f, "in {}", length_text(*length)),
            Self::Calendar(unit, zone) => write!(f, "in a calendar {} ({})", unit.word(), zone.name()),
            Self::Rolling(length) => write!(f, "in any {}", length_text(*length)),
        }
    }
}

/// `90000` is `90s`.
fn length_text(length: u64) -> String {
    let seconds = length / 1_000;
    match seconds {
        _ if !length.is_multiple_of(1_000) || seconds == 0 => format!("{length}ms"),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

fn fixed(length: u64, now: u64) -> (u64, u64, u64) {
    let length = length.max(1);
    let start = now - now % length;
    let end = start.saturating_add(length);
    (start, end, end.saturating_add(length))
}

/// Nothing where the calendar ends (the year 9999).
fn calendar(unit: Unit, zone: &TimeZone, now: u64) -> Option<(u64, u64, u64)> {
    let moment = Timestamp::from_millisecond(i64::try_from(now).ok()?).ok()?;
    match unit {
        Unit::Minute | Unit::Hour => {
            let (start, end) = clock(unit, zone, moment)?;
            let (_, next_end) = clock(unit, zone, end)?;
            Some((millisecond(start)?, millisecond(end)?, millisecond(next_end)?))
        }
        Unit::Day | Unit::Week | Unit::Month | Unit::Year => {
            let (first, step) = unit.of(zone.to_datetime(moment).date())?;
            let (start, mut end) = (beginning(first, zone)?, now);
            let mut next = first;
            // A day that a zone has skipped has no length, and clocks may be set back from one day into the one before.
            while end <= now {
                next = next.checked_add(step).ok()?;
                end = beginning(next, zone)?;
            }
            let mut next_end = end;
            while next_end <= end {
                next = next.checked_add(step).ok()?;
                next_end = beginning(next, zone)?;
            }
            (start <= now).then_some((start, end, next_end))
        }
    }
}

/// The minute or hour that a clock in the zone shows. Where clocks are set by less than one, it ends then, and a new one begins.
fn clock(unit: Unit, zone: &TimeZone, moment: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let length = i64::try_from(unit.nominal()).ok()?;
    let offset = zone.to_offset(moment);
    let shift = i64::from(offset.seconds()) * 1_000;
    let local = moment.as_millisecond() + shift;
    let start = local - local.rem_euclid(length) - shift;
    let uneven = |other: Timestamp| {
        let difference = i64::from(zone.to_offset(other).seconds()) * 1_000 - shift;
        difference.rem_euclid(length) != 0
    };
    let (mut start, mut end) =
        (Timestamp::from_millisecond(start).ok()?, Timestamp::from_millisecond(start + length).ok()?);
    if uneven(start) {
        // The change itself counts to what comes after it.
        let just_after = Timestamp::from_millisecond(moment.as_millisecond() + 1).ok()?;
        start = zone.preceding(just_after).next().map_or(start, |change| change.timestamp().max(start));
    }
    if uneven(end) {
        end = zone.following(moment).next().map_or(end, |change| change.timestamp().min(end));
    }
    Some((start, end))
}

/// When a day begins.
fn beginning(date: Date, zone: &TimeZone) -> Option<u64> {
    millisecond(zone.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())).ok()?)
}

fn millisecond(moment: Timestamp) -> Option<u64> {
    // What began before the epoch began with it.
    u64::try_from(moment.as_millisecond().max(0)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(moment: &str) -> u64 {
        u64::try_from(moment.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn window(unit: Unit, zone: &str, moment: &str) -> [String; 3] {
        let rule = WindowRule::Calendar(unit, Zone::named(zone).unwrap());
        let Window::Aligned { start, end, next_end } = rule.at(at(moment)) else { panic!("not aligned") };
        [start, end, next_end]
            .map(|ms| Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap().to_string())
    }

    #[test]
    fn windows_of_a_length_begin_at_its_multiples() {
        let day = WindowRule::Fixed(86_400_000).at(at("2026-11-23T23:59:59.999Z"));
        let [start, end, next_end] =
            ["2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"].map(at);
        assert_eq!(day, Window::Aligned { start, end, next_end });
        assert_eq!(
            WindowRule::Fixed(60_000).at(59_999),
            Window::Aligned { start: 0, end: 60_000, next_end: 120_000 }
        );
        assert_eq!(WindowRule::Rolling(5).at(7), Window::Rolling { length: 5 });
        assert_eq!(WindowRule::InFlight.at(7), Window::InFlight);
    }

    #[test]
    fn calendar_windows_are_those_of_their_time_zone() {
        for (unit, zone, moment, expected) in [
            (
                Unit::Day,
                "Europe/Berlin",
                "2026-11-23T22:59:59Z",
                ["2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z", "2026-11-24T23:00:00Z"],
            ),
            // A week begins on Monday.
            (
                Unit::Week,
                "UTC",
                "2026-11-22T12:00:00Z",
                ["2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"],
            ),
            (
                Unit::Month,
                "America/New_York",
                "2026-03-31T23:00:00Z",
                ["2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z", "2026-05-01T04:00:00Z"],
            ),
            (
                Unit::Month,
                "UTC",
                "2028-02-29T00:00:00Z",
                ["2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z", "2028-04-01T00:00:00Z"],
            ),
            (
                Unit::Year,
                "Asia/Tokyo",
                "2026-12-31T14:59:59Z",
                ["2025-12-31T15:00:00Z", "2026-12-31T15:00:00Z", "2027-12-31T15:00:00Z"],
            ),
            (
                Unit::Hour,
                "Asia/Kolkata",
                "2026-01-01T00:00:00Z",
                ["2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z", "2026-01-01T01:30:00Z"],
            ),
            (
                Unit::Minute,
                "Asia/Kolkata",
                "2026-01-01T00:00:59Z",
                ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"],
            ),
        ] {
            assert_eq!(window(unit, zone, moment), expected, "{unit:?} {zone} {moment}");
        }
    }

    #[test]
    fn days_on_which_clocks_are_set_are_longer_or_shorter_and_leave_no_gap() {
        for (unit, zone, moment, expected) in [
            // 23 and 25 hours.
            (
                Unit::Day,
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                ["2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z"],
            ),
            (
                Unit::Day,
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z"],
            ),
            // Midnight is left out.
            (
                Unit::Day,
                "Africa/Cairo",
                "2025-04-25T12:00:00Z",
                ["2025-04-24T22:00:00Z", "2025-04-25T21:00:00Z", "2025-04-26T21:00:00Z"],
            ),
            // Midnight comes twice: the first one counts.
            (
                Unit::Day,
                "America/Havana",
                "2025-11-02T04:30:00Z",
                ["2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z", "2025-11-04T05:00:00Z"],
            ),
            (
                Unit::Day,
                "America/Havana",
                "2025-11-02T05:30:00Z",
                ["2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z", "2025-11-04T05:00:00Z"],
            ),
            // A whole day is left out.
            (
                Unit::Day,
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
            ),
            // Clocks are set by half an hour.
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-04-04T14:45:00Z",
                ["2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"],
            ),
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-04-04T15:00:00Z",
                ["2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z"],
            ),
        ] {
            assert_eq!(window(unit, zone, moment), expected, "{unit:?} {zone} {moment}");
        }
    }

    #[test]
    fn windows_of_different_kinds_have_different_tags() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let tags = [
            WindowRule::InFlight,
            WindowRule::Fixed(86_400_000),
            WindowRule::Fixed(90_000),
            WindowRule::Fixed(1_500),
            WindowRule::Rolling(86_400_000),
            WindowRule::Calendar(Unit::Day, Zone::UTC),
            WindowRule::Calendar(Unit::Day, berlin),
        ]
        .map(|rule| rule.tag());
        assert_eq!(tags, ["inflight", "1d", "90s", "1500ms", "rolling-1d", "day", "day-Europe-Berlin"]);
    }

    #[test]
    fn what_is_no_time_zone_is_refused() {
        assert_eq!(Zone::named("utc").unwrap(), Zone::UTC);
        for name in ["", "Mars/Olympus", "../etc/passwd", "Europe"] {
            assert!(Zone::named(name).is_err(), "{name}");
        }
        assert!(Zone::names().iter().any(|name| name == "Europe/Berlin"));
    }

    fn units() -> impl Strategy<Value = Unit> {
        prop::sample::select(vec![Unit::Minute, Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year])
    }

    proptest! {
        #[test]
        fn a_window_contains_its_moment_and_the_next_one_follows(
            unit in units(),
            zone in prop::sample::select(Zone::names()),
            now in 0_u64..4_102_444_800_000,
        ) {
            let rule = WindowRule::Calendar(unit, Zone::named(&zone).unwrap());
            let Window::Aligned { start, end, next_end } = rule.at(now) else { panic!("not aligned") };
            prop_assert!(start <= now && now < end && end < next_end, "{start} {now} {end} {next_end}");
            // All moments of a window agree about it, and it is followed by what it says.
            for moment in [start, end - 1] {
                prop_assert_eq!(rule.at(moment), Window::Aligned { start, end, next_end });
            }
            let Window::Aligned { start: next, end: next_ends, .. } = rule.at(end) else { panic!("not aligned") };
            prop_assert_eq!((next, next_ends), (end, next_end));
        }

        #[test]
        fn no_moment_is_too_far_away(unit in units(), length in any::<u64>(), now in any::<u64>()) {
            for rule in [WindowRule::Calendar(unit, Zone::UTC), WindowRule::Fixed(length)] {
                let Window::Aligned { start, end, .. } = rule.at(now) else { panic!("not aligned") };
                prop_assert!(start <= now && (now < end || end == u64::MAX));
            }
        }
    }
}

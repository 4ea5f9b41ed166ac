//! Logs in the form of Go's `log/slog`, for those whose log pipelines know the Go processor.

use std::fmt::{self, Write};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::logs::{Line, filter};

/// Starts logging to standard error as `log/slog` does. `level` is in its syntax: `debug`, `info`, `warn` or `error` in any
/// case, with an offset perhaps (`info+2`). The environment variable `RUST_LOG`, where set, goes first. Fails on a level that
/// cannot be read. A second call changes nothing.
///
/// The Go processor says nothing of single exchanges above level debug, nor does this.
pub fn init_slog(level: &str, format: LogFormat) -> Result<(), String> {
    let level = parse_level(level)?;
    let exchanges = if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::WARN) };
    let filter = filter(&format!(
        "{},ai_gateway={level},aigw={level},aigw::exchange={exchanges}",
        level.min(LevelFilter::WARN)
    ))?;
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Line).event_format(Slog(format));
    // Only the first call in a process can succeed.
    let _ = logs.try_init();
    Ok(())
}

/// Levels are numbers in Go, with room between them: debug -4, info 0, warn 4, error 8. What is logged is what is not below.
fn parse_level(text: &str) -> Result<LevelFilter, String> {
    let wrong = || {
        format!(
            "the log level {text:?} cannot be read; use debug, info, warn or error, or an offset to one: info+2"
        )
    };
    let sign = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(sign);
    let base = match name.to_ascii_lowercase().as_str() {
        "debug" => -4,
        "info" => 0,
        "warn" => 4,
        "error" => 8,
        _ => return Err(wrong()),
    };
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| wrong())? };
    Ok(match offset.saturating_add(base) {
        ..=-8 => LevelFilter::TRACE,
        -7..=-4 => LevelFilter::DEBUG,
        -3..=0 => LevelFilter::INFO,
        1..=4 => LevelFilter::WARN,
        5..=8 => LevelFilter::ERROR,
        9.. => LevelFilter::OFF,
    })
}

/// Writes one event a line: `time=… level=… msg=… key=value`, or the same as a JSON object.
struct Slog(LogFormat);

impl<S, N> FormatEvent<S, N> for Slog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = OffsetDateTime::now_utc();
        writeln!(writer, "{}", line(self.0, now, *event.metadata().level(), fields)?)
    }
}

fn line(format: LogFormat, now: OffsetDateTime, level: Level, fields: Fields) -> Result<String, fmt::Error> {
    let milliseconds = now.replace_millisecond(now.millisecond()).map_err(|_| fmt::Error)?;
    let time = milliseconds.format(&Rfc3339).map_err(|_| fmt::Error)?;
    let level = match level {
        Level::TRACE => "DEBUG-4",
        Level::DEBUG => "DEBUG",
        Level::INFO => "INFO",
        Level::WARN => "WARN",
        Level::ERROR => "ERROR",
    };
    let Fields { message, members } = fields;
    let first = [("time", time.into()), ("level", level.into()), ("msg", message.into())];
    let first = first.map(|(name, value): (&str, Value)| (name.to_owned(), value));
    let members = first.into_iter().chain(members);
    match format {
        LogFormat::Json => Ok(Value::Object(members.collect::<Map<_, _>>()).to_string()),
        LogFormat::Text => {
            let mut text = String::new();
            for (name, value) in members {
                let between = if text.is_empty() { "" } else { " " };
                let value = match value {
                    Value::String(value) => quoted(value),
                    other => other.to_string(),
                };
                write!(text, "{between}{}={value}", quoted(name))?;
            }
            Ok(text)
        }
    }
}

/// A text that cannot be taken for several, nor for the end of its line, stays as it is.
fn quoted(text: String) -> String {
    let plain = |c: char| c != '"' && c != '=' && c != '\\' && !c.is_whitespace() && !c.is_control();
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("{text:?}") }
}

#[derive(Default)]
struct Fields {
    message: String,
    members: Vec<(String, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.members.push((field.name().trim_start_matches("r#").to_owned(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.add(field, format!("{value:?}").into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.add(field, value.into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_read_as_go_reads_them() {
        for (text, level) in [
            ("info", LevelFilter::INFO),
            ("DEBUG", LevelFilter::DEBUG),
            ("Warn", LevelFilter::WARN),
            ("error", LevelFilter::ERROR),
            ("info+2", LevelFilter::WARN),
            ("info-1", LevelFilter::INFO),
            ("INFO-4", LevelFilter::DEBUG),
            ("debug-4", LevelFilter::TRACE),
            ("error+1", LevelFilter::OFF),
        ] {
            assert_eq!(parse_level(text), Ok(level), "{text}");
        }
        for wrong in ["", "verbose", "info+", "info+x", "+2", "warning", "info +2"] {
            assert!(parse_level(wrong).unwrap_err().contains("info+2"), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_that_of_slog() {
        let fields = || Fields {
            message: "configuration loaded".to_owned(),
            members: vec![
                ("path".to_owned(), json!("/etc/a.yaml")),
                ("count".to_owned(), json!(3)),
                ("empty".to_owned(), json!("")),
                ("said".to_owned(), json!("a=\"b\"\nnext")),
            ],
        };
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap();
        let text = line(LogFormat::Text, now, Level::INFO, fields()).unwrap();
        let expected = r#"time=2023-11-14T22:13:20.123Z level=INFO msg="configuration loaded" path=/etc/a.yaml count=3 empty="" said="a=\"b\"\nnext""#;
        assert_eq!(text, expected);
        let json: Value =
            serde_json::from_str(&line(LogFormat::Json, now, Level::WARN, fields()).unwrap()).unwrap();
        assert_eq!(
            (&json["level"], &json["msg"], &json["count"]),
            (&json!("WARN"), &json!("configuration loaded"), &json!(3))
        );
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
    }
}

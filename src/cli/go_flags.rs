//! The syntax of Go's `flag` package: `-name value`, `-name=value` and the same with two dashes; a boolean is `-name` or
//! `-name=true`. The first argument that is no flag, or `--`, ends them. Durations are sums such as `1m30s`.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// Flags that take a value only after an equals sign.
const BOOLEANS: [&str; 3] = ["enableRedaction", "help", "version"];

/// The same arguments as clap reads them: two dashes, and each value behind an equals sign, whatever it begins with.
pub(super) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut translated: Vec<_> = arguments.next().into_iter().collect();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.to_str().and_then(flag) else {
            translated.push(argument);
            break;
        };
        let mut long = OsString::from(format!("--{flag}"));
        if !flag.contains('=')
            && !BOOLEANS.contains(&flag)
            && let Some(value) = arguments.next()
        {
            long.push(OsStr::new("="));
            long.push(value);
        }
        translated.push(long);
    }
    translated.extend(arguments);
    translated
}

/// The arguments of `aigw`, where those of `aigw controller` may have one dash, as Go's controller has it.
pub(super) fn of_controller(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|command| command == "controller") {
        for argument in arguments.iter_mut().skip(2) {
            // Of ours, those with one dash have one letter.
            let long = |flag: &str| flag.len() > 1 && flag.starts_with(|c: char| c.is_ascii_lowercase());
            if argument.to_str().and_then(|argument| argument.strip_prefix('-')).is_some_and(long) {
                let mut two = OsString::from("-");
                two.push(&*argument);
                *argument = two;
            }
        }
    }
    arguments
}

/// The name, and the value if there is one, of an argument that is a flag.
fn flag(argument: &str) -> Option<&str> {
    let flag = argument.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    match flag {
        "h" => Some("help"),
        _ => (!flag.is_empty() && !flag.starts_with(['-', '='])).then_some(flag),
    }
}

/// A boolean in Go's spellings.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// A duration in Go's form: decimal numbers with the units `h`, `m`, `s`, `ms`, `us` and `ns`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration such as 500ms, 15s or 2m30s".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn translated(arguments: &[&str]) -> Vec<String> {
        let arguments = translate(arguments.iter().map(OsString::from));
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn flags_get_two_dashes_and_their_values() {
        let arguments =
            ["extproc", "-configPath", "a.yaml", "--adminPort=0", "--rootPrefix", "-odd", "-enableRedaction"];
        let expected =
            ["extproc", "--configPath=a.yaml", "--adminPort=0", "--rootPrefix=-odd", "--enableRedaction"];
        assert_eq!(translated(&arguments), expected);
        assert_eq!(
            translated(&["x", "-enableRedaction=false", "-mcpAddr", ""]),
            ["x", "--enableRedaction=false", "--mcpAddr="]
        );
        assert_eq!(translated(&["x", "-h"]), ["x", "--help"]);
        assert_eq!(translated(&["x", "-configPath"]), ["x", "--configPath"]);
    }

    #[test]
    fn the_controllers_flags_may_have_one_dash() {
        let translated = |arguments: &[&str]| {
            let arguments = of_controller(arguments.iter().map(OsString::from));
            arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            translated(&["aigw", "controller", "-logLevel", "debug", "--admin", ":1", "-h", "-V", "-"]),
            ["aigw", "controller", "--logLevel", "debug", "--admin", ":1", "-h", "-V", "-"]
        );
        assert_eq!(translated(&["aigw", "run", "-logLevel"]), ["aigw", "run", "-logLevel"]);
    }

    #[test]
    fn what_is_no_flag_ends_them() {
        assert_eq!(translated(&["-odd-name"]), ["-odd-name"]);
        for end in ["--", "-", "word", "---x", "-="] {
            assert_eq!(translated(&["x", end, "-configPath", "a"]), ["x", end, "-configPath", "a"]);
        }
    }

    #[test]
    fn durations_are_sums() {
        for (text, milliseconds) in [
            ("0", 0),
            ("2m0s", 120_000),
            ("1h1m1s1ms", 3_661_001),
            ("1.5s", 1500),
            (".5m", 30_000),
            ("+100ms", 100),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("3us"), Ok(Duration::from_micros(3)));
        for wrong in ["", "+", "-1s", "1", "s", "1.1.1s", "1s ", "1d", "99999999999999999999h"] {
            duration(wrong).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_not(text in "[0-9.hmsun+-]{0,12}|\\PC{0,12}") {
            let _ = duration(&text);
        }
    }
}

//! The syntax of Go's `flag` package: `-name value`, `-name=value` and the same with two dashes; a boolean is `-name` or
//! `-name=true`. The first argument that is no flag, or `--`, ends them.

use std::ffi::OsString;

/// The same arguments with two dashes, as clap reads them.
pub(super) fn translate(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.into_iter().enumerate().map(|(index, argument)| match argument.to_str() {
        Some(text) if index > 0 && is_single_dash_flag(text) => format!("-{text}").into(),
        _ => argument,
    })
}

fn is_single_dash_flag(text: &str) -> bool {
    // `-h` is the one short option there is; a negative number is a value.
    text.strip_prefix('-')
        .is_some_and(|name| name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(arguments: &[&str]) -> Vec<String> {
        translate(arguments.iter().map(OsString::from))
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn one_dash_becomes_two() {
        let arguments =
            ["extproc", "-configPath", "a.yaml", "--adminPort=0", "-enableRedaction=true", "-h", "-1", "-"];
        let expected =
            ["extproc", "--configPath", "a.yaml", "--adminPort=0", "--enableRedaction=true", "-h", "-1", "-"];
        assert_eq!(translated(&arguments), expected);
    }

    #[test]
    fn the_program_name_is_left_alone() {
        assert_eq!(translated(&["-odd-name"]), ["-odd-name"]);
    }
}

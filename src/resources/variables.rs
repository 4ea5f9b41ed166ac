//! `${NAME}` and `${NAME:-default}` in strings.
//!
//! Substitution happens after parsing, in one string at a time, so what a variable holds can never change a document's
//! structure. `$${` stands for `${`. What is inserted is not searched again.

use super::schema::Variables;

/// Where values come from; `None` means not set.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a string cannot be completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The variable is not set and has no default.
    Unset(String),
    /// What follows `${` is not a name with an optional default.
    Malformed,
}

/// The string with its variables replaced, or `None` if there is nothing to replace.
pub(super) fn substitute(
    text: &str,
    mode: Variables,
    environment: Environment<'_>,
) -> Result<Option<String>, Problem> {
    if mode == Variables::Literal || !text.contains("${") {
        return Ok(None);
    }
    let lenient = mode == Variables::Lenient;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        let (body, after) = match tail[2..].split_once('}') {
            _ if before.ends_with('$') => {
                out.push_str(before);
                out.push('{');
                rest = &tail[2..];
                continue;
            }
            Some(parts) => parts,
            None if lenient => break,
            None => return Err(Problem::Malformed),
        };
        out.push_str(before);
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        // A default that starts another reference would end at the wrong brace.
        match (is_name(name) && !default.is_some_and(|text| text.contains("${")), default) {
            (true, _) => match environment(name).filter(|value| default.is_none() || !value.is_empty()) {
                Some(value) => out.push_str(&value),
                None => match default {
                    Some(default) => out.push_str(default),
                    None if lenient => out.push_str(&tail[..body.len() + 3]),
                    None => return Err(Problem::Unset(name.to_owned())),
                },
            },
            (false, _) if lenient => out.push_str(&tail[..body.len() + 3]),
            (false, _) => return Err(Problem::Malformed),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

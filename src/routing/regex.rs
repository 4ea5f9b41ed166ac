//! L1. RE2 expressions by means of the `regex` crate.
//!
//! Both are linear in time and share most of their syntax. Where they differ, an expression is rewritten to mean what RE2
//! makes of it (<https://github.com/google/re2/wiki/Syntax>):
//!
//! - `\d`, `\s`, `\w`, `\b` and their negations know ASCII only;
//! - in a class, `[`, `&` and `~` stand for themselves;
//! - `\<` and `\>` are the characters, not edges of words;
//! - `\Q…\E` quotes, `\C` is any byte.
//!
//! Envoy gives RE2 neither expressions nor values as UTF-8: each *byte* is a character, of Latin-1. `.` therefore takes one
//! byte of `é`, a class that holds `é` holds its two bytes, and a value that is not UTF-8 is a value as any other. Both
//! sides are brought to that form here, written as UTF-8 for the library.
//!
//! What RE2 does not know is refused: flags other than `imsU`, counts above 1000. Known to remain: RE2 refuses some
//! expressions that pass here (`a**`, unknown scripts in `\p{…}`), which Envoy then rejects with its whole configuration.

use std::borrow::Cow;

use ::regex::bytes::{Regex, RegexBuilder};

/// The largest memory one compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// The deepest nesting of groups.
const NEST_LIMIT: u32 = 100;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 4096;

/// Stands before every expression, so that it is to match from the beginning, ...
const PREFIX: &str = r"\A(?:";

/// ... and behind it, so that it is to match to the end.
const SUFFIX: &str = r")\z";

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the regular expression `{expression}` cannot be used: {reason}")]
pub struct RegexError {
    /// The expression as configured, shortened if it is very long.
    pub expression: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An expression that matches whole values, or does not.
#[derive(Debug, Clone)]
pub(super) struct Expression(Regex);

impl Expression {
    /// In the syntax of the `regex` crate, over whole values.
    pub(super) fn pattern(&self) -> &str {
        self.0.as_str()
    }

    /// [`Expression::pattern`] without what makes it one over whole values.
    pub(super) fn source(&self) -> &str {
        let pattern = self.pattern();
        pattern.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).unwrap_or(pattern)
    }

    pub(super) fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(&latin1(value))
    }
}

/// Bytes taken as Latin-1, in UTF-8. ASCII is the same in both.
fn latin1(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes())
}

/// Compiles an expression that is to match whole values.
pub(super) fn compile(expression: &str) -> Result<Expression, RegexError> {
    let fail = |reason: String| {
        let mut expression: String = expression.chars().take(200).collect();
        if expression.len() == 200 {
            expression.push('…');
        }
        RegexError { expression, reason }
    };
    if expression.len() > MAX_LENGTH {
        return Err(fail(format!("it is longer than {MAX_LENGTH} bytes")));
    }
    let as_latin1: String = expression.bytes().map(char::from).collect();
    let rewritten = rewrite(&as_latin1).map_err(|reason| fail(reason.to_owned()))?;
    RegexBuilder::new(&format!("{PREFIX}{rewritten}{SUFFIX}"))
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map(Expression)
        .map_err(|error| fail(reason(&error)))
}

/// The last line of the library's report: the others draw the (rewritten) expression.
fn reason(error: &::regex::Error) -> String {
    match error {
        ::regex::Error::CompiledTooBig(limit) => format!("compiled it would take more than {limit} bytes"),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// Writes an RE2 expression in the syntax of the `regex` crate.
fn rewrite(expression: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression;
    // In a class: whether its first item is still to come, where `]` stands for itself.
    let mut class: Option<bool> = None;
    let mut groups = 0_usize;
    while let Some(next) = rest.chars().next() {
        let tail = &rest[next.len_utf8()..];
        let first = class == Some(true);
        if first {
            class = Some(false);
        }
        rest = match next {
            '\\' => escape(tail, class.is_some(), &mut out)?,
            '[' if class.is_none() => {
                class = Some(true);
                out.push('[');
                let negated = tail.strip_prefix('^');
                out.push_str(if negated.is_some() { "^" } else { "" });
                negated.unwrap_or(tail)
            }
            '[' if tail.starts_with(':') => match tail.find(":]") {
                Some(end) => {
                    out.push('[');
                    out.push_str(&tail[..end + 2]);
                    &tail[end + 2..]
                }
                None => {
                    out.push_str(r"\[");
                    tail
                }
            },
            '[' | '&' | '~' if class.is_some() => {
                out.push('\\');
                out.push(next);
                tail
            }
            ']' if first => {
                out.push_str(r"\]");
                tail
            }
            ']' => {
                // Outside of a class it stands for itself in both.
                class = None;
                out.push(']');
                tail
            }
            '(' if class.is_none() => {
                check_flags(tail)?;
                groups += 1;
                out.push('(');
                tail
            }
            ')' if class.is_none() => {
                // The group around the whole expression must not be closed by it.
                groups = groups.checked_sub(1).ok_or("unopened group")?;
                out.push(')');
                tail
            }
            '{' if class.is_none() => {
                out.push_str(if is_repetition(tail)? { "{" } else { r"\{" });
                tail
            }
            _ => {
                out.push(next);
                tail
            }
        };
    }
    Ok(out)
}

/// Writes what follows a backslash and returns the rest after it.
fn escape<'a>(tail: &'a str, in_class: bool, out: &mut String) -> Result<&'a str, &'static str> {
    let Some(next) = tail.chars().next() else { return Err("it ends in a backslash") };
    let rest = &tail[next.len_utf8()..];
    let ascii = match next {
        'd' => "0-9",
        's' => r"\t\n\x0C\r ",
        'w' => "0-9A-Za-z_",
        'D' => "^0-9",
        'S' => r"^\t\n\x0C\r ",
        'W' => "^0-9A-Za-z_",
        'b' | 'B' if !in_class => {
            out.push_str("(?-u:\\");
            out.push(next);
            out.push(')');
            return Ok(rest);
        }
        'C' if !in_class => {
            out.push_str("(?s:.)");
            return Ok(rest);
        }
        'Q' if !in_class => {
            let (quoted, rest) = rest.split_once(r"\E").unwrap_or((rest, ""));
            out.push_str(&::regex::escape(quoted));
            return Ok(rest);
        }
        '<' | '>' => {
            out.push(next);
            return Ok(rest);
        }
        'x' | 'p' | 'P' if rest.starts_with('{') => {
            // These braces are no repetition.
            let end = rest.find('}').ok_or("a brace after a backslash is not closed")? + 1;
            out.push('\\');
            out.push(next);
            out.push_str(&rest[..end]);
            return Ok(&rest[end..]);
        }
        'z' | 'A' if in_class => return Err("`\\A` and `\\z` have no meaning in a class"),
        'u' | 'U' => return Err("`\\u` is not known; write `\\x{…}`"),
        _ => {
            out.push('\\');
            out.push(next);
            return Ok(rest);
        }
    };
    // A class within a class is one more item of it.
    out.push('[');
    out.push_str(ascii);
    out.push(']');
    Ok(rest)
}

/// Refuses flags that RE2 does not have, after an opening bracket.
fn check_flags(after: &str) -> Result<(), &'static str> {
    let Some(flags) = after.strip_prefix('?') else { return Ok(()) };
    if flags.starts_with('<') || flags.starts_with("P<") {
        return Ok(());
    }
    let end = flags.find([':', ')']).unwrap_or(flags.len());
    if flags[..end].chars().all(|flag| "imsU-".contains(flag)) {
        Ok(())
    } else {
        Err("of groups that begin with `(?`, only names and the flags i, m, s and U are known")
    }
}

/// Whether a brace begins a repetition; if not, it stands for itself.
fn is_repetition(after: &str) -> Result<bool, &'static str> {
    let Some((counts, _)) = after.split_once('}') else { return Ok(false) };
    let (min, max) = counts.split_once(',').unwrap_or((counts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if min.is_empty() || !digits(min) || !digits(max) {
        return Ok(false);
    }
    let small = |text: &str| text.is_empty() || text.parse::<u32>().is_ok_and(|count| count <= 1000);
    if small(min) && small(max) { Ok(true) } else { Err("a repetition may be of 1000 at most") }
}

//! L5. What is wrong with the user's files, said so that they can mend it: what, where, in which field, and what to do.
//!
//! Nothing here decides what follows from an error; that is the command line's.

use std::{fmt, fmt::Write as _, sync::Arc};

use serde::Serialize;

#[cfg(test)]
mod tests;

/// How much of a source line is shown on each side of the place in question.
const SNIPPET_REACH: usize = 70;

/// Whether something keeps its document from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but something the user wrote has no effect.
    Warning,
}

/// A place in a file. Lines and columns count from one, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The file as the user named it, or a name such as `<stdin>`.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", Printable(&self.file), self.line, self.column)
    }
}

/// One finding. The builder methods fill in what is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Location>,
    /// `Kind namespace/name` (or `Kind name`) of the object it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The field, such as `spec.rules[0].matches[0].headers[1].name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The source line, for [`Diagnostic::render`]; never one that may hold a secret.
    #[serde(skip)]
    pub snippet: Option<String>,
}

impl Diagnostic {
    /// An error that says this.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// A warning that says this.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    fn new(severity: Severity, message: String) -> Self {
        Self { severity, message, at: None, resource: None, field: None, help: None, snippet: None }
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.at = Some(location);
        self
    }

    /// Adds the object, as `Kind namespace/name`.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Adds the field path.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the source line. The caller sees to it that the line holds no secret.
    #[must_use]
    pub fn snippet(mut self, line: impl Into<String>) -> Self {
        self.snippet = Some(line.into());
        self
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding as a block of lines, each ended by a line feed. Control characters are escaped, so that a file cannot
    /// drive the terminal.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint(colour);
        let (name, code) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let mut out = paint.put(code, name);
        out.push_str(&paint.put("1", &format!(": {}", Printable(&self.message))));
        out.push('\n');
        let mut gutter = String::new();
        if let Some(at) = &self.at {
            gutter = " ".repeat(at.line.to_string().len());
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{gutter}{} {at}", paint.put("1;34", "-->"));
            if let Some(snippet) = &self.snippet {
                out.push_str(&render_snippet(snippet, at, &paint, code));
            }
        }
        let bar = paint.put("1;34", "=");
        match (&self.resource, &self.field) {
            (Some(resource), Some(field)) => {
                let _ = writeln!(out, "{gutter} {bar} in {}: {}", Printable(resource), Printable(field));
            }
            (Some(only), None) | (None, Some(only)) => {
                let _ = writeln!(out, "{gutter} {bar} in {}", Printable(only));
            }
            (None, None) => {}
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{gutter} {bar} {}: {}", paint.put("1", "help"), Printable(help));
        }
        out
    }
}

fn render_snippet(line: &str, at: &Location, paint: &Paint, code: &str) -> String {
    let column = usize::try_from(at.column).unwrap_or(usize::MAX).saturating_sub(1);
    let chars: Vec<char> = line.chars().collect();
    let start = column.saturating_sub(SNIPPET_REACH).min(chars.len());
    let end = column.saturating_add(SNIPPET_REACH).min(chars.len());
    let mut shown = String::new();
    let mut marks = String::new();
    if start > 0 {
        shown.push('…');
        marks.push(' ');
    }
    let mut marking = false;
    for (index, char) in chars.iter().enumerate().take(end).skip(start) {
        let cell = if char.is_control() || is_bidi(*char) { '·' } else { *char };
        shown.push(if *char == '\t' { ' ' } else { cell });
        // The token that starts at the place is underlined: up to white space or the colon behind a key.
        let ends =
            char.is_whitespace() || (*char == ':' && chars.get(index + 1).is_none_or(|c| c.is_whitespace()));
        marking = index == column || (marking && !ends);
        marks.push(if marking { '^' } else { ' ' });
    }
    if end < chars.len() {
        shown.push('…');
    }
    if column >= end {
        marks.push('^');
    }
    let number = at.line.to_string();
    let gutter = " ".repeat(number.len());
    let bar = paint.put("1;34", "|");
    format!(
        "{gutter} {bar}\n{} {bar} {}\n{gutter} {bar} {}\n",
        paint.put("1;34", &number),
        shown.trim_end(),
        paint.put(code, marks.trim_end())
    )
}

/// Findings in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// No findings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether any is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|diagnostic| diagnostic.is_error())
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|diagnostic| !diagnostic.is_error())
    }

    /// All, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the findings in the order of the files: by place, those without one first.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| a.at.cmp(&b.at));
    }

    /// All as text, a blank line between two.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        self.0.iter().map(|diagnostic| diagnostic.render(colour)).collect::<Vec<_>>().join("\n")
    }

    /// All as a JSON array.
    #[must_use]
    pub fn render_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(findings: Vec<Diagnostic>) -> Self {
        Self(findings)
    }
}

impl From<Diagnostics> for Vec<Diagnostic> {
    fn from(findings: Diagnostics) -> Self {
        findings.0
    }
}

/// The name nearest to what was written, if it is near enough to be a slip. Case does not count.
#[must_use]
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    // Longer input is no slip of the pen, and the distance is quadratic.
    if written.chars().count() > 80 {
        return None;
    }
    let allowed = (written.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "did you mean …" if a name is near, otherwise the list of names.
#[must_use]
pub fn suggest<'a>(written: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = nearest(written, names.clone()) {
        return format!("did you mean `{name}`?");
    }
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => "no names are known here".to_owned(),
        [only] => format!("the only name known here is `{only}`"),
        _ => format!("known names: {}", names.join(", ")),
    }
}

struct Paint(bool);

impl Paint {
    fn put(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text from a file, with everything that a terminal might act upon escaped.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() || is_bidi(char) {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// Characters that reorder the text around them.
fn is_bidi(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

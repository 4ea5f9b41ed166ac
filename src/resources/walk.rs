//! The walk of a document along its shape: finds every problem, applies variables, and yields plain JSON.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value as Json};

use super::{
    core::decode_base64,
    read::Source,
    schema::{Format, Object, Shape, Text, Variables},
    tree::{Key, Node, Value},
    types::{Decimal, GatewayDuration, Quantity},
    variables::{Environment, Problem, substitute},
};
use crate::diagnostics::{Diagnostic, nearest, suggest};

/// How many findings of one document are kept.
const MAX_FINDINGS: usize = 200;
/// How much of a wrong value is repeated in a message.
const QUOTE_LIMIT: usize = 60;

/// One document on its way.
pub(super) struct Walk<'a> {
    pub(super) source: &'a Arc<Source>,
    /// `Kind namespace/name` as far as it is known.
    pub(super) resource: String,
    /// Whether values may be secrets, so that nothing of them is repeated.
    pub(super) secret: bool,
    pub(super) environment: Environment<'a>,
    /// Whether an API server keeps the object (see [`super::Memory::of_stored`]).
    pub(super) stored: bool,
    /// The shape of the whole object, to find where a misplaced field belongs.
    pub(super) root: Option<&'static Shape>,
    /// Line and column by field path.
    pub(super) positions: BTreeMap<String, (u32, u32)>,
    pub(super) findings: Vec<Diagnostic>,
}

impl Walk<'_> {
    /// Whether an error was found.
    pub(super) fn failed(&self) -> bool {
        self.findings.iter().any(Diagnostic::is_error)
    }

    /// Adds a finding about a place; `field` may be empty.
    pub(super) fn report(&mut self, finding: Diagnostic, (line, column): (u32, u32), field: &str) {
        // Beyond the limit only what makes the document fail still counts, and only once.
        if self.findings.len() >= MAX_FINDINGS && (!finding.is_error() || self.failed()) {
            return;
        }
        let mut finding = finding.at(self.source.location(line, column));
        if !self.resource.is_empty() {
            finding = finding.resource(&self.resource);
        }
        if !field.is_empty() {
            finding = finding.field(field);
        }
        self.findings.push(match self.source.line(line) {
            Some(text) if !self.secret => finding.snippet(text),
            _ => finding,
        });
    }

    /// Reports every key that repeats, at any depth: YAML forbids it, and readers differ in which one they take.
    pub(super) fn repeated_keys(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.repeated_keys(item, &format!("{path}[{index}]"));
                }
            }
            Value::Map(pairs) => {
                let mut seen: BTreeMap<&str, &Key> = BTreeMap::new();
                for (key, value) in pairs {
                    let field = join(path, &key.name);
                    if let Some(first) = seen.insert(&key.name, key) {
                        let place = self.source.location(first.line, first.column);
                        let finding = Diagnostic::error(format!("`{}` is given twice", quote(&key.name)))
                            .help(format!("the first one is at {place}; remove one of them"));
                        self.report(finding, (key.line, key.column), &field);
                    }
                    self.repeated_keys(value, &field);
                }
            }
            _ => {}
        }
    }

    /// Walks an object. `skip` names fields that the caller reads itself.
    pub(super) fn object(&mut self, shape: &Object, node: &Node, path: &str, skip: &[&str]) -> Json {
        let Value::Map(pairs) = &node.value else {
            self.mismatch("a mapping", node, path);
            return Json::Null;
        };
        let mut out = Map::new();
        // Fields that a misspelt one stands for; they are not reported as missing as well.
        let mut meant = Vec::new();
        for (key, value) in pairs {
            if skip.contains(&key.name.as_str()) {
                continue;
            }
            let field_path = join(path, &key.name);
            self.mark(&field_path, key, value);
            let field = shape.fields.get(&key.name);
            let not_served = shape.not_served.contains(&key.name);
            if not_served {
                let finding =
                    Diagnostic::warning(format!("`{}` has no meaning here yet and is ignored", key.name));
                self.report(finding, (key.line, key.column), &field_path);
            }
            if let Some(field) = field {
                // As for Kubernetes, a null is a field that is not there.
                if !matches!(value.value, Value::Null) {
                    out.insert(
                        key.name.clone(),
                        self.value(&field.shape, value, &field_path, field.variables),
                    );
                }
            } else if !not_served && !shape.open && !shape.accepted.contains(&key.name) {
                meant.extend(self.unknown_field(shape, key, &field_path, skip));
            }
        }
        for (name, field) in &shape.fields {
            let excused = skip.contains(&name.as_str()) || meant.contains(name);
            if field.required && !out.contains_key(name) && !excused {
                let field_path = join(path, name);
                let at = self.positions.get(&field_path).or_else(|| self.positions.get(path));
                let at = at.copied().unwrap_or((node.line, node.column));
                let mut finding = Diagnostic::error(format!("missing field `{name}`"));
                if let Shape::Text(Text { allowed, .. }) = &field.shape
                    && !allowed.is_empty()
                {
                    finding = finding.help(format!("one of: {}", allowed.join(", ")));
                }
                self.report(finding, at, &field_path);
            }
        }
        Json::Object(out)
    }

    /// Returns the name that was probably meant.
    fn unknown_field(&mut self, shape: &Object, key: &Key, path: &str, skip: &[&str]) -> Option<String> {
        // The search for a near name costs too much to do for findings that are not kept.
        if self.findings.len() >= MAX_FINDINGS && self.failed() {
            return None;
        }
        if self.stored {
            let message = format!("`{}` is not known here and is ignored", quote(&key.name));
            self.report(Diagnostic::warning(message), (key.line, key.column), path);
            return None;
        }
        let known = shape.fields.keys().chain(&shape.not_served).map(String::as_str);
        let all = known.clone().chain(skip.iter().copied()).chain(shape.accepted.iter().map(String::as_str));
        let near = nearest(&key.name, all).map(str::to_owned);
        let place = || find_field(self.root?, &key.name, String::new());
        let help = match (&near, place()) {
            (Some(name), _) => format!("did you mean `{name}`?"),
            (None, Some(place)) => format!("it belongs in `{place}`; check the indentation"),
            (None, None) => suggest(&key.name, known),
        };
        let finding = Diagnostic::error(format!("unknown field `{}`", quote(&key.name))).help(help);
        self.report(finding, (key.line, key.column), path);
        near
    }

    /// Walks any value.
    fn value(&mut self, shape: &Shape, node: &Node, path: &str, variables: Variables) -> Json {
        match shape {
            Shape::Any => plain(node),
            Shape::Object(object) => self.object(object, node, path, &[]),
            Shape::Map { value } => self.map(value, node, path, variables),
            Shape::List { item, min, max } => self.list(item, (*min, *max), node, path, variables),
            Shape::Text(text) => self.text(text, node, path, variables),
            Shape::Bool => match self.scalar(node, path, variables) {
                Some(Value::Bool(value)) => Json::Bool(value),
                Some(_) => self.mismatch("`true` or `false`", node, path),
                None => Json::Null,
            },
            Shape::Integer { min, max } => match self.scalar(node, path, variables) {
                Some(Value::Integer(value)) => self.integer(value, (*min, *max), node, path),
                Some(_) => self.mismatch("a whole number", node, path),
                None => Json::Null,
            },
            Shape::IntOrString { format } => match self.scalar(node, path, variables) {
                Some(Value::Integer(value)) => self.integer(value, (Some(0), None), node, path),
                Some(Value::Text(text)) => {
                    self.check_format(*format, &text, node, path);
                    Json::String(text)
                }
                Some(_) => self.mismatch("a number or a string", node, path),
                None => Json::Null,
            },
        }
    }

    fn map(&mut self, shape: &Shape, node: &Node, path: &str, variables: Variables) -> Json {
        let Value::Map(pairs) = &node.value else {
            return self.mismatch("a mapping", node, path);
        };
        let mut out = Map::new();
        for (key, value) in pairs {
            let entry_path = join(path, &key.name);
            self.mark(&entry_path, key, value);
            let entry = match (&value.value, shape) {
                // A key without a value; Kubernetes reads it as the empty string.
                (Value::Null, Shape::Text(_)) => Json::String(String::new()),
                _ => self.value(shape, value, &entry_path, variables),
            };
            out.insert(key.name.clone(), entry);
        }
        Json::Object(out)
    }

    fn list(
        &mut self,
        shape: &Shape,
        (min, max): (usize, usize),
        node: &Node,
        path: &str,
        variables: Variables,
    ) -> Json {
        let Value::List(items) = &node.value else {
            return self.mismatch("a list", node, path);
        };
        let at = self.positions.get(path).copied().unwrap_or((node.line, node.column));
        if items.len() < min {
            self.report(Diagnostic::error(format!("needs at least {min} item{}", plural(min))), at, path);
        }
        if items.len() > max {
            let message = format!("has {} items, but at most {max} are allowed", items.len());
            self.report(Diagnostic::error(message), at, path);
        }
        let values = items.iter().enumerate().map(|(index, item)| {
            let item_path = format!("{path}[{index}]");
            self.positions.insert(item_path.clone(), (item.line, item.column));
            self.value(shape, item, &item_path, variables)
        });
        Json::Array(values.collect())
    }

    fn text(&mut self, shape: &Text, node: &Node, path: &str, variables: Variables) -> Json {
        let Value::Text(written) = &node.value else {
            return self.mismatch("a string", node, path);
        };
        let Some(replaced) = self.substitute(written, node, path, variables) else {
            return Json::Null;
        };
        // What a variable holds is not repeated in messages: it may be a secret.
        let shown = replaced.is_none().then_some(written.as_str());
        let text = replaced.unwrap_or_else(|| written.clone());
        if let Some(finding) = check_text(shape, &text) {
            let mut finding = finding;
            if let Some(shown) = shown.filter(|_| !self.secret) {
                finding.message = format!("`{}` {}", quote(shown), finding.message);
            } else {
                finding.message = format!("the value {}", finding.message);
            }
            self.report(finding, (node.line, node.column), path);
        } else {
            self.check_format(shape.format, &text, node, path);
        }
        Json::String(text)
    }

    fn check_format(&mut self, format: Format, text: &str, node: &Node, path: &str) {
        let problem = match format {
            Format::Plain => None,
            Format::Base64 => decode_base64(text)
                .is_none()
                .then_some("is not base64; put plain text under `stringData` instead"),
            Format::DateTime => (!is_date_time(text)).then_some("is not a time such as 2026-01-31T12:00:00Z"),
            Format::Duration => text.parse::<GatewayDuration>().err(),
            Format::Ip => text
                .parse::<std::net::IpAddr>()
                .is_err()
                .then_some("is not an IP address; use `fqdn` for names"),
            Format::Decimal => text.parse::<Decimal>().err(),
            Format::Quantity => text.parse::<Quantity>().err(),
        };
        if let Some(problem) = problem {
            let name = path.rsplit('.').next().unwrap_or(path);
            self.report(
                Diagnostic::error(format!("`{}`: {problem}", quote(name))),
                (node.line, node.column),
                path,
            );
        }
    }

    fn integer(
        &mut self,
        value: i128,
        (min, max): (Option<i128>, Option<i128>),
        node: &Node,
        path: &str,
    ) -> Json {
        let range = match (min, max) {
            (Some(min), Some(max)) if value < min || value > max => format!("between {min} and {max}"),
            (Some(min), None) if value < min => format!("at least {min}"),
            (None, Some(max)) if value > max => format!("at most {max}"),
            _ => {
                return match (i64::try_from(value), u64::try_from(value)) {
                    (Ok(value), _) => Json::from(value),
                    (_, Ok(value)) => Json::from(value),
                    _ => self.mismatch("a whole number of 64 bits", node, path),
                };
            }
        };
        self.report(Diagnostic::error(format!("must be {range}")), (node.line, node.column), path);
        Json::Null
    }

    /// The scalar, and where a variable stood for it, the number or truth value that its text spells: the field's type
    /// decides, so this cannot change the document's structure.
    fn scalar(&mut self, node: &Node, path: &str, variables: Variables) -> Option<Value> {
        let Value::Text(written) = &node.value else {
            return Some(node.value.clone());
        };
        Some(match self.substitute(written, node, path, variables)? {
            None => Value::Text(written.clone()),
            Some(text) => match (text.trim().parse::<i128>(), text.trim().parse::<bool>()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(truth)) => Value::Bool(truth),
                _ => Value::Text(text),
            },
        })
    }

    /// `None` if a variable has no value, which is reported.
    fn substitute(
        &mut self,
        text: &str,
        node: &Node,
        path: &str,
        variables: Variables,
    ) -> Option<Option<String>> {
        let variables = if self.stored { Variables::Literal } else { variables };
        let finding = match substitute(text, variables, self.environment) {
            Ok(replaced) => return Some(replaced),
            Err(Problem::Unset(name)) => {
                Diagnostic::error(format!("the environment variable `{name}` is not set")).help(format!(
                    "set it, give a default as `${{{name}:-default}}`, or write `$${{` for a literal `${{`"
                ))
            }
            Err(Problem::Malformed) => Diagnostic::error("`${` does not start a variable reference")
                .help("write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`"),
        };
        self.report(finding, (node.line, node.column), path);
        None
    }

    fn mismatch(&mut self, expected: &str, node: &Node, path: &str) -> Json {
        let (found, help) = describe(&node.value, self.secret);
        let mut finding = Diagnostic::error(format!("expected {expected}, found {found}"));
        if let Some(help) = help.filter(|_| expected == "a string") {
            finding = finding.help(help);
        }
        let at = match node.value {
            Value::List(_) | Value::Map(_) => self.positions.get(path).copied(),
            _ => None,
        };
        self.report(finding, at.unwrap_or((node.line, node.column)), path);
        Json::Null
    }

    /// Remembers where a field is: a scalar's value, and the key of everything larger.
    fn mark(&mut self, path: &str, key: &Key, value: &Node) {
        let at = match value.value {
            Value::List(_) | Value::Map(_) | Value::Null => (key.line, key.column),
            _ => (value.line, value.column),
        };
        self.positions.insert(path.to_owned(), at);
    }
}

/// Where a field of this name is, such as `spec.rules[]`.
fn find_field(shape: &Shape, name: &str, path: String) -> Option<String> {
    match shape {
        Shape::Object(object) if object.fields.contains_key(name) && !path.is_empty() => Some(path),
        Shape::Object(object) => {
            object.fields.iter().find_map(|(field, inner)| find_field(&inner.shape, name, join(&path, field)))
        }
        Shape::List { item, .. } => find_field(item, name, format!("{path}[]")),
        Shape::Map { value } => find_field(value, name, path),
        _ => None,
    }
}

/// What is wrong with a string, said so that it can follow the string itself.
fn check_text(shape: &Text, text: &str) -> Option<Diagnostic> {
    if !shape.allowed.is_empty() {
        return (!shape.allowed.iter().any(|allowed| allowed == text)).then(|| {
            let names = shape.allowed.iter().map(String::as_str);
            Diagnostic::error("is not one of the values this field can have").help(suggest(text, names))
        });
    }
    let length = text.chars().count();
    if length < shape.min {
        let message = if length == 0 {
            "must not be empty".to_owned()
        } else {
            format!("is shorter than {}", shape.min)
        };
        return Some(Diagnostic::error(message));
    }
    if let Some(max) = shape.max.filter(|max| length > *max) {
        return Some(Diagnostic::error(format!("is longer than {max} characters")));
    }
    // A duration has a better message than its pattern.
    let pattern = shape.pattern.as_ref().filter(|_| shape.format != Format::Duration)?;
    (!pattern.is_match(text)).then(|| {
        Diagnostic::error("has characters that this field cannot have")
            .help(format!("it must match {pattern}"))
    })
}

/// What was found, and what to do if a string was wanted.
fn describe(value: &Value, secret: bool) -> (String, Option<String>) {
    let scalar = |name: &str, text: String| {
        if secret {
            (format!("a {name}"), Some("put it in quotes".to_owned()))
        } else {
            (format!("the {name} {text}"), Some(format!("put it in quotes: \"{text}\"")))
        }
    };
    match value {
        Value::Null => ("nothing".to_owned(), None),
        Value::Bool(_) if secret => scalar("truth value", String::new()),
        Value::Bool(value) => {
            // The word itself is lost.
            let help =
                "put it in quotes; YAML takes `yes`, `no`, `on`, `off`, `y` and `n` for truth values, too";
            (format!("the truth value {value}"), Some(help.to_owned()))
        }
        Value::Integer(value) => scalar("number", value.to_string()),
        Value::Float(value) => scalar("number", value.to_string()),
        Value::Text(_) if secret => ("a string".to_owned(), None),
        Value::Text(text) => (format!("the string `{}`", quote(text)), None),
        Value::List(_) => ("a list".to_owned(), None),
        Value::Map(_) => ("a mapping".to_owned(), None),
    }
}

fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Integer(value) => i64::try_from(*value).map_or(Json::Null, Json::from),
        Value::Float(value) => Json::from(*value),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Map(pairs) => {
            Json::Object(pairs.iter().map(|(key, value)| (key.name.clone(), plain(value))).collect())
        }
    }
}

/// The path of a member: `a.b`, or `a["b.c"]` where the name has other characters than letters, digits, `-` and `_`.
pub(super) fn join(path: &str, name: &str) -> String {
    let simple =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match (simple, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[\"{name}\"]"),
    }
}

/// The start of a text.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// RFC 3339 in form; the calendar is not consulted.
fn is_date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits =
        |from: usize, to: usize| bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|byte| set.contains(byte));
    let head = digits(0, 4) && is(4, b"-") && digits(5, 7) && is(7, b"-") && digits(8, 10) && is(10, b"Tt");
    let time = digits(11, 13) && is(13, b":") && digits(14, 16) && is(16, b":") && digits(17, 19);
    let mut end = 19;
    if is(end, b".") {
        end += 1 + bytes.iter().skip(end + 1).take_while(|byte| byte.is_ascii_digit()).count();
    }
    let zone = (is(end, b"Zz") && bytes.len() == end + 1)
        || (is(end, b"+-")
            && digits(end + 1, end + 3)
            && is(end + 3, b":")
            && digits(end + 4, end + 6)
            && bytes.len() == end + 6);
    head && time && zone
}

//! What an API server that has this gateway's definitions says of objects, without one: `aigw check --schema-only`.
//!
//! The steps and their order are those of `apiextensions.k8s.io/v1` for an object that is created: unknown fields are dropped,
//! defaults filled in, nulls taken away, then types, limits, lists and last the rules in CEL are looked at.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

mod formats;
mod rules;
mod shape;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::crd;
use super::read::Source;
use super::snapshot::identify;
use super::tree::{self, Node};
use super::types::DNS_SUBDOMAIN;
use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use rules::Rules;

/// Problems of one object beyond this number are not looked for.
const MAX_REFUSALS: usize = 100;

/// One reason for which an object is not taken, or something in it that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field: `spec.rules[0].name`; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Why it is refused; none if it is taken.
    pub refusals: Vec<Refusal>,
    /// Fields that are not known: they are dropped, and refused by `kubectl`, which asks for strictness.
    pub unknown: Vec<Refusal>,
    /// The object as it is kept, if it is taken.
    pub object: Value,
}

impl Verdict {
    /// Whether it is taken.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// What files come to.
#[derive(Debug, Default)]
pub struct Judged {
    /// Everything there is to say.
    pub diagnostics: Diagnostics,
    /// How many objects of this gateway's kinds there are.
    pub own: usize,
    /// How many of other kinds, of which nothing is said.
    pub foreign: usize,
}

/// The definitions, made ready. Not shared between threads: rules are compiled as they are needed.
pub struct Admission {
    definitions: HashMap<(String, String), BTreeMap<String, Value>>,
    rules: Rules,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

impl Admission {
    /// That of an API server with the definitions of [`crd::all`].
    #[must_use]
    pub fn new() -> Self {
        Self::of(&crd::all())
    }

    /// That of an API server with these CustomResourceDefinitions.
    #[must_use]
    pub fn of(definitions: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut known = HashMap::new();
        for definition in definitions {
            let spec = &definition["spec"];
            let versions = spec["versions"].as_array().into_iter().flatten();
            let schemas = versions
                .filter(|version| version["served"] == true)
                .map(|version| (text(&version["name"]), version["schema"]["openAPIV3Schema"].clone()));
            known.insert((text(&spec["group"]), text(&spec["names"]["kind"])), schemas.collect());
        }
        Self { definitions: known, rules: Rules::default() }
    }

    /// What becomes of an object that is created; nothing if it is of a kind that is not defined here.
    pub fn admit(&mut self, object: &Value) -> Option<Verdict> {
        let api_version = object["apiVersion"].as_str()?;
        let (group, version) = api_version.split_once('/')?;
        let kind = object["kind"].as_str()?;
        let versions = self.definitions.get(&(group.to_owned(), kind.to_owned()))?;
        let Some(schema) = versions.get(version) else {
            let known: Vec<&str> = versions.keys().map(String::as_str).collect();
            let message = format!("{kind} has no version `{version}`; there are {}", known.join(", "));
            return Some(refused(object, Refusal { field: "apiVersion".to_owned(), message }));
        };
        let (mut object, mut unknown, mut refusals) = (object.clone(), Vec::new(), Vec::new());
        let metadata = object.as_object_mut().and_then(|object| object.remove("metadata"));
        // What became of an object is not for those to say who create it.
        let status = object.as_object_mut().and_then(|object| object.remove("status"));
        drop(status);
        shape::prune(&mut object, schema, "", &mut unknown);
        shape::default(&mut object, schema);
        shape::drop_nulls(&mut object, schema);
        check_metadata(metadata.as_ref(), &mut refusals);
        values::check(&object, schema, "", &mut refusals);
        if refusals.is_empty() {
            self.rules.check(&object, schema, "", &mut refusals);
        }
        refusals.truncate(MAX_REFUSALS);
        if let (Some(object), Some(metadata)) = (object.as_object_mut(), metadata) {
            object.insert("metadata".to_owned(), metadata);
        }
        Some(Verdict { refusals, unknown, object })
    }

    /// Says of all objects of these texts what would become of them. Variables are taken as they are written.
    pub fn judge(&mut self, sources: impl IntoIterator<Item = Source>) -> Judged {
        let mut judged = Judged::default();
        for source in sources {
            let source = Arc::new(source);
            for (lines_before, text) in tree::documents(source.text()) {
                match tree::parse(text, lines_before) {
                    Ok(roots) => roots.iter().for_each(|root| self.judge_one(&source, root, &mut judged)),
                    // The parser's words may repeat a piece of a Secret.
                    Err(error) => judged.diagnostics.push(
                        Diagnostic::error("this document is not valid YAML")
                            .at(source.location(error.line.max(1), error.column.max(1))),
                    ),
                }
            }
        }
        judged
    }

    fn judge_one(&mut self, source: &Arc<Source>, root: &Node, judged: &mut Judged) {
        let mut places = BTreeMap::new();
        let object = plain(root, "", &mut places);
        if let Some(items) = list_items(root, &object) {
            items.iter().for_each(|item| self.judge_one(source, item, judged));
            return;
        }
        let kind = object["kind"].as_str().unwrap_or("object");
        let metadata = |name: &str| object["metadata"][name].as_str();
        let namespace = metadata("namespace").unwrap_or("default");
        let resource = identify(kind, namespace, metadata("name").unwrap_or("(unnamed)"));
        let Some(verdict) = self.admit(&object) else {
            judged.foreign += 1;
            judged.diagnostics.extend(self.misnamed(&object).map(|finding| {
                finding.resource(resource.clone()).at(source.location(root.line, root.column))
            }));
            return;
        };
        judged.own += 1;
        let place = |finding: Diagnostic, refusal: &Refusal| {
            let (line, column) = nearest_place(&places, &refusal.field);
            let finding = finding.at(source.location(line, column)).resource(resource.clone());
            let finding = if refusal.field.is_empty() { finding } else { finding.field(&refusal.field) };
            match source.line(line) {
                Some(line) => finding.snippet(line),
                None => finding,
            }
        };
        for refusal in &verdict.refusals {
            judged.diagnostics.push(place(Diagnostic::error(refusal.message.clone()), refusal));
        }
        for unknown in &verdict.unknown {
            let finding = Diagnostic::warning(unknown.message.clone())
                .help("an API server drops it, and kubectl refuses the object");
            judged.diagnostics.push(place(finding, unknown));
        }
    }

    /// What is said of a kind of our groups that there is not.
    fn misnamed(&self, object: &Value) -> Option<Diagnostic> {
        let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
        let kinds: Vec<&str> =
            self.definitions.keys().filter(|known| known.0 == group).map(|known| known.1.as_str()).collect();
        let kind = object["kind"].as_str()?;
        let message = format!("`{group}` has no kind `{kind}`");
        (!kinds.is_empty()).then(|| Diagnostic::error(message).help(suggest(kind, kinds.iter().copied())))
    }
}

fn refused(object: &Value, refusal: Refusal) -> Verdict {
    Verdict { refusals: vec![refusal], unknown: Vec::new(), object: object.clone() }
}

/// The rules for names and labels that hold for every object.
fn check_metadata(metadata: Option<&Value>, refusals: &mut Vec<Refusal>) {
    let mut refuse = |field: &str, message: &str| {
        refusals.push(Refusal { field: field.to_owned(), message: message.to_owned() });
    };
    let name = metadata.and_then(|metadata| metadata["name"].as_str()).unwrap_or_default();
    let generated = metadata.and_then(|metadata| metadata["generateName"].as_str()).is_some();
    if name.is_empty() && !generated {
        refuse("metadata.name", "an object needs a name, or generateName");
    }
    let subdomain = Regex::new(DNS_SUBDOMAIN).is_ok_and(|pattern| pattern.is_match(name));
    if !name.is_empty() && (name.len() > 253 || !subdomain) {
        refuse(
            "metadata.name",
            "a name has at most 253 lower-case letters, digits, `-` and `.`, and begins and ends with a letter or a digit",
        );
    }
    for member in ["labels", "annotations"] {
        let Some(value) = metadata.and_then(|metadata| metadata.get(member)) else { continue };
        let texts = value.as_object().is_some_and(|pairs| pairs.values().all(Value::is_string));
        if !texts && !value.is_null() {
            refuse(&format!("metadata.{member}"), "names and values have to be strings");
        }
    }
}

/// The items of a List of objects.
fn list_items<'a>(root: &'a Node, object: &Value) -> Option<&'a [Node]> {
    object["kind"].as_str()?.ends_with("List").then_some(())?;
    let tree::Value::Map(pairs) = &root.value else { return None };
    match &pairs.iter().find(|(key, _)| key.name == "items")?.1.value {
        tree::Value::List(items) => Some(items),
        _ => None,
    }
}

/// A YAML tree as JSON; notes where each field is.
fn plain(node: &Node, path: &str, places: &mut BTreeMap<String, (u32, u32)>) -> Value {
    places.entry(path.to_owned()).or_insert((node.line, node.column));
    match &node.value {
        tree::Value::Null => Value::Null,
        tree::Value::Bool(value) => Value::Bool(*value),
        tree::Value::Integer(value) => number(*value),
        // As `kubectl` writes it in JSON, where `1.0` is `1`.
        #[expect(clippy::cast_possible_truncation, reason = "exact within these bounds")]
        tree::Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => number(*value as i128),
        tree::Value::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        tree::Value::Text(text) => Value::String(text.clone()),
        tree::Value::List(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| plain(item, &format!("{path}[{index}]"), places)).collect()
        }
        tree::Value::Map(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs {
                let path = below(path, &key.name);
                places.insert(path.clone(), (key.line, key.column));
                object.insert(key.name.clone(), plain(value, &path, places));
            }
            Value::Object(object)
        }
    }
}

fn number(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        return value.into();
    }
    #[expect(clippy::cast_precision_loss, reason = "JSON's numbers are as precise as that")]
    u64::try_from(value)
        .map_or_else(|_| Number::from_f64(value as f64).map_or(Value::Null, Value::Number), Value::from)
}

/// The path of a member.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The place of a field, or of its nearest parent that was written.
fn nearest_place(places: &BTreeMap<String, (u32, u32)>, field: &str) -> (u32, u32) {
    let mut path = field;
    loop {
        match (places.get(path), path.rfind(['.', '['])) {
            (Some(place), _) => return *place,
            (None, Some(cut)) => path = &path[..cut],
            (None, None) if path.is_empty() => return (1, 1),
            (None, None) => path = "",
        }
    }
}

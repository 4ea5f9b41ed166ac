//! Texts to objects: finds out what each document is, has it walked, and files it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, LazyLock},
};

use super::{
    schema::{Object, Shape},
    snapshot::{DEFAULT_NAMESPACE, Draft, Metadata, Origin, SERVED, Served, Snapshot, Typed, identify},
    tree::{self, Node, Value},
    variables::Environment,
    walk::{Walk, quote},
};
use crate::diagnostics::{Diagnostic, Diagnostics, Location, nearest};

/// Errors of one file beyond this number are not looked for.
const MAX_ERRORS: usize = 100;
/// Findings of one file beyond this number are not looked for.
const MAX_FINDINGS: usize = 1000;

/// Longer lines, as of JSON on one line, are not repeated in findings.
const MAX_LINE: usize = 4096;

/// Kinds that are known but have no meaning here yet, by API group.
const NOT_SERVED: &[(&str, &[&str])] = &[
    ("gateway.envoyproxy.io", &["EnvoyExtensionPolicy", "EnvoyPatchPolicy", "HTTPRouteFilter"]),
    (
        "gateway.networking.k8s.io",
        &["GRPCRoute", "HTTPRoute", "ListenerSet", "TCPRoute", "TLSRoute", "UDPRoute"],
    ),
    ("inference.networking.k8s.io", &["InferencePool"]),
    ("inference.networking.x-k8s.io", &["InferenceModel", "InferenceObjective", "InferencePool"]),
    (
        "",
        &[
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "ReplicationController",
            "ResourceQuota",
            "ServiceAccount",
        ],
    ),
    ("apps", &["DaemonSet", "ReplicaSet", "StatefulSet"]),
    ("batch", &["CronJob", "Job"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("policy", &["PodDisruptionBudget"]),
    ("networking.k8s.io", &["Ingress", "IngressClass", "NetworkPolicy"]),
    ("discovery.k8s.io", &["EndpointSlice"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("admissionregistration.k8s.io", &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["StorageClass"]),
    ("cert-manager.io", &["Certificate", "ClusterIssuer", "Issuer"]),
    ("monitoring.coreos.com", &["PodMonitor", "PrometheusRule", "ServiceMonitor"]),
];

/// Kinds that are read and checked, and that nothing serves yet.
const NOT_PROGRAMMED: &[&str] = &["MCPRoute"];

/// The kinds without which something would be open that is meant to be closed.
const PROTECTING: &[&str] = &["SecurityPolicy", "TenantPolicy", "ClientTrafficPolicy"];

static METADATA: LazyLock<Object> = LazyLock::new(|| match Shape::of::<Metadata>() {
    Shape::Object(object) => object,
    _ => Object::default(),
});

/// A named text.
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl Source {
    /// A text and the name by which findings refer to it.
    #[must_use]
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn location(&self, line: u32, column: u32) -> Location {
        Location { file: Arc::clone(&self.name), line, column }
    }

    /// A line without its end, unless it is too long to be shown; lines count from one.
    pub(super) fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let start = *self.lines.get(index)?;
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        self.text
            .get(start..end)
            .filter(|line| line.len() <= MAX_LINE)
            .map(|line| line.trim_end_matches(['\r', '\n']))
    }
}

/// The text is left out: it may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads all texts. `environment` gives the values of `${NAME}`. Every document without an error is in the snapshot;
/// every problem of every document is among the findings, in the order of the files.
#[must_use]
pub fn parse(
    sources: impl IntoIterator<Item = Source>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> (Snapshot, Diagnostics) {
    Memory::default().parse(sources, environment)
}

/// What the documents of one set of texts were read as, so that the next edition of the texts is read quickly: only documents
/// that changed, or moved to other lines, are read again. Good for one environment.
#[derive(Default)]
pub struct Memory {
    /// By name.
    files: HashMap<Arc<str>, File>,
    stored: bool,
}

/// What a file was read as.
#[derive(Default)]
struct File {
    text: String,
    documents: Vec<Document>,
}

/// What a document was read as.
#[derive(Clone)]
struct Document {
    lines_before: u32,
    text: Arc<str>,
    events: Arc<Vec<Event>>,
}

impl File {
    /// Reads the documents of `source`, with the help of what they were read as `before`.
    fn read(before: Self, source: &Arc<Source>, environment: Environment<'_>, stored: bool) -> Self {
        if before.text == source.text {
            return before;
        }
        let known: HashMap<(u32, &str), &Document> =
            before.documents.iter().map(|known| ((known.lines_before, &*known.text), known)).collect();
        let mut errors = 0;
        let read = |(lines_before, text): (u32, &str)| {
            let document = match known.get(&(lines_before, text)) {
                Some(known) => (*known).clone(),
                None => {
                    // Whoever files these stops here, if not before.
                    let events = if errors > MAX_ERRORS {
                        Vec::new()
                    } else {
                        Reader { source, environment, stored, events: Vec::new() }
                            .document(text, lines_before)
                    };
                    Document { lines_before, text: text.into(), events: Arc::new(events) }
                }
            };
            errors += document.events.iter().filter(|event| event.is_error()).count();
            document
        };
        let documents = tree::documents(&source.text).into_iter().map(read).collect();
        Self { text: source.text.clone(), documents }
    }
}

/// What a document is read as.
enum Event {
    Finding(Diagnostic),
    /// One of [`PROTECTING`] that cannot be read, and its namespace where it is known.
    Rejected(&'static str, Option<String>),
    Object {
        served: &'static Served,
        metadata: Arc<Metadata>,
        value: Typed,
        start: (u32, u32),
        positions: Arc<BTreeMap<String, (u32, u32)>>,
    },
}

impl Memory {
    /// For objects as an API server keeps them: `${NAME}` stands for itself, and a field that is not known here is reported and
    /// ignored, since the server, which may be of a later release, knows it.
    #[must_use]
    pub fn of_stored() -> Self {
        Self { stored: true, ..Self::default() }
    }

    /// As [`parse`], with the help of what the last call of this read.
    pub fn parse(
        &mut self,
        sources: impl IntoIterator<Item = Source>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Snapshot, Diagnostics) {
        let mut before = std::mem::take(&mut self.files);
        let mut filing = Filing { snapshot: Snapshot::default(), findings: Diagnostics::new(), order: 0 };
        for source in sources {
            let source = Arc::new(source);
            let limit = filing.findings.len() + MAX_FINDINGS;
            let mut errors = 0;
            let file = File::read(
                before.remove(&source.name).unwrap_or_default(),
                &source,
                environment,
                self.stored,
            );
            for document in &file.documents {
                if errors > MAX_ERRORS || filing.findings.len() > limit {
                    let message =
                        format!("too many problems; the rest of {} is not read", quote(&source.name));
                    filing.findings.push(Diagnostic::error(message).help("mend these first"));
                    break;
                }
                let known = filing.findings.len();
                document.events.iter().for_each(|event| filing.file(event, &source));
                errors += filing.findings.iter().skip(known).filter(|finding| finding.is_error()).count();
            }
            self.files.insert(Arc::clone(&source.name), file);
        }
        (filing.snapshot, filing.findings)
    }
}

impl Event {
    fn is_error(&self) -> bool {
        matches!(self, Self::Finding(finding) if finding.is_error())
    }
}

/// Puts what was read where it belongs.
struct Filing {
    snapshot: Snapshot,
    findings: Diagnostics,
    order: usize,
}

impl Filing {
    fn file(&mut self, event: &Event, source: &Arc<Source>) {
        match event {
            Event::Finding(finding) => self.findings.push(finding.clone()),
            Event::Rejected(kind, namespace) => self.snapshot.rejected.push((kind, namespace.clone())),
            Event::Object { served, metadata, value, start, positions } => {
                // The text of today, and not the one it was read from, which would be kept for its sake.
                let origin = Origin {
                    kind: served.kind,
                    source: Arc::clone(source),
                    start: *start,
                    positions: Arc::clone(positions),
                };
                let draft = Draft {
                    metadata: Arc::clone(metadata),
                    value: Arc::clone(value),
                    origin: Arc::new(origin),
                    order: self.order,
                };
                self.order += 1;
                if let Some(finding) = (served.file)(&mut self.snapshot, draft) {
                    if PROTECTING.contains(&served.kind) {
                        self.snapshot.rejected.push((served.kind, Some(metadata.namespace.clone())));
                    }
                    self.findings.push(finding);
                }
            }
        }
    }
}

/// Reads one document.
struct Reader<'a> {
    source: &'a Arc<Source>,
    environment: Environment<'a>,
    stored: bool,
    events: Vec<Event>,
}

impl<'a> Reader<'a> {
    fn document(mut self, text: &str, lines_before: u32) -> Vec<Event> {
        match tree::parse(text, lines_before) {
            Ok(roots) => roots.iter().for_each(|root| self.object(root)),
            Err(error) => {
                self.events.push(Event::Finding(broken(self.source, text, error)));
                let named = |kind: &&&str| text.lines().any(|line| line.trim() == format!("kind: {kind}"));
                let lost = PROTECTING.iter().filter(named).map(|kind| Event::Rejected(kind, None));
                self.events.extend(lost);
            }
        }
        self.events
    }

    fn found(&mut self, findings: Vec<Diagnostic>) {
        self.events.extend(findings.into_iter().map(Event::Finding));
    }

    /// Reads one object, or each of a list's.
    fn object(&mut self, node: &Node) {
        let mut walk = Walk {
            source: self.source,
            resource: String::new(),
            secret: may_be_secret(node),
            environment: self.environment,
            stored: self.stored,
            root: None,
            positions: [(String::new(), (node.line, node.column))].into(),
            findings: Vec::new(),
        };
        if let Some(items) = list_items(node) {
            let mut findings = 0;
            for item in items {
                let known = self.events.len();
                if findings <= MAX_FINDINGS {
                    self.object(item);
                }
                let new = self.events.iter().skip(known);
                findings += new.filter(|event| matches!(event, Event::Finding(_))).count();
            }
            return;
        }
        let served = identity(&mut walk, node);
        walk.repeated_keys(node, "");
        match served {
            Some(served) => self.served(walk, node, served),
            None => self.found(walk.findings),
        }
    }

    fn served(&mut self, mut walk: Walk<'a>, node: &Node, served: &'static Served) {
        let metadata = metadata(&mut walk, node, served);
        let Shape::Object(shape) = &served.shape else { return };
        walk.root = Some(&served.shape);
        let body = walk.object(shape, node, "", &["apiVersion", "kind", "metadata", "status"]);
        let failed = walk.failed();
        if !failed && NOT_PROGRAMMED.contains(&served.kind) {
            let message = format!("kind {} is checked, but nothing serves it yet", served.kind);
            walk.report(Diagnostic::warning(message), (node.line, node.column), "");
        }
        let (start, positions) = ((node.line, node.column), Arc::new(walk.positions));
        self.found(walk.findings);
        if PROTECTING.contains(&served.kind) && (failed || metadata.is_none()) {
            let namespace = metadata.as_ref().map(|metadata| metadata.namespace.clone());
            self.events.push(Event::Rejected(served.kind, namespace));
        }
        let Some(metadata) = metadata.filter(|_| !failed).map(Arc::new) else { return };
        let origin = Arc::new(Origin {
            kind: served.kind,
            source: Arc::clone(self.source),
            start,
            positions: Arc::clone(&positions),
        });
        match (served.read)(Arc::clone(&metadata), body, &origin, self.stored) {
            Ok(value) => self.events.push(Event::Object { served, metadata, value, start, positions }),
            Err(findings) => {
                self.found(findings);
                if PROTECTING.contains(&served.kind) {
                    self.events.push(Event::Rejected(served.kind, Some(metadata.namespace.clone())));
                }
            }
        }
    }
}

/// The parser's own complaint. It may repeat a piece of the text, which a Secret's must not.
fn broken(source: &Source, text: &str, error: tree::SyntaxError) -> Diagnostic {
    let data = text.contains("data:") && !text.contains("ConfigMap");
    let secret = data || ["Secret", "stringData", "MCPRoute"].iter().any(|word| text.contains(word));
    let quotes = error.message.contains(['`', '"', '\'']);
    let message = match secret && quotes {
        true => "this document is not valid YAML".to_owned(),
        false => format!("this document is not valid YAML: {}", error.message),
    };
    let finding = Diagnostic::error(message);
    if error.line == 0 {
        return finding.help(format!("it is in {}", source.name));
    }
    let finding = finding.at(source.location(error.line, error.column));
    match source.line(error.line) {
        Some(line) if !secret => finding.snippet(line),
        _ => finding,
    }
}

/// Whether an object is a Secret, or a botched one.
fn may_be_secret(node: &Node) -> bool {
    let kind = text_field(node, "kind");
    // An MCPRoute can hold a key of a server.
    matches!(kind, Some("Secret" | "MCPRoute"))
        || field(node, "stringData").is_some()
        || (field(node, "data").is_some() && kind != Some("ConfigMap"))
}

/// The items, if the node is a List of objects.
fn list_items(node: &Node) -> Option<&[Node]> {
    let kind = text_field(node, "kind")?.strip_suffix("List")?;
    let known = kind.is_empty() || SERVED.iter().any(|served| served.kind == kind);
    match &field(node, "items")?.1.value {
        Value::List(items) if known => Some(items),
        _ => None,
    }
}

/// Finds the kind. Says why there is none, and names kinds without meaning.
fn identity(walk: &mut Walk<'_>, node: &Node) -> Option<&'static Served> {
    if !matches!(node.value, Value::Map(_)) {
        let finding = Diagnostic::error("this document is no Kubernetes object")
            .help("write a mapping with `apiVersion`, `kind` and `metadata`, and `---` between objects");
        walk.report(finding, (node.line, node.column), "");
        return None;
    }
    let kind = required_text(walk, node, "kind");
    let api_version = required_text(walk, node, "apiVersion");
    let (kind, kind_at) = kind?;
    let name =
        field(node, "metadata").and_then(|(_, metadata)| text_field(metadata, "name")).unwrap_or("(unnamed)");
    let namespace = field(node, "metadata").and_then(|(_, metadata)| text_field(metadata, "namespace"));
    let namespaced = SERVED.iter().find(|served| served.kind == kind).is_none_or(|served| served.namespaced);
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    walk.resource = identify(&quote(kind), if namespaced { namespace } else { "" }, &quote(name));
    let (api_version, version_at) = api_version?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    // Some have a meaning in a cluster only.
    let passed_over = NOT_SERVED.iter().any(|(known, kinds)| *known == group && kinds.contains(&kind));
    if let Some(served) = SERVED.iter().find(|served| served.kind == kind && served.group == group)
        && (walk.stored || !passed_over)
    {
        if served.versions.contains(&version) {
            return Some(served);
        }
        let finding = Diagnostic::error(format!("{kind} has no version `{}`", quote(version)))
            .help(format!("write `apiVersion: {}`", versions(served).join("` or `")));
        walk.report(finding, version_at, "apiVersion");
        return None;
    }
    if passed_over {
        let finding = Diagnostic::warning(format!("kind {kind} has no meaning here yet and is ignored"));
        walk.report(finding, kind_at, "");
        return None;
    }
    unknown_kind(walk, (kind, kind_at), (group, version_at));
    None
}

fn unknown_kind(
    walk: &mut Walk<'_>,
    (kind, kind_at): (&str, (u32, u32)),
    (group, version_at): (&str, (u32, u32)),
) {
    let meant = |served: &&Served| !NOT_SERVED.iter().any(|(_, kinds)| kinds.contains(&served.kind));
    let served = SERVED.iter().filter(meant).find(|served| served.kind == kind);
    let elsewhere = NOT_SERVED.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(group, _)| *group);
    if let Some(right) = served.map(|served| served.group).or(elsewhere) {
        let message = match group {
            "" => format!("{kind} is not a kind of the core API group"),
            _ => format!("{kind} is not a kind of the API group `{}`", quote(group)),
        };
        let help = match served {
            Some(served) => format!("write `apiVersion: {}`", versions(served).join("` or `")),
            None => format!("it belongs to `{right}`"),
        };
        return walk.report(Diagnostic::error(message).help(help), version_at, "apiVersion");
    }
    let groups =
        || SERVED.iter().map(|served| served.group).chain(NOT_SERVED.iter().map(|(group, _)| *group));
    let kinds = SERVED.iter().map(|served| served.kind);
    let kinds = kinds.chain(NOT_SERVED.iter().flat_map(|(_, kinds)| kinds.iter().copied()));
    let near = nearest(kind, kinds);
    let foreign = !groups().any(|known| known == group) && nearest(group, groups()).is_none();
    if near.is_none() && foreign {
        let message = format!("kind {} of `{}` is not known here and is ignored", quote(kind), quote(group));
        return walk.report(Diagnostic::warning(message), kind_at, "");
    }
    let help = match near {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<&str> = SERVED.iter().filter(meant).map(|served| served.kind).collect();
            format!("kinds with a meaning here: {}", names.join(", "))
        }
    };
    walk.report(Diagnostic::error(format!("unknown kind `{}`", quote(kind))).help(help), kind_at, "kind");
}

fn versions(served: &Served) -> Vec<String> {
    let name = |version: &&str| match served.group {
        "" => (*version).to_owned(),
        group => format!("{group}/{version}"),
    };
    served.versions.iter().map(name).collect()
}

fn metadata(walk: &mut Walk<'_>, node: &Node, served: &Served) -> Option<Metadata> {
    let Some((at, value)) = field(node, "metadata") else {
        let finding =
            Diagnostic::error("missing field `metadata`").help("every object needs `metadata.name`");
        walk.report(finding, (node.line, node.column), "metadata");
        return None;
    };
    walk.positions.insert("metadata".to_owned(), at);
    let body = walk.object(&METADATA, value, "metadata", &[]);
    let mut metadata: Metadata = serde_json::from_value(body).ok()?;
    metadata.namespace = match (served.namespaced, metadata.namespace.as_str()) {
        (false, _) => String::new(),
        (true, "") => DEFAULT_NAMESPACE.to_owned(),
        (true, _) => metadata.namespace,
    };
    walk.resource = identify(served.kind, &metadata.namespace, &metadata.name);
    Some(metadata)
}

/// A field and the place of its key.
fn field<'a>(node: &'a Node, name: &str) -> Option<((u32, u32), &'a Node)> {
    let Value::Map(pairs) = &node.value else { return None };
    pairs.iter().find(|(key, _)| key.name == name).map(|(key, value)| ((key.line, key.column), value))
}

fn text_field<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    match &field(node, name)?.1.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn required_text<'a>(walk: &mut Walk<'_>, node: &'a Node, name: &str) -> Option<(&'a str, (u32, u32))> {
    let (message, at) = match field(node, name) {
        Some((_, value)) => match &value.value {
            Value::Text(text) if !text.is_empty() => return Some((text, (value.line, value.column))),
            _ => (format!("`{name}` must be a string"), (value.line, value.column)),
        },
        None => (format!("missing field `{name}`"), (node.line, node.column)),
    };
    let help = "every document is a Kubernetes object with `apiVersion`, `kind` and `metadata`";
    walk.report(Diagnostic::error(message).help(help), at, name);
    None
}

//! Which requests a limit is for, and which of its buckets one of them pays into.

use core::net::IpAddr;
use std::sync::Arc;

use ring::digest;

use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::keys::Network;
use crate::routing::Condition;
use crate::tenant::Tenant;
use crate::tenant::naming::allows;

/// What is known of a request when limits are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks.
    pub tenant: &'a Tenant,
    /// The quota that the client's key names, if it is a key of the gateway's own.
    pub key_quota: Option<&'a str>,
    /// `namespace/name` of the Gateway.
    pub gateway: Option<&'a str>,
    /// `namespace/name` of the AIGatewayRoute.
    pub route: Option<&'a str>,
    /// The backend, once it is known: its full name. (`namespace/name` of the AIServiceBackend will do where every route refers to
    /// backends of its own namespace.)
    pub backend: Option<&'a str>,
    /// The model the client asks for.
    pub asked_model: &'a str,
    /// The model the backend is asked for, once that is known.
    pub sent_model: Option<&'a str>,
    /// The client's headers, `:method` and `:path` among them.
    pub headers: &'a Headers,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The client's address, where Envoy tells it.
    pub source: Option<IpAddr>,
}

impl<'a> Facts<'a> {
    /// `namespace/name` of the AIServiceBackend.
    pub(super) fn service(&self) -> Option<&'a str> {
        let backend = self.backend?;
        let end = backend.match_indices('/').nth(1).map_or(backend.len(), |(at, _)| at);
        backend.get(..end)
    }

    /// The values of a header by its lower-case name. What the gateway keeps for itself is not the client's to say.
    fn header(&self, name: &str) -> Vec<&'a [u8]> {
        match name {
            "x-ai-eg-model" => vec![self.asked_model.as_bytes()],
            _ if name.starts_with("x-ai-eg-") => Vec::new(),
            _ => self.headers.all(name).collect(),
        }
    }

    fn text(&self, name: &str) -> &'a str {
        self.headers.text(name).unwrap_or_default()
    }

    fn path(&self) -> &'a str {
        let path = self.text(":path");
        path.split_once(['?', '#']).map_or(path, |(path, _)| path)
    }

    /// The values of a parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Vec<Vec<u8>> {
        let Some((_, query)) = self.text(":path").split_once('?') else { return Vec::new() };
        let query = query.split('#').next().unwrap_or_default();
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(key, _)| decoded(key) == name.as_bytes()).map(|(_, value)| decoded(value)).collect()
    }
}

/// Percent signs and plus signs as forms write them; what is not well-formed stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        let escaped = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(h, l)| (h * 16 + l, after)),
            _ => None,
        };
        rest = match escaped {
            Some((byte, after)) => {
                out.push(u8::try_from(byte).unwrap_or(b'?'));
                after
            }
            None => {
                out.push(if first == b'+' { b' ' } else { first });
                tail
            }
        };
    }
    out
}

/// What a limit is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// `namespace/name` of a Gateway.
    Gateway(Arc<str>),
    /// `namespace/name` of an AIGatewayRoute.
    Route(Arc<str>),
    /// `namespace/name` of an AIServiceBackend, or the full name of a backend.
    Backend(Arc<str>),
}

/// Which tenants. A part that is absent may be anything, present or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenants {
    /// The organisation.
    pub organisation: Option<String>,
    /// The team.
    pub team: Option<String>,
    /// The key.
    pub key: Option<String>,
    /// Those who prove nothing, and nobody else.
    pub anonymous: bool,
}

impl Tenants {
    fn include(&self, tenant: &Tenant) -> bool {
        let Self { organisation, team, key, anonymous } = self;
        let is = |wanted: &Option<String>, part: &Option<Arc<str>>| {
            wanted.as_ref().is_none_or(|wanted| part.as_deref() == Some(wanted.as_str()))
        };
        if *anonymous {
            return tenant.is_anonymous();
        }
        is(organisation, &tenant.organisation) && is(team, &tenant.team) && is(key, &tenant.key)
    }
}

/// A test of a request.
#[derive(Debug, Clone)]
pub struct Test {
    /// One of these has to be so.
    pub any_of: Vec<What>,
    /// None of them may be so instead.
    pub invert: bool,
}

/// What a [`Test`] looks at.
#[derive(Debug, Clone)]
pub enum What {
    /// A header's value, or one of its values.
    Header(Condition),
    /// A header by that lower-case name whose value begins with these bytes.
    HeaderPrefix(String, Vec<u8>),
    /// A header by that lower-case name.
    HeaderPresent(String),
    /// The method.
    Method(String),
    /// The path without its query; as a condition of the header `:path`.
    Path(Condition),
    /// What the path without its query begins with: whole segments.
    PathPrefix(String),
    /// A parameter of the query by that name, decoded; as a condition of a header.
    Parameter(String, Condition),
    /// A parameter of the query by that name.
    ParameterPresent(String),
    /// The client's address. Where that is not known, the test passes, inverted or not: so a limit is not evaded.
    Source(Network),
}

impl What {
    /// The header that it looks at, if any.
    fn header(&self) -> Option<&str> {
        Some(match self {
            Self::Header(condition) => condition.name(),
            Self::HeaderPrefix(name, _) | Self::HeaderPresent(name) => name,
            Self::Method(_) => ":method",
            Self::Path(_) | Self::PathPrefix(_) | Self::Parameter(..) | Self::ParameterPresent(_) => ":path",
            Self::Source(_) => return None,
        })
    }
}

impl Selector {
    /// The headers that it looks at.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().flat_map(|test| &test.any_of).filter_map(What::header)
    }
}

impl Test {
    fn passes(&self, facts: &Facts<'_>) -> bool {
        let unknown =
            facts.source.is_none() && self.any_of.iter().any(|what| matches!(what, What::Source(_)));
        unknown || self.any_of.iter().any(|what| what.is(facts)) != self.invert
    }
}

impl What {
    fn is(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Header(condition) => condition.holds(&facts.header(condition.name())),
            Self::HeaderPrefix(name, prefix) => {
                facts.header(name).into_iter().any(|value| value.starts_with(prefix))
            }
            Self::HeaderPresent(name) => !facts.header(name).is_empty(),
            Self::Method(method) => method == facts.text(":method"),
            Self::Path(condition) => condition.holds(&[facts.path().as_bytes()]),
            Self::PathPrefix(prefix) => begins_with(facts.path(), prefix),
            Self::Parameter(name, condition) => {
                let values = facts.parameter(name);
                condition.holds(&values.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            Self::ParameterPresent(name) => !facts.parameter(name).is_empty(),
            Self::Source(network) => facts.source.is_some_and(|source| network.contains(source)),
        }
    }
}

/// As Gateway API compares prefixes: segment by segment.
fn begins_with(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Which requests a limit is for: those that meet everything.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// What they go through or to: one of these, or anything if there are none.
    pub targets: Vec<Target>,
    /// Who asks: one of these, or anybody if there are none.
    pub tenants: Vec<Tenants>,
    /// The quota that the client's key has to name.
    pub key_quota: Option<String>,
    /// The model that the client asks for: one of these, in which `*` stands for any text, or any if there are none.
    pub asked_models: Vec<String>,
    /// As [`Selector::asked_models`], of the model that the backend is asked for.
    pub sent_models: Vec<String>,
    /// The model that the backend is asked for, as it is.
    pub only_sent_model: Option<String>,
    /// Models that the backend is asked for and that the limit is not for; as they are.
    pub except_sent_models: Vec<String>,
    /// All of them have to pass.
    pub tests: Vec<Test>,
}

impl Selector {
    /// Whether it cannot be told before a backend is chosen.
    pub(super) fn depends_on_backend(&self) -> bool {
        self.targets.iter().any(|target| matches!(target, Target::Backend(_)))
            || !self.sent_models.is_empty()
            || self.only_sent_model.is_some()
            || !self.except_sent_models.is_empty()
    }

    /// Whether requests of that tenant may be meant.
    #[must_use]
    pub fn is_for(&self, tenant: &Tenant) -> bool {
        self.tenants.is_empty() || self.tenants.iter().any(|tenants| tenants.include(tenant))
    }

    /// Whether it is for a request if the client is one it is for.
    #[must_use]
    pub fn may_select(&self, facts: &Facts<'_>) -> bool {
        Self { tenants: Vec::new(), key_quota: None, ..self.clone() }.selects(facts)
    }

    pub(super) fn selects(&self, facts: &Facts<'_>) -> bool {
        let Self {
            targets,
            tenants: _,
            key_quota,
            asked_models,
            sent_models,
            only_sent_model,
            except_sent_models,
            tests,
        } = self;
        let target = |target: &Target| match target {
            Target::Gateway(name) => facts.gateway == Some(name),
            Target::Route(name) => facts.route == Some(name),
            Target::Backend(name) => facts.service() == Some(name) || facts.backend == Some(name),
        };
        let sent = facts.sent_model.unwrap_or(facts.asked_model);
        (targets.is_empty() || targets.iter().any(target))
            && self.is_for(facts.tenant)
            && key_quota.as_deref().is_none_or(|name| facts.key_quota == Some(name))
            && (asked_models.is_empty() || asked_models.iter().any(|glob| allows(glob, facts.asked_model)))
            && (sent_models.is_empty() || sent_models.iter().any(|glob| allows(glob, sent)))
            && only_sent_model.as_deref().is_none_or(|model| model == sent)
            && !except_sent_models.iter().any(|model| model == sent)
            && tests.iter().all(|test| test.passes(facts))
    }
}

/// What the buckets of a limit are told apart by. One that is absent counts as a value of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// The tenant's organisation.
    Organisation,
    /// The tenant's team within its organisation.
    Team,
    /// The tenant's key within its team.
    Key,
    /// The model that the client asks for.
    AskedModel,
    /// The model that the backend is asked for.
    SentModel,
    /// The AIServiceBackend.
    Backend,
    /// The AIGatewayRoute.
    Route,
    /// The Gateway.
    Gateway,
    /// All values of the header by that lower-case name.
    Header(String),
    /// All values of the parameter of the query by that name.
    Parameter(String),
    /// The client's address.
    Source,
}

impl Dimension {
    /// Whether it cannot be told before a backend is chosen.
    pub(super) fn depends_on_backend(&self) -> bool {
        matches!(self, Self::SentModel | Self::Backend)
    }

    /// The header that it is read from, if any.
    pub(super) fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name) => Some(name),
            Self::Parameter(_) => Some(":path"),
            _ => None,
        }
    }

    /// Whether clients choose among as many values as they like.
    #[must_use]
    pub fn is_the_clients_choice(&self) -> bool {
        matches!(self, Self::AskedModel | Self::Header(_) | Self::Parameter(_) | Self::Source)
    }

    fn write(&self, facts: &Facts<'_>, subject: &mut Subject) {
        let Tenant { organisation, team, key } = facts.tenant;
        let part = |part: &Option<Arc<str>>| part.as_deref().map(str::as_bytes).map(<[u8]>::to_vec);
        let text = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        match self {
            Self::Organisation => subject.add(1, part(organisation)),
            Self::Team => {
                subject.add(1, part(organisation));
                subject.add(2, part(team));
            }
            Self::Key => {
                subject.add(1, part(organisation));
                subject.add(2, part(team));
                subject.add(3, part(key));
            }
            Self::AskedModel => subject.add(4, text(Some(facts.asked_model))),
            Self::SentModel => subject.add(5, text(facts.sent_model)),
            Self::Backend => subject.add(6, text(facts.service())),
            Self::Route => subject.add(7, text(facts.route)),
            Self::Gateway => subject.add(8, text(facts.gateway)),
            Self::Header(name) => {
                let values = facts.header(name);
                subject.count(9, values.len());
                values.into_iter().for_each(|value| subject.add(9, Some(value.to_vec())));
            }
            Self::Parameter(name) => {
                let values = facts.parameter(name);
                subject.count(10, values.len());
                values.into_iter().for_each(|value| subject.add(10, Some(value)));
            }
            Self::Source => {
                subject
                    .add(11, text(facts.source.map(|source| source.to_canonical().to_string()).as_deref()));
            }
        }
    }
}

/// Hashes parts so that no two lists of parts are hashed alike: each says what it is and how long it is.
struct Subject(digest::Context);

impl Subject {
    fn add(&mut self, kind: u8, value: Option<Vec<u8>>) {
        self.0.update(&[kind, u8::from(value.is_some())]);
        let value = value.unwrap_or_default();
        self.0.update(&(value.len() as u64).to_be_bytes());
        self.0.update(&value);
    }

    /// 32 hexadecimal digits.
    fn name(self) -> String {
        let digest = self.0.finish();
        digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn count(&mut self, kind: u8, count: usize) {
        self.0.update(&[kind, 2]);
        self.0.update(&(count as u64).to_be_bytes());
    }
}

/// The subject of a request's bucket: 32 hexadecimal digits, or nothing where there is one bucket only.
pub(super) fn subject(dimensions: &[Dimension], facts: &Facts<'_>) -> Arc<str> {
    if dimensions.is_empty() {
        return "".into();
    }
    let mut subject = Subject(digest::Context::new(&digest::SHA256));
    dimensions.iter().for_each(|dimension| dimension.write(facts, &mut subject));
    subject.name().into()
}

/// Of a limit whose buckets clients choose among: the subject, and before it, with a dot between, who it is that may choose only so
/// many. That is the organisation, with all that its clients do not choose. So nobody's values take the place of another's.
pub(super) fn owned_subject(dimensions: &[Dimension], facts: &Facts<'_>) -> Arc<str> {
    if !dimensions.iter().any(Dimension::is_the_clients_choice) {
        return subject(dimensions, facts);
    }
    let mut owner = Subject(digest::Context::new(&digest::SHA256));
    Dimension::Organisation.write(facts, &mut owner);
    let proved = dimensions.iter().filter(|dimension| !dimension.is_the_clients_choice());
    proved.for_each(|dimension| dimension.write(facts, &mut owner));
    format!("{}.{}", owner.name(), subject(dimensions, facts)).into()
}

#[cfg(test)]
mod tests;

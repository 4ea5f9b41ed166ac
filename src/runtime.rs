//! L2. The configuration in the shape that requests read: compiled once, shared, never changed.

mod backend;
mod classic;
mod costs;
mod credential;
mod models;
mod quota;
mod rule;
mod tenancy;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::backend::Backend;
pub use self::classic::Classic;
use self::costs::Costs;
pub use self::models::{List as ModelList, ModelLists};
pub use self::rule::{Rule, Served, Target};
pub use self::tenancy::{Proofs, Proved, Tenancy, Unproved};
use crate::auth::Cell;
use crate::config::{self, Config, HeaderMatchType, KeyDemand};
use crate::quota::Quotas;
use crate::routing::{Condition, Entry, RegexError, Router};
use crate::tenant::Tenant;

/// Everything one processor serves.
#[derive(Debug)]
pub struct Runtime {
    gateways: HashMap<String, Arc<Gateway>>,
    /// Of a document without gateways.
    classic: Option<Arc<Classic>>,
    quotas: Arc<Quotas>,
    /// What has to be kept filled, with the service that uses it.
    cells: Vec<(Arc<str>, Arc<Cell>)>,
    /// Kept to be shown.
    shown: Shown,
}

/// What a runtime was made of.
#[derive(Debug)]
enum Shown {
    Document(Box<Config>),
    /// Others, by name.
    Parts(Vec<(String, Arc<Runtime>)>),
}

/// A part of a configuration that cannot be served. The rest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the document, as `gateways[0].rules[3]`.
    pub at: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// What a processing stream is served from.
#[derive(Debug, Clone)]
pub enum Scope {
    /// One gateway of several, whose rules the processor chooses.
    Gateway(Arc<Gateway>),
    /// A document as the Go gateway's controller writes it: Envoy alone chooses rules.
    Classic(Arc<Classic>),
}

impl Scope {
    /// How much its requests may use.
    pub fn quotas(&self) -> &Arc<Quotas> {
        match self {
            Self::Gateway(gateway) => &gateway.quotas,
            Self::Classic(classic) => &classic.quotas,
        }
    }
}

/// What one gateway serves.
#[derive(Debug)]
pub struct Gateway {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// The bodies of its models lists.
    pub models: ModelLists,
    /// What every request has to prove.
    pub proofs: Proofs,
    /// Who its clients are, where no rule says otherwise.
    pub tenancy: Arc<Tenancy>,
    /// How much its requests may use, those of other gateways too.
    pub quotas: Arc<Quotas>,
    /// Whether its clients show keys of the gateway's own, if it says so.
    pub gateway_key: Option<KeyDemand>,
    router: Router,
    /// A rule that cannot be served is kept as nothing: its requests must not fall through to another rule.
    rules: Vec<Option<Arc<Rule>>>,
    by_key: HashMap<Bytes, Arc<Rule>>,
}

impl Runtime {
    /// Compiles a document. What cannot be served comes back as problems, one for each item.
    pub fn new(config: Config) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut backends = HashMap::new();
        for (index, backend) in config.backends.iter().enumerate() {
            match Backend::new(backend) {
                Ok(compiled) => {
                    if backends.insert(backend.name.clone(), Arc::new(compiled)).is_some() {
                        let message =
                            format!("the name {:?} is used twice; the later one counts", backend.name);
                        problems.push(Problem { at: format!("backends[{index}].name"), message });
                    }
                }
                Err(error) => problems.push(Problem {
                    at: format!("backends[{index}].{}", error.field),
                    message: format!("{} ({})", error.message, backend.name),
                }),
            }
        }
        let costs = Costs::new(&config, &mut problems);
        let quotas = Arc::new(quota::compile(&config.quotas, &mut problems));
        let mut gateways = HashMap::new();
        for (index, gateway) in config.gateways.iter().enumerate() {
            let at = format!("gateways[{index}]");
            let compiled = Gateway::new(gateway, &at, &backends, &costs, &quotas, &mut problems);
            if gateways.insert(gateway.authority.clone(), Arc::new(compiled)).is_some() {
                let message =
                    format!("the authority {:?} is used twice; the later one counts", gateway.authority);
                problems.push(Problem { at: format!("{at}.authority"), message });
            }
        }
        let cells = backends.values().filter_map(|backend| {
            Some((backend.service().into(), Arc::clone(backend.credential.as_ref()?.cell()?)))
        });
        let cells = cells.collect();
        let classic =
            config.gateways.is_empty().then(|| Arc::new(Classic::new(&config, backends, costs, &quotas)));
        let shown = Shown::Document(Box::new(config));
        (Self { gateways, classic, quotas, cells, shown }, problems)
    }

    /// Serves the gateways of all of these, as they are: nothing is compiled again. Each keeps the limits of its own document, and
    /// [`Runtime::quotas`] has none. The names are for [`Runtime::document`].
    pub fn joined(parts: impl IntoIterator<Item = (String, Arc<Self>)>) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let gateways = parts.iter().flat_map(|(_, part)| part.gateways.clone()).collect();
        let cells = parts.iter().flat_map(|(_, part)| part.cells.iter().cloned()).collect();
        Self { gateways, classic: None, quotas: Arc::default(), cells, shown: Shown::Parts(parts) }
    }

    /// The `:authority` of each gateway.
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        self.gateways.keys().map(String::as_str)
    }

    /// The `namespace/name` of each gateway.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.gateways.values().map(|gateway| &*gateway.name)
    }

    /// Whether a request that began with this runtime has not been sent on yet, or may be once more. The caller's own reference
    /// does not count.
    pub fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
            || self.gateways.values().any(|gateway| Arc::strong_count(gateway) > 1 || gateway.is_attempted())
            || self.classic.as_ref().is_some_and(|classic| Arc::strong_count(classic) > 1)
    }

    /// The document it was compiled from, without credentials.
    pub fn document(&self) -> serde_json::Value {
        match &self.shown {
            Shown::Document(config) => config.redacted(),
            Shown::Parts(parts) => parts.iter().map(|(name, part)| (name.clone(), part.document())).collect(),
        }
    }

    /// What a stream that Envoy opened with that `:authority` is served from. A document without gateways serves every one.
    pub fn scope(&self, authority: &str) -> Option<Scope> {
        match &self.classic {
            Some(classic) => Some(Scope::Classic(Arc::clone(classic))),
            None => self.gateway(authority).map(Scope::Gateway),
        }
    }

    /// How much requests may use.
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// The credentials that have to be fetched and renewed, each with the `namespace/name` of the service it is for.
    pub fn cells(&self) -> &[(Arc<str>, Arc<Cell>)] {
        &self.cells
    }

    /// The gateway of that `:authority`.
    pub fn gateway(&self, authority: &str) -> Option<Arc<Gateway>> {
        self.gateways.get(authority).cloned()
    }
}

/// What a request is routed to.
#[derive(Debug, Clone)]
pub enum Route {
    /// This rule.
    Rule(Arc<Rule>),
    /// A rule that cannot be served.
    Broken,
    /// No rule matches.
    None,
}

impl Gateway {
    fn new(
        gateway: &config::Gateway,
        at: &str,
        backends: &HashMap<String, Arc<Backend>>,
        costs: &Costs,
        quotas: &Arc<Quotas>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let rule = |(index, rule)| {
            let at = format!("{at}.rules[{index}]");
            Rule::new(rule, &at, backends, costs, problems).map(Arc::new)
        };
        let rules: Vec<_> = gateway.rules.iter().enumerate().map(rule).collect();
        let mut hosts = Vec::with_capacity(gateway.hosts.len());
        for (host_index, host) in gateway.hosts.iter().enumerate() {
            let mut entries = Vec::with_capacity(host.matches.len());
            for (index, rule_match) in host.matches.iter().enumerate() {
                let at = format!("{at}.hosts[{host_index}].matches[{index}]");
                entries.push(entry(rule_match, &at, problems));
            }
            hosts.push((host.hostname.clone(), entries));
        }
        let (router, errors) = Router::new(hosts);
        problems.extend(
            errors.into_iter().map(|error| Problem { at: format!("{at}.hosts"), message: error.to_string() }),
        );
        let per_attempt = |rule: &&Arc<Rule>| matches!(rule.target, Target::PerAttempt(_));
        let per_attempt = rules.iter().flatten().filter(per_attempt);
        let by_key = per_attempt.map(|rule| (rule.routing_key.clone(), Arc::clone(rule))).collect();
        let models = ModelLists::new(&gateway.models);
        let tenancy = gateway.tenancy.as_ref();
        let tenancy = tenancy.map_or_else(Tenancy::unsaid, |written| Tenancy::new(written, at, problems));
        let tenancy = Arc::new(tenancy);
        let proofs = Proofs::new(&gateway.proofs);
        let (name, quotas) = (gateway.name.as_str().into(), Arc::clone(quotas));
        let gateway_key = gateway.gateway_key;
        Self { name, models, proofs, tenancy, quotas, gateway_key, router, rules, by_key }
    }

    /// What counts for the requests of a rule.
    pub fn tenancy_of<'a>(&'a self, rule: &'a Rule) -> &'a Arc<Tenancy> {
        rule.tenancy.as_ref().unwrap_or(&self.tenancy)
    }

    /// Whether every client may see every model.
    pub fn shows_all_models(&self) -> bool {
        let shown = |rule: &Arc<Rule>| rule.proofs.is_empty() && rule.tenancy.is_none();
        self.tenancy.is_open() && self.rules.iter().flatten().all(shown)
    }

    /// Whether rules ask for proofs by themselves, so that some models are not everybody's to know of.
    pub fn protects_models(&self) -> bool {
        self.rules.iter().flatten().any(|rule| rule.proofs.iter().any(|proof| !proof.optional))
    }

    /// Whether a client may see a model in a list, if a request for it would be routed so. What a rule has asked of a tenant by
    /// itself is not known of a request for a list.
    pub fn shows(&self, tenant: &Tenant, model: &str, route: &Route) -> bool {
        match route {
            Route::Rule(rule) => rule.proofs.is_empty() && self.tenancy_of(rule).allows(tenant, model),
            Route::Broken => false,
            Route::None => {
                self.tenancy.allows(tenant, model)
                    && self.rules.iter().flatten().all(|rule| rule.tenancy.is_none())
            }
        }
    }

    /// Whether a request is under way that is sent attempt by attempt: another one would be made by what this gateway says.
    fn is_attempted(&self) -> bool {
        // The gateway itself knows the rule by its index and by its key.
        self.by_key.values().any(|rule| Arc::strong_count(rule) > 2)
    }

    /// The rule with that routing key, if its requests are sent attempt by attempt.
    pub fn rule_of_attempt(&self, routing_key: &[u8]) -> Option<&Arc<Rule>> {
        self.by_key.get(routing_key)
    }

    /// The rule of a request to `host` whose headers' values `header` gives by lower-case name.
    pub fn select<'h>(&self, host: &str, header: impl Fn(&str) -> Vec<&'h [u8]>) -> Route {
        let Some(index) = self.router.select(host, header) else { return Route::None };
        match self.rules.get(index) {
            Some(Some(rule)) => Route::Rule(Arc::clone(rule)),
            _ => Route::Broken,
        }
    }
}

/// A match with a condition that cannot be compiled takes every request that meets its others, and no rule serves those: they
/// must not fall to a less specific one.
fn entry(rule_match: &config::RuleMatch, at: &str, problems: &mut Vec<Problem>) -> Entry {
    const NO_RULE: usize = usize::MAX;
    let mut rule = rule_match.rule;
    let mut conditions = Vec::with_capacity(rule_match.headers.len());
    for (index, header) in rule_match.headers.iter().enumerate() {
        match condition(header) {
            Ok(condition) => conditions.push(condition),
            Err(error) => {
                rule = NO_RULE;
                problems.push(Problem { at: format!("{at}.headers[{index}]"), message: error.to_string() });
            }
        }
    }
    Entry { conditions, rule }
}

/// A header match, ready to be tried.
pub fn condition(header: &config::HeaderMatch) -> Result<Condition, RegexError> {
    match header.kind {
        HeaderMatchType::Exact => Ok(Condition::exact(&header.name, &header.value)),
        HeaderMatchType::RegularExpression => Condition::regex(&header.name, &header.value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn runtime(config: serde_json::Value) -> (Runtime, Vec<String>) {
        let (runtime, problems) = Runtime::new(serde_json::from_value(config).unwrap());
        (runtime, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_item_that_cannot_be_served_is_named_and_the_rest_is_served() {
        let (runtime, problems) = runtime(json!({
            "backends": [
                {"name": "good"},
                {"name": "empty-key", "auth": {"apiKey": {"key": " "}}},
                {"name": "unknown-auth", "auth": {"aws": {}}},
            ],
            "llmRequestCosts": [
                {"routeName": "d/r", "metadataKey": "bad", "type": "CEL", "cel": "nonsense +"},
                {"routeName": "d/r", "metadataKey": "good", "type": "TotalToken"},
            ],
            "gateways": [{
                "authority": "a", "name": "d/gw", "models": {},
                "hosts": [{"hostname": "*", "matches": [
                    {"headers": [{"name": "x", "type": "RegularExpression", "value": "("}, {"name": "y", "value": "1"}], "rule": 0},
                    {"headers": [], "rule": 0},
                ]}],
                "rules": [
                    {"route": "d/r", "backend": "good", "routingKey": "k"},
                    {"route": "d/r", "backend": "empty-key", "routingKey": "k"},
                ],
            }],
        }));
        for at in [
            "backends[1].auth.apiKey.key",
            "backends[2].auth",
            "llmRequestCosts[0]",
            "gateways[0].rules[1].backend",
            "gateways[0].hosts[0].matches[0].headers[0]",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(at)), "{at}: {problems:?}");
        }
        assert_eq!(problems.len(), 5, "{problems:?}");
        let gateway = runtime.gateway("a").unwrap();
        // What only meets the good part of the broken match is refused, not served by the next one.
        let header = |name: &str| if name == "y" { vec![&b"1"[..]] } else { Vec::new() };
        assert!(matches!(gateway.select("any", header), Route::Broken));
        let Route::Rule(rule) = gateway.select("any", |_| Vec::new()) else { panic!("not served") };
        let Target::Direct(served) = &rule.target else { panic!("not direct") };
        assert_eq!(served.costs.route.len(), 1);
    }

    #[test]
    fn costs_are_shared_by_the_rules_of_a_route() {
        let rule = json!({"route": "d/r", "backend": "b", "routingKey": "k"});
        let (runtime, problems) = runtime(json!({
            "backends": [{"name": "b"}],
            "globalLLMRequestCosts": [{"metadataKey": "all", "type": "TotalToken"}],
            "gateways": [{"authority": "a", "name": "d/gw", "models": {}, "hosts": [], "rules": [rule, rule]}],
        }));
        assert_eq!(problems, [""; 0]);
        let gateway = runtime.gateway("a").unwrap();
        let costs = |rule: &Arc<Rule>| match &rule.target {
            Target::Direct(served) => Arc::clone(&served.costs),
            Target::PerAttempt(_) => panic!("not direct"),
        };
        let costs: Vec<_> = gateway.rules.iter().flatten().map(costs).collect();
        assert!(Arc::ptr_eq(&costs[0], &costs[1]) && !costs[0].is_empty());
    }
}

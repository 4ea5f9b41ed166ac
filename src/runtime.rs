//! L2. The configuration in the shape that requests read: compiled once, shared, never changed.

mod backend;
mod models;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::backend::Backend;
pub use self::models::{List as ModelList, ModelLists};
use crate::config::{self, Config, CostType, HeaderMatchType};
use crate::cost::{Cost, CostKind, CostSet, RouteCost};
use crate::routing::{Condition, Entry, RegexError, Router};

/// Everything one processor serves.
#[derive(Debug)]
pub struct Runtime {
    gateways: HashMap<String, Arc<Gateway>>,
    /// Kept to be shown.
    config: Config,
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

/// What one gateway serves.
#[derive(Debug)]
pub struct Gateway {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// The bodies of its models lists.
    pub models: ModelLists,
    router: Router,
    /// A rule that cannot be served is kept as nothing: its requests must not fall through to another rule.
    rules: Vec<Option<Arc<Rule>>>,
}

/// A rule that sends all its requests to backends of one kind.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// What is sent, and how.
    pub backend: Arc<Backend>,
    /// See [`config::Rule::routing_key`].
    pub routing_key: Bytes,
    /// What its requests cost.
    pub costs: CostSet,
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
        let mut gateways = HashMap::new();
        for (index, gateway) in config.gateways.iter().enumerate() {
            let at = format!("gateways[{index}]");
            let compiled = Gateway::new(gateway, &at, &backends, &config, &mut problems);
            if gateways.insert(gateway.authority.clone(), Arc::new(compiled)).is_some() {
                let message =
                    format!("the authority {:?} is used twice; the later one counts", gateway.authority);
                problems.push(Problem { at: format!("{at}.authority"), message });
            }
        }
        (Self { gateways, config }, problems)
    }

    /// Whether a request that began with this runtime has not been sent on yet. The caller's own reference does not count.
    pub fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || self.gateways.values().any(|gateway| Arc::strong_count(gateway) > 1)
    }

    /// The document it was compiled from, without credentials.
    pub fn document(&self) -> serde_json::Value {
        self.config.redacted()
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
        config: &Config,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut rules = Vec::with_capacity(gateway.rules.len());
        for (index, rule) in gateway.rules.iter().enumerate() {
            let at = format!("{at}.rules[{index}]");
            let Some(backend) = backends.get(&rule.backend) else {
                let message = format!("there is no usable backend {:?}", rule.backend);
                problems.push(Problem { at: format!("{at}.backend"), message });
                rules.push(None);
                continue;
            };
            rules.push(Some(Arc::new(Rule {
                route: rule.route.as_str().into(),
                backend: Arc::clone(backend),
                routing_key: rule.routing_key.clone().into(),
                costs: costs(config, &rule.route, &at, problems),
            })));
        }
        let mut hosts = Vec::with_capacity(gateway.hosts.len());
        for (host_index, host) in gateway.hosts.iter().enumerate() {
            let mut entries = Vec::with_capacity(host.matches.len());
            for (index, rule_match) in host.matches.iter().enumerate() {
                let at = format!("{at}.hosts[{host_index}].matches[{index}]");
                match entry(rule_match) {
                    Ok(entry) => entries.push(entry),
                    Err(message) => problems.push(Problem { at, message }),
                }
            }
            hosts.push((host.hostname.clone(), entries));
        }
        let (router, errors) = Router::new(hosts);
        problems.extend(
            errors.into_iter().map(|error| Problem { at: format!("{at}.hosts"), message: error.to_string() }),
        );
        Self { name: gateway.name.as_str().into(), models: ModelLists::new(&gateway.models), router, rules }
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

fn entry(rule_match: &config::RuleMatch) -> Result<Entry, String> {
    let conditions = rule_match.headers.iter().map(condition).collect::<Result<_, _>>();
    Ok(Entry { conditions: conditions.map_err(|error| error.to_string())?, rule: rule_match.rule })
}

/// A header match, ready to be tried.
pub fn condition(header: &config::HeaderMatch) -> Result<Condition, RegexError> {
    match header.kind {
        HeaderMatchType::Exact => Ok(Condition::exact(&header.name, &header.value)),
        HeaderMatchType::RegularExpression => Condition::regex(&header.name, &header.value),
    }
}

/// The costs of one route: its own, then the global ones. One that cannot be compiled is reported and left out.
fn costs(config: &Config, route: &str, at: &str, problems: &mut Vec<Problem>) -> CostSet {
    let mut compile = |cost: &config::LlmRequestCost, what: String| {
        compile_cost(cost).map_err(|message| problems.push(Problem { at: what, message })).ok()
    };
    let own = config.llm_request_costs.iter().enumerate().filter(|(_, cost)| cost.route_name == route);
    let route = own.filter_map(|(index, config)| {
        let cost = compile(&config.cost, format!("{at}: llmRequestCosts[{index}]"))?;
        Some(RouteCost {
            metadata_key: config.cost.metadata_key.clone(),
            backend: config.backend.clone(),
            model: config.model.clone(),
            cost,
        })
    });
    let route = route.collect();
    let global = config.global_llm_request_costs.iter().enumerate().filter_map(|(index, config)| {
        let cost = compile(config, format!("{at}: globalLLMRequestCosts[{index}]"))?;
        Some((config.metadata_key.clone(), cost))
    });
    CostSet { route, global: global.collect() }
}

fn compile_cost(cost: &config::LlmRequestCost) -> Result<Cost, String> {
    let kind = match cost.kind {
        CostType::OutputToken => CostKind::Output,
        CostType::InputToken => CostKind::Input,
        CostType::CachedInputToken => CostKind::CachedInput,
        CostType::CacheCreationInputToken => CostKind::CacheCreationInput,
        CostType::TotalToken => CostKind::Total,
        CostType::ReasoningToken => CostKind::Reasoning,
        CostType::Cel => CostKind::Cel(cost.cel.as_deref().ok_or("type CEL needs the expression in `cel`")?),
    };
    Cost::new(kind).map_err(|error| error.to_string())
}

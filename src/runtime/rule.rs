//! Rules, and who serves their requests.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::costs::Costs;
use super::{Backend, Problem, Proofs, Tenancy};
use crate::config;
use crate::cost::CostSet;

/// A rule of a gateway.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// Where its requests go.
    pub target: Target,
    /// See [`config::Rule::routing_key`].
    pub routing_key: Bytes,
    /// What each attempt has to prove.
    pub proofs: Proofs,
    /// Takes the place of the gateway's.
    pub tenancy: Option<Arc<Tenancy>>,
}

/// Where the requests of a rule go.
#[derive(Debug)]
pub enum Target {
    /// To backends of one kind: everything is done in the reply to the request's body.
    Direct(Arc<Served>),
    /// To whichever backend Envoy tries: each attempt is translated and signed by itself.
    PerAttempt(Vec<Arc<Served>>),
}

/// Who serves a request, and on what account.
#[derive(Debug)]
pub struct Served {
    /// What is sent, and how.
    pub backend: Arc<Backend>,
    /// `namespace/name` of the route; empty where Envoy does not say.
    pub route: Arc<str>,
    /// What it costs.
    pub costs: Arc<CostSet>,
}

impl Rule {
    /// Compiles a rule; nothing, and a problem, where a backend is missing.
    pub(super) fn new(
        rule: &config::Rule,
        at: &str,
        backends: &HashMap<String, Arc<Backend>>,
        costs: &Costs,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let route: Arc<str> = rule.route.as_str().into();
        let mut served = |name: &str, field: String| {
            let Some(backend) = backends.get(name) else {
                let message = format!("there is no usable backend {name:?}");
                problems.push(Problem { at: format!("{at}.{field}"), message });
                return None;
            };
            let (backend, route) = (Arc::clone(backend), Arc::clone(&route));
            Some(Arc::new(Served { backend, costs: costs.of_route(&route), route }))
        };
        let target = if rule.attempts.is_empty() {
            Target::Direct(served(&rule.backend, "backend".to_owned())?)
        } else {
            let all = rule.attempts.iter().enumerate();
            // One that cannot be served takes the rule with it: Envoy would still try it.
            Target::PerAttempt(
                all.map(|(index, name)| served(name, format!("attempts[{index}]"))).collect::<Option<_>>()?,
            )
        };
        if !rule.proofs.is_empty() && rule.attempts.is_empty() {
            // In its one reply the processor would sign before Envoy has asked for the proof.
            let message = "a rule with proofs has to be served per attempt".to_owned();
            problems.push(Problem { at: format!("{at}.proofs"), message });
            return None;
        }
        let tenancy = rule.tenancy.as_ref().map(|written| Arc::new(Tenancy::new(written, at, problems)));
        let proofs = Proofs::new(&rule.proofs);
        Some(Self { route, target, routing_key: rule.routing_key.clone().into(), proofs, tenancy })
    }

    /// Every backend that may get its requests.
    pub fn backends(&self) -> &[Arc<Served>] {
        match &self.target {
            Target::Direct(served) => std::slice::from_ref(served),
            Target::PerAttempt(all) => all,
        }
    }

    /// Every backend Envoy may try, if requests are sent attempt by attempt.
    pub fn attempts(&self) -> &[Arc<Served>] {
        match &self.target {
            Target::Direct(_) => &[],
            Target::PerAttempt(all) => all,
        }
    }

    /// The backends Envoy may try besides this one.
    pub fn others<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = &'a Backend> + Clone {
        self.attempts().iter().map(|served| &*served.backend).filter(move |other| &*other.name != backend)
    }

    /// The backend of that full name, if this rule sends to it attempt by attempt.
    pub fn attempted(&self, backend: &str) -> Option<&Arc<Served>> {
        self.attempts().iter().find(|served| &*served.backend.name == backend)
    }
}

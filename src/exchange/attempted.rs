//! What an attempt tells the router's stream of another process: who was asked, for whom, and whether it was the gateway that
//! answered.

use std::sync::Arc;

use super::ExchangeId;
use super::handover::{Candidates, Handover};
use super::identity;
use crate::runtime::Served;
use crate::tenant::Tenant;

/// Holds the word of an attempt, in an answer. Never leaves the gateway.
pub(super) const ATTEMPT_HEADER: &str = "x-ai-eg-attempt";

/// The word of an attempt: `id;backend;route;tenant;refusal`, of which the last two may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempted<'a> {
    pub(super) backend: &'a str,
    pub(super) route: &'a str,
    /// Who is asking, where the attempt has asked.
    pub(super) tenant: Option<Tenant>,
    /// The gateway answered in the provider's place; the word says why.
    pub(super) refused: Option<&'static str>,
}

impl<'a> Attempted<'a> {
    pub(super) fn new(served: &'a Served, tenant: Option<Tenant>) -> Self {
        Self { backend: &served.backend.name, route: &served.route, tenant, refused: None }
    }

    /// The word, for the exchange of that id.
    pub(super) fn word(&self, id: Option<ExchangeId>) -> String {
        let Self { backend, route, tenant, refused } = self;
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let tenant = tenant.as_ref().map(Tenant::encoded).unwrap_or_default();
        format!("{id};{backend};{route};{tenant};{}", refused.unwrap_or_default())
    }

    /// Reads the word of an attempt of that exchange. A provider that knows the header does not know the exchange.
    pub(super) fn parse(word: &'a str, id: ExchangeId) -> Option<Self> {
        let mut parts = word.splitn(5, ';');
        if parts.next()?.parse() != Ok(id) {
            return None;
        }
        let (backend, route) = (parts.next()?, parts.next()?);
        let tenant = parts.next().and_then(|tenant| tenant.parse().ok());
        let refused = parts.next().filter(|reason| !reason.is_empty()).map(identity::known_refusal);
        Some(Self { backend, route, tenant, refused })
    }

    /// Who was asked, if that is somebody the exchange may be served by.
    pub(super) fn served(&self, handover: &Handover) -> Option<Arc<Served>> {
        match &handover.candidates {
            Candidates::OfRule(rule) => rule.attempted(self.backend).cloned(),
            Candidates::Classic(classic) => classic.served(self.backend, self.route),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_by_its_exchange_alone() {
        let id = ExchangeId { process: 1, number: 2 };
        let tenant = Tenant { organisation: Tenant::part("a;b"), team: None, key: Tenant::part("é") };
        let told = Attempted {
            backend: "d/b",
            route: "d/r",
            tenant: Some(tenant),
            refused: Some(identity::MODEL_NOT_ALLOWED),
        };
        let word = told.word(Some(id));
        assert_eq!(Attempted::parse(&word, id), Some(told));
        assert_eq!(Attempted::parse(&word, ExchangeId { process: 1, number: 3 }), None);
        for odd in ["", ";;;;", &format!("{id}"), &format!("{id};b")] {
            assert_eq!(Attempted::parse(odd, id), None, "{odd}");
        }
        let short = format!("{id};b;r");
        let read = Attempted::parse(&short, id).unwrap();
        assert_eq!((read.route, read.tenant, read.refused), ("r", None, None));
    }
}

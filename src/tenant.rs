//! L1. Who is asking: organisation, team and key, as the configuration reads them out of what Envoy or a key has proved.

pub mod naming;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Who a request is from. Names only, never a secret; a part that nothing names is absent. Without any part it is the tenant
/// of all requests that prove nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant {
    /// Who pays.
    pub organisation: Option<Arc<str>>,
    /// A part of the organisation.
    pub team: Option<Arc<str>>,
    /// The name of the key, user or machine.
    pub key: Option<Arc<str>>,
}

/// A part of a tenant's name is at most that long, in bytes; what is longer is no name.
const MAX_NAME: usize = 256;

impl Tenant {
    /// The tenant of requests that prove nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Whether nothing was proved.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        *self == Self::default()
    }

    /// A part of a name, if the text can be one: not empty, at most 256 bytes, no control characters.
    #[must_use]
    pub fn part(text: &str) -> Option<Arc<str>> {
        let fits = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
        fits.then(|| text.into())
    }

    /// The parts that are there, with the names under which telemetry tells them.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &Arc<str>)> {
        let Self { organisation, team, key } = self;
        [("tenant_organisation", organisation), ("tenant_team", team), ("tenant_key", key)]
            .into_iter()
            .filter_map(|(name, part)| Some((name, part.as_ref()?)))
    }
}

/// `organisation/team/key`; `-` stands for a part that is absent, and alone for nobody. A slash within a part is written `%2F`,
/// a percent sign `%25`, so that two tenants never look the same.
impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_anonymous() {
            return f.write_str("-");
        }
        let part = |part: &Option<Arc<str>>| match part.as_deref() {
            None => "-".to_owned(),
            Some("-") => "%2D".to_owned(),
            Some(part) => part.replace('%', "%25").replace('/', "%2F"),
        };
        write!(f, "{}/{}/{}", part(&self.organisation), part(&self.team), part(&self.key))
    }
}

impl Serialize for Tenant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(organisation: &str, team: &str, key: &str) -> Tenant {
        Tenant { organisation: Tenant::part(organisation), team: Tenant::part(team), key: Tenant::part(key) }
    }

    #[test]
    fn two_tenants_never_look_the_same() {
        assert_eq!(Tenant::anonymous().to_string(), "-");
        assert_eq!(tenant("acme", "", "k1").to_string(), "acme/-/k1");
        assert_eq!(tenant("a/b", "-", "c%2F").to_string(), "a%2Fb/%2D/c%252F");
        assert_ne!(tenant("a/b", "", "").to_string(), tenant("a", "b", "").to_string());
        assert_eq!(serde_json::to_value(tenant("acme", "", "")).unwrap(), "acme/-/-");
    }

    #[test]
    fn what_is_no_name_is_no_part() {
        for text in ["", "a\nb", "\u{7f}", &"x".repeat(257)] {
            assert_eq!(Tenant::part(text), None, "{text:?}");
        }
        assert!(tenant("", "", "").is_anonymous() && !tenant("", "", "k").is_anonymous());
    }
}

//! L1. Who is asking: organisation, team and key, as the configuration reads them out of what Envoy or a key has proved.

pub mod naming;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
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

/// What is not written as it is where a tenant's name stands in a header. Signs that are not ASCII never are.
const UNSAFE_IN_HEADERS: AsciiSet = CONTROLS.add(b' ').add(b';').add(b'"');

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

    /// As it is shown, in letters that any header may hold.
    #[must_use]
    pub fn encoded(&self) -> String {
        utf8_percent_encode(&self.to_string(), &UNSAFE_IN_HEADERS).to_string()
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

/// The text is no tenant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is ORGANISATION/TEAM/KEY, with `-` for a part that is absent, or `-` alone for nobody")]
pub struct InvalidTenant;

impl FromStr for Tenant {
    type Err = InvalidTenant;

    /// Reads what [`Tenant`] shows of itself, or [`Tenant::encoded`] made.
    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        if text == "-" {
            return Ok(Self::anonymous());
        }
        let part = |text: &str| match text {
            "-" => Ok(None),
            _ => {
                let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidTenant)?;
                Self::part(&decoded).ok_or(InvalidTenant).map(Some)
            }
        };
        let mut parts = text.split('/');
        let (Some(organisation), Some(team), Some(key), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTenant);
        };
        Ok(Self { organisation: part(organisation)?, team: part(team)?, key: part(key)? })
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
    fn what_a_tenant_shows_of_itself_is_read_again() {
        let tenants = [
            Tenant::anonymous(),
            tenant("acme", "", "k1"),
            tenant("a/b", "-", "c%2F;\" é"),
            tenant("", "%", "--"),
        ];
        for tenant in tenants {
            assert_eq!(tenant.to_string().parse(), Ok(tenant.clone()));
            let encoded = tenant.encoded();
            assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';'), "{encoded}");
            assert_eq!(encoded.parse(), Ok(tenant));
        }
        for text in ["", "acme", "a/b", "a/b/c/d", "a//c", "%FF/-/-", "a/%0A/-"] {
            assert_eq!(text.parse::<Tenant>(), Err(InvalidTenant), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_no_part() {
        for text in ["", "a\nb", "\u{7f}", &"x".repeat(257)] {
            assert_eq!(Tenant::part(text), None, "{text:?}");
        }
        assert!(tenant("", "", "").is_anonymous() && !tenant("", "", "k").is_anonymous());
    }
}

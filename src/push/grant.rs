//! What a processor may see, as its certificate says.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::source::protocol::is_gateway;

/// How the names begin that grant something.
const SCHEME: &str = "aigw://gateways/";

/// The right to see the configuration of Gateways. Written as a name in a certificate: `aigw://gateways/*`,
/// `aigw://gateways/NAMESPACE/*` or `aigw://gateways/NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Of all.
    All,
    /// Of all in a namespace.
    Namespace(String),
    /// Of this one, as `namespace/name`.
    Gateway(String),
}

/// A text that grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} grants nothing; write aigw://gateways/*, aigw://gateways/NAMESPACE/* or aigw://gateways/NAMESPACE/NAME"
)]
pub struct InvalidGrant(String);

impl Grant {
    /// Whether it is a right to see that Gateway (`namespace/name`).
    pub fn covers(&self, gateway: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => {
                gateway.strip_prefix(namespace.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Gateway(granted) => granted == gateway,
        }
    }
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let invalid = || InvalidGrant(text.to_owned());
        let granted = text.strip_prefix(SCHEME).ok_or_else(invalid)?;
        if granted == "*" {
            return Ok(Self::All);
        }
        if let Some(namespace) = granted.strip_suffix("/*") {
            let valid = is_gateway(&format!("{namespace}/x"));
            return valid.then(|| Self::Namespace(namespace.to_owned())).ok_or_else(invalid);
        }
        is_gateway(granted).then(|| Self::Gateway(granted.to_owned())).ok_or_else(invalid)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "{SCHEME}*"),
            Self::Namespace(namespace) => write!(f, "{SCHEME}{namespace}/*"),
            Self::Gateway(gateway) => write!(f, "{SCHEME}{gateway}"),
        }
    }
}

/// All rights that a certificate, which was found to be valid, gives. Other names in it mean nothing.
pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Vec<Grant> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let mut grants: Vec<_> = certificate.valid_uri_names().filter_map(|name| name.parse().ok()).collect();
    grants.sort();
    grants.dedup();
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_what_it_names() {
        for (text, covered, not) in [
            ("aigw://gateways/*", "any/one", None),
            ("aigw://gateways/team-a/*", "team-a/gw", Some("team-ab/gw")),
            ("aigw://gateways/team-a/gw", "team-a/gw", Some("team-a/gw2")),
        ] {
            let grant: Grant = text.parse().unwrap();
            assert_eq!(grant.to_string(), text);
            assert!(grant.covers(covered), "{text}");
            assert!(!not.is_some_and(|other| grant.covers(other)), "{text}");
        }
        for bad in [
            "",
            "*",
            "aigw://gateways/",
            "aigw://gateways/a",
            "aigw://gateways/*/gw",
            "aigw://gateways/a/b/*",
            "aigw://gateways//gw",
            "AIGW://gateways/*",
            "https://gateways/*",
            "aigw://gateways/a/b ",
        ] {
            assert!(bad.parse::<Grant>().is_err(), "{bad}");
        }
    }
}

//! What the router's stream tells attempts at other processes of a request, besides the request itself: in dynamic metadata, which
//! only the processor writes.

use core::net::IpAddr;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::identity::Client;
use crate::headers::Headers;
use crate::tenant::Tenant;

/// In dynamic metadata: what is [`Told`].
pub const TOLD_KEY: &str = "told";

/// What limits go by and an attempt at another process cannot see for itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct Told {
    /// Who is asking, as far as it was known when the request was routed.
    tenant: String,
    /// The tenant is that of a key of the gateway's own, whatever is proved later.
    by_key: bool,
    pub(super) key_quota: Option<String>,
    /// The client's address.
    pub(super) source: Option<IpAddr>,
    /// How long the answer may get, where the router's stream was granted so much.
    pub(super) ceiling: Option<u64>,
    /// The client's headers that limits look at; each byte of a value is one character.
    headers: Vec<(String, String)>,
}

impl Told {
    pub(super) fn new<'n>(
        client: &Client,
        source: Option<IpAddr>,
        ceiling: Option<u64>,
        headers: &Headers,
        names: impl Iterator<Item = &'n str>,
    ) -> Self {
        let values = |name: &'n str| {
            headers
                .all(name)
                .map(move |value| (name.to_owned(), value.iter().map(|b| char::from(*b)).collect()))
        };
        Self {
            tenant: client.tenant.to_string(),
            by_key: client.key.is_some(),
            key_quota: client.key_quota().map(str::to_owned),
            source,
            ceiling,
            headers: names.flat_map(values).collect(),
        }
    }

    /// Reads what `Told::text` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let told: Self = serde_json::from_str(text).ok()?;
        told.tenant.parse::<Tenant>().is_ok().then_some(told)
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Who is asking, if nothing more has to be proved.
    pub(super) fn tenant(&self) -> Tenant {
        self.tenant.parse().unwrap_or_else(|_| Tenant::anonymous())
    }

    /// The tenant by a key of the gateway's own: whatever else is proved, this says more.
    pub(super) fn key_tenant(&self) -> Option<Tenant> {
        self.by_key.then(|| self.tenant())
    }

    pub(super) fn headers(&self) -> Headers {
        let byte = |character| u8::try_from(u32::from(character)).unwrap_or(b'?');
        let pairs = self.headers.iter();
        pairs
            .map(|(name, value)| (Bytes::from(name.clone()), value.chars().map(byte).collect::<Bytes>()))
            .collect()
    }
}

/// No content: it is the users' business.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("ceiling", &self.ceiling).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_byte_by_byte_and_only_what_limits_look_at() {
        let value = Bytes::from_static(b"\xff\"a\xc3\xa9");
        let mut headers: Headers = [("x-team", "red"), ("x-other", "secret")].into_iter().collect();
        headers.push("x-team".into(), value.clone());
        let tenant = Tenant { organisation: Tenant::part("a/b"), team: None, key: Tenant::part("\u{e9}") };
        let client = Client { tenant: tenant.clone(), ..Client::default() };
        let told = Told::new(&client, None, Some(7), &headers, ["x-absent", "x-team"].into_iter());
        let read = Told::parse(&told.text()).unwrap();
        assert_eq!(read.headers().all("x-team").collect::<Vec<_>>(), [b"red", &value[..]]);
        assert!(!told.text().contains("secret"));
        assert_eq!((read.tenant(), read.key_tenant(), read.ceiling), (tenant, None, Some(7)));
        for odd in ["", "{}", &told.text().replace("a%2Fb/-/", "/")] {
            assert!(Told::parse(odd).is_none(), "{odd}");
        }
    }
}

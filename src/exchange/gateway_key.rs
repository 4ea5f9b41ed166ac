//! The gateway's own keys: which one a request shows, and whether it may be used for it.

use core::net::IpAddr;
use std::sync::Arc;

use super::{Exchange, Now};
use crate::config::KeyDemand;
use crate::endpoint::Endpoint;
use crate::headers::Headers;
use crate::keys::{Index, NotAKey, PREFIX, Reason, Record, Refusal};
use crate::mutation::LocalReply;
use crate::runtime::Scope;
use crate::tenant::Tenant;
use crate::wire::{anthropic, cohere, openai};

/// Where clients show a key: as OpenAI's, Anthropic's and Azure's do.
const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It shows no key.
    Missing,
    /// It shows more than one thing as a key.
    Ambiguous,
    /// What it shows is none of the gateway's keys, by its text.
    NotAKey(NotAKey),
    /// The key is not valid. Why is for the log.
    Refused(Reason),
    /// Keys cannot be checked.
    Unavailable,
    /// The key is not good from that address.
    Source,
    /// The key is not good for that model.
    Model,
}

impl Denied {
    /// The HTTP status of the answer.
    fn status(self) -> u16 {
        match self {
            Self::Missing | Self::Ambiguous | Self::NotAKey(_) | Self::Refused(_) => 401,
            Self::Source | Self::Model => 403,
            Self::Unavailable => 503,
        }
    }

    /// For our logs and metrics.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Missing => "key_missing",
            Self::Ambiguous => "key_ambiguous",
            Self::NotAKey(_) => "key_malformed",
            Self::Refused(reason) => match reason {
                Reason::Unknown => "key_unknown",
                Reason::Revoked => "key_revoked",
                Reason::Expired => "key_expired",
                Reason::Elsewhere => "key_gateway",
            },
            Self::Unavailable => "keys_unavailable",
            Self::Source => "key_source",
            Self::Model => "key_model",
        }
    }

    /// The answer, in the dialect of the endpoint.
    pub(super) fn reply(self, endpoint: Endpoint) -> LocalReply {
        let (status, message) = (self.status(), self.message());
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            _ => "ServiceUnavailable",
        };
        let body = match endpoint {
            Endpoint::Messages | Endpoint::CountTokens | Endpoint::AnthropicModels => {
                anthropic::error_body(status, &message)
            }
            Endpoint::Rerank => cohere::error_body(&message),
            _ => openai::error_body(kind, status, &message),
        };
        // Envoy can be told to show these to clients, so that all keys that are not valid are one here too.
        let details = if matches!(self, Self::Refused(_)) { "key_refused" } else { self.details() };
        let mut reply = LocalReply::json(status, details, body);
        if status == 401 {
            reply.headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        reply
    }

    /// What the client is told. The same for every key that is not valid.
    fn message(self) -> String {
        match self {
            Self::Missing => {
                "no API key was shown; send one as `Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`"
                    .to_owned()
            }
            Self::Ambiguous => "more than one API key was shown; send one".to_owned(),
            Self::NotAKey(reason) => reason.to_string(),
            Self::Refused(reason) => Refusal::Refused(reason).to_string(),
            Self::Unavailable => Refusal::Unavailable.to_string(),
            Self::Source => "this key may not be used from this address".to_owned(),
            Self::Model => "this key may not be used for this model".to_owned(),
        }
    }
}

impl Exchange {
    /// The record of the key that the request shows, where keys are asked for.
    pub(super) fn gateway_key(
        &mut self,
        scope: &Scope,
        headers: &Headers,
        now: Now,
    ) -> Result<Option<Arc<Record>>, Denied> {
        let (gateway, said) = match scope {
            Scope::Gateway(gateway) => (Some(&*gateway.name), gateway.gateway_key),
            Scope::Classic(_) => (None, None),
        };
        let by_policy = self.settings.keys_by_policy && gateway.is_some();
        let usual =
            if by_policy || self.settings.keys.is_none() { KeyDemand::NotAsked } else { KeyDemand::Required };
        let key = match said.unwrap_or(usual) {
            KeyDemand::NotAsked => return Ok(None),
            KeyDemand::Required => shown(headers)?,
            // What is no key of the gateway's is for one of Envoy's filters.
            KeyDemand::Optional => match shown(headers) {
                Ok(key) if key.starts_with(PREFIX.as_bytes()) => key,
                Ok(_) | Err(Denied::Missing) => return Ok(None),
                Err(denied) => return Err(denied),
            },
        };
        // A policy asks for keys, and there is nobody to know them: closed.
        let index = self.settings.keys.as_ref().ok_or(Denied::Unavailable)?;
        let record = authenticate(index, key, (gateway, self.source), now)?;
        self.note(|settlement| settlement.tenant = tenant(&record));
        Ok(Some(record))
    }
}

/// The record of a key that is shown at a gateway, from the client's address as Envoy found it. The model is another question:
/// [`Record::allows_model`].
fn authenticate(
    index: &Index,
    key: &[u8],
    (gateway, source): (Option<&str>, Option<IpAddr>),
    now: Now,
) -> Result<Arc<Record>, Denied> {
    let record = index.verify(key, now.wall, now.monotonic).map_err(|refusal| match refusal {
        Refusal::NotAKey(reason) => Denied::NotAKey(reason),
        Refusal::Refused(reason) => Denied::Refused(reason),
        Refusal::Unavailable => Denied::Unavailable,
    })?;
    if !record.allows_gateway(gateway) {
        // At another gateway it is as if it were not there.
        return Err(Denied::Refused(Reason::Elsewhere));
    }
    if record.allows_source(source) { Ok(record) } else { Err(Denied::Source) }
}

/// The one key that the request shows. The same one in several headers is one; what is no key of the gateway's in another header
/// is for somebody else, as a token for one of Envoy's filters. Twice the same header with different values is nobody's doing but
/// a forger's.
fn shown(headers: &Headers) -> Result<&[u8], Denied> {
    let mut own: Option<&[u8]> = None;
    let mut foreign: Option<&[u8]> = None;
    for name in HEADERS {
        let mut values = headers.all(name).map(<[u8]>::trim_ascii);
        let Some(value) = values.next() else { continue };
        if values.any(|other| other != value) {
            return Err(Denied::Ambiguous);
        }
        let key = if name == "authorization" { bearer(value).unwrap_or_default() } else { value };
        if key.is_empty() {
            continue;
        }
        if !key.starts_with(PREFIX.as_bytes()) {
            foreign = Some(key);
        } else if own.is_some_and(|other| other != key) {
            return Err(Denied::Ambiguous);
        } else {
            own = Some(key);
        }
    }
    own.or(foreign).ok_or(Denied::Missing)
}

/// What follows the scheme `Bearer`, in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let separated = rest.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && separated).then(|| rest.trim_ascii())
}

/// Whose key it is.
pub(super) fn tenant(record: &Record) -> Tenant {
    let part = |name: &Option<String>| name.as_deref().and_then(Tenant::part);
    let grant = &record.grant;
    Tenant {
        organisation: part(&grant.organisation),
        team: part(&grant.team),
        key: Tenant::part(&grant.name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::keys::{Grant, NewKey};

    fn now() -> Now {
        Now { monotonic: Instant::now(), wall: SystemTime::UNIX_EPOCH }
    }

    /// An index with one key, and the key.
    fn index(grant: Grant) -> (Index, String) {
        let key = NewKey::generate(&[7; 64]);
        let index = Index::new(Duration::from_secs(3600));
        index.replace([Record::new(&key, grant, now().wall).unwrap()]);
        index.confirm(Instant::now());
        (index, key.text.expose_secret().to_owned())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect()
    }

    fn ask(index: &Index, headers: &Headers, source: Option<IpAddr>) -> Result<(), Denied> {
        authenticate(index, shown(headers)?, (Some("d/gw"), source), now()).map(drop)
    }

    #[test]
    fn a_key_is_shown_as_the_sdks_do() {
        let (index, key) = index(Grant::named("k"));
        let bearer = |scheme: &str| format!("{scheme}{key}");
        for shown in [
            headers(&[("authorization", &bearer("Bearer "))]),
            headers(&[("authorization", &bearer("bEARER \t "))]),
            headers(&[("x-api-key", &key)]),
            headers(&[("api-key", &format!(" {key}\t"))]),
            headers(&[("authorization", &bearer("Bearer ")), ("x-api-key", &key)]),
            headers(&[("authorization", "Bearer eyJ.for.envoy"), ("x-api-key", &key)]),
            headers(&[("authorization", "Basic other"), ("api-key", &key)]),
        ] {
            assert!(ask(&index, &shown, None).is_ok(), "{shown:?}");
        }
    }

    #[test]
    fn what_shows_no_single_key_is_refused() {
        let (index, key) = index(Grant::named("k"));
        let bearer = format!("Bearer {key}");
        for (shown, denied) in [
            (headers(&[]), Denied::Missing),
            (headers(&[("authorization", "")]), Denied::Missing),
            (headers(&[("authorization", "Bearer")]), Denied::Missing),
            (headers(&[("authorization", "Bearer  ")]), Denied::Missing),
            (headers(&[("authorization", &key)]), Denied::Missing),
            (headers(&[("authorization", &format!("Basic {key}"))]), Denied::Missing),
            (headers(&[("x-api-key", "")]), Denied::Missing),
            (headers(&[("authorization", &bearer), ("authorization", "Bearer x")]), Denied::Ambiguous),
            (headers(&[("x-api-key", &key), ("x-api-key", "")]), Denied::Ambiguous),
            (headers(&[("authorization", &bearer), ("x-api-key", "aigw-x")]), Denied::Ambiguous),
            (headers(&[("x-api-key", "aigw-x"), ("api-key", &key)]), Denied::Ambiguous),
            (headers(&[("x-api-key", "sk-other")]), Denied::NotAKey(NotAKey::Foreign)),
            (headers(&[("x-api-key", &key[..66])]), Denied::NotAKey(NotAKey::Mistyped)),
        ] {
            assert_eq!(ask(&index, &shown, None).unwrap_err(), denied, "{shown:?}");
        }
    }

    #[test]
    fn a_network_is_held_to_the_address_envoy_found() {
        let grant = Grant { sources: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..Grant::named("k") };
        let (index, key) = index(grant);
        let shown = headers(&[("x-api-key", &key), ("x-forwarded-for", "10.0.0.1")]);
        let from = |source: Option<&str>| {
            let source = source.map(|address| address.parse().unwrap());
            ask(&index, &shown, source)
        };
        assert_eq!(from(Some("10.0.0.1")), Ok(()));
        assert_eq!(from(Some("11.0.0.1")), Err(Denied::Source));
        assert_eq!(from(None), Err(Denied::Source));
    }

    #[test]
    fn a_key_for_some_gateways_is_none_at_others() {
        let grant = Grant { gateways: Some(vec!["d/gw".into()]), ..Grant::named("k") };
        let (index, key) = index(grant);
        let at = |gateway| authenticate(&index, key.as_bytes(), (gateway, None), now()).map(drop);
        assert_eq!(at(Some("d/gw")), Ok(()));
        for elsewhere in [Some("d/gw2"), Some("D/gw"), None] {
            assert_eq!(at(elsewhere), Err(Denied::Refused(Reason::Elsewhere)));
        }
    }

    #[test]
    fn all_keys_that_are_not_valid_get_one_answer() {
        let told = |reason| {
            let denied = Denied::Refused(reason);
            Endpoint::ALL.map(|endpoint| denied.reply(endpoint))
        };
        assert_eq!(told(Reason::Unknown), told(Reason::Revoked));
        assert_eq!(told(Reason::Unknown), told(Reason::Expired));
        assert_eq!(told(Reason::Unknown), told(Reason::Elsewhere));
    }

    #[test]
    fn a_tenant_is_told_by_the_keys_grant() {
        let grant = Grant { organisation: Some("acme".into()), ..Grant::named("ci") };
        let record = Record::new(&NewKey::generate(&[7; 64]), grant, now().wall).unwrap();
        assert_eq!(tenant(&record).to_string(), "acme/-/ci");
    }
}

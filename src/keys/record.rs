//! What is kept of a key.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq as _};

use super::steps::{self, Step};
use super::{KeyId, ModelPattern, Network, NewKey, Timestamp};

/// The longest record as JSON, in bytes.
pub const MAX_RECORD: usize = 64 << 10;
/// The longest name of a key, an organisation, a team or a quota, in bytes.
const MAX_NAME: usize = 128;
/// The most models, networks and pairs of metadata of one key.
const MAX_ITEMS: usize = 256;
/// The longest value in metadata, in bytes.
const MAX_VALUE: usize = 1024;

/// The salted SHA-256 of a key's text. Neither prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hashed {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl Hashed {
    pub(super) fn new(salt: [u8; 16], text: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&salt);
        context.update(text);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self { salt, hash }
    }

    /// No text has this one.
    pub(super) fn of_nothing() -> Self {
        Self { salt: [0; 16], hash: [0; 32] }
    }

    /// Whether it is that of `text`, in a time that does not depend on how much of it is the same.
    pub(super) fn is_of(&self, text: &[u8]) -> Choice {
        steps::took(Step::Hash(text.len()));
        let hash = Self::new(self.salt, text).hash;
        steps::took(Step::Compare(hash.len()));
        hash.ct_eq(&self.hash)
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(..)")
    }
}

impl From<Hashed> for String {
    fn from(hashed: Hashed) -> Self {
        let (salt, hash) = (STANDARD_NO_PAD.encode(hashed.salt), STANDARD_NO_PAD.encode(hashed.hash));
        format!("sha256:{salt}:{hash}")
    }
}

impl TryFrom<String> for Hashed {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "the hash is not of the form sha256:SALT:HASH, both in base64";
        fn part<const N: usize>(text: &str) -> Option<[u8; N]> {
            STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
        }
        let (salt, hash) = text.strip_prefix("sha256:").and_then(|rest| rest.split_once(':')).ok_or(FORM)?;
        Ok(Self { salt: part(salt).ok_or(FORM)?, hash: part(hash).ok_or(FORM)? })
    }
}

/// For whom a key is and what it is good for. Chosen by whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// What people call it; the `key` of the tenant.
    pub name: String,
    /// The organisation of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The team of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// From when on it is no longer good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The Gateways it is good at, as `namespace/name`; absent: all, empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<Vec<String>>,
    /// The models it is good for; absent: all, empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<ModelPattern>>,
    /// The addresses it is good from; absent: all, empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Network>>,
    /// Whatever its maker wants to find again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The name of the quota that holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

/// Why a [`Grant`] is not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGrant(String);

impl Grant {
    /// A key of that name which is good for everything.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            organisation: None,
            team: None,
            expires: None,
            gateways: None,
            models: None,
            sources: None,
            metadata: BTreeMap::new(),
            quota: None,
        }
    }

    /// Says what is too long, empty or unprintable in it.
    pub fn check(&self) -> Result<(), InvalidGrant> {
        let Self { name, organisation, team, expires: _, gateways, models, sources, metadata, quota } = self;
        check_name("name", name)?;
        for (field, name) in [("organisation", organisation), ("team", team), ("quota", quota)] {
            name.as_ref().map_or(Ok(()), |name| check_name(field, name))?;
        }
        for gateway in gateways.iter().flatten() {
            check_name("a name in gateways", gateway)?;
            let parts = gateway.split_once('/');
            if !parts.is_some_and(|(namespace, name)| {
                !namespace.is_empty() && !name.is_empty() && !name.contains('/')
            }) {
                return Err(InvalidGrant(format!("`{gateway}` names no Gateway; write NAMESPACE/NAME")));
            }
        }
        let counts = [
            ("gateways", gateways.as_ref().map_or(0, Vec::len)),
            ("models", models.as_ref().map_or(0, Vec::len)),
            ("sources", sources.as_ref().map_or(0, Vec::len)),
            ("metadata", metadata.len()),
        ];
        for (field, count) in counts {
            if count > MAX_ITEMS {
                return Err(InvalidGrant(format!(
                    "{field} has {count} entries; at most {MAX_ITEMS} are allowed"
                )));
            }
        }
        for (key, value) in metadata {
            check_name("a name in metadata", key)?;
            if value.len() > MAX_VALUE {
                return Err(InvalidGrant(format!("metadata.{key} is longer than {MAX_VALUE} bytes")));
            }
        }
        // The other members of a record are short.
        let length = serde_json::to_vec(self).map_or(usize::MAX, |text| text.len());
        if length > MAX_RECORD - 1024 {
            return Err(InvalidGrant(format!(
                "all of it together is longer than {} bytes",
                MAX_RECORD - 1024
            )));
        }
        Ok(())
    }
}

fn check_name(field: &str, name: &str) -> Result<(), InvalidGrant> {
    if name.trim().is_empty() {
        return Err(InvalidGrant(format!("{field} is empty")));
    }
    if name.len() > MAX_NAME {
        return Err(InvalidGrant(format!("{field} is longer than {MAX_NAME} bytes")));
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidGrant(format!("{field} must hold no control characters")));
    }
    Ok(())
}

/// What is kept of a key: everything but the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Its name among all of a store.
    pub id: KeyId,
    /// Tells the key from others.
    pub hash: Hashed,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it is no longer good, because somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The key in whose place it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_from: Option<KeyId>,
    /// The key in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_to: Option<KeyId>,
    /// From when on only the key in its place is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires: Option<Timestamp>,
    /// What it is good for.
    pub grant: Grant,
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good.
    Active,
    /// It is good, for a while: another one is in its place.
    Retiring,
    /// Its time is over, or the time that was left to it when another took its place.
    Expired,
    /// Somebody took it back.
    Revoked,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// Why a text is no [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no record of a key: {0}")]
pub struct Unreadable(String);

impl Record {
    /// The record of a new key.
    pub fn new(key: &NewKey, grant: Grant, now: SystemTime) -> Result<Self, InvalidGrant> {
        grant.check()?;
        Ok(Self {
            id: key.id,
            hash: key.hashed.clone(),
            created: Timestamp::of(now),
            revoked: None,
            rotated_from: None,
            rotated_to: None,
            retires: None,
            grant,
        })
    }

    /// Reads what [`Record::to_json`] writes. A member that is not known could be a restriction, so that such a record is
    /// refused.
    pub fn from_json(text: &[u8]) -> Result<Self, Unreadable> {
        if text.len() > MAX_RECORD {
            return Err(Unreadable(format!("{} bytes, at most {MAX_RECORD} are allowed", text.len())));
        }
        // A hash could be in the part of the text that the reader's error shows.
        let unreadable = |error: serde_json::Error| {
            let (category, column) = (error.classify(), error.column());
            let reason = match category {
                serde_json::error::Category::Data if !error.to_string().contains("hash") => error.to_string(),
                serde_json::error::Category::Data => "the hash is not one".to_owned(),
                _ => format!("no JSON ({category:?} at column {column})"),
            };
            Unreadable(reason)
        };
        let record: Self = serde_json::from_slice(text).map_err(unreadable)?;
        record.grant.check().map_err(|error| Unreadable(error.to_string()))?;
        Ok(record)
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        // Nothing in it fails to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people and programs that manage keys: all of it but the hash, in one level, and how it stands.
    pub fn describe(&self, now: SystemTime) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(members) = value.as_object_mut() {
            members.remove("hash");
            if let Some(serde_json::Value::Object(grant)) = members.remove("grant") {
                members.extend(grant);
            }
            members.insert("status".to_owned(), self.standing(now).to_string().into());
        }
        value
    }

    /// How it stands at `now`.
    pub fn standing(&self, now: SystemTime) -> Standing {
        steps::took(Step::Stand);
        let come = |time: Option<Timestamp>| time.is_some_and(|time| time.has_come(now));
        // All is looked at, whatever comes of it.
        let (revoked, retired, expired) =
            (self.revoked.is_some(), come(self.retires), come(self.grant.expires));
        match (revoked, retired | expired, self.retires) {
            (true, ..) => Standing::Revoked,
            (false, true, _) => Standing::Expired,
            (false, false, Some(_)) => Standing::Retiring,
            (false, false, None) => Standing::Active,
        }
    }

    /// When it ends by itself, if it does.
    pub fn ends(&self) -> Option<Timestamp> {
        self.retires.into_iter().chain(self.grant.expires).min()
    }

    /// Whether it is good for that model.
    pub fn allows_model(&self, model: &str) -> bool {
        self.grant.models.as_ref().is_none_or(|models| models.iter().any(|pattern| pattern.matches(model)))
    }

    /// Whether it is good at that Gateway, `namespace/name`. Where there are none, keys without a restriction only are.
    pub fn allows_gateway(&self, gateway: Option<&str>) -> bool {
        let Some(gateways) = &self.grant.gateways else { return true };
        gateway.is_some_and(|gateway| gateways.iter().any(|allowed| allowed == gateway))
    }

    /// Whether it is good from that address. One that nobody knows is good for keys without a restriction only.
    pub fn allows_source(&self, address: Option<IpAddr>) -> bool {
        let Some(sources) = &self.grant.sources else { return true };
        address.is_some_and(|address| sources.iter().any(|network| network.contains(address)))
    }

    /// Takes it back. What was taken back stays so, and says since when.
    pub fn revoke(&mut self, now: SystemTime) {
        self.revoked.get_or_insert_with(|| Timestamp::of(now));
    }

    /// The record of `key`, which takes the place of this one; this one is good for `grace` still.
    pub fn rotate(&mut self, key: &NewKey, now: SystemTime, grace: Duration) -> Self {
        let retires = Timestamp::of(now).after(grace);
        self.retires = Some(self.retires.map_or(retires, |earlier| earlier.min(retires)));
        self.rotated_to = Some(key.id);
        Self {
            id: key.id,
            hash: key.hashed.clone(),
            created: Timestamp::of(now),
            revoked: None,
            rotated_from: Some(self.id),
            rotated_to: None,
            retires: None,
            grant: self.grant.clone(),
        }
    }
}

//! How a tenant is read out of what was proved: names by a pattern, claims by their path, subjects of certificates by their
//! attributes.

use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Tenant;

/// Texts such as `{organisation}.{team}.{key}`: each part once, in any order, with something between two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(Part),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Organisation,
    Team,
    Key,
}

/// Why a text is no [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern names {{organisation}}, {{team}} or {{key}}, each at most once, with some text between two of them"
)]
pub struct InvalidPattern;

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').map_or((rest, None), |(b, a)| (b, Some(a)));
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some(after) = after else { break };
            let (name, after) = after.split_once('}').ok_or(InvalidPattern)?;
            let part = match name {
                "organisation" => Part::Organisation,
                "team" => Part::Team,
                "key" => Part::Key,
                _ => return Err(InvalidPattern),
            };
            let adjacent = matches!(pieces.last(), Some(Piece::Part(_)));
            if adjacent || pieces.contains(&Piece::Part(part)) {
                return Err(InvalidPattern);
            }
            pieces.push(Piece::Part(part));
            rest = after;
        }
        let names = pieces.iter().any(|piece| matches!(piece, Piece::Part(_)));
        if names { Ok(Self(pieces)) } else { Err(InvalidPattern) }
    }
}

impl Default for Pattern {
    /// The whole name is the key's.
    fn default() -> Self {
        Self(vec![Piece::Part(Part::Key)])
    }
}

impl Pattern {
    /// The tenant of a name. One that does not fit the pattern is wholly the key's, so that it is nobody else's.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Tenant {
        self.fit(name).unwrap_or_else(|| Tenant { key: Tenant::part(name), ..Tenant::default() })
    }

    /// The tenant of a name that looks so; nothing for any other.
    #[must_use]
    pub fn fit(&self, name: &str) -> Option<Tenant> {
        let mut tenant = Tenant::default();
        let mut rest = name;
        for (index, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Part(part) => {
                    let end = match self.0.get(index + 1) {
                        Some(Piece::Text(text)) => rest.find(text.as_str())?,
                        _ => rest.len(),
                    };
                    let (value, after) = rest.split_at(end);
                    *part.of(&mut tenant) = Some(Tenant::part(value)?);
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(tenant)
    }
}

impl Pattern {
    /// The name of a tenant that has each part of the pattern.
    #[must_use]
    pub fn name(&self, tenant: &Tenant) -> Option<String> {
        let mut tenant = tenant.clone();
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Part(part) => name.push_str(part.of(&mut tenant).as_deref()?),
            }
        }
        Some(name)
    }
}

impl Part {
    fn of(self, tenant: &mut Tenant) -> &mut Option<Arc<str>> {
        match self {
            Self::Organisation => &mut tenant.organisation,
            Self::Team => &mut tenant.team,
            Self::Key => &mut tenant.key,
        }
    }
}

/// The names of claims (`a.b` is within `a`) or of a subject's attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of the organisation.
    pub organisation: Option<String>,
    /// Of the team.
    pub team: Option<String>,
    /// Of the key.
    pub key: Option<String>,
}

impl Sources {
    /// The tenant of a verified token, by its payload in base64url as Envoy forwards it. Nothing where it is no JSON object.
    #[must_use]
    pub fn of_payload(&self, payload: &[u8]) -> Option<Tenant> {
        let trimmed = payload.trim_ascii_end();
        let unpadded = trimmed.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&trimmed[..unpadded]).ok()?).ok()?;
        claims.is_object().then(|| self.read(|path| claim(&claims, path)))
    }

    /// The tenant of a certificate, by its subject as RFC 2253 writes it.
    #[must_use]
    pub fn of_subject(&self, subject: &str) -> Tenant {
        let attributes = attributes(subject);
        self.read(|wanted| {
            let mut named = attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            named.next().map(|(_, value)| value.clone())
        })
    }

    /// The payload of a token that names a tenant so, as Envoy forwards it.
    #[must_use]
    pub fn payload(&self, tenant: &Tenant) -> String {
        let claims = self.named(tenant).map(|(path, part)| (path.clone(), Value::from(&**part)));
        URL_SAFE_NO_PAD.encode(Value::Object(claims.collect()).to_string())
    }

    /// The subject of a certificate that names a tenant so.
    #[must_use]
    pub fn subject(&self, tenant: &Tenant) -> String {
        let escaped = |text: &str| {
            let hex = |byte: u8| format!("\\{byte:02X}");
            text.bytes()
                .map(
                    |byte| {
                        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { hex(byte) }
                    },
                )
                .collect::<String>()
        };
        let attributes = self.named(tenant).map(|(name, part)| format!("{name}={}", escaped(part)));
        attributes.collect::<Vec<_>>().join(",")
    }

    /// The parts that are there and are looked for, with where.
    fn named<'a>(&'a self, tenant: &'a Tenant) -> impl Iterator<Item = (&'a String, &'a Arc<str>)> {
        let pairs = [
            (&self.organisation, &tenant.organisation),
            (&self.team, &tenant.team),
            (&self.key, &tenant.key),
        ];
        pairs.into_iter().filter_map(|(name, part)| Some((name.as_ref()?, part.as_ref()?)))
    }

    fn read(&self, value: impl Fn(&str) -> Option<String>) -> Tenant {
        let part = |name: &Option<String>| Tenant::part(&value(name.as_deref()?)?);
        Tenant { organisation: part(&self.organisation), team: part(&self.team), key: part(&self.key) }
    }
}

/// A claim that is a text or a whole number; the whole path may be the name of one claim, as with URLs.
fn claim(claims: &Value, path: &str) -> Option<String> {
    let found =
        claims.get(path).or_else(|| path.split('.').try_fold(claims, |within, name| within.get(name)))?;
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// The attributes of a subject, the escapes of RFC 2253 taken back.
fn attributes(subject: &str) -> Vec<(String, String)> {
    let (mut found, mut name, mut value, mut in_value) = (Vec::new(), String::new(), Vec::new(), false);
    let mut bytes = subject.bytes().peekable();
    loop {
        match bytes.next() {
            None | Some(b',' | b'+') => {
                let text = String::from_utf8_lossy(&std::mem::take(&mut value)).into_owned();
                let name = std::mem::take(&mut name);
                if std::mem::take(&mut in_value) {
                    found.push((name.trim().to_owned(), text));
                }
                if bytes.peek().is_none() {
                    return found;
                }
            }
            Some(b'=') if !in_value => in_value = true,
            Some(b'\\') if in_value => {
                let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match bytes.next() {
                    Some(first) => match (hex(first), bytes.peek().copied().and_then(hex)) {
                        (Some(high), Some(low)) => {
                            bytes.next();
                            value.push(high << 4 | low);
                        }
                        _ => value.push(first),
                    },
                    None => value.push(b'\\'),
                }
            }
            Some(byte) if in_value => value.push(byte),
            Some(byte) => name.push(char::from(byte)),
        }
    }
}

/// Whether a name is one that `glob` allows, in which `*` stands for any text.
#[must_use]
pub fn allows(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(first) = parts.next() else { return false };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(text: &str) -> Tenant {
        let part = |text: &str| Some(text).filter(|text| *text != "-").map(Into::into);
        let parts: Vec<_> = text.split('|').map(part).collect();
        Tenant { organisation: parts[0].clone(), team: parts[1].clone(), key: parts[2].clone() }
    }

    #[test]
    fn a_pattern_takes_names_apart_and_what_does_not_fit_is_nobody_elses() {
        let pattern: Pattern = "{organisation}.{team}.{key}".parse().unwrap();
        assert_eq!(pattern.tenant("acme.research.ci"), tenant("acme|research|ci"));
        assert_eq!(pattern.tenant("acme.research.ci.2"), tenant("acme|research|ci.2"));
        assert_eq!(pattern.tenant("acme"), tenant("-|-|acme"));
        assert_eq!(pattern.tenant("..x"), tenant("-|-|..x"));
        let uri: Pattern = "spiffe://{organisation}/ns/{team}/sa/{key}".parse().unwrap();
        assert_eq!(uri.tenant("spiffe://acme/ns/research/sa/ci"), tenant("acme|research|ci"));
        assert_eq!(Pattern::default().tenant("a.b"), tenant("-|-|a.b"));
        for wrong in ["", "x", "{user}", "{key", "{key}{team}", "{key}.{key}"] {
            assert_eq!(wrong.parse::<Pattern>(), Err(InvalidPattern), "{wrong}");
        }
    }

    #[test]
    fn claims_are_found_by_their_path() {
        let sources = Sources {
            organisation: Some("org.name".into()),
            team: Some("https://example.com/team".into()),
            key: Some("sub".into()),
        };
        let payload = r#"{"org":{"name":"acme"},"https://example.com/team":7,"sub":["no"]}"#;
        let encoded = URL_SAFE_NO_PAD.encode(payload);
        assert_eq!(sources.of_payload(encoded.as_bytes()), Some(tenant("acme|7|-")));
        assert_eq!(sources.of_payload(format!("{encoded}==").as_bytes()), Some(tenant("acme|7|-")));
        for wrong in ["", "-", "!", "e30x", "W10"] {
            assert_eq!(sources.of_payload(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn subjects_are_taken_apart_as_rfc_2253_puts_them_together() {
        let sources =
            Sources { organisation: Some("O".into()), team: Some("ou".into()), key: Some("CN".into()) };
        let subject = r"CN=ci\2C O\=evil,OU=R\+D + L=x,O=Acme\, Inc";
        assert_eq!(sources.of_subject(subject), tenant("Acme, Inc|R+D |ci, O=evil"));
        for odd in ["", "=", ",", "\\", "O", "O=\\", "O=a\\2", "+,=+"] {
            let _ = sources.of_subject(odd);
        }
    }

    #[test]
    fn what_names_a_tenant_is_made_so_that_it_is_read_again() {
        let whole = Tenant {
            organisation: Tenant::part("Acme, Inc=+\\ é"),
            team: Tenant::part("R+D"),
            key: Tenant::part("ci"),
        };
        let pattern: Pattern = "spiffe://{organisation}/ns/{team}/sa/{key}".parse().unwrap();
        assert_eq!(pattern.tenant(&pattern.name(&whole).unwrap()), whole);
        assert_eq!(pattern.name(&Tenant::anonymous()), None);
        let sources =
            Sources { organisation: Some("o.name".into()), team: Some("OU".into()), key: Some("CN".into()) };
        assert_eq!(sources.of_payload(sources.payload(&whole).as_bytes()), Some(whole.clone()));
        assert_eq!(sources.of_subject(&sources.subject(&whole)), whole);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (glob, name, allowed) in [
            ("*", "", true),
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-*", "gpt-4o", true),
            ("*-mini", "gpt-4o-mini", true),
            ("a*a", "a", false),
            ("a*b*c", "a-bb-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "x", false),
        ] {
            assert_eq!(allows(glob, name), allowed, "{glob} {name}");
        }
    }
}

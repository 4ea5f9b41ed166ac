//! What AWS does with a signed request: works the signature out again, from nothing but what was received.

use ai_gateway::testbackend::Recorded;
use ring::{digest, hmac};

use super::backend::header;

/// An access key that AWS would know.
pub(crate) struct Known {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) token: Option<&'static str>,
}

/// Which parts of a request a signature is over.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    /// `x-amz-date`.
    pub(crate) date: &'a str,
    pub(crate) token: Option<&'a str>,
    /// Lower-case hexadecimal.
    pub(crate) body_sha256: &'a str,
    pub(crate) region: &'a str,
}

impl Signed<'_> {
    /// The whole `authorization` header.
    pub(crate) fn authorization(&self, id: &str, secret: &str) -> String {
        let Self { method, target, host, date, token, body_sha256, region } = self;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parameters: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        parameters.sort_unstable();
        let mut headers = vec![format!("host:{host}"), format!("x-amz-date:{date}")];
        headers.extend(token.map(|token| format!("x-amz-security-token:{token}")));
        let names: Vec<&str> = headers.iter().map(|header| header.split(':').next().unwrap()).collect();
        let names = names.join(";");
        let request = format!(
            "{method}\n{}\n{}\n{}\n\n{names}\n{body_sha256}",
            escaped(path),
            parameters.join("&"),
            headers.join("\n")
        );
        let day = &date[..8];
        let scope = format!("{day}/{region}/bedrock/aws4_request");
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref())
        );
        let key = [day, region, "bedrock", "aws4_request"]
            .iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

/// Refuses what AWS would refuse. `host` is who the provider is.
pub(crate) fn verify(recorded: &Recorded, known: &Known, host: &str, region: &str) {
    let one = |name: &str| match header(recorded, name).as_slice() {
        [value] => value.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(recorded.authority, host, "somebody else is asked");
    let token = known.token.map(|_| one("x-amz-security-token"));
    assert_eq!(token.as_deref(), known.token);
    if known.token.is_none() {
        assert!(header(recorded, "x-amz-security-token").is_empty());
    }
    let date = one("x-amz-date");
    let signed = Signed {
        method: &recorded.method,
        target: &recorded.path,
        host,
        date: &date,
        token: token.as_deref(),
        body_sha256: &recorded.body_sha256,
        region,
    };
    assert_eq!(one("authorization"), signed.authorization(known.id, known.secret));
    // The day is enough to tell a clock from a constant; midnight may pass in between.
    let day = |before: u64| {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(before);
        let then = time::OffsetDateTime::from(then);
        format!("{}{:02}{:02}T", then.year(), u8::from(then.month()), then.day())
    };
    assert!(date.starts_with(&day(0)) || date.starts_with(&day(3600)), "signed at {date}");
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path that is escaped already, escaped once more.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

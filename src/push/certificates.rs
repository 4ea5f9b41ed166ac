//! The certificates of the stream: authorities of our own, and what they sign for the controller and for processors. Nothing is
//! kept here; the caller keeps texts (PEM) and asks what is due.
//!
//! An authority is trusted for a day before it signs, so that its successors are known everywhere by then, and for as long as
//! anything it signed may be in use.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::Grant;
use crate::source::protocol::Sha256;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority is valid. Another is made in the last third.
pub const AUTHORITY: Duration = DAY.saturating_mul(2 * 365);
/// How long what it signs is valid. It is due in the last third.
pub const LEAF: Duration = DAY.saturating_mul(30);
/// How long an authority is trusted before it signs, unless it is the first.
pub const OVERLAP: Duration = DAY;
/// Clocks differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What cannot be issued or read. Names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(String);

fn failed(what: &str, error: impl ToString) -> CertificateError {
    CertificateError(format!("{what}: {}", error.to_string()))
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: SecretString,
}

/// Who is trusted, the newest last; there is always one.
#[derive(Debug, Clone)]
pub struct Authorities(Vec<Issued>);

impl Authorities {
    /// A first one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(now: SystemTime) -> Result<Self, CertificateError> {
        authority(now).map(|first| Self(vec![first]))
    }

    /// Reads what [`Authorities::certificates`] and [`Authorities::keys`] gave.
    ///
    /// # Errors
    /// If those are not that, or do not belong together.
    pub fn read(certificates: &str, keys: &SecretString) -> Result<Self, CertificateError> {
        let certificates = blocks(certificates);
        let keys = blocks(keys.expose_secret());
        if certificates.is_empty() || certificates.len() != keys.len() {
            let message = "there has to be a certificate, and as many keys as certificates";
            return Err(failed("authorities", message));
        }
        let read = |(certificate, key): (String, String)| {
            read_der(&certificate)?;
            let issued = Issued { certificate, key: key.into() };
            let pair = key_pair(&issued)?;
            let der = read_der(&issued.certificate)?;
            let parsed = EndEntityCert::try_from(&der).map_err(|error| failed("an authority", error))?;
            if memchr::memmem::find(&parsed.subject_public_key_info(), pair.public_key_raw()).is_none() {
                return Err(failed("an authority", "its key is another's"));
            }
            Ok(issued)
        };
        certificates.into_iter().zip(keys).map(read).collect::<Result<_, _>>().map(Self)
    }

    /// All certificates: what both sides are to trust.
    pub fn certificates(&self) -> String {
        self.0.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// All keys, in the order of the certificates.
    pub fn keys(&self) -> SecretString {
        let keys = self.0.iter().map(|authority| authority.key.expose_secret());
        keys.collect::<String>().into()
    }

    /// Adds one if the newest is in its last third, and takes away those that nothing in use is signed by. Says whether anything
    /// changed.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn renew(&mut self, now: SystemTime) -> Result<bool, CertificateError> {
        let mut changed = false;
        let newest = self.0.last().map(validity).transpose()?;
        if newest.is_none_or(|(_, end)| now + AUTHORITY / 3 >= end) {
            self.0.push(authority(now)?);
            changed = true;
        }
        let mut keep = Vec::with_capacity(self.0.len());
        for (index, known) in self.0.iter().enumerate() {
            let (_, end) = validity(known)?;
            let newer = self.0.iter().skip(index + 1).map(validity).collect::<Result<Vec<_>, _>>()?;
            // By then everything was signed anew, and what was signed before has expired.
            let replaced = newer.iter().any(|(begin, _)| *begin + SKEW + OVERLAP + LEAF <= now);
            keep.push(!replaced && (now < end || newer.is_empty()));
        }
        let mut keep = keep.into_iter();
        let before = self.0.len();
        self.0.retain(|_| keep.next().unwrap_or(true));
        Ok(changed || self.0.len() != before)
    }

    /// What the controller shows, by which of these names processors may reach it.
    ///
    /// # Errors
    /// A name that is none of DNS.
    pub fn server(&self, names: &[String], now: SystemTime) -> Result<Issued, CertificateError> {
        let params =
            CertificateParams::new(names).map_err(|error| failed("names of the controller", error))?;
        self.leaf(params, "ai-gateway-controller", ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// What processors show that may see the configurations of these Gateways.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn client(&self, grants: &[Grant], now: SystemTime) -> Result<Issued, CertificateError> {
        let mut params = CertificateParams::default();
        for grant in grants {
            let name = grant.to_string().try_into().map_err(|error| failed("a grant", error))?;
            params.subject_alt_names.push(SanType::URI(name));
        }
        self.leaf(params, "ai-gateway-extproc", ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    /// Whether the controller's certificate is to be issued anew: it is in its last third, by an authority that was replaced, or for
    /// other names.
    pub fn server_is_due(&self, certificate: &str, names: &[String], now: SystemTime) -> bool {
        self.is_due(certificate, KeyUsage::server_auth(), now, |certificate| {
            let wanted: BTreeSet<_> = names.iter().map(String::as_str).collect();
            certificate.valid_dns_names().collect::<BTreeSet<_>>() == wanted
        })
    }

    /// As [`Authorities::server_is_due`], of what processors show.
    pub fn client_is_due(&self, certificate: &str, grants: &[Grant], now: SystemTime) -> bool {
        self.is_due(certificate, KeyUsage::client_auth(), now, |certificate| {
            let wanted: BTreeSet<_> = grants.iter().map(Grant::to_string).collect();
            certificate.valid_uri_names().map(str::to_owned).collect::<BTreeSet<_>>() == wanted
        })
    }

    fn is_due(
        &self,
        certificate: &str,
        usage: KeyUsage,
        now: SystemTime,
        fits: impl Fn(&EndEntityCert<'_>) -> bool,
    ) -> bool {
        let is_good = || -> Option<bool> {
            let authority = read_der(&self.signing(now).ok()?.certificate).ok()?;
            let anchor = anchor_from_trusted_cert(&authority).ok()?;
            let der = read_der(certificate).ok()?;
            let parsed = EndEntityCert::try_from(&der).ok()?;
            let valid = |time: SystemTime| {
                let algorithms = ALL_VERIFICATION_ALGS;
                let anchors = std::slice::from_ref(&anchor);
                let verify = parsed.verify_for_usage(algorithms, anchors, &[], unix(time), usage, None, None);
                verify.is_ok()
            };
            Some(fits(&parsed) && valid(now) && valid(now + LEAF / 3))
        };
        !is_good().unwrap_or(false)
    }

    /// The newest that is known everywhere; else the oldest.
    fn signing(&self, now: SystemTime) -> Result<&Issued, CertificateError> {
        for authority in self.0.iter().rev() {
            if validity(authority)?.0 + SKEW + OVERLAP <= now {
                return Ok(authority);
            }
        }
        self.0.first().ok_or_else(|| failed("authorities", "there is none"))
    }

    fn leaf(
        &self,
        mut params: CertificateParams,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        now: SystemTime,
    ) -> Result<Issued, CertificateError> {
        let failed = |error| failed("a certificate", error);
        let authority = self.signing(now)?;
        let authority = key_pair(authority)?;
        let issuer = Issuer::new(authority_params(&authority), authority);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).into();
        params.not_after = (now + LEAF).into();
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem().into() })
    }
}

fn authority(now: SystemTime) -> Result<Issued, CertificateError> {
    let failed = |error| failed("an authority", error);
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = authority_params(&key);
    params.not_before = (now - SKEW).into();
    params.not_after = (now + AUTHORITY).into();
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem().into() })
}

/// What follows from the key alone, so that it need not be read from the certificate: the name above all.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let digest = format!("{:?}", Sha256::of(key.public_key_raw()));
    let mut params = CertificateParams::default();
    let name = format!("ai-gateway configuration {}", digest.get(..16).unwrap_or_default());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key_pair(issued: &Issued) -> Result<KeyPair, CertificateError> {
    // The error could repeat a part of it.
    KeyPair::from_pem(issued.key.expose_secret()).map_err(|_| failed("a key", "it cannot be read"))
}

fn read_der(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed("a certificate", error))
}

/// The single texts of several that follow each other.
fn blocks(pem: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in pem.lines() {
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// From when to when an authority is valid. A verifier tells when it is asked about times outside.
fn validity(authority: &Issued) -> Result<(SystemTime, SystemTime), CertificateError> {
    const LATEST: Duration = Duration::from_secs(253_402_300_799);
    let der = read_der(&authority.certificate)?;
    let unreadable = |error: webpki::Error| failed("an authority", error);
    let parsed = EndEntityCert::try_from(&der).map_err(unreadable)?;
    let ask = |time| {
        let (algorithms, usage) = (ALL_VERIFICATION_ALGS, KeyUsage::server_auth());
        let time = UnixTime::since_unix_epoch(time);
        let verified = parsed.verify_for_usage(algorithms, &[], &[], time, usage, None, None);
        verified.err().unwrap_or(webpki::Error::UnknownIssuer)
    };
    let moment = |time: UnixTime| UNIX_EPOCH + Duration::from_secs(time.as_secs());
    match (ask(Duration::ZERO), ask(LATEST)) {
        (webpki::Error::CertNotValidYet { not_before, .. }, webpki::Error::CertExpired { not_after, .. }) => {
            Ok((moment(not_before), moment(not_after)))
        }
        (_, other) => Err(unreadable(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["ai-gateway-controller.envoy-ai-gateway-system.svc".to_owned()]
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn signed_by(leaf: &Issued, authority: &Issued, usage: KeyUsage, time: SystemTime) -> bool {
        let (leaf, authority) =
            (read_der(&leaf.certificate).unwrap(), read_der(&authority.certificate).unwrap());
        let anchors = [anchor_from_trusted_cert(&authority).unwrap()];
        let parsed = EndEntityCert::try_from(&leaf).unwrap();
        parsed.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &[], unix(time), usage, None, None).is_ok()
    }

    #[test]
    fn what_is_issued_is_good_until_its_last_third() {
        let authorities = Authorities::new(now()).unwrap();
        let server = authorities.server(&names(), now()).unwrap();
        let grants = [Grant::Gateway("d/gw".into()), Grant::Namespace("team".into())];
        let client = authorities.client(&grants, now()).unwrap();
        assert_eq!(super::super::grant::of_certificate(&read_der(&client.certificate).unwrap()).len(), 2);
        let (early, late) = (now() + DAY, now() + LEAF - LEAF / 3 + DAY);
        assert!(!authorities.server_is_due(&server.certificate, &names(), early));
        assert!(authorities.server_is_due(&server.certificate, &names(), late));
        assert!(authorities.server_is_due(&server.certificate, &["other".to_owned()], early));
        assert!(authorities.server_is_due("", &names(), early));
        assert!(!authorities.client_is_due(&client.certificate, &grants, early));
        assert!(authorities.client_is_due(&client.certificate, &grants, late));
        assert!(authorities.client_is_due(&client.certificate, &[Grant::All], early));
        // One cannot be shown for the other.
        assert!(authorities.server_is_due(&client.certificate, &[], early));
        let others = Authorities::new(now()).unwrap();
        assert!(others.server_is_due(&server.certificate, &names(), early));
    }

    #[test]
    fn authorities_are_read_as_they_were_written() {
        let mut authorities = Authorities::new(now()).unwrap();
        let later = now() + AUTHORITY - AUTHORITY / 4;
        assert!(authorities.renew(later).unwrap());
        let read = Authorities::read(&authorities.certificates(), &authorities.keys()).unwrap();
        assert_eq!(read.certificates(), authorities.certificates());
        assert_eq!(read.keys().expose_secret(), authorities.keys().expose_secret());
        let other = Authorities::new(now()).unwrap();
        for (certificates, keys) in [
            (authorities.certificates(), other.keys()),
            (other.certificates(), Authorities::new(now()).unwrap().keys()),
            (String::new(), String::new().into()),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(), other.keys()),
        ] {
            let error = Authorities::read(&certificates, &keys).unwrap_err().to_string();
            assert!(!error.contains("PRIVATE"), "{error}");
        }
    }

    /// Whoever trusts what was trusted a day ago can talk to whoever shows what is shown now.
    #[test]
    fn an_authority_is_replaced_without_a_gap() {
        let mut authorities = Authorities::new(now()).unwrap();
        let mut server = authorities.server(&names(), now()).unwrap();
        let mut trusted = vec![authorities.clone()];
        let mut most = 0;
        let mut day = now();
        while day < now() + AUTHORITY * 3 {
            authorities.renew(day).unwrap();
            if authorities.server_is_due(&server.certificate, &names(), day) {
                server = authorities.server(&names(), day).unwrap();
            }
            for knowledge in [&authorities, trusted.last().unwrap()] {
                let known = |authority| signed_by(&server, authority, KeyUsage::server_auth(), day);
                assert!(knowledge.0.iter().any(known));
            }
            most = most.max(authorities.0.len());
            trusted = vec![authorities.clone()];
            day += DAY;
        }
        assert_eq!(most, 2);
    }
}

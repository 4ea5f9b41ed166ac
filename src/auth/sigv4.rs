//! AWS Signature Version 4, as Bedrock wants it.

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;

use super::{AwsKeys, CredentialError, SignError, SigningRequest};
use crate::headers::HeaderEdits;

/// What Bedrock calls itself in signatures.
const SERVICE: &str = "bedrock";

/// What requests are signed for.
#[derive(Debug, Clone)]
pub struct AwsTarget {
    pub(super) service: &'static str,
    region: String,
    host: String,
}

impl AwsTarget {
    /// Requests of which nothing else is known go to `host`, or to the region's public endpoint.
    pub fn new(region: &str, host: Option<&str>) -> Result<Self, CredentialError> {
        let region = region.trim();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if region.is_empty() || !region.bytes().all(fits) {
            return Err(CredentialError::NotARegion(region.to_owned()));
        }
        let host = host.map(str::trim).filter(|host| !host.is_empty());
        let host = host.map_or_else(|| format!("bedrock-runtime.{region}.amazonaws.com"), str::to_owned);
        Ok(Self { service: SERVICE, region: region.to_owned(), host })
    }

    /// Signs method, path, query, body and `host`. The headers that say so are set, and no others are signed: what a proxy or
    /// Envoy itself may still change must not break the signature.
    pub(super) fn sign(
        &self,
        keys: &AwsKeys,
        request: &SigningRequest<'_>,
        edits: &mut HeaderEdits,
    ) -> Result<(), SignError> {
        let unusable = |what: &str| SignError::Unusable(format!("{what} cannot be signed"));
        let host = request.upstream_host.filter(|host| !host.is_empty()).unwrap_or(&self.host);
        // More could be said in a URL than who answers.
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
            return Err(unusable("its host"));
        }
        let region = region_of(host).unwrap_or(&self.region);
        let parameters = v4::SigningParams::builder()
            .identity(&keys.identity)
            .region(region)
            .name(self.service)
            .time(request.wall)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| unusable("this request"))?
            .into();
        let method = std::str::from_utf8(request.method).map_err(|_| unusable("its method"))?;
        let uri = format!("https://{host}{}", request.path);
        let headers = [("host", host)].into_iter();
        let signable = SignableRequest::new(method, uri, headers, SignableBody::Bytes(request.body))
            .map_err(|_| unusable("its path or host"))?;
        let signed = sign(signable, &parameters).map_err(|_| unusable("this request"))?;
        let (instructions, _) = signed.into_parts();
        for (name, value) in instructions.headers() {
            edits.set(name.to_ascii_lowercase(), value.to_owned());
        }
        Ok(())
    }

    /// The region requests are signed for, unless the host names another.
    pub fn region(&self) -> &str {
        &self.region
    }
}

/// The region that a host name of Bedrock's own names.
fn region_of(host: &str) -> Option<&str> {
    let rest = [".vpce.amazonaws.com", ".amazonaws.com", ".api.aws"]
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))?;
    let (rest, region) = rest.rsplit_once('.')?;
    let service = rest.rsplit_once('.').map_or(rest, |(_, service)| service);
    let known = service == "bedrock-runtime" || service == "bedrock-runtime-fips";
    (known && !region.is_empty()).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_names_the_region() {
        for (host, region) in [
            ("bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("bedrock-runtime.eu-west-3.api.aws", Some("eu-west-3")),
            ("vpce-0a1b-x.bedrock-runtime.eu-central-1.vpce.amazonaws.com", Some("eu-central-1")),
            ("xbedrock-runtime.us-east-1.amazonaws.com", None),
            ("bedrock.us-east-1.amazonaws.com", None),
            ("bedrock-runtime.us-east-1.amazonaws.com.example.com", None),
            ("bedrock-runtime..amazonaws.com", None),
            ("us-east-1.amazonaws.com", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}

//! Envoy's messages -> [`Input`] and [`Arrival`].

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::Value as Json;

use crate::auth::CredentialMetadata;
use crate::exchange::{
    Arrival, INTERNAL_ID_HEADER, INTERNAL_ID_KEY, Input, PROVED_KEY, ROUTING_KEY, TOLD_KEY, Told,
    VERIFIED_TOKENS,
};
use crate::headers::Headers;
use crate::mutation::METADATA_NAMESPACE;
use crate::proto::ext_proc as proto;
use crate::proto::ext_proc::processing_request::Request;
use crate::proto::ext_proc::value::Kind;
use crate::tenant::Tenant;

/// The input a message stands for; nothing where Envoy sent a message without content.
pub(super) fn input(request: proto::ProcessingRequest) -> Option<Input> {
    let proto::ProcessingRequest { request, metadata_context: _, attributes: _, observability_mode: _ } =
        request;
    Some(match request? {
        Request::RequestHeaders(message) => {
            Input::RequestHeaders { headers: headers(message.headers), end_of_stream: message.end_of_stream }
        }
        Request::RequestBody(message) => {
            Input::RequestBody { body: message.body, end_of_stream: message.end_of_stream }
        }
        Request::RequestTrailers(_) => Input::RequestTrailers,
        Request::ResponseHeaders(message) => {
            Input::ResponseHeaders { headers: headers(message.headers), end_of_stream: message.end_of_stream }
        }
        Request::ResponseBody(message) => {
            Input::ResponseBody { body: message.body, end_of_stream: message.end_of_stream }
        }
        Request::ResponseTrailers(_) => Input::ResponseTrailers,
    })
}

/// The attributes that the filter in front of a provider is configured to send, by the expressions they are asked for with.
const HOST_BACKEND: &str =
    "xds.upstream_host_metadata.filter_metadata['aigateway.envoy.io']['per_route_rule_backend_name']";
const CLUSTER_BACKEND: &str =
    "xds.cluster_metadata.filter_metadata['aigateway.envoy.io']['per_route_rule_backend_name']";
const UPSTREAM_HOST: &str =
    "xds.upstream_host_metadata.filter_metadata['aigateway.envoy.io']['upstream_host']";
const ROUTE: &str = "xds.route_metadata.filter_metadata['aigateway.envoy.io']['aigw_route_name']";

const ATTEMPT_COUNT: &str = "upstream.request_attempt_count";

/// The attribute that the router's filter asks for where keys may be bound to networks.
const SOURCE: &str = "source.address";

/// The client's address, as Envoy's listener found it: nothing a client says, unless Envoy is told to believe it.
pub(super) fn source(request: &proto::ProcessingRequest) -> Option<IpAddr> {
    let address = request.attributes.values().find_map(|attributes| text(attributes, SOURCE))?;
    address.parse().map(|address: SocketAddr| address.ip()).or_else(|_| address.parse()).ok()
}

/// The payloads of tokens that Envoy has verified, in base64url: by its own filter's metadata, in the order of the providers' names.
pub(super) fn tokens(request: &proto::ProcessingRequest) -> Vec<Bytes> {
    let metadata = request.metadata_context.as_ref();
    let Some(found) = metadata.and_then(|metadata| metadata.filter_metadata.get(VERIFIED_TOKENS)) else {
        return Vec::new();
    };
    let Json::Object(providers) = object(found, 0) else { return Vec::new() };
    let mut payloads: Vec<(String, Json)> = providers.into_iter().collect();
    payloads.sort_by(|one, other| one.0.cmp(&other.0));
    let payloads = payloads.into_iter().filter(|(_, claims)| claims.is_object());
    payloads.map(|(_, claims)| URL_SAFE_NO_PAD.encode(claims.to_string()).into()).collect()
}

/// What Envoy tells of an attempt; nothing where the stream is the router's, whose filter asks for none of an attempt's attributes.
pub(super) fn arrival(request: &proto::ProcessingRequest) -> Option<Arrival> {
    let Some(Request::RequestHeaders(message)) = &request.request else { return None };
    let only_source = |attributes: &proto::Struct| {
        let mut names = attributes.fields.iter().map(|field| &*field.key);
        names.next() == Some(SOURCE.as_bytes()) && names.next().is_none()
    };
    if request.attributes.values().all(only_source) {
        return None;
    }
    let attribute = |name: &str| {
        request
            .attributes
            .values()
            .find_map(|attributes| text(attributes, name))
            .filter(|value| !value.is_empty())
    };
    let metadata = request.metadata_context.as_ref();
    let own = metadata.and_then(|metadata| metadata.filter_metadata.get(METADATA_NAMESPACE));
    let header = || {
        let headers = message.headers.as_ref()?.headers.iter().rev();
        let mut named = headers.filter(|header| header.key == INTERNAL_ID_HEADER.as_bytes());
        named.next().map(|header| value(header.value.clone(), header.raw_value.clone()))
    };
    let mut arrival = Arrival {
        host_backend: attribute(HOST_BACKEND),
        cluster_backend: attribute(CLUSTER_BACKEND),
        upstream_host: attribute(UPSTREAM_HOST),
        route: attribute(ROUTE),
        count: request.attributes.values().find_map(|attributes| number(attributes, ATTEMPT_COUNT)),
        marked: false,
        id: None,
        routing_key: own.and_then(|own| text(own, ROUTING_KEY)).map(Bytes::from),
        told: own.and_then(|own| Told::parse(&text(own, TOLD_KEY)?)),
        proved: own.and_then(proved),
        credentials: metadata.map(credentials).unwrap_or_default(),
    };
    match own.and_then(|own| text(own, INTERNAL_ID_KEY)) {
        Some(id) => arrival.id = id.parse().ok(),
        None => {
            let header = header();
            let header = header.as_deref().and_then(|header| std::str::from_utf8(header).ok());
            arrival.read_id(header.unwrap_or_default());
        }
    }
    Some(arrival)
}

/// The tenant, where an earlier attempt has seen proof for the rule of this one. Nobody but the processor writes into its namespace.
fn proved(own: &proto::Struct) -> Option<Tenant> {
    let key = text(own, PROVED_KEY).filter(|key| !key.is_empty())?;
    let part = |name| text(own, name).and_then(|part| Tenant::part(&part));
    (text(own, ROUTING_KEY)? == key).then(|| Tenant {
        organisation: part("tenant_organisation"),
        team: part("tenant_team"),
        key: part("tenant_key"),
    })
}

/// What filters in front of ours left about the client's credentials.
fn credentials(metadata: &proto::Metadata) -> CredentialMetadata {
    let mut credentials = CredentialMetadata::default();
    for (namespace, entries) in
        metadata.filter_metadata.iter().filter(|(name, _)| *name != METADATA_NAMESPACE)
    {
        credentials.insert(namespace.as_str(), object(entries, 0));
    }
    credentials
}

/// As JSON, as deep as anybody looks into it.
fn object(entries: &proto::Struct, depth: usize) -> Json {
    const MAX_DEPTH: usize = 8;
    let fields = entries.fields.iter().filter_map(|field| {
        let value = match field.value.as_ref()?.kind.as_ref()? {
            Kind::NullValue(_) => Json::Null,
            Kind::NumberValue(number) => (*number).into(),
            Kind::StringValue(text) => String::from_utf8_lossy(text).into_owned().into(),
            Kind::BoolValue(value) => (*value).into(),
            Kind::StructValue(entries) if depth < MAX_DEPTH => object(entries, depth + 1),
            Kind::StructValue(_) => return None,
        };
        Some((String::from_utf8_lossy(&field.key).into_owned(), value))
    });
    Json::Object(fields.collect())
}

fn number(entries: &proto::Struct, key: &str) -> Option<u32> {
    let field = entries.fields.iter().find(|field| field.key == key.as_bytes())?;
    match field.value.as_ref()?.kind.as_ref()? {
        Kind::NumberValue(number) if *number >= 0.0 && *number <= 1e9 => Some(*number as u32),
        _ => None,
    }
}

fn text(entries: &proto::Struct, key: &str) -> Option<String> {
    let field = entries.fields.iter().find(|field| field.key == key.as_bytes())?;
    match field.value.as_ref()?.kind.as_ref()? {
        Kind::StringValue(text) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    }
}

fn headers(map: Option<proto::HeaderMap>) -> Headers {
    map.map(|map| map.headers)
        .unwrap_or_default()
        .into_iter()
        .map(|header| (header.key, value(header.value, header.raw_value)))
        .collect()
}

/// Envoy fills either `value` or, by default, `raw_value`.
fn value(value: Bytes, raw: Bytes) -> Bytes {
    if value.is_empty() { raw } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: Vec<(&'static str, Kind)>) -> proto::Struct {
        let field = |(key, kind): (&'static str, Kind)| proto::Field {
            key: key.into(),
            value: Some(proto::Value { kind: Some(kind) }),
        };
        proto::Struct { fields: entries.into_iter().map(field).collect() }
    }

    #[test]
    fn only_the_metadata_of_envoys_filter_vouches_for_a_token() {
        let payload = of(vec![("sub", Kind::StringValue("s".into()))]);
        let providers = of(vec![("p", Kind::StructValue(payload)), ("odd", Kind::StringValue("x".into()))]);
        let asked = |namespace: &str| {
            let filter_metadata = [(namespace.to_owned(), providers.clone())].into();
            tokens(&proto::ProcessingRequest {
                metadata_context: Some(proto::Metadata { filter_metadata }),
                ..proto::ProcessingRequest::default()
            })
        };
        assert_eq!(asked(VERIFIED_TOKENS), [URL_SAFE_NO_PAD.encode(r#"{"sub":"s"}"#)]);
        assert!(asked("somebody.else").is_empty() && asked(METADATA_NAMESPACE).is_empty());
    }
}

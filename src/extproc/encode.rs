//! [`Step`](crate::exchange::Step) -> Envoy's messages.

use std::borrow::Cow;

use bytes::Bytes;

use crate::exchange::Phase;
use crate::headers::HeaderEdits;
use crate::mutation::{
    BodyChange, Change, LocalReply, METADATA_NAMESPACE, Metadata, MetadataValue, PhaseOverride,
    ResponsePhases,
};
use crate::proto::ext_proc as proto;
use crate::proto::ext_proc::common_response::ResponseStatus;
use crate::proto::ext_proc::header_value_option::HeaderAppendAction;
use crate::proto::ext_proc::processing_mode::{BodySendMode, HeaderSendMode};
use crate::proto::ext_proc::processing_response::Response;
use crate::proto::ext_proc::value::Kind;
use crate::proto::ext_proc::{Field, Struct, Value};

/// The message that answers a client in the provider's place.
pub(super) fn answer(reply: LocalReply) -> proto::ProcessingResponse {
    proto::ProcessingResponse {
        response: Some(Response::ImmediateResponse(immediate(reply))),
        ..Default::default()
    }
}

/// The reply to a message of that phase, which goes on.
pub(super) fn proceed(phase: Phase, change: Change) -> proto::ProcessingResponse {
    let Change { headers, body, clear_route_cache, phases, metadata } = change;
    // A body in reply to headers takes the place of one that Envoy has not sent here.
    let status = match (phase, &body) {
        (Phase::RequestHeaders, BodyChange::Replace(_)) => ResponseStatus::ContinueAndReplace,
        _ => ResponseStatus::Continue,
    };
    let common = |headers, body, clear_route_cache| proto::CommonResponse {
        status: status.into(),
        header_mutation: header_mutation(headers),
        body_mutation: body_mutation(body),
        clear_route_cache,
    };
    let response = match phase {
        Phase::RequestHeaders => Response::RequestHeaders(proto::HeadersResponse {
            response: Some(common(headers, body, clear_route_cache)),
        }),
        Phase::RequestBody => Response::RequestBody(proto::BodyResponse {
            response: Some(common(headers, body, clear_route_cache)),
        }),
        Phase::RequestTrailers => {
            Response::RequestTrailers(proto::TrailersResponse { header_mutation: header_mutation(headers) })
        }
        Phase::ResponseHeaders => Response::ResponseHeaders(proto::HeadersResponse {
            response: Some(common(headers, body, clear_route_cache)),
        }),
        Phase::ResponseBody => Response::ResponseBody(proto::BodyResponse {
            response: Some(common(headers, body, clear_route_cache)),
        }),
        Phase::ResponseTrailers => {
            Response::ResponseTrailers(proto::TrailersResponse { header_mutation: header_mutation(headers) })
        }
    };
    proto::ProcessingResponse {
        response: Some(response),
        dynamic_metadata: dynamic_metadata(metadata),
        mode_override: phases.map(mode),
    }
}

fn header_mutation(edits: HeaderEdits) -> Option<proto::HeaderMutation> {
    if edits.is_empty() {
        return None;
    }
    let HeaderEdits { set, remove } = edits;
    Some(proto::HeaderMutation {
        set_headers: set.into_iter().map(|(name, value)| set_header(name, value)).collect(),
        remove_headers: remove.into_iter().map(Into::into).collect(),
    })
}

fn set_header(key: Bytes, raw_value: Bytes) -> proto::HeaderValueOption {
    proto::HeaderValueOption {
        header: Some(proto::HeaderValue { key, value: Bytes::new(), raw_value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

fn body_mutation(change: BodyChange) -> Option<proto::BodyMutation> {
    match change {
        BodyChange::Keep => None,
        BodyChange::Replace(body) => {
            Some(proto::BodyMutation { mutation: Some(proto::body_mutation::Mutation::Body(body)) })
        }
    }
}

fn mode(phases: PhaseOverride) -> proto::ProcessingMode {
    match phases {
        PhaseOverride::RequestBody => proto::ProcessingMode {
            request_header_mode: HeaderSendMode::Send.into(),
            request_body_mode: BodySendMode::Buffered.into(),
            request_trailer_mode: HeaderSendMode::Skip.into(),
            response_header_mode: HeaderSendMode::Send.into(),
            response_body_mode: BodySendMode::None.into(),
            response_trailer_mode: HeaderSendMode::Skip.into(),
        },
        PhaseOverride::Response(phases) => response_mode(phases),
    }
}

/// The trailers are asked for wherever the body is: a body that is followed by trailers has no last chunk that says so.
fn response_mode(phases: ResponsePhases) -> proto::ProcessingMode {
    let (body, trailers) = match phases {
        ResponsePhases::None => (BodySendMode::None, HeaderSendMode::Skip),
        ResponsePhases::Buffered => (BodySendMode::Buffered, HeaderSendMode::Send),
        ResponsePhases::Streamed => (BodySendMode::Streamed, HeaderSendMode::Send),
    };
    proto::ProcessingMode {
        response_header_mode: HeaderSendMode::Send.into(),
        response_body_mode: body.into(),
        response_trailer_mode: trailers.into(),
        ..Default::default()
    }
}

fn dynamic_metadata(metadata: Metadata) -> Option<Struct> {
    if metadata.is_empty() {
        return None;
    }
    let fields = metadata.0.into_iter().map(|(key, value)| {
        let value = match value {
            MetadataValue::Number(number) => Kind::NumberValue(number),
            MetadataValue::Text(text) => Kind::StringValue(text.into()),
        };
        let key = match key {
            Cow::Borrowed(key) => Bytes::from_static(key.as_bytes()),
            Cow::Owned(key) => key.into(),
        };
        field(key, value)
    });
    let entries = Struct { fields: fields.collect() };
    let namespace = Bytes::from_static(METADATA_NAMESPACE.as_bytes());
    Some(Struct { fields: vec![field(namespace, Kind::StructValue(entries))] })
}

fn field(key: Bytes, value: Kind) -> Field {
    Field { key, value: Some(Value { kind: Some(value) }) }
}

fn immediate(reply: LocalReply) -> proto::ImmediateResponse {
    let LocalReply { status, headers, body, details } = reply;
    let mut edits = HeaderEdits::default();
    for (name, value) in headers {
        edits.set(name, value);
    }
    proto::ImmediateResponse {
        status: Some(proto::HttpStatus { code: i32::from(status) }),
        headers: header_mutation(edits),
        body,
        grpc_status: None,
        details: details.to_owned(),
    }
}

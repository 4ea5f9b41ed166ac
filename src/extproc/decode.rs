//! Envoy's messages -> [`Input`].

use bytes::Bytes;

use crate::exchange::Input;
use crate::headers::Headers;
use crate::proto::ext_proc as proto;
use crate::proto::ext_proc::processing_request::Request;

/// The input a message stands for; nothing where Envoy sent a message without content.
pub(super) fn input(request: proto::ProcessingRequest) -> Option<Input> {
    let proto::ProcessingRequest { request, attributes: _, observability_mode: _ } = request;
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

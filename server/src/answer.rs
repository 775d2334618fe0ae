//! What is answered: JSON, and refusals with their reasons.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use rivermark_engine::View;
use serde_json::json;
use std::collections::BTreeMap;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400: it says something that cannot be understood.
    Malformed(String),
    /// 401: it has no token, or another one.
    Unauthorized,
    /// 403: it comes from where nobody may ask.
    Forbidden(String),
    /// 404: what it asks for is not there.
    NotFound(String),
    /// 409: the versions of a flow are not as it takes, or another change is being made.
    Conflict(String),
    /// 413: the answer, or the question, would be larger than the limits allow.
    TooLarge(String),
    /// 429: too many at once.
    TooMany(String),
    /// 500: a state that is served cannot be read.
    Failed(String),
    /// 503: not now.
    Unavailable(String),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Unauthorized => "send `Authorization: Bearer TOKEN` with a token that the server was given",
            Self::Malformed(detail)
            | Self::Forbidden(detail)
            | Self::NotFound(detail)
            | Self::Conflict(detail)
            | Self::TooLarge(detail)
            | Self::TooMany(detail)
            | Self::Failed(detail)
            | Self::Unavailable(detail) => detail,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let problem = json!({ "title": title, "status": status.as_u16(), "detail": self.detail() });
        let mut response = Response::new(Body::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooMany(_) | Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// A JSON body.
pub(crate) fn body(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `{"at":.., ...members}`; each member is JSON already.
pub(crate) fn object(at: &str, members: &[(&str, &[u8])]) -> Vec<u8> {
    let length = members.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    let mut bytes = Vec::with_capacity(at.len() + length + 16);
    bytes.extend_from_slice(b"{\"at\":");
    bytes.extend_from_slice(at.as_bytes());
    for (name, value) in members {
        bytes.extend_from_slice(b",\"");
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\":");
        bytes.extend_from_slice(value);
    }
    bytes.push(b'}');
    bytes
}

/// What an answer says of the epoch that it is of.
pub(crate) fn at(view: &View) -> serde_json::Value {
    let mut offsets = BTreeMap::<String, BTreeMap<String, Option<u64>>>::new();
    for partition in view.offsets() {
        offsets.entry(partition.source).or_default().insert(partition.partition, partition.offset);
    }
    json!({
        "flow": view.flow(),
        "version": view.version(),
        "epoch": view.epoch().0,
        "watermark_ms": view.watermark().map(|watermark| watermark.millis()),
        "offsets": offsets,
    })
}

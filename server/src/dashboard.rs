//! The dashboard: a page and its modules, inside the program.
//!
//! The page asks the same paths that anybody may ask, with the token that its reader types in. It loads nothing from another host, and its policy
//! (`Content-Security-Policy`) lets it load nothing: no inline script, no frame around it, no form that leads away. The files themselves hold no secret and are
//! given without a token.

use crate::routes::Shared;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, header};
use axum::routing::get;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Path, kind, content.
type Asset = (&'static str, &'static str, &'static [u8]);

macro_rules! assets {
    ($kind:literal: $($name:literal),* $(,)?) => {
        [$((concat!("/dashboard/", $name), $kind, include_bytes!(concat!("../assets/", $name)).as_slice())),*]
    };
}

const PAGE: Asset = ("/", "text/html; charset=utf-8", include_bytes!("../assets/index.html").as_slice());
const STYLE: [Asset; 1] = assets!("text/css; charset=utf-8": "style.css");
const ICON: [Asset; 1] = assets!("image/svg+xml": "icon.svg");
const MODULES: [Asset; 11] = assets!("text/javascript; charset=utf-8":
    "main.js", "api.js", "dom.js", "format.js", "history.js", "chart.js", "graph.js", "checkpoints.js", "deployments.js", "log.js", "state.js");

fn assets() -> impl Iterator<Item = Asset> {
    [PAGE].into_iter().chain(STYLE).chain(ICON).chain(MODULES)
}

/// Whether a path is one of the dashboard's, which ask for no token.
pub(crate) fn is_asset(path: &str) -> bool {
    assets().any(|(known, ..)| known == path)
}

pub(crate) fn routes() -> Router<Arc<Shared>> {
    assets().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(async move || response(kind, content)))
    })
}

fn response(kind: &'static str, content: &'static [u8]) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(content)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        // A program that is built anew has another page under the same path.
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

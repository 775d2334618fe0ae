//! Which requests a browser may have been tricked into sending, and are refused for it.
//!
//! 1. *Another site's page* can send a `POST` to a server on the reader's own machine. Browsers say in `Origin` whose page it was, so a request that
//!    changes something is refused if that is not the server itself. A program sends no `Origin`, and is let through.
//! 2. *DNS rebinding*: a page of `evil.example` lets its name resolve to 127.0.0.1, and is then of the same origin as what listens there. It cannot
//!    change the name in `Host`. So a server without a token answers only to addresses, `localhost`, and [names it was given](crate::Server::host).
//!    With a token nothing is gained by it: browsers do not send bearer tokens by themselves.

use axum::http::{HeaderMap, HeaderName, header};
use std::net::IpAddr;

/// The name in `host`, `host:port`, `[address]` or `[address]:port`.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(name, _)| name)
}

/// Whether a name can be this server's and nobody else's.
fn is_own_name(authority: &str, names: &[String]) -> bool {
    let name = name_of(authority).trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
    is_local || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // What is not text is nobody's name.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Why a request with these headers is not addressed to this server, if it is not. HTTP/1.0 has no `Host`, and no browser speaks it.
pub(crate) fn is_not_addressed(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let host = text(headers, &header::HOST)?;
    (!is_own_name(host, names)).then(|| {
        format!(
            "the request is for host `{host}`, and a server without a token answers to addresses and localhost only, as any name can be made to lead \
             here: ask by address, or give the server this name (`Server::host`) or a token (`Server::token`)"
        )
    })
}

/// Why a request that changes something comes from a page that is not this server's, if it does.
pub(crate) fn is_cross_origin(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    if let Some(site) = site.filter(|site| !["same-origin", "none"].contains(site)) {
        return Some(format!("the request comes from another site's page (Sec-Fetch-Site: {site})"));
    }
    let origin = text(headers, &header::ORIGIN)?;
    let host = text(headers, &header::HOST).unwrap_or_default();
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    // A proxy may have put another name into `Host`.
    let is_named = names.iter().any(|known| known.eq_ignore_ascii_case(name_of(authority)));
    let is_own = !authority.is_empty() && (authority.eq_ignore_ascii_case(host) || is_named);
    (!is_own)
        .then(|| format!("the request comes from a page of `{origin}`, which is not this server, `{host}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a header");
        of.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn a_name_that_others_can_resolve_to_here_is_not_answered() {
        let names = ["flows.example".to_owned()];
        let refused = |host: &str| is_not_addressed(&headers(&[("host", host)]), &names).is_some();
        for own in [
            "localhost",
            "LOCALHOST:80",
            "a.localhost:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "localhost.:1",
            "Flows.Example:443",
        ] {
            assert!(!refused(own), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "evil:80",
            "",
            "\u{e4}",
            "[evil]:1",
        ] {
            assert!(refused(other), "{other}");
        }
        assert!(is_not_addressed(&HeaderMap::new(), &names).is_none());
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let names = ["flows.example".to_owned()];
        let refused = |of: &[(&'static str, &str)]| is_cross_origin(&headers(of), &names).is_some();
        let host = ("host", "127.0.0.1:8080");
        assert!(!refused(&[host]), "a program's");
        assert!(!refused(&[host, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(!refused(&[host, ("origin", "https://flows.example")]), "through a proxy");
        assert!(refused(&[host, ("origin", "http://127.0.0.1:8081")]), "another port is another origin");
        assert!(refused(&[host, ("origin", "https://evil.example")]));
        assert!(refused(&[host, ("origin", "null")]), "a sandboxed frame");
        assert!(refused(&[host, ("origin", "")]));
        assert!(refused(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(refused(&[host, ("sec-fetch-site", "same-site")]));
    }
}

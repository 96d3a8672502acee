//! Keeps pages of other sites away from the addresses that are for operators.
//!
//! Whoever reaches them may use them, as programs may use `/events`. What a
//! browser sends on behalf of another site is refused, and so is a name that
//! anybody could point at this machine.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// `router`, closed to pages of other sites.
pub(super) fn guarded<S>(router: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    router.layer(middleware::from_fn(refuse_other_sites))
}

/// Pages of other sites can have a browser send requests here, which the browser
/// says, or point a name of theirs at this machine, which the name tells.
async fn refuse_other_sites(request: Request, next: Next) -> Response {
    if is_from_other_site(request.headers()) {
        let detail = "a request from a page of another site is not answered";
        return Problem::new(StatusCode::FORBIDDEN, detail.to_owned()).into_response();
    }
    if !is_local_name(request.headers()) {
        let detail = "what is under /api is shown to who asks by address, or by a name that no public \
            server can give: `localhost`, one without a dot, or one that ends in .local or .internal";
        return Problem::new(StatusCode::FORBIDDEN, detail.to_owned()).into_response();
    }
    next.run(request).await
}

fn is_from_other_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text(header::ORIGIN.as_str()) {
        None => matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")),
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_none() || host != text(header::HOST.as_str())
        }
    }
}

/// Whether the host is asked for by an address, or a name that is only known
/// nearby. A public name may be a page's that was pointed here.
fn is_local_name(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        // HTTP/1.0 has none, and no browser speaks it.
        return headers.get(header::HOST).is_none();
    };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || [".localhost", ".local", ".internal"]
            .iter()
            .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_page_of_another_site_is_recognised() {
        let host = ("host", "127.0.0.1:7070");
        assert!(!is_from_other_site(&headers(&[host])));
        assert!(!is_from_other_site(&headers(&[
            host,
            ("origin", "http://127.0.0.1:7070")
        ])));
        assert!(is_from_other_site(&headers(&[
            host,
            ("origin", "https://evil.example")
        ])));
        assert!(is_from_other_site(&headers(&[host, ("origin", "null")])));
        assert!(is_from_other_site(&headers(&[
            host,
            ("sec-fetch-site", "cross-site")
        ])));
    }

    #[test]
    fn a_name_that_anybody_could_point_here_is_not_answered() {
        for host in [
            "127.0.0.1:7070",
            "[::1]:7070",
            "10.0.0.7",
            "localhost:7070",
            "backhaul:7070",
            "backhaul.default.svc.cluster.local",
            "queue.internal",
        ] {
            assert!(is_local_name(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example:7070",
            "127.0.0.1.evil.example",
            "LOCALHOST.evil.example.",
            "a b",
        ] {
            assert!(!is_local_name(&headers(&[("host", host)])), "{host}");
        }
    }
}

//! Origins: what an HTTP grant names, and what a request goes to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

use crate::wasm::grants::{Host, port, without_password};

/// An origin a plugin may send HTTP requests to: scheme, host and port, written
/// `https://HOST` or `http://HOST:PORT`. The port is 443 or 80 unless given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpGrant {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Http,
    Https,
}

impl HttpGrant {
    /// The origin a request goes to, or what is wrong with its URI.
    pub(super) fn of(uri: &Uri) -> Result<HttpGrant, &'static str> {
        let scheme = uri.scheme_str().ok_or(NO_SCHEME)?;
        let authority = uri.authority().ok_or(NO_HOST)?;
        HttpGrant::new(scheme, authority.as_str())
    }

    fn new(scheme: &str, authority: &str) -> Result<HttpGrant, &'static str> {
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            _ => return Err("its scheme is neither http nor https"),
        };
        if authority.contains('@') {
            return Err("an origin has no user name and no password");
        }
        if authority.contains('*') {
            return Err("an origin has no wildcards; write each host in full");
        }
        // The colons of an IPv6 address are in its brackets.
        let end_of_host = match authority.rfind(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, rest) = authority.split_at(end_of_host);
        let host = Host::new(host)?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits).ok_or(WRONG_PORT)?,
            None if rest.is_empty() => scheme.default_port(),
            None => return Err(WRONG_PORT),
        };
        Ok(HttpGrant { scheme, host, port })
    }

    /// Whether requests are encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The same scheme and port at an address.
    pub(super) fn at(&self, address: IpAddr) -> HttpGrant {
        HttpGrant {
            host: Host::Address(address.to_canonical()),
            ..*self
        }
    }

    /// The value of the header `Host`: the port only where it is not the
    /// scheme's own.
    pub(super) fn authority(&self) -> String {
        let HttpGrant { scheme, host, port } = self;
        match *port == scheme.default_port() {
            true => host.to_string(),
            false => format!("{host}:{port}"),
        }
    }
}

const NO_SCHEME: &str = "it does not start with http:// or https://";
const NO_HOST: &str = "it has no host";
const WRONG_PORT: &str = "its port is not a number from 1 to 65535";

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for HttpGrant {
    type Err = InvalidHttpGrant;

    fn from_str(text: &str) -> Result<HttpGrant, InvalidHttpGrant> {
        let parse = || {
            let (scheme, rest) = text.split_once("://").ok_or(NO_SCHEME)?;
            if rest.contains(['/', '?', '#', '\\']) {
                return Err("an origin has no path, not even a final `/`");
            }
            HttpGrant::new(scheme, rest)
        };
        parse().map_err(|problem| InvalidHttpGrant {
            text: without_password(text),
            problem,
        })
    }
}

/// A text that is not an HTTP grant.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not an origin such as \"https://sqs.eu-west-1.amazonaws.com\", \
     \"http://127.0.0.1:8080\" or \"https://[::1]:8443\": {problem}"
)]
pub struct InvalidHttpGrant {
    text: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> HttpGrant {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_is_scheme_host_and_port_however_it_is_written() {
        for (text, shown) in [
            (
                "https://sqs.eu-west-1.amazonaws.com",
                "https://sqs.eu-west-1.amazonaws.com",
            ),
            ("HTTPS://Example.COM.:443", "https://example.com"),
            ("http://example.com:443", "http://example.com:443"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[0:0::1]", "https://[::1]"),
            ("http://[::ffff:127.0.0.1]:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(grant(text).to_string(), shown, "{text}");
            assert_eq!(grant(shown), grant(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "does not start with http"),
            ("example.com", "does not start with http"),
            ("example.com:443", "does not start with http"),
            ("ftp://example.com", "neither http nor https"),
            ("https://", "no host"),
            ("https://:443", "no host"),
            ("https://example.com/", "no path"),
            ("https://example.com?x", "no path"),
            ("https://*.example.com", "no wildcards"),
            ("https://example.com:0", "port"),
            ("https://example.com:", "port"),
            ("https://example.com:+1", "port"),
            ("https://example.com:65536", "port"),
            ("https://[::1]8443", "port"),
            ("https://[::1", "`]`"),
            ("https://[fe80::1%eth0]", "IPv6"),
            ("https://::1", "no host"),
            ("https://10.0.0.300", "IPv4"),
            ("https://2130706433", "IPv4"),
            ("https://0x7f.1", "IPv4"),
            ("https://a.0xa9fea9fe:8443", "IPv4"),
            ("https://a..b", "neither a name nor an address"),
            ("https://a b", "neither a name nor an address"),
        ] {
            let error = text.parse::<HttpGrant>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(
                error.contains("\"https://sqs.eu-west-1.amazonaws.com\""),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_in_a_grant_is_refused_and_not_repeated() {
        let error = "https://user:secret@example.com".parse::<HttpGrant>();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("no user name and no password"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_request_goes_to_the_origin_of_its_uri() {
        let of = |uri: &str| HttpGrant::of(&uri.parse().unwrap());
        assert_eq!(
            of("https://Example.com./path?x"),
            Ok(grant("https://example.com"))
        );
        assert_eq!(
            of("http://[::ffff:10.0.0.7]/"),
            Ok(grant("http://10.0.0.7"))
        );
        assert!(of("https://example.com@evil.example/").is_err());
        assert!(of("/path").is_err());
    }
}

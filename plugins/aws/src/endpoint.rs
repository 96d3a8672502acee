//! Where a service is: what a queue's URL, a topic's ARN or a setting says of it.

use backhaul_guest::{SettingError, setting_or};
use http::Uri;

/// What a target says of where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Scheme, host and port of the service.
    pub origin: String,
    /// The region, if it is known.
    pub region: Option<String>,
}

/// Scheme, host and port of a URL that has no user, as grants and requests have
/// them; and what follows.
pub(crate) fn origin(url: &str) -> Option<(String, &str)> {
    let scheme_end = url.find("://")? + 3;
    let authority_end = url[scheme_end..].find(['/', '?', '#']);
    let end = authority_end.map_or(url.len(), |end| scheme_end + end);
    let uri: Uri = url[..end].parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    // A port that goes without saying is not sent, so it must not be signed either.
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = authority.host();
    let port = authority.port_u16().filter(|port| *port != usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some((format!("{scheme}://{host}{port}"), &url[end..]))
}

/// The setting `AWS_ENDPOINT_URL`, if it is there.
pub(crate) fn from_env() -> Result<Option<String>, SettingError> {
    let url = setting_or("AWS_ENDPOINT_URL", "");
    if url.is_empty() {
        return Ok(None);
    }
    match origin(&url) {
        Some((origin, "" | "/")) => Ok(Some(origin)),
        _ => {
            let expected = "http://host[:port] or https://host[:port], without user and path";
            Err(SettingError::invalid_secret("AWS_ENDPOINT_URL", expected))
        }
    }
}

impl Place {
    /// Where a URL leads; `service` is what names of hosts call it: `sqs`.
    pub fn of_url(url: &str, service: &str) -> Option<Self> {
        let (origin, _) = origin(url)?;
        let host = origin.split("://").nth(1)?;
        // sqs.eu-west-1.amazonaws.com, and sqs-fips.eu-west-1.amazonaws.com
        let mut labels = host.split('.');
        let first = labels.next()?;
        let of_service = first == service || first.strip_suffix("-fips") == Some(service);
        let region = labels.next().filter(|_| of_service);
        let of_aws = labels.next() == Some("amazonaws") && labels.next().is_some();
        let region = region.filter(|_| of_aws).map(str::to_owned);
        Some(Self { origin, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_has_an_origin_without_what_goes_without_saying() {
        for (url, expected) in [
            ("https://sqs.example", Some(("https://sqs.example", ""))),
            ("https://h:443/1/q", Some(("https://h", "/1/q"))),
            ("http://h:80/", Some(("http://h", "/"))),
            (
                "http://127.0.0.1:5000/1/{type}",
                Some(("http://127.0.0.1:5000", "/1/{type}")),
            ),
            ("https://[::1]:80/", Some(("https://[::1]:80", "/"))),
            ("https://user:password@h/", None),
            ("https:///q", None),
            ("ftp://h/q", None),
            ("https://{type}/q", None),
            ("h/q", None),
            ("", None),
        ] {
            let expected = expected.map(|(origin, rest)| (origin.to_owned(), rest));
            assert_eq!(origin(url), expected, "{url}");
        }
    }

    #[test]
    fn a_host_of_aws_names_its_region() {
        let region = |url| Place::of_url(url, "sqs").unwrap().region;
        assert_eq!(
            region("https://sqs.eu-west-1.amazonaws.com/1/q").as_deref(),
            Some("eu-west-1")
        );
        assert_eq!(
            region("https://sqs.cn-north-1.amazonaws.com.cn/1/q").as_deref(),
            Some("cn-north-1")
        );
        assert_eq!(
            region("https://sqs-fips.us-east-1.amazonaws.com/1/q").as_deref(),
            Some("us-east-1")
        );
        for other in [
            "http://127.0.0.1:5000/1/q",
            "https://sqs.internal/1/q",
            "https://sns.eu-west-1.amazonaws.com/",
        ] {
            assert_eq!(region(other), None, "{other}");
        }
    }
}

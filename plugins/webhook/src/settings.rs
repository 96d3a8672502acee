//! What `webhook` takes from its environment.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `WEBHOOK_URL` | `http://` or `https://`, where to post | none, must be set |
//! | `WEBHOOK_MODE` | content mode of CloudEvents: `binary` or `structured` | `binary` |
//! | `WEBHOOK_SECRET` | `whsec_BASE64` to sign with, or several with spaces between | no signature |
//! | `WEBHOOK_AUTHORIZATION` | value of the header `Authorization` | none |
//! | `WEBHOOK_CONCURRENCY` | requests side by side, 1 to 32; 1 keeps order | 1 |
//! | `WEBHOOK_TIMEOUT` | for all requests of a batch, 10ms to 1h | `4500ms` |
//! | `WEBHOOK_RETRY_STATUS` | further statuses to try again after, `401,404` | none |

use crate::signature::{self, Key};
use backhaul_guest::{ContentMode, SettingError, content_mode_setting, parsed_setting};
use backhaul_guest::{setting, setting_or, timeout_setting};
use http::{HeaderValue, StatusCode, Uri};
use std::num::NonZeroU8;
use std::time::Duration;

pub(crate) struct Settings {
    pub(crate) url: Uri,
    /// Scheme, host and port, for messages: path and query may hold a secret.
    pub(crate) origin: String,
    pub(crate) mode: ContentMode,
    pub(crate) keys: Vec<Key>,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) concurrency: NonZeroU8,
    pub(crate) timeout: Duration,
    pub(crate) retry_status: Vec<StatusCode>,
}

impl Settings {
    /// Everything as it is by default, to this address. `None` if it is none.
    pub(crate) fn to(url: &str) -> Option<Self> {
        let url: Uri = url.parse().ok()?;
        let (scheme, authority) = (url.scheme_str()?, url.authority()?);
        let user = authority.as_str().contains('@');
        if !matches!(scheme, "http" | "https") || user || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            origin: format!("{scheme}://{authority}"),
            url,
            mode: ContentMode::Binary,
            keys: Vec::new(),
            authorization: None,
            concurrency: NonZeroU8::MIN,
            timeout: Duration::from_millis(4500),
            retry_status: Vec::new(),
        })
    }

    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let mut settings = Self::to(&setting("WEBHOOK_URL")?).ok_or_else(|| {
            let expected = "http://host[:port]/path or https://, without user and password (these go to WEBHOOK_AUTHORIZATION)";
            SettingError::invalid_secret("WEBHOOK_URL", expected)
        })?;
        settings.mode = content_mode_setting("WEBHOOK_MODE")?;
        settings.keys = signature::keys(&setting_or("WEBHOOK_SECRET", "")).ok_or_else(|| {
            let expected =
                "whsec_ and 24 to 64 bytes in Base64, or several such with spaces between";
            SettingError::invalid_secret("WEBHOOK_SECRET", expected)
        })?;
        settings.authorization = authorization()?;
        if let Some(concurrency) = parsed_setting("WEBHOOK_CONCURRENCY", CONCURRENCY)? {
            settings.concurrency = concurrency;
            if concurrency.get() > MAX_CONCURRENCY {
                let value = concurrency.to_string();
                return Err(SettingError::invalid(
                    "WEBHOOK_CONCURRENCY",
                    &value,
                    CONCURRENCY,
                ));
            }
        }
        settings.timeout = timeout_setting("WEBHOOK_TIMEOUT", settings.timeout)?;
        settings.retry_status = retry_status(&setting_or("WEBHOOK_RETRY_STATUS", ""))?;
        Ok(settings)
    }
}

/// As many as the host connects for one instance.
const MAX_CONCURRENCY: u8 = 32;

const CONCURRENCY: &str = "a whole number of requests, 1 to 32";

fn authorization() -> Result<Option<HeaderValue>, SettingError> {
    let Ok(text) = setting("WEBHOOK_AUTHORIZATION") else {
        return Ok(None);
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        let expected = "the value of a header, for instance Bearer TOKEN";
        SettingError::invalid_secret("WEBHOOK_AUTHORIZATION", expected)
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn retry_status(text: &str) -> Result<Vec<StatusCode>, SettingError> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let status = |part: &str| {
        let status = part.parse::<StatusCode>().ok();
        status.filter(StatusCode::is_client_error).ok_or_else(|| {
            let expected = "statuses from 400 to 499 with commas between, such as 401,404";
            SettingError::invalid("WEBHOOK_RETRY_STATUS", text, expected)
        })
    };
    parts.map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_has_a_scheme_a_host_and_no_password() {
        for bad in [
            "",
            "localhost:8080",
            "/events",
            "ftp://localhost/",
            "http://",
            "http://user:password@localhost/",
            "http://local host/",
        ] {
            assert!(Settings::to(bad).is_none(), "{bad}");
        }
        let settings = Settings::to("https://h.example:8443/a?token=secret").unwrap();
        assert_eq!(settings.origin, "https://h.example:8443");
    }

    #[test]
    fn statuses_are_client_errors() {
        assert_eq!(retry_status("401, 404").unwrap().len(), 2);
        assert!(retry_status("").unwrap().is_empty());
        for bad in ["500", "4xx", "200", "99999"] {
            assert!(retry_status(bad).is_err(), "{bad}");
        }
    }
}

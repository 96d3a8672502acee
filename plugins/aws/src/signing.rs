//! Requests signed with AWS Signature Version 4, by the crate `aws-sigv4`.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningError, SigningSettings};
use aws_sigv4::sign::v4;
use backhaul_guest::{SettingError, setting, setting_or};
use http::Request;
use std::time::SystemTime;

/// Who signs: the keys of a user or a role.
pub(crate) struct Signer {
    credentials: Credentials,
    region: String,
    service: &'static str,
}

impl Signer {
    /// Signs for a service (`sqs`) in a region, with the keys the environment grants.
    ///
    /// # Errors
    ///
    /// If a key is missing, or cannot stand in a header. The text shows neither.
    pub(crate) fn from_env(region: String, service: &'static str) -> Result<Self, SettingError> {
        let key = |name| plain(name, setting(name)?);
        let token = setting_or("AWS_SESSION_TOKEN", "");
        let token = plain("AWS_SESSION_TOKEN", token)?;
        let id = key("AWS_ACCESS_KEY_ID")?;
        let secret = key("AWS_SECRET_ACCESS_KEY")?;
        Ok(Self::new(id, secret, token, region, service))
    }

    pub(crate) fn new(
        id: String,
        secret: String,
        token: String,
        region: String,
        service: &'static str,
    ) -> Self {
        let token = Some(token).filter(|token| !token.is_empty());
        Self {
            credentials: Credentials::new(id, secret, token, None, "environment"),
            region,
            service,
        }
    }

    /// Adds the headers that say who sends the request, and when.
    ///
    /// # Errors
    ///
    /// If the request has something that cannot be signed.
    pub(crate) fn sign(
        &self,
        request: &mut Request<Vec<u8>>,
        time: SystemTime,
    ) -> Result<(), SigningError> {
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .expect("all of it is given")
            .into();
        let headers = request.headers().iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.uri().to_string(),
            headers,
            SignableBody::Bytes(request.body()),
        )?;
        let (instructions, _) = http_request::sign(signable, &params)?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// The text without what is secret, should a server repeat it.
    pub(crate) fn hide(&self, text: &str) -> String {
        let keys = [
            Some(self.credentials.secret_access_key()),
            self.credentials.session_token(),
            Some(self.credentials.access_key_id()),
        ];
        let keys = keys.into_iter().flatten();
        keys.fold(text.to_owned(), |text, key| text.replace(key, "(hidden)"))
    }
}

fn plain(name: &str, mut value: String) -> Result<String, SettingError> {
    // A file with a secret mostly ends in a line break.
    value.truncate(value.trim_end().len());
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(value);
    }
    let expected = "a key as the service gave it: printable ASCII without spaces";
    Err(SettingError::invalid_secret(name, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    /// 2015-08-30T12:36:00Z, the time of each vector.
    const TIME: Duration = Duration::from_secs(1_440_938_160);

    /// Name, value.
    type Header = (String, String);

    /// The method, the path, the headers and the body of a request as it goes over the wire.
    fn read(text: &str) -> (String, String, Vec<Header>, Vec<u8>) {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        // A value that goes on in the next line, as HTTP once allowed.
        let head = head.replace("\n ", " ");
        let mut lines = head.lines();
        let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
        let path = rest.strip_suffix(" HTTP/1.1").unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        (
            method.into(),
            path.into(),
            headers.collect(),
            body.as_bytes().to_vec(),
        )
    }

    fn assert_signed_as_published(folder: &Path) {
        let read_file = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let context: serde_json::Value = serde_json::from_str(&read_file("context.json")).unwrap();
        assert_eq!(context["timestamp"], "2015-08-30T12:36:00Z");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let credentials = &context["credentials"];
        let signer = Signer::new(
            text(&credentials["access_key_id"]),
            text(&credentials["secret_access_key"]),
            text(&credentials["token"]),
            text(&context["region"]),
            "service",
        );

        let (_, _, expected, _) = read(&read_file("header-signed-request.txt"));
        let (method, path, mut headers, body) = read(&read_file("request.txt"));
        // Where the body's hash is to be signed, it is a header like others.
        headers.retain(|(name, _)| name != "x-amz-date");
        if context["sign_body"] == true {
            let hash = expected
                .iter()
                .find(|(name, _)| name == "x-amz-content-sha256");
            headers.push(hash.unwrap().clone());
        }
        let mut request = Request::builder()
            .method(&*method)
            .uri(format!("https://example.amazonaws.com{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body).unwrap();
        let time = SystemTime::UNIX_EPOCH + TIME;
        signer.sign(&mut request, time).unwrap();
        for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
            let expected = expected.iter().find(|(key, _)| key == name);
            let signed = request.headers().get(name).map(|value| value.to_str());
            assert_eq!(
                signed.transpose().unwrap(),
                expected.map(|(_, value)| value.as_str()),
                "{name} of {}",
                folder.display()
            );
        }
    }

    #[test]
    fn every_published_vector_comes_out() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let folders: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        assert_eq!(folders.len(), 13);
        for folder in folders {
            assert_signed_as_published(&folder);
        }
    }

    #[test]
    fn what_is_secret_is_hidden_where_a_server_repeats_it() {
        let text = |text: &str| text.to_owned();
        let signer = Signer::new(text("ID1"), text("k/s"), text("t=="), text("r"), "sqs");
        assert_eq!(
            signer.hide("ID1 signed k/s with t==, t==."),
            "(hidden) signed (hidden) with (hidden), (hidden)."
        );
    }

    #[test]
    fn a_key_loses_its_line_end_and_has_no_other_space() {
        assert_eq!(plain("KEY", "abc/+=\r\n".into()).unwrap(), "abc/+=");
        for bad in ["a b", "a\nb", "é"] {
            let error = plain("KEY", bad.into()).unwrap_err().to_string();
            assert!(error.contains("KEY cannot be used"), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
    }
}

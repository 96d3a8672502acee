//! `[tls]`: the root certificates a plugin's servers may have theirs from,
//! beside the system's, and the certificate the host shows to those that ask for one.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::wasm::{InvalidIdentity, TlsRoots};

/// The largest file of certificates, in bytes. A system's own bundle has
/// some 200 kB.
const MAX_FILE: u64 = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    roots: Vec<Spanned<PathBuf>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

impl RawTls {
    /// Reads the files; an error comes with where in the manifest it is.
    pub(super) fn roots(&self) -> Result<TlsRoots, (Range<usize>, String)> {
        let mut roots = TlsRoots::default();
        for path in &self.roots {
            roots
                .add_pem(&pem("roots", path)?)
                .map_err(|error| unusable("roots", path, error))?;
        }
        match (&self.certificate, &self.key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => roots
                .identify(&pem("certificate", certificate)?, &pem("key", key)?)
                .map_err(|error| match error {
                    InvalidIdentity::Certificate(_) => unusable("certificate", certificate, error),
                    InvalidIdentity::Key(_) => unusable("key", key, error),
                })?,
            (Some(alone), None) => {
                let problem = "`certificate`: it needs its private key: key = \"client.key\"";
                return Err((alone.span(), problem.to_owned()));
            }
            (None, Some(alone)) => {
                let problem = "`key`: it needs its certificate: certificate = \"client.pem\"";
                return Err((alone.span(), problem.to_owned()));
            }
        }
        Ok(roots)
    }
}

fn pem(key: &str, path: &Spanned<PathBuf>) -> Result<Vec<u8>, (Range<usize>, String)> {
    read(path.get_ref()).map_err(|error| {
        let shown = path.get_ref().display();
        let problem = format!("`{key}`: the file {shown} cannot be read: {error}");
        (path.span(), problem)
    })
}

fn unusable(key: &str, path: &Spanned<PathBuf>, error: impl Display) -> (Range<usize>, String) {
    let shown = path.get_ref().display();
    let problem = format!("`{key}`: the file {shown} cannot be used: {error}");
    (path.span(), problem)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    // Opening a pipe would wait for somebody to write to it.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut pem)? as u64 > MAX_FILE {
        let problem = format!("it has more than the {MAX_FILE} bytes allowed");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use crate::plugins::Manifest;

    #[test]
    fn roots_that_cannot_be_read_or_used_are_named_with_file_line_and_key() {
        let parse = |text: &str| Manifest::parse("plugins/x.toml".as_ref(), text);
        let error = |path: &str| {
            let text = format!("[tls]\nroots = [\"{path}\"]");
            parse(&text).unwrap_err().to_string()
        };
        let start = "plugins/x.toml, line 2: ";

        let missing = error("/nonexistent/ca.pem");
        assert!(missing.starts_with(start), "{missing}");
        assert!(
            missing.contains("/nonexistent/ca.pem cannot be read"),
            "{missing}"
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, problem) in [
            ("hello", "it holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
                "its certificate 1 cannot be used",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "not PEM",
            ),
        ] {
            std::fs::write(file.path(), content).unwrap();
            let error = error(file.path().to_str().unwrap());
            assert!(
                error.starts_with(start) && error.contains(problem),
                "{error}"
            );
        }
        assert!(
            parse("[tls]\nverify = false").is_err(),
            "there is no such thing"
        );
    }

    #[test]
    fn a_client_certificate_and_its_key_go_together_and_are_named_when_they_cannot_be_used() {
        let parse = |text: &str| Manifest::parse("plugins/x.toml".as_ref(), text);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let path = file.path().display();
        for (lines, start, problem) in [
            (
                format!("certificate = \"{path}\""),
                "plugins/x.toml, line 2: ",
                "`certificate`: it needs its private key: key = ",
            ),
            (
                format!("key = \"{path}\""),
                "plugins/x.toml, line 2: ",
                "`key`: it needs its certificate: certificate = ",
            ),
            (
                format!("certificate = \"{path}\"\nkey = \"/nonexistent/client.key\""),
                "plugins/x.toml, line 3: ",
                "`key`: the file /nonexistent/client.key cannot be read",
            ),
            (
                format!("certificate = \"{path}\"\nkey = \"{path}\""),
                "plugins/x.toml, line 2: ",
                "`certificate`: the file",
            ),
        ] {
            let error = parse(&format!("[tls]\n{lines}")).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn origins_are_checked_when_the_manifest_is_read() {
        let parse = |text: &str| Manifest::parse("plugins/x.toml".as_ref(), text);
        let manifest = parse("[grants]\nhttp = [\"https://Example.com:443\"]").unwrap();
        assert_eq!(manifest.grants.http[0].to_string(), "https://example.com");
        let error = parse("[grants]\nhttp = [\"https://example.com/api\"]").unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("plugins/x.toml, line 2: "), "{error}");
        assert!(error.contains("an origin has no path"), "{error}");
    }
}

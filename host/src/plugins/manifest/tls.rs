//! `[tls]`: the root certificates a plugin's servers may have theirs from,
//! beside the system's.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::wasm::TlsRoots;

/// The largest file of root certificates, in bytes. A system's own bundle has
/// some 200 kB.
const MAX_FILE: u64 = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    roots: Vec<Spanned<PathBuf>>,
}

impl RawTls {
    /// Reads the files; an error comes with where in the manifest it is.
    pub(super) fn roots(&self) -> Result<TlsRoots, (Range<usize>, String)> {
        let mut roots = TlsRoots::default();
        for path in &self.roots {
            let shown = path.get_ref().display();
            let problem = match read(path.get_ref()) {
                Ok(pem) => match roots.add_pem(&pem) {
                    Ok(_) => continue,
                    Err(error) => format!("the file {shown} cannot be used: {error}"),
                },
                Err(error) => format!("the file {shown} cannot be read: {error}"),
            };
            return Err((path.span(), problem));
        }
        Ok(roots)
    }
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

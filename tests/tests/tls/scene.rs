//! A folder with certificates, and a host with a plugin that is granted a server by
//! TLS.

use std::path::{Path, PathBuf};

use backhaul_tests::https_server::Issuer;
use tempfile::TempDir;

/// Certificates as files, of an issuer that is known to the plugins and of one that is
/// not.
pub(crate) struct Certificates {
    folder: TempDir,
    pub(crate) issuer: Issuer,
    pub(crate) stranger: Issuer,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        let folder = TempDir::with_prefix("backhaul-tls").expect("a temporary folder");
        let issuer = Issuer::new();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("ca.pem");
        Certificates {
            folder,
            issuer,
            stranger: Issuer::new(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root certificate of `issuer`.
    pub(crate) fn roots(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }
}

/// What a server's certificate is like, and what the host says of it.
pub(crate) const UNTRUSTED: [(Untrusted, &str); 3] = [
    (
        Untrusted::OtherName,
        "its certificate is not for localhost but for other.example",
    ),
    (
        Untrusted::UnknownIssuer,
        "its certificate is from an issuer this host does not know",
    ),
    (Untrusted::Expired, "its certificate has expired"),
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Untrusted {
    OtherName,
    UnknownIssuer,
    Expired,
}

impl Certificates {
    /// Writes a certificate for `localhost` that is to be trusted, or is not for this
    /// reason: its file and its key's.
    pub(crate) fn server(&self, untrusted: Option<Untrusted>) -> (PathBuf, PathBuf) {
        self.named("server", untrusted)
    }

    /// The same, in files of another name.
    pub(crate) fn named(&self, name: &str, untrusted: Option<Untrusted>) -> (PathBuf, PathBuf) {
        let certificate = match untrusted {
            None => self.issuer.issue(&["localhost"]),
            Some(Untrusted::OtherName) => self.issuer.issue(&["other.example"]),
            Some(Untrusted::UnknownIssuer) => self.stranger.issue(&["localhost"]),
            Some(Untrusted::Expired) => self.issuer.issue_expired(&["localhost"]),
        };
        certificate.write(self.folder(), name)
    }
}

//! Certificates made at run time, good ones and others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// Certificates as files, of an issuer that is known to whoever is given
/// [`roots`](Self::roots), and of one that is not.
pub struct Certificates {
    folder: TempDir,
    /// The one that is known.
    pub issuer: Issuer,
    /// The one that is not.
    pub stranger: Issuer,
}

/// Why a server's certificate is not to be trusted.
#[derive(Clone, Copy, Debug)]
pub enum Untrusted {
    /// It is for another name than `localhost`.
    OtherName,
    /// It is from an issuer nobody knows.
    UnknownIssuer,
    /// It is out of date.
    Expired,
}

/// Each, and what the host says of it.
pub const UNTRUSTED: [(Untrusted, &str); 3] = [
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

impl Certificates {
    /// New issuers, without any certificate yet.
    pub fn new() -> Certificates {
        let folder = TempDir::with_prefix("backhaul-tls").expect("a temporary folder");
        let issuer = Issuer::new();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("ca.pem");
        Certificates {
            folder,
            issuer,
            stranger: Issuer::new(),
        }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root certificate of `issuer`.
    pub fn roots(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// Writes a certificate for `localhost` that is to be trusted, or is not for this
    /// reason: its file and its key's. The next one takes their place.
    pub fn server(&self, untrusted: Option<Untrusted>) -> (PathBuf, PathBuf) {
        self.named("server", untrusted)
    }

    /// The same, in files of another name.
    pub fn named(&self, name: &str, untrusted: Option<Untrusted>) -> (PathBuf, PathBuf) {
        self.issue(untrusted).write(self.folder(), name)
    }

    /// The same, and writes none.
    pub fn issue(&self, untrusted: Option<Untrusted>) -> ServerCertificate {
        match untrusted {
            None => self.issuer.issue(&["localhost"]),
            Some(Untrusted::OtherName) => self.issuer.issue(&["other.example"]),
            Some(Untrusted::UnknownIssuer) => self.stranger.issue(&["localhost"]),
            Some(Untrusted::Expired) => self.issuer.issue_expired(&["localhost"]),
        }
    }
}

impl Default for Certificates {
    fn default() -> Certificates {
        Certificates::new()
    }
}

/// How many issuers there are in this process.
static ISSUERS: AtomicUsize = AtomicUsize::new(0);

/// An issuer of certificates, made for one test.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct ServerCertificate {
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

impl ServerCertificate {
    /// Writes the certificate and its key as PEM into `folder`, named `NAME.pem` and
    /// `NAME.key`, and returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        std::fs::write(&certificate, &self.pem).expect("the certificate's file");
        std::fs::write(&key, &self.key_pem).expect("the key's file");
        (certificate, key)
    }

    /// What a server with this certificate serves by.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.clone()], self.key.clone_key())
            .expect("a certificate and its key");
        Arc::new(config)
    }

    /// The same, for clients with a certificate of `issuer` alone.
    pub fn server_config_for(&self, issuer: &Issuer) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(issuer.0.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("a verifier");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.chain.clone()], self.key.clone_key())
            .expect("a certificate and its key");
        Arc::new(config)
    }
}

impl Issuer {
    /// An issuer nobody knows yet.
    pub fn new() -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // A known name with another key would be another failure.
        let name = format!("test issuer {}", ISSUERS.fetch_add(1, Ordering::SeqCst));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Issuer(CertifiedIssuer::self_signed(params, key).expect("a root certificate"))
    }

    /// Its root certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a client connects with that trusts this issuer alone.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// A certificate for names or addresses.
    pub fn issue(&self, names: &[&str]) -> ServerCertificate {
        self.issue_until(names, SystemTime::now() + Duration::from_secs(86_400))
    }

    /// The same, out of date since a day ago.
    pub fn issue_expired(&self, names: &[&str]) -> ServerCertificate {
        self.issue_until(names, SystemTime::now() - Duration::from_secs(86_400))
    }

    fn issue_until(&self, names: &[&str], end: SystemTime) -> ServerCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_before = (end - Duration::from_secs(2 * 86_400)).into();
        params.not_after = end.into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        ServerCertificate {
            chain: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("the key"),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Default for Issuer {
    fn default() -> Issuer {
        Issuer::new()
    }
}

//! TLS as the host speaks it for guests: whom it trusts, and what it says of a
//! server it does not.
//!
//! The certificate is always checked; nothing here turns that off.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore};
use tokio::task::JoinError;

use super::grants::Host;
use super::text::printable;

/// How soon the same refusal by the same server is logged again.
const AGAIN: Duration = Duration::from_secs(60);

/// The root certificates a plugin's servers are checked against: the system's,
/// and what is added; and what the host shows to servers that ask who it is. Clones
/// share what is made of them, which is made once, when it is first needed.
#[derive(Clone, Default)]
pub struct TlsRoots {
    added: Vec<CertificateDer<'static>>,
    identity: Option<Arc<CertifiedKey>>,
    shared: Arc<Shared>,
}

/// What is spoken within TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum Application {
    /// HTTP/1.1, which the server is asked for.
    Http,
    /// Whatever it is.
    Any,
}

/// One for each [`Application`].
struct Configs {
    http: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
}

#[derive(Default)]
struct Shared {
    configs: OnceLock<Configs>,
    /// When something was last logged of each server, as it is granted. As many as
    /// there are granted servers.
    told: Mutex<HashMap<String, Instant>>,
}

impl TlsRoots {
    /// Adds the certificates of a PEM file; returns how many.
    ///
    /// # Errors
    ///
    /// If it holds none, or one that is not valid.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<usize, InvalidRoots> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| InvalidRoots(format!("it is not PEM: {error}")))?;
        if found.is_empty() {
            return Err(InvalidRoots(NO_CERTIFICATE.to_owned()));
        }
        for (index, certificate) in found.iter().enumerate() {
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| {
                    InvalidRoots(format!(
                        "its certificate {} cannot be used: {error}",
                        index + 1
                    ))
                })?;
        }
        self.shared = Arc::default();
        self.added.extend_from_slice(&found);
        Ok(found.len())
    }

    /// Has the host show the certificate of the PEM file `chain`, and those it comes
    /// from if they follow, to servers that ask for one. `key` is the PEM file of its
    /// private key.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used, or they do not belong together; it says of which.
    pub fn identify(&mut self, chain: &[u8], key: &[u8]) -> Result<(), InvalidIdentity> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain
            .map_err(|error| InvalidIdentity::Certificate(format!("it is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(InvalidIdentity::Certificate(NO_CERTIFICATE.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            InvalidIdentity::Key(match error {
                pem::Error::NoItemsFound => {
                    "it holds no private key; one begins with -----BEGIN PRIVATE KEY-----, and \
                     one that is encrypted cannot be used"
                        .to_owned()
                }
                other => format!("it is not PEM: {other}"),
            })
        })?;
        let signing = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| {
            InvalidIdentity::Key("its private key is of no kind that this host uses".to_owned())
        })?;
        let identity = CertifiedKey::new(chain, signing);
        match identity.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let problem = "its private key is not that of the certificate";
                return Err(InvalidIdentity::Key(problem.to_owned()));
            }
            Err(error) => {
                let problem = format!("its first certificate cannot be used: {error}");
                return Err(InvalidIdentity::Certificate(problem));
            }
        }
        self.shared = Arc::default();
        self.identity = Some(Arc::new(identity));
        Ok(())
    }

    /// What TLS connections are made with. Reads the system's certificates the
    /// first time.
    pub(super) async fn config(
        &self,
        application: Application,
    ) -> Result<Arc<ClientConfig>, JoinError> {
        let chosen = move |configs: &Configs| match application {
            Application::Http => configs.http.clone(),
            Application::Any => configs.any.clone(),
        };
        if let Some(configs) = self.shared.configs.get() {
            return Ok(chosen(configs));
        }
        let roots = self.clone();
        let made = move || chosen(roots.shared.configs.get_or_init(|| roots.make()));
        tokio::task::spawn_blocking(made).await
    }

    /// The same for others on the host's side, who speak for a plugin.
    #[cfg(feature = "verify")]
    pub(crate) async fn client_config(&self) -> Result<Arc<ClientConfig>, JoinError> {
        self.config(Application::Any).await
    }

    fn make(&self) -> Configs {
        let mut store = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "some of the system's root certificates cannot be read");
        }
        // What cannot be used of the system's is no reason to use none.
        let (usable, _) = store.add_parsable_certificates(system.certs);
        store.add_parsable_certificates(self.added.iter().cloned());
        tracing::debug!(
            system = usable,
            added = self.added.len(),
            "root certificates read"
        );
        if store.is_empty() {
            tracing::warn!(
                "this system has no root certificates, so no server of a plugin is trusted; install \
                 them (ca-certificates), or name a file in the manifest: [tls] roots = [\"ca.pem\"]"
            );
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring has what TLS 1.2 and 1.3 need")
                .with_root_certificates(store);
        let any = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let shown = SingleCertAndKey::from(identity.clone());
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        let mut http = any.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Configs {
            http: Arc::new(http),
            any: Arc::new(any),
        }
    }

    /// Logs why there is no TLS with `server`.
    pub(super) fn explain(&self, plugin: &str, server: &Server, error: &io::Error) {
        tracing::debug!(%server, %error, "TLS failed");
        if !self.tell(server) {
            return;
        }
        if let Some(rustls::Error::InvalidCertificate(error)) = cause(error) {
            let (reason, advice) = refusal(error, &server.host);
            tracing::warn!(
                plugin,
                "the server at {server} is not trusted: {reason}; {advice}"
            );
        } else {
            let (reason, advice) = problem(error, self.identity.is_some());
            tracing::warn!(
                plugin,
                "no TLS with the server at {server}: {reason}; {advice}"
            );
        }
    }

    /// Logs why TLS was not begun with `server`.
    pub(super) fn explain_refusal(&self, plugin: &str, server: &Server, reason: &str) {
        if self.tell(server) {
            tracing::warn!(
                plugin,
                "no TLS with the server at {server}: {reason}; check the port, and the server's `tls`"
            );
        }
    }

    /// Logs how a connection ended that had begun, if that is to do with TLS: in
    /// TLS 1.3 a server says only then that it does not take the client.
    pub(super) fn explain_end(&self, plugin: &str, server: &Server, error: &io::Error) {
        match cause(error) {
            Some(_) => self.explain(plugin, server, error),
            None => tracing::debug!(%server, %error, "a connection of a plugin ended"),
        }
    }

    /// Whether to log now what is wrong with `server`.
    fn tell(&self, server: &Server) -> bool {
        let mut told = self
            .shared
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let last = told.get(&server.shown);
        if last.is_some_and(|last| last.elapsed() < AGAIN) {
            return false;
        }
        told.insert(server.shown.clone(), Instant::now());
        true
    }
}

/// By what was added, and by the certificates that are shown.
impl PartialEq for TlsRoots {
    fn eq(&self, other: &TlsRoots) -> bool {
        let shown = |roots: &TlsRoots| roots.identity.clone().map(|identity| identity.cert.clone());
        self.added == other.added && shown(self) == shown(other)
    }
}

impl Eq for TlsRoots {}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsRoots")
            .field("added", &self.added.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

const NO_CERTIFICATE: &str = "it holds no certificate; one begins with -----BEGIN CERTIFICATE-----";

/// Files that are no certificate and its key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentity {
    /// The certificate's.
    #[error("{0}")]
    Certificate(String),
    /// The key's.
    #[error("{0}")]
    Key(String),
}

/// A file that holds no usable root certificates.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRoots(String);

/// Whom the host speaks TLS with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// As it is granted.
    shown: String,
    /// Whom its certificate must name.
    host: Host,
    /// Whether the first line of a NATS server comes before TLS.
    nats_info: bool,
}

impl Server {
    pub(super) fn new(granted: impl ToString, host: &Host) -> Server {
        Server {
            shown: granted.to_string(),
            host: host.clone(),
            nats_info: false,
        }
    }

    /// The same, a NATS server that begins with a line of plain text.
    pub(super) fn after_nats_info(self) -> Server {
        Server {
            nats_info: true,
            ..self
        }
    }

    /// Whether the first line of a NATS server comes before TLS.
    pub(super) fn has_nats_info(&self) -> bool {
        self.nats_info
    }

    /// Whom the server's certificate must name.
    pub(super) fn name(&self) -> Option<ServerName<'static>> {
        match &self.host {
            Host::Name(name) => ServerName::try_from(name.clone()).ok(),
            Host::Address(address) => Some(ServerName::from(*address)),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What rustls says of a failed handshake or connection; `None` if it is not its
/// error.
pub(super) fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why there is no TLS with a server, other than that its certificate is refused,
/// and what to do. It was shown a client certificate, or none.
fn problem(error: &io::Error, shown: bool) -> (String, &'static str) {
    const SPEAKS: &str = "check that TLS begins with the first byte on that port, or grant it \
                          without TLS if it speaks plain text";
    const CLIENT: &str = "name a certificate in the plugin's manifest that the server accepts: \
                          [tls] certificate = \"client.pem\", key = \"client.key\"";
    const VERSIONS: &str = "have the server offer TLS 1.2 or 1.3 with usual ciphers";
    match cause(error) {
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired => {
                ("it asks for a client certificate".to_owned(), CLIENT)
            }
            // Java's servers say so of one that is missing.
            AlertDescription::BadCertificate if !shown => {
                ("it asks for a client certificate".to_owned(), CLIENT)
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => (
                format!("it does not accept the client certificate ({alert:?})"),
                CLIENT,
            ),
            AlertDescription::HandshakeFailure => (
                "it refuses the handshake; it asks for a client certificate, or has no version \
                 or cipher of TLS in common with this host"
                    .to_owned(),
                CLIENT,
            ),
            AlertDescription::ProtocolVersion => (
                "it has no version of TLS in common with this host".to_owned(),
                VERSIONS,
            ),
            _ => (format!("it ended TLS with the alert {alert:?}"), SPEAKS),
        },
        Some(rustls::Error::PeerIncompatible(_)) => (
            "it has no version or cipher of TLS in common with this host".to_owned(),
            VERSIONS,
        ),
        Some(rustls::Error::InvalidMessage(_)) => ("it does not speak TLS".to_owned(), SPEAKS),
        Some(other) => (format!("it does not keep to TLS ({other})"), SPEAKS),
        None => match error.kind() {
            io::ErrorKind::TimedOut => (
                "it does not answer the handshake in time".to_owned(),
                SPEAKS,
            ),
            _ => (
                "it closed the connection within the handshake".to_owned(),
                SPEAKS,
            ),
        },
    }
}

/// What is wrong with a certificate, and what to do.
fn refusal(error: &CertificateError, host: &Host) -> (String, String) {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let reason = match error {
                CertificateError::NotValidForNameContext { presented, .. } => {
                    let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
                    // They come from the server.
                    let names = printable(&names.join(", "), 200);
                    format!("its certificate is not for {host} but for {names}")
                }
                _ => format!("its certificate is not for {host}"),
            };
            let advice = "grant and request it by a name in its certificate, or give it a \
                          certificate for this one"
                .to_owned();
            (reason, advice)
        }
        CertificateError::UnknownIssuer => (
            "its certificate is from an issuer this host does not know".to_owned(),
            "if the issuer is yours, name its root certificate in the plugin's manifest: \
             [tls] roots = [\"ca.pem\"]"
                .to_owned(),
        ),
        // An issuer of that name is known, but has another key.
        CertificateError::BadSignature => (
            "its certificate is not signed by the issuer it names, as this host knows that one"
                .to_owned(),
            "if the issuer's certificate was renewed, put the new one into the file named under \
             [tls] roots in the plugin's manifest"
                .to_owned(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "renew it on the server, and check this machine's clock".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "its certificate is not valid yet".to_owned(),
            "check the clocks of this machine and of the server".to_owned(),
        ),
        other => (
            format!("its certificate is refused ({other})"),
            "give it a certificate of a known issuer".to_owned(),
        ),
    }
}

/// The name in what rustls shows as `DnsName("NAME")`.
fn bare(shown: &str) -> &str {
    let name = shown.strip_prefix("DnsName(\"");
    name.and_then(|name| name.strip_suffix("\")"))
        .unwrap_or(shown)
}

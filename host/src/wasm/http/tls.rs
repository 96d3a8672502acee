//! TLS for the guests' requests: whom the host trusts, and what it says of a
//! server it does not.
//!
//! The certificate is always checked; nothing here turns that off.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::Error;

use super::Rules;
use super::origin::HttpGrant;
use crate::wasm::text::printable;

/// How soon the same refusal by the same server is logged again.
const AGAIN: Duration = Duration::from_secs(60);

/// The root certificates a plugin's servers are checked against: the system's,
/// and what is added. Clones share what is made of them, which is made once,
/// when it is first needed.
#[derive(Clone, Default)]
pub struct TlsRoots {
    added: Vec<CertificateDer<'static>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    config: OnceLock<Arc<ClientConfig>>,
    /// When a refusal of each origin was last logged. As many as there are granted
    /// origins.
    told: Mutex<HashMap<HttpGrant, Instant>>,
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
            return Err(InvalidRoots(
                "it holds no certificate; one begins with -----BEGIN CERTIFICATE-----".to_owned(),
            ));
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

    /// What TLS connections are made with. Reads the system's certificates the
    /// first time.
    async fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.shared.config.get() {
            return Ok(config.clone());
        }
        let roots = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            roots.shared.config.get_or_init(|| roots.make()).clone()
        });
        made.await
            .map_err(|panic| Error::InternalError(Some(panic.to_string())))
    }

    fn make(&self) -> Arc<ClientConfig> {
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
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring has what TLS 1.2 and 1.3 need")
                .with_root_certificates(store)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Whether to log now that `origin` was refused.
    fn tell(&self, origin: &HttpGrant) -> bool {
        let mut told = self
            .shared
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.get(origin).is_some_and(|last| last.elapsed() < AGAIN) {
            return false;
        }
        told.insert(origin.clone(), Instant::now());
        true
    }
}

/// By what was added.
impl PartialEq for TlsRoots {
    fn eq(&self, other: &TlsRoots) -> bool {
        self.added == other.added
    }
}

impl Eq for TlsRoots {}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsRoots")
            .field("added", &self.added.len())
            .finish()
    }
}

/// A file that holds no usable root certificates.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRoots(String);

/// Makes a connection to `origin` private, if the server is who it should be.
pub(super) async fn connect(
    rules: &Rules,
    origin: &HttpGrant,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let connector = TlsConnector::from(rules.tls.config().await?);
    let name = origin.server_name().ok_or(Error::HttpRequestUriInvalid)?;
    let error = match connector.connect(name, stream).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    tracing::debug!(%origin, %error, "TLS failed");
    let Some(error) = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    else {
        return Err(Error::ConnectionTerminated);
    };
    Err(match error {
        rustls::Error::InvalidCertificate(error) => {
            let (reason, advice) = refusal(error, origin);
            if rules.tls.tell(origin) {
                tracing::warn!(
                    plugin = rules.denials.plugin(),
                    "the server at {origin} is not trusted: {reason}; {advice}"
                );
            }
            Error::TlsCertificateError
        }
        rustls::Error::AlertReceived(alert) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    })
}

/// What is wrong with a certificate, and what to do.
fn refusal(error: &CertificateError, origin: &HttpGrant) -> (String, String) {
    let host = origin.host();
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

//! TLS for the guests' requests.

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::Error;

use super::Rules;
use super::origin::HttpGrant;
use crate::wasm::tls::{Application, Server, cause};

/// Makes a connection to `origin` private, if the server is who it should be.
pub(super) async fn connect(
    rules: &Rules,
    origin: &HttpGrant,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let config = rules.tls.config(Application::Http).await;
    let config = config.map_err(|panic| Error::InternalError(Some(panic.to_string())))?;
    let server = Server::new(origin, origin.host());
    let name = server.name().ok_or(Error::HttpRequestUriInvalid)?;
    let error = match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    rules.tls.explain(rules.denials.plugin(), &server, &error);
    Err(match cause(&error) {
        None => Error::ConnectionTerminated,
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
    })
}

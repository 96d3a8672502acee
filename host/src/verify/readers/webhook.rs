//! Is the server that the backend `webhook` posts to: listens where `WEBHOOK_URL`
//! points, which must be an address of this machine. Takes CloudEvents in every
//! content mode of HTTP.

use std::net::ToSocketAddrs;
use std::sync::mpsc::{self, Receiver};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Reader, ReaderError, Setup, from_http};
use crate::event::Event;
use crate::verify::profile::REFUSED_TYPE;

/// The largest body that is taken, in bytes.
const MAX_BODY: usize = 2 << 20;

/// The most of a body that is read before it is refused. Who is refused while still
/// sending may not see the answer.
const MAX_READ: usize = 64 << 20;

pub(super) struct Webhook {
    url: String,
    events: Receiver<Event>,
    serving: JoinHandle<()>,
}

impl Webhook {
    pub(super) fn open(setup: &Setup<'_>) -> Result<Webhook, ReaderError> {
        let none = || ReaderError("the manifest has no WEBHOOK_URL to listen at".to_owned());
        let url = setup.variable("WEBHOOK_URL").ok_or_else(none)?;
        let uri: Uri = url
            .parse()
            .map_err(|_| ReaderError("WEBHOOK_URL is no URL".to_owned()))?;
        let host = uri.host().unwrap_or_default();
        let place = format!("http://{host}:{}", uri.port_u16().unwrap_or(80));
        let advice = "the requests are taken here, so WEBHOOK_URL has to be http:// and a free \
                      port of this machine: give such a manifest with --manifest";
        if uri.scheme_str() != Some("http") {
            return Err(ReaderError(advice.to_owned()));
        }
        let bare = host.trim_matches(['[', ']']);
        let addresses = (bare, uri.port_u16().unwrap_or(80)).to_socket_addrs();
        let unusable = |error| ReaderError::at("listen at", &place, format!("{error}; {advice}"));
        let addresses: Vec<_> = addresses.map_err(unusable)?.collect();
        let runtime = Handle::current();
        let listener = runtime.block_on(TcpListener::bind(&addresses[..]));
        let listener = listener.map_err(unusable)?;
        let (sender, events) = mpsc::channel();
        let router = Router::new().fallback(take).with_state(sender);
        let serving = runtime.spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Webhook {
            url: place,
            events,
            serving,
        })
    }
}

async fn take(State(events): State<mpsc::Sender<Event>>, request: Request<Body>) -> StatusCode {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_READ).await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    if body.len() > MAX_BODY {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    match from_http(&head.headers, body) {
        Ok(event) if event.event_type() == REFUSED_TYPE => StatusCode::UNPROCESSABLE_ENTITY,
        Ok(event) => {
            // Nobody asks any more once the run is over.
            let _ = events.send(event);
            StatusCode::NO_CONTENT
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

impl Reader for Webhook {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        Ok(self.events.try_iter().collect())
    }

    fn place(&self) -> String {
        format!("what is posted to {}", self.url)
    }

    fn max_event(&self) -> Option<u64> {
        Some(MAX_BODY as u64)
    }

    fn close(&mut self) {
        self.serving.abort();
    }
}

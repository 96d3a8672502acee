//! Somebody's endpoint: a request for each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::StatusCode;
use backhaul::Event;
use backhaul::wasm::Grants;

use super::{Broker, Client, agent, http};

/// An endpoint that reads and counts, on a thread of its own.
pub(super) struct Webhook {
    origin: String,
    requests: Arc<AtomicUsize>,
}

#[async_trait]
impl Broker for Webhook {
    const NAME: &str = "webhook";
    const PLUGIN: &str = "webhook";
    const CLIENT: &str = "ureq, one request after the other";
    const EVENTS: usize = 20_480;

    async fn start() -> anyhow::Result<Option<Webhook>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let origin = format!("http://{}", listener.local_addr()?);
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || serve(listener, counted));
        Ok(Some(Webhook { origin, requests }))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        http(&self.origin)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("WEBHOOK_URL", format!("{}/events", self.origin))]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        self.requests.store(0, Ordering::SeqCst);
        Ok(())
    }

    async fn len(&self) -> anyhow::Result<usize> {
        Ok(self.requests.load(Ordering::SeqCst))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        let url = format!("{}/events", self.origin);
        Ok(Box::new(Poster {
            agent: agent(),
            url,
        }))
    }
}

fn serve(listener: std::net::TcpListener, requests: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let count = move |_: Bytes| {
            requests.fetch_add(1, Ordering::SeqCst);
            async { StatusCode::NO_CONTENT }
        };
        let router = axum::Router::new().route("/events", axum::routing::post(count));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(axum::serve(listener, router).await?)
    })
}

struct Poster {
    agent: ureq::Agent,
    url: String,
}

#[async_trait]
impl Client for Poster {
    /// Blocks its thread; nothing else is to be done meanwhile.
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        for event in events {
            // The same headers as the plugin's.
            let request = self
                .agent
                .post(&self.url)
                .header("content-type", "application/json")
                .header("ce-specversion", "1.0")
                .header("ce-id", event.id())
                .header("ce-source", event.source())
                .header("ce-type", event.event_type())
                .header("ce-time", event.time().to_string())
                .header("webhook-id", event.id())
                .header("webhook-timestamp", "1750000000");
            request.send(&event.data()[..])?;
        }
        Ok(())
    }
}

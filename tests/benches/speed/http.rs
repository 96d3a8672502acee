//! Events over HTTP into a bus, against a bare axum handler that only reads
//! the body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use backhaul::http::HttpServer;
use backhaul::{AsyncBackend, CloseError, Event, EventBus, Failure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::payload;
use crate::report::{Better, ROUNDS, Report};

const CONNECTIONS: usize = 32;
const BATCH: usize = 100;

/// Takes everything at once: what is measured ends at the bus.
struct Nowhere;

#[async_trait]
impl AsyncBackend for Nowhere {
    async fn publish(&self, _: &[Event]) -> Result<(), Vec<Failure>> {
        Ok(())
    }

    async fn close(&self, _: Duration) -> Result<(), CloseError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "nowhere"
    }
}

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    if !report.wants("http-single") && !report.wants("http-batch") {
        return Ok(());
    }
    let bus = EventBus::with_backend(Nowhere);
    bus.forward("*".parse()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = listener.local_addr()?;
    let server = HttpServer::new(bus, 4 << 20, Arc::new(|| Ok(())));
    let ours_serving = tokio::spawn(server.serve(listener, std::future::pending()));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let theirs = listener.local_addr()?;
    let bare = Router::new().route(
        "/events",
        post(async |body: Bytes| {
            std::hint::black_box(body);
            StatusCode::ACCEPTED
        }),
    );
    let theirs_serving = tokio::spawn(async move { axum::serve(listener, bare).await });

    for (name, request, requests, events) in [
        ("http-single", single(), 64_000, 1),
        ("http-batch", batch(), 6_400, BATCH),
    ] {
        if !report.wants(name) {
            continue;
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = load(ours, &request, requests).await? * events as f64;
            let theirs = load(theirs, &request, requests).await? * events as f64;
            rounds.push((ours, theirs));
        }
        let note = format!(
            "{events} event(s) of 256 bytes a request, {CONNECTIONS} connections in the same process; \
             theirs: axum reading the body"
        );
        report.compare(name, "events/s", Better::Higher, &rounds, &note);
    }
    ours_serving.abort();
    theirs_serving.abort();
    Ok(())
}

/// An event in binary mode.
fn single() -> Vec<u8> {
    let head = "content-type: application/json\r\nce-specversion: 1.0\r\n\
        ce-id: 019ab3c4-0000-7000-8000-000000000000\r\nce-source: /bench\r\nce-type: after:signup\r\n";
    request(head, &payload())
}

fn batch() -> Vec<u8> {
    let data = String::from_utf8(payload().to_vec()).expect("JSON is text");
    let event = |n| {
        format!(
            r#"{{"specversion":"1.0","id":"019ab3c4-0000-7000-8000-{n:012}","source":"/bench","type":"after:signup","datacontenttype":"application/json","data":{data}}}"#
        )
    };
    let events: Vec<String> = (0..BATCH).map(event).collect();
    let body = format!("[{}]", events.join(","));
    request(
        "content-type: application/cloudevents-batch+json\r\n",
        body.as_bytes(),
    )
}

fn request(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST /events HTTP/1.1\r\nhost: bench\r\n{head}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Requests per second over all connections.
async fn load(
    address: std::net::SocketAddr,
    request: &[u8],
    requests: usize,
) -> anyhow::Result<f64> {
    let request: Arc<[u8]> = request.into();
    let mut connections = JoinSet::new();
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        let request = request.clone();
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = Vec::with_capacity(16 << 10);
            for _ in 0..requests / CONNECTIONS {
                stream.write_all(&request).await?;
                buffer.clear();
                while !is_whole(&buffer) {
                    anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "closed");
                }
                anyhow::ensure!(buffer.starts_with(b"HTTP/1.1 202 "), "refused");
            }
            Ok(())
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection??;
    }
    Ok((requests / CONNECTIONS * CONNECTIONS) as f64 / started.elapsed().as_secs_f64())
}

/// Whether `response` has its head and as much body as that says.
fn is_whole(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = str::from_utf8(&response[..end]).unwrap_or_default();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    response.len() >= end + 4 + length
}

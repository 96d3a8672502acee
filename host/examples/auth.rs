//! A small sign-up and login service with the event bus embedded.
//!
//! `before:login` has a sync handler, which can refuse; `after:signup` has an
//! async one. Where async events go is one line of configuration, the
//! environment variable `EVENTS`, and changes nothing else:
//!
//! - `EVENTS=pool` (the default): the built-in worker pool runs the handlers.
//! - `EVENTS=plugins`: to the components in `./plugins`, for instance Redis.
//! - `EVENTS=log-file`: to a backend written in Rust, below.
//!
//! ```sh
//! cargo run --example auth
//! curl -i http://127.0.0.1:8080/signup -d '{"user":"ada","password":"secret"}'
//! curl -i http://127.0.0.1:8080/login -d '{"user":"ada","password":"secret"}'
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use backhaul::plugins::PluginHost;
use backhaul::wasm::WasmEngine;
use backhaul::{
    AsyncBackend, CloseError, Delivery, DeliveryOptions, EmitError, Event, EventBus, Failure,
    Handler, PublishError, RetryPolicy,
};
use serde::{Deserialize, Serialize};

/// Wrong passwords after which a user is locked out.
const MAX_FAILURES: u32 = 3;

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

/// The payload of the events. It has no password: events leave the service.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    user: String,
}

#[derive(Clone)]
struct Service {
    bus: EventBus,
    passwords: Arc<Mutex<HashMap<String, String>>>,
    failures: Arc<Mutex<HashMap<String, u32>>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = event_bus(&std::env::var("EVENTS").unwrap_or_default()).await?;
    let service = Service {
        bus: bus.clone(),
        passwords: Arc::default(),
        failures: Arc::default(),
    };
    subscribe(&service)?;

    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&address)
        .await
        .context(address)?;
    println!(
        "listening on {}, events go to {}",
        listener.local_addr()?,
        bus.backend_name()
    );
    let routes = Router::new()
        .route("/signup", post(signup))
        .route("/login", post(login));
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, routes.with_state(service))
        .with_graceful_shutdown(stop)
        .await?;
    bus.close(Duration::from_secs(10)).await?;
    Ok(())
}

/// Where async events go: the one line that changes.
async fn event_bus(choice: &str) -> anyhow::Result<EventBus> {
    Ok(match choice {
        "" | "pool" => EventBus::new(),
        "plugins" => EventBus::with_backend(plugins().await?),
        "log-file" => EventBus::with_backend(Delivery::new(
            LogFile::open("events.log")?,
            DeliveryOptions::default(),
        )),
        other => anyhow::bail!("EVENTS={other}: choose pool, plugins or log-file"),
    })
}

async fn plugins() -> anyhow::Result<PluginHost> {
    let plugins = PluginHost::load(Path::new("plugins"), &WasmEngine::new()?).await?;
    for refused in plugins.refused() {
        eprintln!("{}: {}", refused.file.display(), refused.reason);
    }
    Ok(plugins)
}

/// The handlers, the same whatever the backend.
fn subscribe(service: &Service) -> anyhow::Result<()> {
    let failures = service.failures.clone();
    let not_locked_out = Handler::typed(move |User { user }| {
        let count = failures
            .lock()
            .expect("not poisoned")
            .get(&user)
            .copied()
            .unwrap_or(0);
        async move {
            match count < MAX_FAILURES {
                true => Ok(()),
                false => Err(format!(
                    "{user} is locked out after {count} wrong passwords"
                )),
            }
        }
    });
    service
        .bus
        .subscribe("before:login", not_locked_out.with_priority(10))?;

    let welcome = Handler::typed(async |User { user }| {
        println!("a welcome mail to {user}");
        Ok::<_, std::io::Error>(())
    });
    service.bus.subscribe(
        "after:signup",
        welcome.with_async().with_retry(RetryPolicy::attempts(5)),
    )?;
    Ok(())
}

async fn signup(State(service): State<Service>, body: String) -> (StatusCode, String) {
    let Ok(Credentials { user, password }) = serde_json::from_str(&body) else {
        return (
            StatusCode::BAD_REQUEST,
            r#"send {"user":"...","password":"..."}"#.to_owned(),
        );
    };
    service
        .passwords
        .lock()
        .expect("not poisoned")
        .insert(user.clone(), password);
    match service.emit("after:signup", user).await {
        Ok(()) => (StatusCode::CREATED, "welcome".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn login(State(service): State<Service>, body: String) -> (StatusCode, String) {
    let Ok(Credentials { user, password }) = serde_json::from_str(&body) else {
        return (
            StatusCode::BAD_REQUEST,
            r#"send {"user":"...","password":"..."}"#.to_owned(),
        );
    };
    if let Err(error) = service.emit("before:login", user.clone()).await {
        return (StatusCode::FORBIDDEN, error.to_string());
    }
    let right = service.passwords.lock().expect("not poisoned").get(&user) == Some(&password);
    if !right {
        *service
            .failures
            .lock()
            .expect("not poisoned")
            .entry(user)
            .or_default() += 1;
        return (
            StatusCode::UNAUTHORIZED,
            "wrong user or password".to_owned(),
        );
    }
    (StatusCode::OK, "hello".to_owned())
}

impl Service {
    async fn emit(&self, event_type: &'static str, user: String) -> Result<(), EmitError> {
        let event = Event::builder(event_type)
            .source("/auth")
            .subject(user.clone());
        let event = event.json(&User { user }).and_then(|event| event.build());
        self.bus
            .emit(event.expect("a user is a valid payload"))
            .await
    }
}

/// A backend of one's own: three methods. This one appends to a file.
struct LogFile(Mutex<std::fs::File>);

impl LogFile {
    fn open(path: &str) -> std::io::Result<LogFile> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        Ok(LogFile(Mutex::new(file)))
    }
}

#[async_trait::async_trait]
impl AsyncBackend for LogFile {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let mut lines = Vec::new();
        for event in events {
            lines.extend_from_slice(event.event_type().as_bytes());
            lines.push(b' ');
            lines.extend_from_slice(event.data());
            lines.push(b'\n');
        }
        let written = self.0.lock().expect("not poisoned").write_all(&lines);
        written.map_err(|error| {
            Failure::all(events.len(), &PublishError::Retryable(error.to_string()))
        })
    }

    async fn close(&self, _grace: Duration) -> Result<(), CloseError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "log-file"
    }
}

//! `backhaul serve`: the sidecar. CloudEvents come in over HTTP and go to the
//! plugins.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::config::{Config, Flags};
use super::{UNDELIVERED, compile, runtime};
use crate::backend::AsyncBackend;
use crate::bus::EventBus;
use crate::http::{self, HttpServer, Readiness};
use crate::journal::Journal;
use crate::pattern::Pattern;
use crate::plugins::{Plugin, PluginHost, PluginHostOptions};
use crate::wasm::Grants;

/// How long requests under way may take to end once the host stops.
const REQUESTS_GRACE: Duration = Duration::from_secs(5);

/// Takes CloudEvents over HTTP and carries them to the plugins.
///
/// Stops on SIGTERM or Ctrl-C: takes no more events, delivers what it has
/// accepted, closes the plugins. A second signal ends it at once.
///
/// Exit code: 0 everything was delivered or is in the journal, 1 the host could not
/// start, 2 wrong usage, 3 it stopped with events undelivered and had no journal.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(Arguments { flags }: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::from(flags)?;
    let runtime = runtime()?;
    let code = runtime.block_on(serve(&config));
    // A name that is being looked up is on a thread that cannot be ended; it must
    // not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    raise_file_limit();
    let mut signals = Signals::new()?;
    // Bound first: a port that is taken should not cost the wait for plugins.
    let listener = http::listen(config.listen).await?;
    let address = listener.local_addr()?;
    let engine = compile::engine(config.cache())?;
    let journal = match config.journal {
        None => None,
        Some(options) => {
            let folder = config.journal_folder()?;
            // Reads and writes files.
            let opened = tokio::task::spawn_blocking(move || Journal::open(&folder, options));
            Some(opened.await??)
        }
    };
    let options = PluginHostOptions {
        drain: config.drain,
        journal: journal.clone(),
    };
    let host = PluginHost::with_options(&config.plugins, &engine, options);
    let stopping = Arc::new(AtomicBool::new(false));
    let bus = EventBus::with_backend(host.clone());
    bus.forward(Pattern::any());
    // Answers from the start: plugins that are compiled for the first time take a
    // while, and until then events are refused with a word on that.
    let server = HttpServer::new(
        bus.clone(),
        config.max_body,
        readiness(&host, journal.as_ref(), &stopping),
    )
    .with_plugins(host.clone());
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() };
    let mut serving = tokio::spawn(server.serve(listener, stopped));

    let folder = config.plugins.display();
    tokio::select! {
        started = host.start() => started.with_context(|| {
            format!("the plugins folder {folder} cannot be read; name one with --plugins")
        })?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the plugins were loaded");
            // Those that are have been started.
            let _ = host.close(config.drain).await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    host.watch();
    show(&host, config);
    eprintln!("listening on {address}");
    show_curl(address);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        ended = &mut serving => {
            ended?.context("the HTTP server ended")?;
            anyhow::bail!("the HTTP server ended");
        }
    };
    tracing::info!(signal, "stopping: no new events are taken");
    stopping.store(true, Ordering::Relaxed);
    let _ = stop.send(());

    tokio::select! {
        code = drain(&bus, &host, journal.as_ref(), serving, config.drain) => Ok(code),
        signal = signals.next() => {
            let undelivered = pending(&host);
            match journal {
                Some(_) => {
                    tracing::warn!(signal, undelivered, "stopped at once; the events are in the journal");
                    Ok(ExitCode::SUCCESS)
                }
                None => {
                    tracing::error!(signal, undelivered, "stopped at once");
                    Ok(ExitCode::from(UNDELIVERED))
                }
            }
        }
    }
}

/// Ends the requests under way, then delivers what was accepted.
async fn drain(
    bus: &EventBus,
    host: &PluginHost,
    journal: Option<&Journal>,
    mut serving: tokio::task::JoinHandle<std::io::Result<()>>,
    grace: Duration,
) -> ExitCode {
    let started = Instant::now();
    if tokio::time::timeout(REQUESTS_GRACE.min(grace), &mut serving)
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time and are not waited for");
        serving.abort();
    }
    let waiting = pending(host);
    if waiting > 0 {
        tracing::info!(
            waiting,
            grace = format!("{grace:.1?}"),
            "delivering what was accepted"
        );
    }
    let closed = bus.close(grace.saturating_sub(started.elapsed())).await;
    let kept = pending(host);
    match closed {
        Ok(()) if journal.is_some() && kept > 0 => {
            tracing::info!(
                kept,
                "stopped: what was not delivered is in the journal, and is after the next start"
            );
            ExitCode::SUCCESS
        }
        Ok(()) => {
            tracing::info!("stopped: everything accepted was delivered or is a dead letter");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("stopped: {error}");
            ExitCode::from(UNDELIVERED)
        }
    }
}

fn pending(host: &PluginHost) -> u64 {
    let backends = host.backends().backends;
    backends
        .iter()
        .map(|backend| backend.delivery.pending)
        .sum()
}

fn readiness(
    host: &PluginHost,
    journal: Option<&Journal>,
    stopping: &Arc<AtomicBool>,
) -> Readiness {
    let (host, journal, stopping) = (host.clone(), journal.cloned(), stopping.clone());
    Arc::new(move || {
        if stopping.load(Ordering::Relaxed) {
            return Err("the host is stopping".to_owned());
        }
        if !host.is_loaded() {
            return Err("the plugins are still being loaded".to_owned());
        }
        if host.plugins().is_empty() {
            return Err("no plugin is loaded".to_owned());
        }
        match journal
            .as_ref()
            .and_then(|journal| journal.status().problem)
        {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    })
}

/// Lets the process open as many files as it may at all: each connection and
/// each instance's sockets and files count, and the usual 1,024 are soon gone.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells the person at the terminal what is loaded and what it may touch.
fn show(host: &PluginHost, config: &Config) {
    let folder = config.plugins.display();
    eprintln!(
        "backhaul {}, plugins in {folder}:",
        env!("CARGO_PKG_VERSION")
    );
    for plugin in host.plugins() {
        show_plugin(&plugin);
    }
    for refused in host.refused() {
        eprintln!(
            "  NOT LOADED {}: {}",
            refused.file.display(),
            refused.reason
        );
    }
    if host.plugins().is_empty() {
        eprintln!("  no plugin is loaded: events are refused until one is; copy NAME.wasm there");
    }
}

fn show_plugin(plugin: &Plugin) {
    let events = plugin.events();
    let events: Vec<&str> = events.iter().map(Pattern::as_str).collect();
    let (name, file) = (plugin.name(), plugin.file());
    eprintln!("  {name} ({}) takes {}", file.display(), events.join(", "));
    let Grants {
        tcp,
        udp,
        http,
        tls: _,
        files,
        env,
    } = plugin.grants();
    for grant in &tcp {
        eprintln!("    may connect to {grant}");
    }
    for grant in &udp {
        eprintln!("    may send datagrams to {grant}");
    }
    for grant in &http {
        eprintln!("    may send HTTP requests to {grant}");
    }
    for grant in &files {
        let how = if grant.write {
            "read and write"
        } else {
            "read"
        };
        eprintln!("    may {how} {} as {}", grant.host.display(), grant.guest);
    }
    if !env.is_empty() {
        let names: Vec<&str> = env.iter().map(|grant| grant.name.as_str()).collect();
        eprintln!("    sees the variables {}", names.join(", "));
    }
    if tcp.is_empty() && udp.is_empty() && http.is_empty() && files.is_empty() && env.is_empty() {
        eprintln!("    may touch nothing");
    }
}

fn show_curl(address: std::net::SocketAddr) {
    eprintln!(
        "post an event:\n  \
         curl -i http://{address}/events -H 'content-type: application/json' \
         -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: /curl' -H 'ce-type: after:signup' \
         -d '{{\"user\":1}}'"
    );
}

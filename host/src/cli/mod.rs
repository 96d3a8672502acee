//! The `backhaul` program: one file per subcommand.
//!
//! Puts the library's parts together and talks to people; decides nothing
//! about events. `anyhow` is used here and nowhere below.

mod backends;
mod check;
mod client;
mod compile;
mod config;
mod dead;
mod emit;
mod plugins;
mod serve;
#[cfg(feature = "verify")]
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Events that were accepted could not be delivered before the host stopped.
const UNDELIVERED: u8 = 3;

/// Carries events to whatever queue sits behind you, through sandboxed WASI
/// components.
#[derive(Parser)]
#[command(name = "backhaul", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Emit(emit::Arguments),
    Check(check::Arguments),
    Plugins(plugins::Arguments),
    Dead(dead::Arguments),
    Backends(backends::Arguments),
    #[cfg(feature = "verify")]
    Verify(verify::Arguments),
    /// Compiles a component for a host.
    #[command(name = compile::COMMAND, hide = true)]
    Compile,
}

impl Command {
    /// What is logged of it unless `BACKHAUL_LOG` says otherwise.
    fn default_log(&self) -> &'static str {
        match self {
            #[cfg(feature = "verify")]
            Command::Verify(_) => verify::DEFAULT_LOG,
            _ => DEFAULT_LOG,
        }
    }

    /// Whether it runs components, or compiles them: then there are connections and
    /// pipes whose other side may go away, and that must not end the process.
    fn runs_guests(&self) -> bool {
        match self {
            #[cfg(feature = "verify")]
            Command::Verify(_) => true,
            Command::Serve(_) | Command::Check(_) | Command::Compile => true,
            _ => false,
        }
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    give_memory_back();
    let arguments = Arguments::parse();
    log(arguments.command.default_log());
    if !arguments.command.runs_guests() {
        end_with_the_reader();
    }
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Emit(arguments) => emit::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Plugins(arguments) => plugins::run(arguments),
        Command::Dead(arguments) => dead::run(arguments),
        Command::Backends(arguments) => backends::run(arguments),
        #[cfg(feature = "verify")]
        Command::Verify(arguments) => verify::run(arguments),
        Command::Compile => Ok(compile::run()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("backhaul: {error:#}");
        ExitCode::FAILURE
    })
}

/// Has large blocks given back to the system as soon as they are free. By default
/// glibc keeps ever larger ones, and a host that has read some large components
/// would stay that large.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number of the allocator, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Has the process end quietly, as others do, when nobody reads its output any more.
/// A connection whose other side is gone would end it as well.
fn end_with_the_reader() {
    // SAFETY: it is the default of the system.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// What is logged unless `BACKHAUL_LOG` says otherwise. Wasmtime's HTTP warns of
/// each request it finds malformed, and so could be made to flood the log.
const DEFAULT_LOG: &str = "info,wasmtime_wasi_http=error";

/// The log goes to standard error; `BACKHAUL_LOG` says what of it, in the form
/// of the `tracing-subscriber` crate's `EnvFilter`.
fn log(default: &str) {
    let wanted = std::env::var("BACKHAUL_LOG").unwrap_or_default();
    let (filter, problem) = match EnvFilter::try_new(&wanted) {
        _ if wanted.is_empty() => (EnvFilter::new(default), None),
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Some(error) = problem {
        tracing::warn!(%error, "BACKHAUL_LOG={wanted} is no filter; logging {default}");
    }
}

/// The tokio runtime of a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

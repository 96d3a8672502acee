//! `backhaul backends`: where a running host's events are, and letting go of
//! those of a plugin that will not come back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{self, DEFAULT_HOST};

/// Shows where the events of a running host are, or gives up those of a plugin that is gone.
///
/// One line for each backend, that is for each plugin's name, whether or not the plugin is
/// there now. ACCEPTED is the sum of DELIVERED, PENDING, DEAD (became dead letters) and
/// DROPPED. With the journal on the counts go on over restarts. P99 is the time from accepted
/// to delivered that 99 of 100 events did not exceed, since the plugin was loaded.
///
/// STATE: ok; failing, it takes nothing now and is asked now and then; quarantined, its plugin
/// was set aside (see `backhaul plugins`); absent, its plugin is not in the plugins folder.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Host to ask
    #[arg(long, env = "BACKHAUL_URL", value_name = "URL", default_value = DEFAULT_HOST, global = true)]
    to: String,

    /// Print what the host answers, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Drops all events that wait for a backend whose plugin is gone, for good
    ///
    /// Its books stay, and count them as dropped. If a plugin of this name comes back, it gets
    /// what is accepted from then on.
    #[command(verbatim_doc_comment)]
    Forget {
        /// Name of the backend
        name: String,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        None => list(&arguments.to, arguments.json),
        Some(Command::Forget { name }) => forget(&arguments.to, &name),
    }
}

fn list(to: &str, json: bool) -> anyhow::Result<ExitCode> {
    let url = client::url(to, "/api/backends")?;
    let response = client::agent().get(&url).call();
    let answer = client::answer(response.with_context(|| client::no_answer(&url))?)?;
    match json {
        true => println!("{answer:#}"),
        false => show(&answer),
    }
    Ok(ExitCode::SUCCESS)
}

fn forget(to: &str, name: &str) -> anyhow::Result<ExitCode> {
    let name_in_url = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let url = client::url(to, &format!("/api/backends/{name_in_url}"))?;
    let response = client::agent().delete(&url).call();
    let answer = client::answer(response.with_context(|| client::no_answer(&url))?)?;
    match answer["forgotten"].as_u64() {
        Some(1) => println!("{name}: 1 event that waited for it was dropped"),
        Some(count) => println!("{name}: {count} events that waited for it were dropped"),
        None => anyhow::bail!("the answer is not that of a backhaul host: {answer}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &Value) {
    println!(
        "{:<24} {:<12} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8}",
        "NAME", "STATE", "ACCEPTED", "DELIVERED", "PENDING", "DEAD", "DROPPED", "RETRIES", "P99"
    );
    for backend in answer["backends"].as_array().into_iter().flatten() {
        show_backend(backend);
    }
    match &answer["journal"] {
        Value::Null => println!("journal: off; events wait in memory and end with the host"),
        journal => show_journal(journal),
    }
}

fn show_backend(backend: &Value) {
    let count = |key: &str| backend[key].as_u64().unwrap_or_default();
    let dropped = backend["dropped"].as_object().into_iter().flatten();
    let dropped: u64 = dropped.filter_map(|(_, count)| count.as_u64()).sum();
    println!(
        "{:<24} {:<12} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8}",
        text(&backend["name"]),
        text(&backend["state"]),
        count("accepted"),
        count("delivered"),
        count("pending"),
        count("dead"),
        dropped,
        count("retries"),
        p99(&backend["latency"]),
    );
    if backend["state"] == "failing" {
        println!(
            "  takes nothing since {}: {}",
            text(&backend["failing_since"]),
            text(&backend["last_error"])
        );
    }
}

fn p99(latency: &Value) -> String {
    match latency["count"].as_u64() {
        None | Some(0) => "-".to_owned(),
        Some(_) => {
            let seconds = latency["p99"].as_f64().unwrap_or_default();
            format!("{:.1?}", Duration::from_secs_f64(seconds.max(0.0)))
        }
    }
}

fn show_journal(journal: &Value) {
    let mebibytes = |key: &str| journal[key].as_f64().unwrap_or_default() / f64::from(1 << 20);
    println!(
        "journal: {}, {:.1} of {:.1} MiB, in {}",
        text(&journal["state"]),
        mebibytes("size"),
        mebibytes("max_size"),
        text(&journal["folder"])
    );
    if let Some(problem) = journal["problem"].as_str() {
        println!("  {problem}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

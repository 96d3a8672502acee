//! `backhaul plugins`: what a running host's plugins do, and releasing one that
//! was set aside.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{self, DEFAULT_HOST};

/// Shows the plugins of a running host, or lets one that was set aside try again.
#[derive(Args)]
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
    /// Lets a plugin that was set aside (quarantined) try again
    Release {
        /// Name of the plugin
        name: String,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        None => list(&arguments.to, arguments.json),
        Some(Command::Release { name }) => release(&arguments.to, &name),
    }
}

fn list(to: &str, json: bool) -> anyhow::Result<ExitCode> {
    let url = client::url(to, "/api/plugins")?;
    let response = client::agent().get(&url).call();
    let answer = client::answer(response.with_context(|| client::no_answer(&url))?)?;
    match json {
        true => println!("{answer:#}"),
        false => show(&answer),
    }
    Ok(ExitCode::SUCCESS)
}

fn release(to: &str, name: &str) -> anyhow::Result<ExitCode> {
    let name_in_url = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let url = client::url(to, &format!("/api/plugins/{name_in_url}/release"))?;
    let response = client::agent().post(&url).send_empty();
    let answer = client::answer(response.with_context(|| client::no_answer(&url))?)?;
    match answer["released"].as_bool() {
        Some(true) => println!("{name} tries again"),
        _ => println!("{name} was not set aside; nothing to release"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &Value) {
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let (plugins, refused) = (list("plugins"), list("refused"));
    println!(
        "{:<24} {:<12} {:>10} {:>10} {:>8} {:>8}  FILE",
        "NAME", "STATE", "DELIVERED", "PENDING", "DEAD", "DENIED"
    );
    for plugin in &plugins {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = |value: &Value| value.as_u64().unwrap_or_default();
        let (delivery, denied) = (&plugin["delivery"], &plugin["denied"]["total"]);
        println!(
            "{:<24} {:<12} {:>10} {:>10} {:>8} {:>8}  {}",
            text(&plugin["name"]),
            text(&plugin["state"]),
            count(&delivery["delivered"]),
            count(&delivery["pending"]),
            count(&delivery["dead"]),
            count(denied),
            text(&plugin["file"]),
        );
        if let Some(reason) = plugin["quarantine"]["reason"].as_str() {
            println!(
                "  set aside since {}: {reason}",
                text(&plugin["quarantine"]["since"])
            );
        }
        if let Some(problem) = plugin["problem"].as_str() {
            println!("  its new version is not in use: {problem}");
        }
        for denial in plugin["denied"]["denials"].as_array().into_iter().flatten() {
            let allow = denial["allow"]
                .as_str()
                .map(|line| format!("; to allow it: {line}"));
            println!(
                "  denied {} times: {} {}{}",
                denial["count"],
                text(&denial["kind"]),
                text(&denial["target"]),
                allow.unwrap_or_default(),
            );
        }
    }
    for refused in &refused {
        let text = |key: &str| refused[key].as_str().unwrap_or_default().to_owned();
        println!("NOT LOADED {}: {}", text("file"), text("reason"));
    }
}

//! `cargo xtask bench [NAME...]`: how fast, beside the alternative.
//!
//! Each benchmark runs ours and the alternative in turn, in the same process
//! on the same data, several rounds, and reports the median of each and of the
//! rounds' ratios. Nothing here fails for being slow: figures are for reading.

mod brokers;
mod bus;
mod http;
mod journal;
mod program;
mod report;

use std::sync::LazyLock;

use axum::body::Bytes;
use report::Report;

/// The payload of every event: 256 bytes of JSON.
fn payload() -> Bytes {
    static PAYLOAD: LazyLock<Bytes> = LazyLock::new(|| {
        let text = "x".repeat(256 - br#"{"user":""}"#.len());
        format!(r#"{{"user":"{text}"}}"#).into()
    });
    PAYLOAD.clone()
}

/// An event with that payload.
fn event() -> backhaul::Event {
    let builder = backhaul::Event::builder("after:signup").source("/bench");
    let builder = builder.content_type("application/json").data(payload());
    builder.build().expect("a valid event")
}

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let report = Report::new(names);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        bus::run(&report).await?;
        brokers::run(&report).await?;
        http::run(&report).await?;
        journal::run(&report).await?;
        program::run(&report).await
    })?;
    report.write()
}

//! Servers that cannot be had: the kind of the error, and whether it says why.

use std::time::Duration;

use super::{Context, Repeats, Verdict, by_index, failed, not_applicable, told};
use crate::backend::AsyncBackend;
use crate::event::Event;
use crate::verify::target::Changes;
use crate::verify::wire::Fault;
use crate::wasm::WasmBackend;

/// Words one of which is in an error that says that the login was refused.
const OF_CREDENTIALS: [&str; 13] = [
    "access",
    "auth",
    "credential",
    "denied",
    "forbidden",
    "login",
    "password",
    "permission",
    "secret",
    "sign",
    "token",
    "user",
    "key",
];

/// Words one of which is in an error that says that the server is away.
const OF_REACH: [&str; 10] = [
    "answer",
    "connect",
    "network",
    "reach",
    "refused",
    "resolve",
    "route",
    "running",
    "server",
    "timed out",
];

/// How often a backend whose server is back may fail yet.
const TRIES: usize = 20;

pub(super) async fn wrong_credentials(context: &Context<'_>) -> Verdict {
    let env = &context.profile.wrong_credentials;
    if env.is_empty() {
        return not_applicable(
            "the profile names no variables with which the server refuses the login ([credentials])",
        );
    }
    let changes = Changes {
        env: env.clone(),
        ..Changes::default()
    };
    let backend = context.start_with(changes).await?;
    let sent = context.events().events(0..3);
    let text = all_retryable(&backend, &sent, &OF_CREDENTIALS, "the login was refused").await?;
    // Short values are in texts by chance.
    if let Some(name) = env
        .iter()
        .find(|(_, value)| value.len() >= 8 && text.contains(*value))
        .map(|(name, _)| name)
    {
        return failed(format!("its error shows the value of {name}"));
    }
    match context.arrived(0)?.is_empty() {
        true => Ok(format!("\"{text}\"")),
        false => failed(format!("events arrived, but it says: {text}")),
    }
}

pub(super) async fn unreachable(context: &Context<'_>) -> Verdict {
    context.needs_server()?;
    context.wire.intercept();
    context.wire.set(Fault::Refuse);
    let backend = context.start().await?;
    let sent = context.events().events(0..3);
    let text = all_retryable(&backend, &sent, &OF_REACH, "the server is away").await?;
    context.wire.set(Fault::None);
    for _ in 0..TRIES {
        if backend.publish(&sent).await.is_ok() {
            context.judge(&sent, Repeats::Allowed)?;
            return Ok(format!(
                "\"{text}\"; and it publishes once the server is there"
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    failed(format!(
        "it does not publish after the server is there ({TRIES} tries)"
    ))
}

/// Publishes events of which none can be; the text of the failures.
async fn all_retryable(
    backend: &WasmBackend,
    sent: &[Event],
    words: &[&str],
    what: &str,
) -> Verdict {
    let failures = by_index(backend.publish(sent).await);
    for index in 0..sent.len() {
        match failures.get(&index) {
            Some(error) if error.is_retryable() => {}
            Some(error) => {
                return failed(format!(
                    "it can be put right, so event {index} has to be tried again; its failure is {}",
                    told(error)
                ));
            }
            None => {
                return failed(format!(
                    "event {index} is not among the failures, though {what}"
                ));
            }
        }
    }
    if let Some(broken) = backend.health().last_error {
        return failed(format!(
            "it does not notice by itself that {what}, the host has to stop it: {broken}"
        ));
    }
    let text = failures[&0].to_string();
    let lower = text.to_lowercase();
    match words.iter().any(|word| lower.contains(word)) {
        true => Ok(text),
        false => failed(format!(
            "its error does not say that {what} (none of the words {}): {text:?}",
            words.join(", ")
        )),
    }
}

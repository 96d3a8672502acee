//! Events the server refuses for good, among others.

use super::{Context, Repeats, Stop, Verdict, by_index, counted, failed, not_applicable, told};
use crate::backend::{AsyncBackend, PublishError};
use crate::event::Event;
use crate::verify::profile::Refused;
use crate::verify::target::Changes;
use crate::wasm::WasmBackend;

/// How often the others are offered again, as a host would.
const TRIES: usize = 5;

/// By how much an event is too large: more than protocols add.
const EXCESS: u64 = 64 << 10;

pub(super) async fn refused_event(context: &Context<'_>) -> Verdict {
    let Some(refused) = &context.profile.refused else {
        return not_applicable("the profile names no event that is refused for good ([refused])");
    };
    let Refused {
        event_type,
        content_type,
        attributes,
        lacks,
        env,
    } = refused.clone();
    let good: Vec<(String, String)> = lacks.into_iter().collect();
    let events = context.events();
    let mut bad = match event_type {
        Some(event_type) => events.of_type(&event_type),
        None => events.clone(),
    }
    .builder(2);
    if let Some(content_type) = content_type {
        bad = bad.content_type(content_type);
    }
    let bad = attributes
        .into_iter()
        .fold(bad, |builder, (name, value)| builder.attribute(name, value));
    let bad = bad.build().map_err(|error| {
        Stop::Undecided(format!("the profile's [refused] is no event: {error}"))
    })?;
    let mut sent = events.with(&good).events(0..5);
    sent[2] = bad;
    let env = Changes {
        env,
        ..Changes::default()
    };
    let backend = context.start_with(env).await?;
    one_is_refused(context, &backend, sent, 2).await
}

pub(super) async fn too_large(context: &Context<'_>) -> Verdict {
    let Some(max) = context.max_event() else {
        return not_applicable(
            "neither the server nor the profile (`max_event`) says how large an event may be",
        );
    };
    let size = max + EXCESS;
    let memory = context.target.manifest.limits.memory;
    // The guest holds the event, and what it makes of it.
    if size * 4 > memory {
        return not_applicable(format!(
            "the server takes {}, and one that is larger does not fit the plugin's memory ({} bytes)",
            counted(max as usize, "byte", "bytes"),
            memory
        ));
    }
    let backend = context.start().await?;
    let events = context.events();
    let mut sent = events.events(0..3);
    sent[1] = events.large(1, size as usize);
    one_is_refused(context, &backend, sent, 1).await
}

/// Publishes `sent`, of which the event at `bad` is refused for good and the others
/// arrive.
async fn one_is_refused(
    context: &Context<'_>,
    backend: &WasmBackend,
    mut sent: Vec<Event>,
    bad: usize,
) -> Verdict {
    let failures = by_index(backend.publish(&sent).await);
    let text = match failures.get(&bad) {
        Some(PublishError::Permanent(text)) => text.clone(),
        Some(error) => {
            return failed(format!(
                "event {bad} can never be published, and its failure is not permanent but {}",
                told(error)
            ));
        }
        None => {
            let listed: Vec<String> = failures.keys().map(usize::to_string).collect();
            let listed = match listed.is_empty() {
                true => "none".to_owned(),
                false => listed.join(", "),
            };
            return failed(format!(
                "event {bad} can never be published, and is not among the failures (listed: {listed})"
            ));
        }
    };
    let others = failures.iter().filter(|(index, _)| **index != bad);
    let mut again = Vec::new();
    for (index, error) in others {
        if !error.is_retryable() {
            return failed(format!(
                "event {index} is good, and its failure is {}",
                told(error)
            ));
        }
        again.push(sent[*index].clone());
    }
    let mut repeats = Repeats::Wrong;
    let retried = again.len();
    for _ in 0..TRIES {
        if again.is_empty() {
            break;
        }
        repeats = Repeats::Allowed;
        let failures = by_index(backend.publish(&again).await);
        again = failures
            .into_keys()
            .map(|index| again[index].clone())
            .collect();
    }
    if !again.is_empty() {
        return failed(format!(
            "{} not published after {TRIES} more tries without the refused one",
            counted(again.len(), "event was", "events were")
        ));
    }
    sent.remove(bad);
    context.judge(&sent, repeats)?;
    let retried = match retried {
        0 => String::new(),
        count => format!(
            ", after {} tried again",
            counted(count, "other was", "others were")
        ),
    };
    Ok(format!("event {bad}: \"{text}\"{retried}"))
}

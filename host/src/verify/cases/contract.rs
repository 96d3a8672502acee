//! What the contract says of the three functions, with little going on.

use super::{Context, Repeats, Stop, Verdict, counted, failed};
use crate::backend::AsyncBackend;

/// How many instances are asked for their name.
const INSTANCES: usize = 3;

pub(super) async fn name(context: &Context<'_>) -> Verdict {
    let name = &context.target.name;
    for _ in 0..INSTANCES {
        let backend = context.start().await?;
        let timeout = context.target.manifest.limits.timeout;
        if backend.name() != name {
            return failed(format!(
                "one instance calls itself `{name}`, another `{}`",
                backend.name()
            ));
        }
        let _ = backend.close(timeout).await;
    }
    Ok(format!("`{name}`, of {INSTANCES} instances"))
}

pub(super) async fn single(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let sent = context.events().events(0..1);
    context.publish(&backend, &sent).await?;
    context.judge(&sent, Repeats::Wrong)?;
    Ok("it is there when publish has returned".to_owned())
}

pub(super) async fn batch(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let sent = context.events().events(0..context.target.manifest.batch);
    context.publish(&backend, &sent).await?;
    context.judge(&sent, Repeats::Wrong)?;
    Ok(counted(sent.len(), "event", "events"))
}

pub(super) async fn empty_batch(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    if let Err(failures) = backend.publish(&[]).await
        && !failures.is_empty()
    {
        return failed(format!("{} failures are listed", failures.len()));
    }
    // No failure of an event tells of an instance that broke over none.
    if backend.broken_in_a_row() > 0 {
        let last = backend.health().last_error;
        return failed(last.unwrap_or_else(|| "its instance broke".to_owned()));
    }
    match context.arrived(0)?.len() {
        0 => Ok("nothing came of it".to_owned()),
        count => failed(format!(
            "{} nobody sent",
            counted(count, "event arrived", "events arrived")
        )),
    }
}

pub(super) async fn grants(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let sent = context.events().events(0..10);
    context.publish(&backend, &sent).await?;
    let denied = backend.denied();
    if denied.total == 0 {
        return Ok("nothing was denied".to_owned());
    }
    let shown = denied.denials.iter().take(3);
    let shown: Vec<String> = shown
        .map(|denial| format!("{} {}", denial.kind, denial.target))
        .collect();
    Err(Stop::Failed(format!(
        "it was denied {}: {}",
        counted(denied.total as usize, "thing", "things"),
        shown.join(", ")
    )))
}

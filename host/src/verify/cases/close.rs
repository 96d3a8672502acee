//! The end of an instance.

use super::{Context, Repeats, Verdict, failed};
use crate::backend::{AsyncBackend, PublishError};

pub(super) async fn close(context: &Context<'_>) -> Verdict {
    let timeout = context.target.manifest.limits.timeout;
    let unused = context.start().await?;
    if let Err(error) = unused.close_each(1).await {
        return failed(format!("an instance that has published nothing: {error}"));
    }
    let backend = context.start().await?;
    let sent = context.events().events(0..100);
    context.publish(&backend, &sent).await?;
    // The contract has it called once; a second call is to do no harm.
    if let Err(error) = backend.close_each(2).await {
        return failed(error.to_string());
    }
    context.judge(&sent, Repeats::Wrong)?;
    for _ in 0..2 {
        let _ = backend.close(timeout).await;
    }
    match backend.publish(&sent[..1]).await {
        Err(failures) if failures[0].error == PublishError::Closed => {
            Ok("100 events are there; closed twice without an error".to_owned())
        }
        _ => failed("it takes events after it was closed"),
    }
}

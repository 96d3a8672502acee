//! Many events, and the same ones again.

use std::time::Instant;

use super::{Context, Repeats, Verdict, counted, failed, not_applicable};
use crate::verify::profile::Order;

pub(super) async fn many(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let sent = context.events().events(0..context.scale.events);
    let began = Instant::now();
    context.publish(&backend, &sent).await?;
    let took = began.elapsed();
    context.judge(&sent, Repeats::Wrong)?;
    let order = match context.profile.order {
        Order::All => "once and in order",
        Order::Key => "once, in order for each key",
        Order::None => "once; the profile says they are in no order",
    };
    let rate = sent.len() as f64 / took.as_secs_f64();
    Ok(format!(
        "{} arrived {order}; {} a second, one call after the other",
        counted(sent.len(), "event", "events"),
        counted(rate as usize, "event", "events"),
    ))
}

pub(super) async fn repeats(context: &Context<'_>) -> Verdict {
    if !context.profile.deduplicates {
        return not_applicable(
            "the profile does not say that the server knows events again (`deduplicates`)",
        );
    }
    let backend = context.start().await?;
    let sent = context.events().events(0..100);
    context.publish(&backend, &sent).await?;
    context.publish(&backend, &sent).await?;
    match context.judge(&sent, Repeats::Allowed)? {
        0 => Ok("100 events, published twice, are there once".to_owned()),
        repeats => failed(format!(
            "of 100 events that were published twice {repeats} are there twice"
        )),
    }
}

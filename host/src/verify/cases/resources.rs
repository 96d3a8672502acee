//! How a backend uses what it is given: instances, limits, memory.

use futures_util::future::join_all;

use super::contents::large;
use super::{Context, Repeats, Verdict, counted, failed, not_applicable};
use crate::event::Event;
use crate::verify::judge::Judgement;
use crate::verify::target::Changes;
use crate::wasm::WasmBackend;

/// How many instances work side by side.
const INSTANCES: usize = 4;

/// How many events each is given in one call, and how often.
const CALL: usize = 50;
const CALLS: usize = 10;

/// By how many bytes memory may grow after a tenth of the events. Allocators take
/// some pages more now and then.
const GROWTH: u64 = 512 << 10;

pub(super) async fn instances(context: &Context<'_>) -> Verdict {
    if !context.profile.instances {
        return not_applicable("the profile says that one instance works at a time (`instances`)");
    }
    let changes = Changes {
        instances: Some(INSTANCES),
        ..Changes::default()
    };
    let backend = context.start_with(changes).await?;
    let sent = context.events().events(0..INSTANCES * CALL * CALLS);
    let lanes: Vec<&[Event]> = sent.chunks(CALL * CALLS).collect();
    let publishing = lanes.iter().map(|lane| async {
        for call in lane.chunks(CALL) {
            context.publish(&backend, call).await?;
        }
        Verdict::Ok(())
    });
    for published in join_all(publishing).await {
        published?;
    }
    let arrived = context.arrived(sent.len())?;
    for (number, lane) in lanes.iter().enumerate() {
        let own = |event: &&Event| lane.iter().any(|sent| sent.id() == event.id());
        let arrived: Vec<Event> = arrived.iter().filter(own).cloned().collect();
        let profile = context.profile;
        let judgement = Judgement::of(lane, &arrived, profile.order, &profile.attributes);
        let faults = judgement.faults(!profile.repeats);
        if !faults.is_empty() {
            return failed(format!("of caller {number}: {}", faults.join("; ")));
        }
    }
    Ok(format!(
        "{} of {INSTANCES} callers, {} at work",
        counted(sent.len(), "event", "events"),
        counted(backend.health().started as usize, "instance", "instances"),
    ))
}

pub(super) async fn limits(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let (most, bytes) = context.target.largest_batch();
    let overhead = context.events().event(0).weight();
    let size = (bytes / most).saturating_sub(overhead).min(large(context));
    let sent: Vec<Event> = (0..most)
        .map(|number| context.events().large(number, size.max(1)))
        .collect();
    // All of them in one call.
    context.publish(&backend, &sent).await?;
    context.judge(&sent, Repeats::Wrong)?;
    Ok(format!(
        "{} with {} of data each; {} of memory in use, {} allowed",
        counted(most, "event", "events"),
        counted(size, "byte", "bytes"),
        mebibytes(backend.memory()),
        mebibytes(context.target.manifest.limits.memory),
    ))
}

pub(super) async fn memory(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let count = context.scale.memory_events;
    let sent = context.events().events(0..count);
    let (warm, rest) = sent.split_at(count / 10);
    context.publish(&backend, warm).await?;
    let before = in_use(&backend)?;
    context.publish(&backend, rest).await?;
    let after = in_use(&backend)?;
    context.judge(&sent, Repeats::Wrong)?;
    let growth = after.saturating_sub(before);
    let seen = format!(
        "{} after {}, {} after {}",
        mebibytes(before),
        counted(warm.len(), "event", "events"),
        mebibytes(after),
        counted(count, "event", "events"),
    );
    match growth <= GROWTH {
        true => Ok(seen),
        false => failed(format!(
            "{seen}: {} bytes more for each event",
            growth / rest.len() as u64
        )),
    }
}

/// The memory of the one instance; none if it broke.
fn in_use(backend: &WasmBackend) -> Verdict<u64> {
    match backend.memory() {
        0 => failed("its instance is gone"),
        bytes => Ok(bytes),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

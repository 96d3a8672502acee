//! What a component answers, as it lies in its memory: results no bindings would
//! write, with pointers and lengths that lead anywhere.
//!
//! Input: the memory from the answer of `publish` on.

use std::sync::OnceLock;
use std::time::Duration;

use backhaul::wasm::Component;
use backhaul::{AsyncBackend, Event};

use crate::{sandbox, small};

pub(crate) fn run(input: &[u8]) {
    sandbox::run(8, async {
        // It starts; but not within its limit where the machine is busy.
        let Some(backend) = sandbox::start(component().await, Vec::new()).await else {
            return;
        };
        let data = input.to_vec();
        let events: Vec<Event> = std::iter::once(data)
            .chain((1..4).map(|_| Vec::new()))
            .map(|data| Event::new("t", data).expect("an event"))
            .collect();
        for events in [&events[..], &events[..1]] {
            let result = backend.publish(events).await;
            sandbox::check_published(events, &result);
        }
        backend.close(Duration::from_secs(5)).await.expect("closed");
    });
}

async fn component() -> Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    match COMPONENT.get() {
        Some(component) => component.clone(),
        None => {
            let loaded = sandbox::load(small::component()).await;
            COMPONENT.get_or_init(|| loaded).clone()
        }
    }
}

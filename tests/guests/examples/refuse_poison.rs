//! Publishes, but not an event whose data hold the word `poison`. HOW says what
//! becomes of a batch with one: `alone` refuses the event and publishes the
//! others, `stop` publishes what is before it and refuses the rest, `trap` traps.
//! What is refused can be tried again. Once `/out/healed` exists, poison is
//! published like anything else.

use std::path::Path;

use backhaul_guest::{Event, Failure, setting_or};
use test_guests::record;

test_guests::export_publish!("refuse-poison", |events: &[Event]| {
    let poison = |event: &Event| event.data.windows(6).any(|word| word == b"poison");
    if Path::new("/out/healed").exists() || !events.iter().any(poison) {
        return record(events);
    }
    match setting_or("HOW", "alone").as_str() {
        "trap" => panic!("poison"),
        "stop" => {
            let at = events.iter().position(poison).expect("it is there");
            record(&events[..at])?;
            Err(Failure::all_retryable(at..events.len(), "poison"))
        }
        _ => {
            let (bad, good): (Vec<_>, Vec<_>) = events
                .iter()
                .enumerate()
                .partition(|(_, event)| poison(event));
            let good: Vec<Event> = good.into_iter().map(|(_, event)| event.clone()).collect();
            record(&good)?;
            let refused = |(index, _)| Failure::retryable(index, "poison");
            Err(bad.into_iter().map(refused).collect())
        }
    }
});

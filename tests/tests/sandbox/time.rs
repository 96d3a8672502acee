//! The time limit: for guests that compute without end, wait in the host
//! without end, or never complete; in both worlds.

use std::time::{Duration, Instant};

use backhaul::plugins::PluginHost;
use backhaul::wasm::Grants;
use backhaul::{AsyncBackend, Delivery, DeliveryOptions};
use backhaul_tests::wait_for;

use crate::guest::{Folder, GENEROUS, Out, broken, engine, events, ids, start, within};

const LIMIT: Duration = Duration::from_millis(200);

/// How late a stop may be: the engine's 10 ms, and what a loaded machine adds.
const MARGIN: Duration = Duration::from_millis(800);

const NEVER_RETURN: [&str; 3] = ["loop_in_publish", "sleep_in_publish", "stall_async"];

#[tokio::test]
async fn a_plugin_that_never_returns_is_stopped_at_its_limit() {
    for guest in NEVER_RETURN {
        let backend = start(guest, Grants::default(), within(LIMIT)).await;
        let started = Instant::now();
        let reason = broken(&backend, &events(3)).await;
        let elapsed = started.elapsed();
        assert!(
            reason.contains(
                "in `publish`, it was not done after 200ms and was stopped; see `timeout` under [limits]"
            ),
            "{guest}: {reason}"
        );
        assert!(
            (LIMIT..LIMIT + MARGIN).contains(&elapsed),
            "{guest}: {elapsed:?}"
        );
    }
}

#[tokio::test]
async fn a_plugin_that_never_returns_is_stopped_and_its_events_are_retried() {
    for guest in NEVER_RETURN {
        let out = Out::new();
        let backend = start(guest, out.grants(), within(LIMIT)).await;
        let delivery = Delivery::new(backend, DeliveryOptions::default());
        delivery.publish(&events(5)).await.unwrap();
        delivery.close(GENEROUS).await.unwrap();
        assert_eq!(out.published(), ids(5), "{guest}");
        assert_eq!(delivery.stats().delivered, 5, "{guest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plugins_that_never_return_hold_up_no_other_even_on_one_thread() {
    let out = Out::new();
    let folder = Folder::new();
    for guest in NEVER_RETURN {
        folder.add(guest, "[limits]\ntimeout = \"10s\"");
    }
    folder.add(
        "record_blocking",
        &format!("[grants]\n{}", out.manifest_line()),
    );
    let host = PluginHost::load(&folder.path(), &engine()).await.unwrap();
    assert_eq!(host.plugins().len(), NEVER_RETURN.len() + 1);

    for event in events(50) {
        host.publish(&[event]).await.unwrap();
    }
    let started = Instant::now();
    wait_for("the other plugin to have all events", || {
        (out.published().len() == 50).then_some(())
    });
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "while the others still hang"
    );
    assert_eq!(out.published(), ids(50));
    for plugin in host.plugins() {
        let stats = plugin.delivery.stats();
        match plugin.name.as_str() {
            "record-blocking" => assert_eq!(stats.dead + stats.dropped, 0),
            name => assert_eq!((stats.delivered, stats.pending), (0, 50), "{name}"),
        }
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_closed_within_the_grace_and_its_events_are_counted() {
    let backend = start("sleep_in_publish", Grants::default(), within(GENEROUS)).await;
    let delivery = Delivery::new(backend, DeliveryOptions::default());
    delivery.publish(&events(5)).await.unwrap();
    let started = Instant::now();
    let error = delivery.close(LIMIT).await.unwrap_err();
    assert_eq!(error.undelivered, 5);
    // Draining takes the grace, and closing at most the second it gets at least.
    assert!(started.elapsed() < LIMIT + Duration::from_secs(1) + MARGIN);
}

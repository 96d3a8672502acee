//! The life of instances: both worlds, kept alive, replaced when broken, side
//! by side, closed.

use std::time::Duration;

use backhaul::wasm::{Grants, Limits, World};
use backhaul::{AsyncBackend, Delivery, DeliveryOptions};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::guest::{GENEROUS, Out, broken, engine, events, ids, order, start, within};

#[tokio::test]
async fn a_component_of_either_world_publishes() {
    for (guest, world) in [
        ("record_async", World::Backend),
        ("record_blocking", World::BlockingBackend),
    ] {
        let wasm = std::fs::read(components::test_guest(guest)).unwrap();
        assert_eq!(engine().load(wasm).await.unwrap().world(), world);

        let out = Out::new();
        let backend = start(guest, out.grants(), within(GENEROUS)).await;
        assert_eq!(backend.name(), guest.replace('_', "-"));
        backend.publish(&events(3)).await.unwrap();
        assert_eq!(out.published(), ids(3));
        backend.close(GENEROUS).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_is_kept_between_calls_and_replaced_after_a_trap() {
    let out = Out::new();
    let backend = start("trap_in_publish", out.grants(), within(GENEROUS)).await;
    for published in [true, true, false, true, true] {
        if published {
            backend.publish(&events(1)).await.unwrap();
        } else {
            let reason = broken(&backend, &events(1)).await;
            assert!(reason.contains("in `publish`, it trapped: "), "{reason}");
        }
    }
    assert_eq!(out.lines("calls"), ["1", "2", "3", "1", "2"]);
}

#[tokio::test]
async fn no_event_is_lost_and_none_overtakes_another_when_instances_trap() {
    let out = Out::new();
    let backend = start("trap_in_publish", out.grants(), within(GENEROUS)).await;
    let one_by_one = DeliveryOptions {
        batch: 1,
        ..DeliveryOptions::default()
    };
    let delivery = Delivery::new(backend, one_by_one);
    delivery.publish(&events(10)).await.unwrap();
    delivery.close(GENEROUS).await.unwrap();

    assert_eq!(out.published(), ids(10));
    let stats = delivery.stats();
    assert_eq!((stats.delivered, stats.dead, stats.retries), (10, 0, 4));
}

#[tokio::test]
async fn a_stack_that_has_no_end_traps_and_the_instance_is_replaced() {
    let out = Out::new();
    let backend = start("recurse", out.grants(), within(GENEROUS)).await;
    let reason = broken(&backend, &events(2)).await;
    assert!(reason.contains("it trapped: "), "{reason}");
    backend.publish(&events(2)).await.unwrap();
    assert_eq!(out.published(), ids(2));
}

#[tokio::test]
async fn four_instances_work_side_by_side() {
    let out = Out::new();
    let limits = Limits {
        instances: 4,
        ..within(GENEROUS)
    };
    let backend = start("meet", out.grants(), limits).await;
    let meet = [order("4")];
    let call = || backend.publish(&meet);
    let results = tokio::join!(call(), call(), call(), call());
    assert_eq!(results, (Ok(()), Ok(()), Ok(()), Ok(())));
}

#[tokio::test]
async fn with_one_instance_a_call_begins_when_the_last_one_is_over() {
    let out = Out::new();
    // The first waits in vain for a second; its place is noted all the same.
    let limits = within(Duration::from_secs(1));
    let backend = start("meet", out.grants(), limits).await;
    let meet = [order("2")];
    let (first, second) = tokio::join!(backend.publish(&meet), backend.publish(&meet));
    let reason = first.unwrap_err()[0].error.to_string();
    assert!(reason.contains("was not done after 1s"), "{reason}");
    second.unwrap();
}

#[tokio::test]
async fn a_closed_backend_has_closed_its_instance_and_takes_nothing_more() {
    let out = Out::new();
    let backend = start("fail_close", out.grants(), within(GENEROUS)).await;
    backend.publish(&events(1)).await.unwrap();
    backend.close(GENEROUS).await.unwrap();
    assert!(out.path().join("closed").exists());

    let failures = backend.publish(&events(1)).await.unwrap_err();
    assert_eq!(failures[0].error, backhaul::PublishError::Closed);
}

#[test]
fn an_error_while_closing_is_logged_and_has_no_other_effect() {
    let out = Out::new();
    let workspace = Workspace::new();
    let manifest = format!("[grants]\n{}", out.manifest_line());
    workspace.add_plugin("door", &components::test_guest("fail_close"), &manifest);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    let (status, log) = host.stop();
    assert!(status.success());
    let line = log.lines().find(|line| line.contains("the door"));
    let line = line.expect("the error in the log");
    assert!(
        line.contains("closing the plugin failed") && line.contains("plugin=\"door\""),
        "{line}"
    );
    assert!(line.contains(r"the door\u{a}is stuck"), "{line}");
}

#[tokio::test]
async fn a_guest_without_grants_can_still_refuse_work_politely() {
    let backend = start("record_blocking", Grants::default(), within(GENEROUS)).await;
    let failures = backend.publish(&events(2)).await.unwrap_err();
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|failure| failure.error.is_retryable()));
}

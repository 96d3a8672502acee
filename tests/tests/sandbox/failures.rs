//! What a guest says of its failures: believed as far as it can be true, and
//! made fit to be shown.

use backhaul::wasm::Grants;
use backhaul::{AsyncBackend, Delivery, DeliveryOptions, PublishError, RetryPolicy};
use backhaul_tests::host::Workspace;
use backhaul_tests::{components, wait_for};

use crate::guest::{GENEROUS, Out, broken, events, order, start, within};

#[tokio::test]
async fn a_list_of_failures_that_cannot_be_makes_every_event_retryable() {
    let backend = start("wrong_failures", Grants::default(), within(GENEROUS)).await;
    for (lie, said) in [
        ("outside", "a failure of event 1 outside the batch"),
        ("largest", "a failure of event 4294967295 outside the batch"),
        ("twice", "a failure of event 0 twice"),
        ("longer", "a failure of event 1 outside the batch"),
        ("endless", "a failure of event 0 twice"),
    ] {
        let reason = broken(&backend, &[order(lie)]).await;
        assert!(reason.contains(said), "{reason}");
    }
    let reason = broken(&backend, &[order("twice"), order("fine")]).await;
    assert!(
        reason.contains("nothing it says of the batch can be relied on"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_event_a_guest_lies_about_does_not_take_others_with_it() {
    let out = Out::new();
    let backend = start("wrong_failures", out.grants(), within(GENEROUS)).await;
    let options = DeliveryOptions {
        retry: RetryPolicy::attempts(3),
        ..DeliveryOptions::default()
    };
    let delivery = Delivery::new(backend, options);
    let batch = [order("twice"), order("fine"), order("fine")];
    delivery.publish(&batch).await.unwrap();
    delivery.close(GENEROUS).await.unwrap();

    assert_eq!(out.published(), [batch[1].id(), batch[2].id()]);
    let dead = delivery.dead_letters().list();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].event.id(), batch[0].id());
}

#[tokio::test]
async fn the_text_of_a_failure_is_cut_and_escaped() {
    let backend = start("many_errors", Grants::default(), within(GENEROUS)).await;
    let failures = backend.publish(&events(50)).await.unwrap_err();
    assert_eq!(failures.len(), 50);
    for failure in failures {
        let PublishError::Permanent(text) = failure.error else {
            panic!("{:?}", failure.error);
        };
        assert!(
            text.starts_with(r"\u{1b}[2J\u{a}forged \u{202e}xxx"),
            "{text}"
        );
        assert!(text.ends_with("x..."), "{text}");
        assert!(text.len() < 1100, "{} bytes", text.len());
    }
}

#[tokio::test]
async fn texts_that_are_too_much_together_break_the_call_and_lose_nothing() {
    let many = start("many_errors", Grants::default(), within(GENEROUS)).await;
    let overlapping = start("overlapping_errors", Grants::default(), within(GENEROUS)).await;
    for (backend, count) in [(many, 250), (overlapping, 3)] {
        let reason = broken(&backend, &events(count)).await;
        assert!(reason.contains("in `publish`, it trapped: "), "{reason}");
    }
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_breaks_the_call_and_loses_nothing() {
    let backend = start("binary_error", Grants::default(), within(GENEROUS)).await;
    let reason = broken(&backend, &events(3)).await;
    assert!(reason.to_lowercase().contains("utf-8"), "{reason}");
}

#[tokio::test]
async fn a_failure_without_a_word_is_a_failure() {
    let backend = start("empty_error", Grants::default(), within(GENEROUS)).await;
    let failures = backend.publish(&events(4)).await.unwrap_err();
    let errors: Vec<PublishError> = failures.into_iter().map(|failure| failure.error).collect();
    let retryable = PublishError::Retryable(String::new());
    let permanent = PublishError::Permanent(String::new());
    let expected = [retryable.clone(), permanent.clone(), retryable, permanent];
    assert_eq!(errors, expected);
}

/// Every harmful guest at once, beside one that does its work.
#[test]
fn plugins_that_do_harm_do_it_to_themselves_alone() {
    let harmful = [
        "binary_error",
        "grow_memory",
        "loop_async",
        "loop_in_publish",
        "many_errors",
        "overlapping_errors",
        "recurse",
        "sleep_in_publish",
        "stall_async",
    ];
    let workspace = Workspace::new();
    for guest in harmful {
        let limits = "[limits]\ntimeout = \"200ms\"\nmemory = \"16MiB\"\n";
        workspace.add_plugin(guest, &components::test_guest(guest), limits);
    }
    workspace.add_file_plugin();
    let host = workspace.serve();
    for round in 0..5 {
        assert_eq!(host.post_batch(&format!("round{round}"), 20).status, 202);
    }

    assert_eq!(workspace.wait_for_file_lines(100).len(), 100);
    for guest in harmful {
        let backend = format!("backend=\"{}\"", guest.replace('_', "-"));
        wait_for(&format!("{guest} in the log"), || {
            host.log().contains(&backend).then_some(())
        });
    }
    assert_eq!(host.get("/health/live").status, 200);
}

//! The limits of time and of processor time: for guests that compute without
//! end, wait in the host without end, or never complete; in both worlds, and in
//! every function.

use std::time::{Duration, Instant};

use backhaul::plugins::PluginHost;
use backhaul::wasm::{CallError, CallErrorKind, Grants, Limits, LoadError, WasmBackend};
use backhaul::{AsyncBackend, Delivery, DeliveryOptions};
use backhaul_tests::components::{self, component_of};
use backhaul_tests::wait_for;

use crate::guest::{Folder, GENEROUS, Out, broken, engine, events, ids, order, start, within};

const LIMIT: Duration = Duration::from_millis(200);

/// How late a stop may be: the engine's 10 ms, and what a loaded machine adds.
const MARGIN: Duration = Duration::from_millis(800);

const NEVER_RETURN: [&str; 4] = [
    "loop_in_publish",
    "loop_async",
    "sleep_in_publish",
    "stall_async",
];

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
        let stats = plugin.delivery().stats();
        match plugin.name() {
            "record-blocking" => assert_eq!(stats.dead + stats.dropped.total(), 0),
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

/// The default limits, with another one of processor time.
fn computing(cpu: Duration) -> Limits {
    Limits {
        cpu,
        ..within(GENEROUS)
    }
}

#[tokio::test]
async fn a_plugin_that_computes_too_long_is_stopped_long_before_its_time_limit() {
    for guest in ["loop_in_publish", "loop_async"] {
        let backend = start(guest, Grants::default(), computing(LIMIT)).await;
        let started = Instant::now();
        let reason = broken(&backend, &events(3)).await;
        assert!(
            reason.contains(
                "in `publish`, it used more than 200ms of processor time in one call; \
                 see `cpu` under [limits]"
            ),
            "{guest}: {reason}"
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{guest}");
    }
}

#[tokio::test]
async fn waiting_costs_no_processor_time_however_often() {
    // 60 waits are 60 epochs, which would be 600 ms.
    let backend = start(
        "wait_often",
        Grants::default(),
        computing(Duration::from_millis(100)),
    )
    .await;
    backend.publish(&events(1)).await.unwrap();
}

#[tokio::test]
async fn every_call_has_the_whole_processor_time_for_itself() {
    let limits = computing(Duration::from_millis(500));
    let backend = start("compute", Grants::default(), limits).await;
    for _ in 0..5 {
        backend.publish(&[order("150")]).await.unwrap();
    }
    let reason = broken(&backend, &[order("20000")]).await;
    assert!(
        reason.contains("more than 500ms of processor time"),
        "{reason}"
    );
}

/// Two compute at once on one thread: each has half of it.
#[tokio::test(flavor = "current_thread")]
async fn a_plugin_is_not_charged_for_the_time_others_compute() {
    let limits = computing(Duration::from_millis(700));
    let one = start("compute", Grants::default(), limits).await;
    let other = start("compute", Grants::default(), limits).await;
    let order = [order("1000")];
    let results = tokio::join!(one.publish(&order), other.publish(&order));
    assert_eq!(results, (Ok(()), Ok(())));
}

/// A module that computes without end while it is made an instance.
const LOOP_AT_INSTANTIATION: &str = "
    (func $compute (loop $again (br $again)))
    (start $compute)";

/// Why a component does not start.
async fn refused(wasm: &[u8], limits: Limits) -> CallError {
    let component = engine().load(wasm.to_owned()).await.unwrap();
    match WasmBackend::start(component, "refused", Grants::default(), limits).await {
        Err(LoadError::Start(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test]
async fn a_plugin_that_computes_without_end_before_it_has_a_name_is_stopped() {
    let guest = |name| std::fs::read(components::test_guest(name)).unwrap();
    for (wasm, function) in [
        (
            wat::parse_str(component_of(LOOP_AT_INSTANTIATION)).unwrap(),
            "start",
        ),
        // Constructors run in the first call.
        (guest("loop_at_start"), "name"),
        (guest("loop_in_name"), "name"),
    ] {
        let error = refused(&wasm, computing(LIMIT)).await;
        assert_eq!(error.kind(), CallErrorKind::Cpu);
        let text = format!("in `{function}`, it used more than 200ms of processor time");
        assert!(error.to_string().contains(&text), "{error}");

        let limits = Limits {
            start_timeout: LIMIT,
            ..Limits::default()
        };
        let error = refused(&wasm, limits).await;
        assert_eq!(error.kind(), CallErrorKind::Timeout);
        let text = format!(
            "in `{function}`, it was not done after 200ms and was stopped; \
             see `start_timeout` under [limits]"
        );
        assert!(error.to_string().contains(&text), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_computes_without_end_in_close_is_stopped() {
    let backend = start("loop_in_close", Grants::default(), computing(LIMIT)).await;
    backend.publish(&events(1)).await.unwrap();
    let started = Instant::now();
    backend.close(GENEROUS).await.unwrap();
    let elapsed = started.elapsed();
    assert!((LIMIT..GENEROUS / 2).contains(&elapsed), "{elapsed:?}");
}

/// A server that takes connections and then neither reads nor writes.
fn dead_server() -> (std::net::TcpListener, Grants) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let grants = Grants {
        tcp: vec![address.parse().unwrap()],
        ..Grants::default()
    };
    (server, grants)
}

#[tokio::test]
async fn a_plugin_whose_server_neither_answers_nor_reads_is_stopped_at_its_limit() {
    let (server, grants) = dead_server();
    let address = server.local_addr().unwrap();
    for verb in ["read", "write"] {
        let limits = within(Duration::from_secs(1));
        let backend = start("use_dead_server", grants.clone(), limits).await;
        let reason = broken(&backend, &[order(&format!("{verb} {address}"))]).await;
        assert!(
            reason.contains("was not done after 1s and was stopped; see `timeout`"),
            "{verb}: {reason}"
        );
    }
}

#[tokio::test]
async fn a_call_a_plugin_leaves_under_way_holds_up_no_other() {
    let backend = start("leak_async", Grants::default(), within(GENEROUS)).await;
    for _ in 0..5 {
        backend.publish(&[order("one")]).await.unwrap();
    }
    backend.close(GENEROUS).await.unwrap();
}

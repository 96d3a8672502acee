//! The bus: who is told of an event, in what order, and what an emit answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backhaul::{
    AsyncBackend, CloseError, EmitError, Event, EventBus, Failure, Handler, HandlerError,
    MockBackend, PublishError,
};
use serde::{Deserialize, Serialize};

const GRACE: Duration = Duration::from_secs(5);

/// A handler that notes its name, and the notes.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn handler(&self, name: &'static str) -> Handler {
        let notes = self.clone();
        Handler::new(move |_| {
            notes.0.lock().unwrap().push(name.to_owned());
            async { Ok::<_, HandlerError>(()) }
        })
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn refusing(why: &'static str) -> Handler {
    Handler::new(move |_| async move { Err(why) })
}

fn event(event_type: &'static str) -> Event {
    Event::new(event_type, "").unwrap()
}

#[tokio::test]
async fn sync_handlers_run_in_order_of_priority_then_of_subscription() {
    let (bus, notes) = (EventBus::new(), Notes::default());
    bus.subscribe("t", notes.handler("second")).unwrap();
    bus.subscribe("*", notes.handler("third")).unwrap();
    bus.subscribe("t", notes.handler("last").with_priority(-1))
        .unwrap();
    bus.subscribe("t*", notes.handler("first").with_priority(10))
        .unwrap();
    bus.subscribe("other", notes.handler("never")).unwrap();
    bus.emit(event("t")).await.unwrap();
    assert_eq!(notes.taken(), ["first", "second", "third", "last"]);
}

#[tokio::test]
async fn the_first_error_stops_the_emit_and_nothing_reaches_the_backend() {
    let (mock, notes) = (MockBackend::default(), Notes::default());
    let bus = EventBus::with_backend(mock.clone());
    bus.subscribe("before:login", notes.handler("runs").with_priority(2))
        .unwrap();
    bus.subscribe("before:login", refusing("locked out").with_priority(1))
        .unwrap();
    bus.subscribe("before:login", notes.handler("does not run"))
        .unwrap();
    bus.subscribe("before:login", notes.handler("async").with_async())
        .unwrap();
    let error = bus.emit(event("before:login")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a handler refused the `before:login` event: locked out"
    );
    assert_eq!(notes.taken(), ["runs"]);
    assert!(mock.published().is_empty());
}

#[tokio::test]
async fn events_with_an_async_handler_go_to_the_backend_and_others_do_not() {
    let (mock, notes) = (MockBackend::default(), Notes::default());
    let bus = EventBus::with_backend(mock.clone());
    bus.subscribe("after:*", notes.handler("async").with_async())
        .unwrap();
    bus.subscribe("before:login", notes.handler("sync"))
        .unwrap();
    bus.forward("audit.*".parse().unwrap());
    for event_type in ["after:signup", "before:login", "audit.read", "unheard"] {
        bus.emit(event(event_type)).await.unwrap();
    }
    let published: Vec<_> = mock
        .published()
        .iter()
        .map(|e| e.event_type().to_owned())
        .collect();
    assert_eq!(published, ["after:signup", "audit.read"]);
    assert_eq!(
        notes.taken(),
        ["sync"],
        "another backend than the pool runs no handlers"
    );
}

#[tokio::test]
async fn emit_sync_runs_every_handler_now_and_nothing_reaches_the_backend() {
    let (mock, notes) = (MockBackend::default(), Notes::default());
    let bus = EventBus::with_backend(mock.clone());
    bus.subscribe("t", notes.handler("sync")).unwrap();
    bus.subscribe("t", notes.handler("async").with_async().with_priority(1))
        .unwrap();
    bus.emit_sync(event("t")).await.unwrap();
    assert_eq!(notes.taken(), ["async", "sync"]);
    assert!(mock.published().is_empty());

    bus.subscribe("t", refusing("no").with_async().with_priority(2))
        .unwrap();
    assert!(matches!(
        bus.emit_sync(event("t")).await,
        Err(EmitError::Refused { .. })
    ));
    assert!(notes.taken().is_empty());
}

#[tokio::test]
async fn unsubscribe_ends_a_subscription_and_has_handlers_tells() {
    let (bus, notes) = (EventBus::new(), Notes::default());
    assert!(!bus.has_handlers("after:signup"));
    let id = bus.subscribe("after:*", notes.handler("h")).unwrap();
    assert!(bus.has_handlers("after:signup") && !bus.has_handlers("before:login"));
    assert!(bus.unsubscribe(id));
    assert!(!bus.unsubscribe(id));
    assert!(!bus.has_handlers("after:signup"));
    bus.emit(event("after:signup")).await.unwrap();
    assert!(notes.taken().is_empty());
}

#[tokio::test]
async fn a_pattern_that_is_none_is_refused() {
    assert!(EventBus::new().subscribe("", refusing("")).is_err());
}

#[tokio::test]
async fn payloads_are_typed_through_serde() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Signup {
        user: u32,
    }
    let (bus, seen) = (EventBus::new(), Arc::new(Mutex::new(Vec::new())));
    let handler = Handler::typed({
        let seen = seen.clone();
        move |signup: Signup| {
            seen.lock().unwrap().push(signup);
            async { Ok::<_, HandlerError>(()) }
        }
    });
    bus.subscribe("after:signup", handler).unwrap();
    bus.emit(Event::json("after:signup", &Signup { user: 7 }).unwrap())
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [Signup { user: 7 }]);

    let error = bus
        .emit(Event::json("after:signup", "text").unwrap())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not fit the handler"),
        "{error}"
    );
}

#[tokio::test]
async fn a_panicking_sync_handler_is_an_error_of_the_emit() {
    let bus = EventBus::new();
    bus.subscribe("t", |_: Event| async {
        panic!("at the {}", "disco") as Result<(), HandlerError>
    })
    .unwrap();
    let error = bus.emit(event("t")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the handler panicked: at the disco"),
        "{error}"
    );
}

#[tokio::test]
async fn a_batch_goes_to_the_backend_in_one_call_or_not_at_all() {
    let mock = MockBackend::default();
    let bus = EventBus::with_backend(mock.clone());
    bus.forward("after:*".parse().unwrap());
    bus.emit_batch(&[event("after:a"), event("unheard"), event("after:b")])
        .await
        .unwrap();
    assert_eq!(mock.batches().len(), 1);
    assert_eq!(mock.published().len(), 2);

    bus.subscribe("after:bad", refusing("no")).unwrap();
    let error = bus
        .emit_batch(&[event("after:a"), event("after:bad")])
        .await
        .unwrap_err();
    assert!(
        matches!(error, EmitError::Refused { index: 1, .. }),
        "{error:?}"
    );
    assert_eq!(mock.batches().len(), 1);
}

#[tokio::test]
async fn failures_name_the_events_position_in_the_emitted_batch() {
    struct FailsSecond;

    #[async_trait::async_trait]
    impl AsyncBackend for FailsSecond {
        async fn publish(&self, _: &[Event]) -> Result<(), Vec<Failure>> {
            let error = PublishError::Permanent("too large".into());
            Err(vec![Failure { index: 1, error }])
        }

        async fn close(&self, _: Duration) -> Result<(), CloseError> {
            Ok(())
        }

        fn name(&self) -> &str {
            "fails-second"
        }
    }

    let bus = EventBus::with_backend(FailsSecond);
    bus.forward("after:*".parse().unwrap());
    let error = bus
        .emit_batch(&[event("unheard"), event("after:a"), event("after:b")])
        .await
        .unwrap_err();
    let EmitError::Backend { backend, failures } = error else {
        panic!("{error:?}")
    };
    assert_eq!((backend.as_str(), failures[0].index), ("fails-second", 2));
}

#[tokio::test]
async fn a_closed_bus_takes_nothing_and_closes_its_backend_once() {
    let mock = MockBackend::default();
    let bus = EventBus::with_backend(mock.clone());
    bus.forward("*".parse().unwrap());
    bus.close(GRACE).await.unwrap();
    assert!(mock.is_closed());
    bus.clone().close(GRACE).await.unwrap();
    assert!(matches!(bus.emit(event("t")).await, Err(EmitError::Closed)));
    assert!(matches!(
        bus.emit_sync(event("t")).await,
        Err(EmitError::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bus_is_used_from_many_tasks_while_subscriptions_change() {
    let mock = MockBackend::default();
    let bus = EventBus::with_backend(mock.clone());
    bus.forward("t".parse().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let bus = bus.clone();
        tasks.spawn(async move {
            for _ in 0..500 {
                let id = bus.subscribe("t", Notes::default().handler("h")).unwrap();
                bus.emit(event("t")).await.unwrap();
                assert!(bus.unsubscribe(id));
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(mock.published().len(), 4000);
    assert!(!bus.has_handlers("t"));
}

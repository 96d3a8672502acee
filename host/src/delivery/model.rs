//! Deliveries with a feed under whatever may happen, checked against what must
//! hold at every moment: a state machine whose steps are drawn at random.
//!
//! The real delivery, with its window, workers, breaker and pump, runs on a
//! clock that stands still and one thread. Its backend answers only when told,
//! and each step ends when nothing can go on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::test_feed::TestFeed;
use super::{Delivery, DeliveryOptions};
use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;
use crate::retry::RetryPolicy;

#[derive(Clone, Debug)]
enum Step {
    /// Events of these keys are accepted; 0 is none.
    Accept(Vec<u8>),
    /// One of the publishes that are under way ends.
    Answer(usize, Answer),
    /// Dead letters cannot be kept so many times.
    FillDisk(usize),
    Reconfigure(Setup),
    /// Everything in memory is lost.
    Crash,
    /// The delivery is closed, and made anew; the backend may take all it is
    /// offered meanwhile.
    Close(bool),
}

#[derive(Clone, Debug)]
enum Answer {
    Taken,
    All(PublishError),
    /// Those of the set bits fail, or are refused.
    Partly(u8, PublishError),
    Panics,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    workers: usize,
    batch: usize,
    ordered: bool,
    attempts: Option<u32>,
}

/// A publish that is under way.
struct Call {
    seqs: Vec<u64>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Backend {
    calls: Mutex<Vec<Call>>,
    /// Offers that nobody has looked at yet.
    offers: Mutex<Vec<Vec<u64>>>,
    /// What was taken, each time it was.
    taken: Mutex<Vec<u64>>,
    /// Whether it takes everything at once.
    willing: Mutex<bool>,
}

#[async_trait]
impl AsyncBackend for Backend {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let seqs: Vec<u64> = events.iter().map(seq_of).collect();
        self.offers.lock().unwrap().push(seqs.clone());
        if *self.willing.lock().unwrap() {
            self.taken.lock().unwrap().extend(seqs);
            return Ok(());
        }
        let (answer, told) = oneshot::channel();
        let call = Call {
            seqs: seqs.clone(),
            answer,
        };
        self.calls.lock().unwrap().push(call);
        let failures = match told.await.expect("calls are answered or cancelled") {
            Answer::Taken => Vec::new(),
            Answer::All(error) => Failure::all(events.len(), &error),
            Answer::Partly(bits, error) => (0..events.len())
                .filter(|at| bits & (1 << (at % 8)) != 0)
                .map(|index| Failure {
                    index,
                    error: error.clone(),
                })
                .collect(),
            Answer::Panics => panic!("as it was told to"),
        };
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
        let taken = seqs
            .iter()
            .enumerate()
            .filter(|(at, _)| !failed.contains(at));
        self.taken
            .lock()
            .unwrap()
            .extend(taken.map(|(_, seq)| *seq));
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures),
        }
    }

    async fn close(&self, _: Duration) -> Result<(), CloseError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "model"
    }
}

/// The feed numbers events as they come, and so do their ids.
fn seq_of(event: &Event) -> u64 {
    event.id().parse().unwrap()
}

fn options(setup: Setup) -> DeliveryOptions {
    DeliveryOptions {
        queue: 7,
        batch: setup.batch,
        workers: setup.workers,
        ordered: setup.ordered,
        retry: RetryPolicy {
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(3),
            max_attempts: setup.attempts,
            ..RetryPolicy::default()
        },
        ..DeliveryOptions::default()
    }
}

struct Machine {
    feed: Arc<TestFeed>,
    backend: Arc<Backend>,
    delivery: Delivery,
    setup: Setup,
    step: usize,
    /// The key of each event, and in which step it was accepted.
    accepted: BTreeMap<u64, (u8, usize)>,
    /// The last step in which there was no order, and none but by key.
    no_order: usize,
    by_key: usize,
    /// What was taken since the last crash.
    taken: BTreeSet<u64>,
}

impl Machine {
    fn new(setup: Setup) -> Machine {
        let feed = Arc::new(TestFeed::default());
        let backend = Arc::new(Backend::default());
        let mut machine = Machine {
            delivery: Delivery::fed(backend.clone(), options(setup), feed.clone()),
            feed,
            backend,
            setup,
            step: 0,
            accepted: BTreeMap::new(),
            no_order: 0,
            by_key: 0,
            taken: BTreeSet::new(),
        };
        machine.note_order();
        machine
    }

    async fn run(&mut self, step: Step) {
        self.step += 1;
        self.note_order();
        match step {
            Step::Accept(keys) => self.accept(&keys).await,
            Step::Answer(which, answer) => {
                let mut calls = self.backend.calls.lock().unwrap();
                if !calls.is_empty() {
                    let at = which % calls.len();
                    let _ = calls.remove(at).answer.send(answer);
                }
            }
            Step::FillDisk(times) => self.feed.store().disk_full = times,
            Step::Reconfigure(setup) => {
                self.setup = setup;
                self.delivery.reconfigure(options(setup));
                self.note_order();
            }
            Step::Crash => self.restart(),
            Step::Close(willing) => {
                *self.backend.willing.lock().unwrap() = willing;
                let closed = self.delivery.close(Duration::from_millis(20)).await;
                assert_eq!(closed, Ok(()), "what is left stays with the feed");
                *self.backend.willing.lock().unwrap() = false;
                self.check();
                self.restart();
            }
        }
        self.rest().await;
        self.check();
    }

    async fn accept(&mut self, keys: &[u8]) {
        let mut events = Vec::new();
        for key in keys {
            let seq = self.accepted.len() as u64 + 1;
            self.accepted.insert(seq, (*key, self.step));
            let event = Event::builder("t").id(seq.to_string());
            events.push(match key {
                0 => event.build().unwrap(),
                1 => event.subject("one").build().unwrap(),
                _ => event
                    .attribute("partitionkey", key.to_string())
                    .build()
                    .unwrap(),
            });
        }
        self.delivery.publish(&events).await.unwrap();
    }

    fn note_order(&mut self) {
        if !self.setup.ordered {
            self.no_order = self.step;
        } else if self.setup.workers > 1 {
            self.by_key = self.step;
        }
    }

    fn restart(&mut self) {
        // The tasks end with the last clone.
        self.delivery = Delivery::new(self.backend.clone(), options(self.setup));
        self.backend.calls.lock().unwrap().clear();
        self.feed.crash();
        self.taken.clear();
        (self.no_order, self.by_key) = (0, 0);
        self.note_order();
        let (backend, feed) = (self.backend.clone(), self.feed.clone());
        self.delivery = Delivery::fed(backend, options(self.setup), feed);
    }

    /// Until nothing goes on by itself: the clock moves only then.
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fn check(&mut self) {
        let stats = self.delivery.stats();
        let store = self.feed.store();
        assert_eq!(store.wrongs, Vec::<String>::new());
        // The books.
        assert_eq!(stats.accepted as usize, self.accepted.len());
        let settled = stats.delivered + stats.dead + stats.dropped.total();
        assert_eq!(stats.accepted, settled + stats.pending, "{stats:?}");
        assert_eq!(stats.pending as usize, store.unsettled.len());
        assert_eq!(stats.dead as usize, store.buried.len());
        assert!(stats.dropped.total() == 0 && self.delivery.dead_letters().is_empty());
        for letter in &store.buried {
            assert_ne!(letter.error, PublishError::Closed.to_string());
            assert!(letter.attempts > 0 && letter.first_try <= letter.last_try);
        }
        // Nothing is lost: what is settled was taken or is a dead letter.
        let buried: BTreeSet<u64> = store.buried.iter().map(|letter| letter.seq).collect();
        assert_eq!(buried.len(), store.buried.len(), "buried twice");
        let mut ever = self.backend.taken.lock().unwrap();
        for seq in ever.drain(..) {
            assert!(
                self.taken.insert(seq),
                "{seq} was taken twice without a crash"
            );
            assert!(
                store.settled.contains(&seq),
                "{seq} was taken and is not settled"
            );
        }
        let delivered = store.settled.len() - buried.len();
        assert_eq!(stats.delivered as usize, delivered);
        drop(ever);
        // Order, and that each event is in the hands of one worker only.
        let offers = std::mem::take(&mut *self.backend.offers.lock().unwrap());
        for offer in &offers {
            assert!(offer.len() <= 7);
            assert!(offer.is_sorted() || self.no_order > 0, "{offer:?}");
        }
        let mut held = BTreeSet::new();
        for call in self.backend.calls.lock().unwrap().iter() {
            let last = *call.seqs.last().unwrap();
            for seq in &call.seqs {
                assert!(held.insert(*seq), "{seq} is offered twice at a time");
                assert!(
                    !store.settled.contains(seq),
                    "{seq} is offered after its end"
                );
            }
            for (earlier, _) in store.unsettled.range(..last) {
                self.may_pass(*earlier, call);
            }
        }
    }

    /// Asserts that whatever of `call` comes after `earlier`, which is not
    /// settled, was free to overtake it.
    fn may_pass(&self, earlier: u64, call: &Call) {
        if call.seqs.contains(&earlier) {
            return;
        }
        let (key, accepted) = self.accepted[&earlier];
        for later in call.seqs.iter().filter(|seq| **seq > earlier) {
            let same_key = key != 0 && self.accepted[later].0 == key;
            let no_order = self.no_order >= accepted;
            let by_key = self.by_key >= accepted && !same_key;
            assert!(
                no_order || by_key,
                "{later} overtakes {earlier}, same key: {same_key}, {:?}",
                self.setup
            );
        }
    }

    /// Lets the backend take everything, and looks where it all went.
    async fn end(&mut self) {
        self.feed.store().disk_full = 0;
        *self.backend.willing.lock().unwrap() = true;
        loop {
            let calls = std::mem::take(&mut *self.backend.calls.lock().unwrap());
            for call in calls {
                let _ = call.answer.send(Answer::Taken);
            }
            self.rest().await;
            if self.feed.store().unsettled.is_empty() {
                break;
            }
        }
        self.check();
        let stats = self.delivery.stats();
        assert_eq!((stats.pending, self.delivery.queue_len()), (0, 0));
        assert_eq!(self.delivery.close(Duration::ZERO).await, Ok(()));
    }
}

fn setups() -> impl Strategy<Value = Setup> {
    let ordered = prop::bool::weighted(0.8);
    let attempts = prop::option::of(1..4_u32);
    (1..4_usize, 1..6_usize, ordered, attempts).prop_map(|(workers, batch, ordered, attempts)| {
        Setup {
            workers,
            batch,
            ordered,
            attempts,
        }
    })
}

fn answers() -> impl Strategy<Value = Answer> {
    let away = || PublishError::Retryable("away".to_owned());
    let refused = || PublishError::Permanent("no".to_owned());
    prop_oneof![
        4 => Just(Answer::Taken),
        3 => Just(Answer::All(away())),
        1 => Just(Answer::All(refused())),
        1 => Just(Answer::All(PublishError::Closed)),
        1 => Just(Answer::Panics),
        2 => any::<u8>().prop_map(move |bits| Answer::Partly(bits, away())),
        1 => any::<u8>().prop_map(move |bits| Answer::Partly(bits, refused())),
        1 => any::<u8>().prop_map(|bits| Answer::Partly(bits, PublishError::Closed)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..4_u8, 1..6).prop_map(Step::Accept),
        12 => (0..4_usize, answers()).prop_map(|(which, how)| Step::Answer(which, how)),
        1 => (0..9_usize).prop_map(Step::FillDisk),
        2 => setups().prop_map(Step::Reconfigure),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(Step::Close),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_settled_twice_or_out_of_order_whatever_happens(
        setup in setups(),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut machine = Machine::new(setup);
            for step in steps {
                machine.run(step).await;
            }
            machine.end().await;
        });
    }
}

//! Whatever the order of accepting, settling, burying, faults, crashes and power
//! cuts: what was accepted is delivered, dead, or handed out again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::model_disk::{Fault, Rng};
use super::*;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Events are offered to the backends of a bit set.
    Emit {
        to: usize,
        events: usize,
        size: usize,
    },
    /// A backend is handed events.
    Take { backend: usize, events: usize },
    /// It settles some of them, from one on, in their order or in reverse.
    Settle {
        backend: usize,
        skip: usize,
        events: usize,
        dead: bool,
    },
    /// The next operation but some on one of the disks fails.
    Fault { disk: usize, after: u64, full: bool },
    /// The dead letters of a backend are dropped.
    Drop { backend: usize },
    /// The disk works again.
    Heal,
    /// The process ends without a word; the system goes on.
    Kill,
    /// The power goes.
    Cut { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let emit = (
        1..4usize,
        1..6usize,
        prop_oneof![Just(10usize), Just(30_000)],
    )
        .prop_map(|(to, events, size)| Step::Emit { to, events, size });
    let take = (0..2usize, 1..8usize).prop_map(|(backend, events)| Step::Take { backend, events });
    let settle = (0..2usize, 0..3usize, 1..8usize, any::<bool>()).prop_map(
        |(backend, skip, events, dead)| Step::Settle {
            backend,
            skip,
            events,
            dead,
        },
    );
    let fault = (0..3usize, 0..4u64, any::<bool>()).prop_map(|(disk, after, full)| Step::Fault {
        disk,
        after,
        full,
    });
    prop_oneof![
        8 => emit,
        6 => take,
        6 => settle,
        1 => (0..2usize).prop_map(|backend| Step::Drop { backend }),
        1 => fault,
        1 => Just(Step::Heal),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::Cut { seed }),
    ]
}

/// What a backend's user knows of it.
#[derive(Default)]
struct Known {
    /// Accepted for it; those whose emit failed may be there as well.
    accepted: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    /// Settled at some time: may come again after a crash, need not.
    settled: BTreeSet<u64>,
    /// Was a dead letter, and whether it still is: never handed out again.
    buried: BTreeMap<u64, bool>,
    /// Handed out since the last start and not settled, by their seq.
    handed: BTreeMap<u64, Entry>,
    /// The last that was handed out since the last start.
    last: u64,
}

impl Known {
    fn hand_out(&mut self, entries: &[Entry]) {
        for entry in entries {
            let id = id(entry);
            assert!(id > self.last, "{id} after {}", self.last);
            assert!(
                self.accepted.contains(&id) || self.unknown.contains(&id),
                "{id} was never offered to it"
            );
            assert!(!self.buried.contains_key(&id), "{id} was a dead letter");
            self.last = id;
            self.handed.insert(entry.seq, entry.clone());
        }
    }

    /// What must still be handed out.
    fn owed(&self) -> usize {
        let is_owed = |id: &&u64| **id > self.last && !self.settled.contains(id);
        self.accepted.iter().filter(is_owed).count()
    }
}

struct Run {
    world: World,
    known: [Known; 2],
    feeds: Option<[JournalFeed; 2]>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut run = Run {
            world: World::new(seed),
            known: Default::default(),
            feeds: None,
        };
        run.begin();
        run
    }

    fn begin(&mut self) {
        self.feeds = Some(BACKENDS.map(|name| self.world.feed(name)));
        for known in &mut self.known {
            known.handed.clear();
            known.last = 0;
        }
    }

    fn end(&mut self) {
        self.feeds = None;
        drop(self.world.journal.take());
    }

    async fn emit(&mut self, to: usize, events: usize, size: usize) {
        let to: Vec<usize> = (0..2).filter(|backend| to & (1 << backend) != 0).collect();
        let names: Vec<&'static str> = to.iter().map(|backend| BACKENDS[*backend]).collect();
        for _ in 0..events {
            let emitted = self.world.emit(&names, size).await;
            let id = self.world.last;
            for backend in &to {
                match emitted {
                    Ok(_) => self.known[*backend].accepted.insert(id),
                    Err(_) => self.known[*backend].unknown.insert(id),
                };
            }
        }
    }

    /// Hands out what is owed, at most `events` of it.
    async fn take(&mut self, backend: usize, events: usize) {
        if self.known[backend].owed() == 0 {
            return;
        }
        let feeds = self.feeds.as_ref().expect("it is open");
        let entries = next(&feeds[backend], events).await;
        self.known[backend].hand_out(&entries);
    }

    async fn settle(&mut self, backend: usize, skip: usize, events: usize, dead: bool) {
        let feed = &self.feeds.as_ref().expect("it is open")[backend];
        let known = &mut self.known[backend];
        let chosen = known.handed.values().skip(skip).take(events);
        let chosen: Vec<Entry> = chosen.cloned().collect();
        if dead && feed.bury(&burials(&chosen)).await.is_err() {
            // Kept by the delivery, which tries again.
            return;
        }
        for entry in &chosen {
            known.handed.remove(&entry.seq);
            known.settled.insert(id(entry));
            if dead {
                known.buried.insert(id(entry), true);
            }
        }
        let outcome = match dead {
            true => Outcome::Dead,
            false => Outcome::Delivered,
        };
        feed.settle(&seqs(&chosen), outcome);
    }

    /// Drops the dead letters of a backend.
    async fn drop_dead(&mut self, backend: usize) {
        let filter = DeadFilter {
            backend: Some(BACKENDS[backend].to_owned()),
            ..DeadFilter::default()
        };
        let dropped = self.world.journal().drop_dead(&filter).await;
        for is_letter in self.known[backend].buried.values_mut() {
            *is_letter &= dropped.is_err();
        }
    }

    /// Each letter that was kept is there.
    fn check_letters(&self) {
        let letters = self.world.letters().letters;
        for (name, known) in BACKENDS.iter().zip(&self.known) {
            let own = letters.iter().filter(|letter| *letter.backend == **name);
            let there: BTreeSet<u64> = own.map(|letter| id_of(&letter.event)).collect();
            for id in known
                .buried
                .iter()
                .filter(|(_, kept)| **kept)
                .map(|(id, _)| id)
            {
                assert!(there.contains(id), "{name}: the letter of {id} is gone");
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Emit { to, events, size } => self.emit(to, events, size).await,
            Step::Take { backend, events } => self.take(backend, events).await,
            Step::Settle {
                backend,
                skip,
                events,
                dead,
            } => {
                self.settle(backend, skip, events, dead).await;
            }
            Step::Drop { backend } => self.drop_dead(backend).await,
            Step::Fault { disk, after, full } => {
                let fault = if full { Fault::NoSpace } else { Fault::Io };
                self.disks()[disk].fail_in(after, fault);
            }
            Step::Heal => self.heal(),
            Step::Kill => {
                self.heal();
                self.end();
                self.world.open();
                self.check_letters();
                self.begin();
            }
            Step::Cut { seed } => {
                let mut rng = Rng::new(seed);
                for disk in self.disks() {
                    disk.cut_power(&mut rng);
                }
                self.end();
                self.heal();
                self.world.open();
                self.check_letters();
                self.begin();
            }
        }
        self.check_books();
    }

    fn heal(&self) {
        self.disks().into_iter().for_each(ModelDisk::heal);
    }

    fn disks(&self) -> [&ModelDisk; 3] {
        let world = &self.world;
        [&world.events, &world.positions, &world.dead]
    }

    fn check_books(&self) {
        for (name, known) in BACKENDS.iter().zip(&self.known) {
            let counts = self.world.counts(name);
            let dropped = counts.dropped_closed + counts.dropped_unreadable;
            assert_eq!(dropped, 0, "{name}: nothing is damaged");
            assert_eq!(
                counts.accepted,
                counts.delivered + counts.dead + counts.pending(),
                "{name}: {counts:?}"
            );
            assert!(
                counts.accepted >= known.accepted.len() as u64,
                "{name}: {counts:?}"
            );
            let offered = known.accepted.len() + known.unknown.len();
            assert!(counts.accepted <= offered as u64, "{name}: {counts:?}");
        }
    }

    /// Hands out and settles everything that is left.
    async fn finish(&mut self) {
        self.heal();
        // Whatever a fault left behind is mended by a start.
        self.end();
        self.world.open();
        self.begin();
        for backend in 0..2 {
            while self.known[backend].owed() > 0 {
                self.take(backend, 100).await;
            }
            // What was settled before or has an unknown end may follow.
            let feeds = self.feeds.as_ref().expect("it is open");
            while self.world.counts(BACKENDS[backend]).pending()
                > self.known[backend].handed.len() as u64
            {
                let entries = next(&feeds[backend], 100).await;
                self.known[backend].hand_out(&entries);
            }
            self.settle(backend, 0, usize::MAX, false).await;
            let counts = self.world.counts(BACKENDS[backend]);
            assert_eq!(counts.pending(), 0, "{counts:?}");
        }
        self.check_books();
        self.check_letters();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn nothing_accepted_is_lost_and_the_books_balance(
        seed in any::<u32>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut run = Run::new(u64::from(seed));
            for step in steps {
                run.step(step).await;
            }
            run.finish().await;
            run.end();
        });
    }
}

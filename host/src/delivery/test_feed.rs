//! A feed in memory for tests, which can crash, and which notes what a delivery
//! must not do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::books::Books;
use super::feed::{Burial, Entry, Feed, Outcome};
use crate::backend::PublishError;
use crate::event::Event;

#[derive(Default)]
pub(super) struct TestFeed {
    store: Mutex<Store>,
    more: Notify,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) unsettled: BTreeMap<u64, Entry>,
    pub(super) settled: BTreeSet<u64>,
    pub(super) buried: Vec<Burial>,
    /// The highest seq that was accepted, and that was handed out.
    pub(super) last: u64,
    pub(super) handed_out: u64,
    /// How many times from now on dead letters cannot be kept.
    pub(super) disk_full: usize,
    /// What was done to it that must not be.
    pub(super) wrongs: Vec<String>,
    books: Arc<Books>,
}

impl TestFeed {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Forgets what was handed out and not settled: it is offered again. The
    /// books go on from what they were.
    pub(super) fn crash(&self) {
        let mut store = self.store();
        store.handed_out = 0;
        store.books = Arc::new(Books::restore(&store.books.counts()));
    }

    pub(super) fn accept(&self, events: Vec<Event>, accepted: Timestamp) {
        let mut store = self.store();
        store.books.accept(events.len() as u64);
        for event in events {
            store.last += 1;
            let seq = store.last;
            let entry = Entry {
                seq,
                event,
                accepted,
            };
            store.unsettled.insert(seq, entry);
        }
        drop(store);
        self.more.notify_one();
    }

    /// Waits until everything that was accepted is settled.
    pub(super) async fn all_settled(&self) {
        while !self.store().unsettled.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl Feed for TestFeed {
    async fn append(&self, events: &[Event]) -> Result<(), PublishError> {
        self.accept(events.to_vec(), Timestamp::now());
        Ok(())
    }

    async fn next(&self, events: usize, bytes: usize) -> Vec<Entry> {
        loop {
            let more = self.more.notified();
            let mut taken = Vec::new();
            {
                let mut store = self.store();
                let mut weight = 0;
                for (_, entry) in store.unsettled.range(store.handed_out + 1..) {
                    if taken.len() == events || weight >= bytes {
                        break;
                    }
                    weight += entry.event.weight();
                    taken.push(entry.clone());
                }
                if let Some(last) = taken.last() {
                    store.handed_out = last.seq;
                    return taken;
                }
            }
            more.await;
        }
    }

    fn settle(&self, seqs: &[u64], outcome: Outcome) {
        let mut store = self.store();
        match outcome {
            Outcome::Delivered => store.books.deliver(seqs.len() as u64),
            Outcome::Dead => store.books.bury(seqs.len() as u64),
        }
        for seq in seqs {
            if !store.settled.insert(*seq) {
                store.wrongs.push(format!("{seq} is settled twice"));
            }
            if store.unsettled.remove(seq).is_none() || *seq > store.handed_out {
                store
                    .wrongs
                    .push(format!("{seq}, settled, was not handed out"));
            }
        }
    }

    async fn bury(&self, letters: &[Burial]) -> Result<(), String> {
        let mut store = self.store();
        if store.disk_full > 0 {
            store.disk_full -= 1;
            return Err("the disk is full".to_owned());
        }
        store.buried.extend_from_slice(letters);
        Ok(())
    }

    async fn release(&self) {}

    fn books(&self) -> Arc<Books> {
        self.store().books.clone()
    }
}

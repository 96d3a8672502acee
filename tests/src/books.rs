//! The books: what the host says of its events, at `/api/backends` and `/metrics`.
//!
//! They must balance at every moment, whatever goes on; and once nothing moves
//! any more, they must agree with what was posted and with what arrived.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::Host;
use crate::load::{Fate, Posted};
use crate::oracle::Verdict;
use crate::wait_for;

/// What a host says of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Book {
    /// The backend.
    pub name: String,
    /// Whether there is a plugin of this name now.
    pub present: bool,
    /// Events taken.
    pub accepted: u64,
    /// Events the backend took.
    pub delivered: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Events that wait or are under way.
    pub pending: u64,
    /// Tries after the first.
    pub retries: u64,
    /// `closed` or `open`.
    pub breaker: String,
    /// All of it, as it was answered.
    pub raw: Value,
}

impl Book {
    fn of(value: &Value) -> Book {
        let number = |name: &str| {
            let number = value[name].as_u64();
            number.unwrap_or_else(|| panic!("no {name} in {value}"))
        };
        let dropped = value["dropped"].as_object().expect("drops by reason");
        let text = |name: &str| value[name].as_str().expect(name).to_owned();
        Book {
            name: text("name"),
            present: value["present"].as_bool().expect("present"),
            accepted: number("accepted"),
            delivered: number("delivered"),
            dead: number("dead"),
            dropped: dropped
                .iter()
                .map(|(reason, count)| (reason.clone(), count.as_u64().expect("a number")))
                .collect(),
            pending: number("pending"),
            retries: number("retries"),
            breaker: text("breaker"),
            raw: value.clone(),
        }
    }

    /// Events dropped for any reason.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    fn assert_balances(&self) {
        let settled = self.delivered + self.dead + self.all_dropped();
        assert_eq!(
            self.accepted,
            settled + self.pending,
            "the books do not balance: {}",
            self.raw
        );
    }
}

/// What `GET /api/backends` says of its backends; they balance.
pub fn books(host: &Host) -> Vec<Book> {
    let answer = host.get("/api/backends");
    assert_eq!(answer.status, 200, "{answer:?}");
    let books = answer.body["backends"].as_array().expect("a list").iter();
    let books: Vec<Book> = books.map(Book::of).collect();
    books.iter().for_each(Book::assert_balances);
    books
}

/// The same for one backend.
pub fn book(host: &Host, name: &str) -> Book {
    let found = books(host).into_iter().find(|book| book.name == name);
    found.unwrap_or_else(|| panic!("no backend {name}"))
}

/// What `GET /api/backends` says of the journal.
pub fn journal(host: &Host) -> Value {
    host.get("/api/backends").body["journal"].clone()
}

/// Asserts that the books balance, for every backend, and that `/metrics` says the
/// same; returns them.
pub fn assert_books_balance(host: &Host) -> Vec<Book> {
    wait_for("books that stand still for a moment", || {
        let before = books(host);
        let metrics = Metrics::of(host);
        let after = books(host);
        let moved = |before: &Book, after: &Book| {
            (
                before.accepted,
                before.delivered,
                before.dead,
                before.retries,
            ) != (after.accepted, after.delivered, after.dead, after.retries)
        };
        if before.len() != after.len() || before.iter().zip(&after).any(|(b, a)| moved(b, a)) {
            return None;
        }
        for book in &after {
            metrics.assert_agree(book);
        }
        Some(after)
    })
}

/// Waits until nothing is pending at any backend, and asserts that the books
/// balance; returns them.
pub fn wait_until_settled(host: &Host) -> Vec<Book> {
    wait_for("nothing to be pending", || {
        books(host).iter().all(|b| b.pending == 0).then_some(())
    });
    assert_books_balance(host)
}

/// Waits until nothing is pending at one backend, for so long; returns its book.
pub fn wait_for_backend(host: &Host, name: &str, patience: Duration) -> Book {
    let deadline = Instant::now() + patience;
    loop {
        let book = book(host, name);
        if book.pending == 0 {
            return book;
        }
        assert!(
            Instant::now() < deadline,
            "after {patience:?} events are pending: {}",
            book.raw
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Book {
    /// Asserts that a backend that got every event of `posted`, and at which
    /// nothing is pending, says what the oracle says: each event it counts as
    /// delivered arrived, and each that arrived is counted once.
    pub fn assert_agrees(&self, posted: &Posted, verdict: &Verdict) {
        let (accepted, unknown) = (posted.count(Fate::Accepted), posted.count(Fate::Unknown));
        let own = self.accepted as usize;
        assert!(
            (accepted..=accepted + unknown).contains(&own),
            "{accepted} were answered 202 and {unknown} not at all, but: {}",
            self.raw
        );
        assert_eq!(self.pending, 0, "{}", self.raw);
        assert_eq!(
            (own, self.delivered as usize),
            (
                verdict.distinct + (self.dead + self.all_dropped()) as usize,
                verdict.distinct
            ),
            "{verdict}\n{}",
            self.raw
        );
    }
}

/// The samples of `/metrics`.
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    /// What the host answers now.
    pub fn of(host: &Host) -> Metrics {
        let (status, text) = host.get_text("/metrics");
        assert_eq!(status, 200, "{text}");
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics(samples.map(sample).collect())
    }

    /// The sum of the samples of this name with these labels, among others;
    /// `None` if there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self
            .0
            .iter()
            .filter(|(own, has, _)| {
                let has =
                    |(label, value): &(&str, &str)| has.get(*label).is_some_and(|own| own == value);
                own == name && labels.iter().all(has)
            })
            .map(|(_, _, value)| *value)
            .peekable();
        found.peek()?;
        Some(found.sum())
    }

    fn assert_agree(&self, book: &Book) {
        let backend = ("backend", book.name.as_str());
        let counts = [
            ("backhaul_events_accepted_total", book.accepted),
            ("backhaul_events_delivered_total", book.delivered),
            ("backhaul_events_dead_total", book.dead),
            ("backhaul_events_dropped_total", book.all_dropped()),
            ("backhaul_events_pending", book.pending),
            ("backhaul_delivery_retries_total", book.retries),
            (
                "backhaul_backend_breaker_open",
                u64::from(book.breaker == "open"),
            ),
        ];
        for (name, count) in counts {
            assert_eq!(
                self.get(name, &[backend]),
                Some(count as f64),
                "{name}: /metrics and /api/backends disagree: {}",
                book.raw
            );
        }
        for (reason, count) in &book.dropped {
            let labels = [backend, ("reason", reason.as_str())];
            assert_eq!(
                self.get("backhaul_events_dropped_total", &labels),
                Some(*count as f64),
                "{reason}: {}",
                book.raw
            );
        }
    }
}

/// `NAME{LABEL="VALUE",...} NUMBER`
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a sample");
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split("\",");
    let labels = labels.filter_map(|label| {
        let (name, value) = label.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    (name.to_owned(), labels.collect(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let metrics = Metrics(
            [
                "a_total{backend=\"x\",reason=\"closed\"} 3",
                "a_total{backend=\"x\",reason=\"gone\"} 4",
                "b 0.5",
            ]
            .map(sample)
            .to_vec(),
        );
        let x = ("backend", "x");
        assert_eq!(metrics.get("a_total", &[x]), Some(7.0));
        assert_eq!(metrics.get("a_total", &[x, ("reason", "gone")]), Some(4.0));
        assert_eq!(metrics.get("a_total", &[("backend", "y")]), None);
        assert_eq!(metrics.get("b", &[]), Some(0.5));
    }
}

//! The dead letters of all plugins: looked at, tried again, dropped.
//!
//! With a journal they are there, also those of plugins that are not in the
//! folder now. Without one each plugin in use has its own in memory, and they are
//! shown as one list: their ids are unique in the process.

use std::io;
use std::slice;

use super::PluginHost;
use crate::backend::PublishError;
use crate::dead_letters::{DeadFilter, DeadLetter, DeadPage};
use crate::delivery::Delivery;

/// How many bytes of events there are on one page at most, beside its first.
const PAGE_BYTES: usize = 16 << 20;

impl PluginHost {
    /// The dead letters that fit `filter` with an id above `after`, oldest first:
    /// at most `limit` of them and some 16 MiB.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        after: u64,
        limit: usize,
    ) -> io::Result<DeadPage> {
        let Some(journal) = self.0.journal.clone() else {
            let plugins = self.plugins();
            let letters = plugins.iter().flat_map(|p| fitting(p.delivery(), filter));
            return Ok(page(letters.collect(), after, limit));
        };
        let filter = filter.clone();
        let read =
            tokio::task::spawn_blocking(move || journal.dead_letters(&filter, after, limit)).await;
        read.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// Accepts the events of the dead letters that fit `filter` once more, each for
    /// its backend, and removes the letters. An event that fails again is a new
    /// letter. Returns how many were put back.
    ///
    /// # Errors
    ///
    /// As [`publish`](crate::AsyncBackend::publish); those that were not put back
    /// are dead letters still.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some may have been put back.
    pub async fn retry_dead(&self, filter: &DeadFilter) -> Result<u64, PublishError> {
        if let Some(journal) = &self.0.journal {
            return journal.retry_dead(filter).await;
        }
        let (mut retried, mut problem) = (0, None);
        for plugin in self.plugins() {
            let delivery = plugin.delivery();
            for letter in fitting(delivery, filter) {
                match retry(delivery, &letter) {
                    Ok(put_back) => retried += u64::from(put_back),
                    // No room for this one; other plugins may have some.
                    Err(error) => {
                        problem.get_or_insert(error);
                        break;
                    }
                }
            }
        }
        problem.map_or(Ok(retried), Err)
    }

    /// Removes the dead letters that fit `filter`, for good. Returns how many.
    ///
    /// # Errors
    ///
    /// If the disk cannot be written.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, some may have been removed.
    pub async fn drop_dead(&self, filter: &DeadFilter) -> io::Result<u64> {
        if let Some(journal) = &self.0.journal {
            return journal.drop_dead(filter).await;
        }
        let mut dropped = 0;
        for plugin in self.plugins() {
            let delivery = plugin.delivery();
            let taken = fitting(delivery, filter)
                .into_iter()
                .filter_map(|letter| delivery.dead_letters().take(letter.id));
            dropped += taken.count() as u64;
        }
        Ok(dropped)
    }
}

fn fitting(delivery: &Delivery, filter: &DeadFilter) -> Vec<DeadLetter> {
    let mut letters = delivery.dead_letters().list();
    letters.retain(|letter| {
        let event_type = letter.event.event_type();
        filter.fits(letter.id, &letter.backend, event_type, letter.last_try)
    });
    letters
}

/// Puts one back into the queue. False if it is not there any more.
fn retry(delivery: &Delivery, letter: &DeadLetter) -> Result<bool, PublishError> {
    loop {
        if delivery.retry_dead(&[letter.id]) == 1 {
            return Ok(true);
        }
        if delivery.dead_letters().get(letter.id).is_none() {
            return Ok(false);
        }
        // Says why there was no room for it. If there is some now, it is used.
        drop(delivery.reserve(slice::from_ref(&letter.event))?);
    }
}

/// The page after the id `after` of all that fit.
fn page(mut letters: Vec<DeadLetter>, after: u64, limit: usize) -> DeadPage {
    let total = letters.len() as u64;
    letters.retain(|letter| letter.id > after);
    letters.sort_unstable_by_key(|letter| letter.id);
    let mut bytes = 0;
    let has_place = |letter: &&DeadLetter| {
        let first = bytes == 0;
        bytes += letter.event.weight();
        first || bytes <= PAGE_BYTES
    };
    let count = letters.iter().take(limit).take_while(has_place).count();
    let more = count < letters.len();
    letters.truncate(count);
    DeadPage {
        next: letters.last().map(|last| last.id).filter(|_| more),
        letters,
        total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AsyncBackend;
    use crate::delivery::DeliveryOptions;
    use crate::event::Event;
    use crate::mock::MockBackend;
    use jiff::Timestamp;

    fn letters(sizes: &[usize]) -> Vec<DeadLetter> {
        let letter = |(at, size): (usize, &usize)| DeadLetter {
            id: at as u64 + 1,
            backend: "test".into(),
            event: Event::new("t", vec![0; *size]).unwrap(),
            error: "no".to_owned(),
            attempts: 1,
            first_try: Timestamp::UNIX_EPOCH,
            last_try: Timestamp::UNIX_EPOCH,
        };
        // As they come from two plugins: not in order.
        sizes.iter().enumerate().map(letter).rev().collect()
    }

    /// Ids, and where the next page begins, of each page.
    fn pages(sizes: &[usize], limit: usize) -> Vec<(Vec<u64>, Option<u64>)> {
        let (mut pages, mut after) = (Vec::new(), Some(0));
        while let Some(from) = after {
            let page = page(letters(sizes), from, limit);
            assert_eq!(page.total, sizes.len() as u64);
            after = page.next;
            let ids = page.letters.iter().map(|letter| letter.id);
            pages.push((ids.collect(), page.next));
        }
        pages
    }

    #[test]
    fn pages_are_in_order_and_hold_each_letter_once() {
        assert_eq!(pages(&[], 2), [(vec![], None)]);
        assert_eq!(pages(&[1, 1], 2), [(vec![1, 2], None)]);
        assert_eq!(
            pages(&[1; 5], 2),
            [
                (vec![1, 2], Some(2)),
                (vec![3, 4], Some(4)),
                (vec![5], None)
            ]
        );
    }

    #[test]
    fn a_page_is_bounded_in_bytes_but_holds_one_letter_at_least() {
        let third = PAGE_BYTES / 3;
        assert_eq!(
            pages(&[third, third, third, PAGE_BYTES * 2, 1], 10),
            [
                (vec![1, 2], Some(2)),
                (vec![3], Some(3)),
                (vec![4], Some(4)),
                (vec![5], None)
            ]
        );
    }

    #[tokio::test]
    async fn a_letter_for_which_there_is_no_room_stays_and_the_error_says_why() {
        let mock = MockBackend::default();
        let options = DeliveryOptions {
            queue: 1,
            ..DeliveryOptions::default()
        };
        let delivery = Delivery::new(mock.clone(), options);
        let publish = async |event_type: &'static str| {
            let event = Event::new(event_type, "").unwrap();
            delivery.publish(&[event]).await.unwrap();
        };
        mock.fail_next(PublishError::Permanent("no".to_owned()));
        publish("refused").await;
        while delivery.dead_letters().is_empty() {
            tokio::task::yield_now().await;
        }
        mock.stall();
        publish("in the way").await;
        let letter = delivery.dead_letters().list().remove(0);
        let refusal = retry(&delivery, &letter).unwrap_err();
        assert!(
            matches!(refusal, PublishError::QueueFull { .. }),
            "{refusal}"
        );
        assert_eq!(delivery.dead_letters().len(), 1);

        mock.resume();
        while delivery.stats().pending > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(retry(&delivery, &letter), Ok(true));
        assert_eq!(retry(&delivery, &letter), Ok(false), "it is taken once");
        let published = mock.wait_for(2).await;
        assert_eq!(published[1].event_type(), "refused");
    }
}

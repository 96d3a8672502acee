//! How dead letters are written into their log.

use jiff::Timestamp;

use super::super::record::{
    Malformed, read_event, read_number, read_text, read_time, write_event, write_number,
    write_text, write_time,
};
use crate::event::Event;

/// The shape of what follows, for the day it changes.
const VERSION: u8 = 1;

/// The most bytes that are kept of an error.
const MAX_ERROR: usize = 16 << 10;

const LETTER: u8 = 0;
const REMOVED: u8 = 1;

/// A record of the log of the dead letters.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// A letter.
    Letter(Letter),
    /// These letters are none any more.
    Removed(Vec<u64>),
}

/// A dead letter as it is written.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Its id; none if that is the number of this record.
    pub(super) id: Option<u64>,
    pub(super) backend: String,
    /// The number of its event in the journal.
    pub(super) seq: u64,
    pub(super) error: String,
    pub(super) attempts: u32,
    pub(super) first_try: Timestamp,
    pub(super) last_try: Timestamp,
    pub(super) event: Event,
}

impl Letter {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend([VERSION, LETTER]);
        // Records are numbered from 1.
        write_number(to, self.id.unwrap_or(0));
        write_text(to, &self.backend);
        write_number(to, self.seq);
        write_text(to, &self.error[..self.error.floor_char_boundary(MAX_ERROR)]);
        write_number(to, u64::from(self.attempts));
        write_time(to, self.first_try);
        write_time(to, self.last_try);
        write_event(to, &self.event);
    }
}

pub(super) fn write_removed(to: &mut Vec<u8>, ids: &[u64]) {
    to.extend([VERSION, REMOVED]);
    write_number(to, ids.len() as u64);
    for id in ids {
        write_number(to, *id);
    }
}

pub(super) fn read(mut from: &[u8]) -> Result<Record, Malformed> {
    let from = &mut from;
    let version = read_number(from)?;
    if version != u64::from(VERSION) {
        return Err(Malformed::Version(version.try_into().unwrap_or(u8::MAX)));
    }
    match read_number(from)? {
        0 => Ok(Record::Letter(read_letter(from)?)),
        1 => {
            let count = read_number(from)?;
            // Each takes a byte at least: a wrong count ends soon.
            let ids = (0..count).map(|_| read_number(from));
            Ok(Record::Removed(ids.collect::<Result<_, _>>()?))
        }
        _ => Err(Malformed::Kind),
    }
}

fn read_letter(from: &mut &[u8]) -> Result<Letter, Malformed> {
    Ok(Letter {
        id: Some(read_number(from)?).filter(|id| *id > 0),
        backend: read_text(from)?,
        seq: read_number(from)?,
        error: read_text(from)?,
        attempts: u32::try_from(read_number(from)?).unwrap_or(u32::MAX),
        first_try: read_time(from)?,
        last_try: read_time(from)?,
        event: read_event(from)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let letter = Letter {
            id: Some(7),
            backend: "one".to_owned(),
            seq: 300,
            error: "nö".to_owned(),
            attempts: 10,
            first_try: "2026-01-02T03:04:05.6Z".parse().unwrap(),
            last_try: "2026-01-02T03:05:05.6Z".parse().unwrap(),
            event: Event::builder("t").data(vec![0, 255]).build().unwrap(),
        };
        let mut bytes = Vec::new();
        letter.write(&mut bytes);
        match read(&bytes).unwrap() {
            Record::Letter(read) => assert_eq!(format!("{read:?}"), format!("{letter:?}")),
            Record::Removed(_) => panic!("it was a letter"),
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        bytes.clear();
        write_removed(&mut bytes, &[1, 300]);
        assert!(matches!(read(&bytes).unwrap(), Record::Removed(ids) if ids == [1, 300]));
    }

    #[test]
    fn an_error_is_cut_between_characters() {
        let event = Event::new("t", "").unwrap();
        let now = Timestamp::now();
        let letter = Letter {
            id: None,
            backend: "one".to_owned(),
            seq: 1,
            error: "ä".repeat(MAX_ERROR),
            attempts: 1,
            first_try: now,
            last_try: now,
            event,
        };
        let mut bytes = Vec::new();
        letter.write(&mut bytes);
        let Record::Letter(read) = read(&bytes).unwrap() else {
            panic!("it was a letter");
        };
        assert_eq!((read.id, read.error.len()), (None, MAX_ERROR));
    }
}

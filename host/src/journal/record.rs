//! How an event is written into a log.
//!
//! Fields follow one another; numbers are LEB128, texts and data have their
//! length before them. What is read back was checked by the log's checksum, but
//! is still taken for what anybody may have written: it becomes an event only
//! through the checks every event goes through.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::backends::BackendId;
use crate::event::{Event, EventError};

/// The shape of what follows, for the day it changes.
const VERSION: u8 = 1;

/// The backends an event goes to.
pub(crate) type Targets = Arc<[BackendId]>;

/// An accepted event, with the backends it goes to.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) event: Event,
    pub(super) targets: Targets,
    pub(super) accepted: Timestamp,
}

/// Why bytes are not what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it ends early")]
    Short,
    #[error("a text is not UTF-8")]
    NotText,
    #[error("a time is out of range")]
    NotATime,
    #[error("it has the format {0}, and this program knows {VERSION}")]
    Version(u8),
    #[error("it is of a kind that is not known")]
    Kind,
    #[error("it is not an event: {0}")]
    NotAnEvent(#[from] EventError),
}

/// Writes an event as it was accepted.
pub(super) fn write(to: &mut Vec<u8>, event: &Event, targets: &[BackendId], accepted: Timestamp) {
    to.push(VERSION);
    write_time(to, accepted);
    write_number(to, targets.len() as u64);
    for target in targets {
        write_number(to, u64::from(target.0));
    }
    write_event(to, event);
}

/// Reads what [`write`] wrote.
pub(super) fn read(mut from: &[u8]) -> Result<Record, Malformed> {
    let from = &mut from;
    let (targets, accepted) = read_head(from)?;
    Ok(Record {
        targets: targets.into(),
        accepted,
        event: read_event(from)?,
    })
}

/// Reads only whom an event is for, which is much less work.
pub(super) fn read_targets(mut from: &[u8]) -> Result<Vec<BackendId>, Malformed> {
    Ok(read_head(&mut from)?.0)
}

fn read_head(from: &mut &[u8]) -> Result<(Vec<BackendId>, Timestamp), Malformed> {
    match take(from, 1)?[0] {
        VERSION => {}
        other => return Err(Malformed::Version(other)),
    }
    let accepted = read_time(from)?;
    let count = read_number(from)?;
    // Each takes a byte at least: a wrong count ends soon.
    let targets = (0..count).map(|_| {
        let id = read_number(from)?;
        u16::try_from(id)
            .map(BackendId)
            .map_err(|_| Malformed::Short)
    });
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    Ok((targets, accepted))
}

pub(super) fn write_event(to: &mut Vec<u8>, event: &Event) {
    write_text(to, event.id());
    write_text(to, event.source());
    write_text(to, event.event_type());
    write_optional(to, event.subject());
    write_time(to, event.time());
    write_optional(to, event.content_type());
    write_number(to, event.attributes().len() as u64);
    for (name, value) in event.attributes() {
        write_text(to, name);
        write_text(to, value);
    }
    write_bytes(to, event.data());
}

pub(super) fn read_event(from: &mut &[u8]) -> Result<Event, Malformed> {
    let id = read_text(from)?;
    let source = read_text(from)?;
    let mut event = Event::builder(read_text(from)?).id(id).source(source);
    if let Some(subject) = read_optional(from)? {
        event = event.subject(subject);
    }
    event = event.time(read_time(from)?);
    if let Some(content_type) = read_optional(from)? {
        event = event.content_type(content_type);
    }
    for _ in 0..read_number(from)? {
        event = event.attribute(read_text(from)?, read_text(from)?);
    }
    let data = Bytes::copy_from_slice(read_bytes(from)?);
    Ok(event.data(data).build()?)
}

pub(super) fn write_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

pub(super) fn read_number(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed::Short)
}

pub(super) fn write_time(to: &mut Vec<u8>, time: Timestamp) {
    to.extend(time.as_second().to_le_bytes());
    to.extend(time.subsec_nanosecond().to_le_bytes());
}

pub(super) fn read_time(from: &mut &[u8]) -> Result<Timestamp, Malformed> {
    let seconds = i64::from_le_bytes(take_array(from)?);
    let nanoseconds = i32::from_le_bytes(take_array(from)?);
    Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed::NotATime)
}

pub(super) fn write_text(to: &mut Vec<u8>, text: &str) {
    write_bytes(to, text.as_bytes());
}

pub(super) fn read_text(from: &mut &[u8]) -> Result<String, Malformed> {
    let text = str::from_utf8(read_bytes(from)?).map_err(|_| Malformed::NotText)?;
    Ok(text.to_owned())
}

/// An absent text is written as an empty one, which no attribute may be.
fn write_optional(to: &mut Vec<u8>, text: Option<&str>) {
    write_text(to, text.unwrap_or_default());
}

fn read_optional(from: &mut &[u8]) -> Result<Option<String>, Malformed> {
    Ok(Some(read_text(from)?).filter(|text| !text.is_empty()))
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    write_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn read_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = read_number(from)?;
    take(from, usize::try_from(length).unwrap_or(usize::MAX))
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    from.split_off(..length).ok_or(Malformed::Short)
}

fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let bytes = take(from, N)?;
    Ok(bytes.try_into().expect("as many as were taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> [Event; 2] {
        let time = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
        let full = Event::builder("after:signup")
            .id("ä-1")
            .source("/here")
            .subject("ada")
            .time(time)
            .content_type("text/plain")
            .attribute("partitionkey", "7")
            .attribute("empty", "")
            .data(vec![0, 255, 10])
            .build();
        [full.unwrap(), Event::new("t", "").unwrap()]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for event in events() {
            let (targets, now) = ([BackendId(1), BackendId(60_000)], Timestamp::now());
            let mut bytes = Vec::new();
            write(&mut bytes, &event, &targets, now);
            let read = read(&bytes).unwrap();
            assert_eq!(format!("{:?}", read.event), format!("{event:?}"));
            assert_eq!(read.event.data(), event.data());
            assert_eq!((&read.targets[..], read.accepted), (&targets[..], now));
            assert_eq!(read_targets(&bytes).unwrap(), targets);
        }
    }

    #[test]
    fn what_was_not_written_here_is_refused_and_never_a_panic() {
        let mut bytes = Vec::new();
        write(&mut bytes, &events()[0], &[BackendId(1)], Timestamp::now());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // Either another event, or an error.
                let _ = read(&bytes);
            }
        }
        bytes[0] = 2;
        let error = read(&bytes).unwrap_err().to_string();
        assert_eq!(error, "it has the format 2, and this program knows 1");
    }
}

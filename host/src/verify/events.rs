//! The events of a run. Each case has a source of its own, so that what an earlier
//! case sent, an earlier run, or anybody else, is never taken for this case's.

use bytes::Bytes;
use jiff::Timestamp;

use crate::event::{Event, EventBuilder};

/// Among so many keys the events of a case are spread: where a server keeps order
/// by key only, it is judged by that.
const KEYS: usize = 8;

/// Makes the events of one case.
#[derive(Clone, Debug)]
pub(super) struct Events {
    run: String,
    case: &'static str,
    source: String,
    event_type: String,
    /// Attributes every event has beside its own.
    attributes: Vec<(String, String)>,
}

impl Events {
    /// The events of `case` in `run`, of this type.
    pub(super) fn new(run: &str, case: &'static str, event_type: &str) -> Events {
        Events {
            run: run.to_owned(),
            case,
            source: format!("/backhaul-verify/{run}/{case}"),
            event_type: event_type.to_owned(),
            attributes: Vec::new(),
        }
    }

    /// The same, each with these attributes in addition.
    pub(super) fn with(&self, attributes: &[(String, String)]) -> Events {
        Events {
            attributes: attributes.to_vec(),
            ..self.clone()
        }
    }

    /// The same, of another type.
    pub(super) fn of_type(&self, event_type: &str) -> Events {
        Events {
            event_type: event_type.to_owned(),
            ..self.clone()
        }
    }

    /// The source of all of them.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The event of that number, still to be given what it is about: `data` are some
    /// 250 bytes of JSON, the subject is its key.
    pub(super) fn builder(&self, number: usize) -> EventBuilder {
        let key = format!("key-{}", number % KEYS);
        let data = format!(r#"{{"number":{number},"filling":"{:-<220}"}}"#, "");
        let builder = Event::builder(self.event_type.clone())
            .id(self.id(number))
            .source(self.source.clone())
            // In the past, and to the second: some protocols have no finer time.
            .time(Timestamp::from_second(1_750_000_000 + number as i64).expect("it is in range"))
            .subject(key.clone())
            .attribute("partitionkey", key)
            .content_type("application/json")
            .data(data);
        let attributes = self.attributes.iter().cloned();
        attributes.fold(builder, |builder, (name, value)| {
            builder.attribute(name, value)
        })
    }

    /// The event of that number.
    pub(super) fn event(&self, number: usize) -> Event {
        self.builder(number).build().expect("a valid event")
    }

    /// The events of these numbers.
    pub(super) fn events(&self, numbers: std::ops::Range<usize>) -> Vec<Event> {
        numbers.map(|number| self.event(number)).collect()
    }

    /// The event of that number with data of `size` bytes, none like the other.
    pub(super) fn large(&self, number: usize, size: usize) -> Event {
        let builder = self.builder(number).data(noise(size));
        let builder = builder.content_type("application/octet-stream");
        builder.build().expect("a valid event")
    }

    fn id(&self, number: usize) -> String {
        format!("{}-{}-{number:06}", self.run, self.case)
    }
}

/// So many bytes without a pattern, always the same.
pub(super) fn noise(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

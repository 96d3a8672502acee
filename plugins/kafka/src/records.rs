//! Record batches, version 2 of Kafka's format: what a partition's log consists of.

use crate::compression::Compression;
use crate::fields::Put;
use crate::message::Message;

/// Of a record batch, before its records.
pub(crate) const BATCH_OVERHEAD: usize = 61;

/// Where the part begins that the checksum is over.
const CHECKED: usize = 21;

/// Who wrote a record batch, for the broker to recognise one that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// A message that is ready to be a record.
pub(crate) struct Record<'a> {
    pub(crate) message: Message<'a>,
    /// Its bytes, without what depends on its place in a batch.
    fixed: usize,
    headers: i64,
}

impl<'a> Record<'a> {
    pub(crate) fn new(message: Message<'a>) -> Self {
        let mut fixed = 1 + message.key.as_ref().map_or(1, |key| prefixed(key.len()));
        fixed += prefixed(message.value.len());
        let mut headers = 0;
        message.headers(|prefix, name, value| {
            headers += 1;
            fixed += prefixed(prefix.len() + name.len()) + prefixed(value.len());
        });
        fixed += varint_length(headers);
        Self {
            message,
            fixed,
            headers,
        }
    }

    /// The most bytes it has in a batch.
    pub(crate) fn size(&self) -> usize {
        // Its length, and the differences of time and place.
        self.fixed + 5 + 10 + 5
    }

    fn append(&self, out: &mut Vec<u8>, place: usize, first_timestamp: i64) {
        let message = &self.message;
        let time = message.timestamp - first_timestamp;
        let place = place as i64;
        let length = self.fixed + varint_length(time) + varint_length(place);
        put_length(out, length);
        // No attributes are in use.
        out.put_i8(0);
        put_varint(out, time);
        put_varint(out, place);
        match &message.key {
            Some(key) => put_prefixed(out, key.as_bytes()),
            None => put_varint(out, -1),
        }
        put_prefixed(out, &message.value);
        put_varint(out, self.headers);
        message.headers(|prefix, name, value| {
            put_length(out, prefix.len() + name.len());
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(name.as_bytes());
            put_prefixed(out, value.as_bytes());
        });
    }
}

/// A record batch of these records, the first of which has the number `sequence`.
pub(crate) fn encode(
    records: &[&Record<'_>],
    identity: Identity,
    sequence: i32,
    compression: Compression,
) -> Vec<u8> {
    let size: usize = records.iter().map(|record| record.size()).sum();
    let timestamp = |record: &&Record<'_>| record.message.timestamp;
    let first = records.first().map_or(0, timestamp);
    let latest = records.iter().map(timestamp).max().unwrap_or(0);
    let count = i32::try_from(records.len()).expect("a batch has less than 2^31 events");

    let mut out = Vec::with_capacity(BATCH_OVERHEAD + size);
    out.put_i64(0);
    // The length, when it is known.
    out.put_i32(0);
    // The leader's epoch, which is the broker's to fill in; the version; the checksum.
    out.put_i32(-1);
    out.put_i8(2);
    out.put_i32(0);
    debug_assert_eq!(out.len(), CHECKED);
    out.put_i16(compression.number());
    out.put_i32(count - 1);
    out.put_i64(first);
    out.put_i64(latest);
    out.put_i64(identity.producer_id);
    out.put_i16(identity.epoch);
    out.put_i32(sequence);
    out.put_i32(count);
    debug_assert_eq!(out.len(), BATCH_OVERHEAD);
    let append = |out: &mut Vec<u8>| {
        for (place, record) in records.iter().enumerate() {
            record.append(out, place, first);
        }
    };
    if compression == Compression::None {
        append(&mut out);
    } else {
        let mut plain = Vec::with_capacity(size);
        append(&mut plain);
        compression.append(&plain, &mut out);
    }
    let length = i32::try_from(out.len() - 12).expect("memory holds less than 2 GiB");
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&out[CHECKED..]);
    out[CHECKED - 4..CHECKED].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// A text with its length before it.
fn prefixed(length: usize) -> usize {
    varint_length(length as i64) + length
}

fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, length as i64);
}

/// In zigzag: small numbers of either sign are short.
fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn varint_length(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::event;
    use crate::settings::Settings;
    use backhaul_guest::Event;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::RecordBatchDecoder;

    const IDENTITY: Identity = Identity {
        producer_id: 7_000_000_000,
        epoch: 3,
    };

    fn events() -> Vec<Event> {
        let mut events = vec![event(); 300];
        for (number, event) in events.iter_mut().enumerate() {
            event.id = number.to_string();
            // Back and forth.
            event.time.seconds += if number % 3 == 0 { -500 } else { number as i64 };
            event.data = vec![number as u8; number * 7 % 200];
        }
        events[5].attributes.clear();
        events[7].data = vec![0xff; 100_000];
        events[9].subject = Some("Zoë".into());
        events
    }

    #[test]
    fn what_is_encoded_another_codec_reads() {
        let (settings, events) = (Settings::default(), events());
        let record = |event| Record::new(Message::new(&settings, event).unwrap());
        let records: Vec<Record<'_>> = events.iter().map(record).collect();
        let all: Vec<&Record<'_>> = records.iter().collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let bytes = encode(&all, IDENTITY, i32::MAX - 5, compression);
            let sizes: usize = records.iter().map(Record::size).sum();
            assert!(bytes.len() <= sizes + BATCH_OVERHEAD);
            let decoded = RecordBatchDecoder::decode_all(&mut bytes::Bytes::from(bytes)).unwrap();
            let decoded: Vec<_> = decoded.into_iter().flat_map(|set| set.records).collect();
            assert_eq!(decoded.len(), events.len());
            for (number, (read, event)) in decoded.iter().zip(&events).enumerate() {
                assert_eq!(read.producer_id, IDENTITY.producer_id);
                assert_eq!(read.producer_epoch, IDENTITY.epoch);
                assert_eq!(read.offset, number as i64);
                assert_eq!(read.timestamp, event.time.seconds * 1000 + 250);
                let key = read.key.as_deref().map(<[u8]>::to_vec);
                let expected = event.attribute("partitionkey").map(|key| key.into());
                assert_eq!(key, expected);
                assert!(read.value.as_deref() == Some(event.data.as_slice()));
                let id = &read.headers[&StrBytes::from_static_str("ce_id")];
                assert_eq!(id.as_deref(), Some(event.id.as_bytes()));
                let count = 7 - usize::from(number == 5) + usize::from(number == 9);
                assert_eq!(read.headers.len(), count);
            }
        }
    }

    #[test]
    fn a_number_has_the_length_it_is_said_to_have() {
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value), "{value}");
        }
    }
}

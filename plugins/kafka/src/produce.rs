//! The request that writes record batches, and its answer, in the versions 3 to 8.

use crate::fields::{Fields, Put, Unreadable};
use std::rc::Rc;
use std::time::Duration;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) topic: Rc<str>,
    pub(crate) partition: i32,
}

/// Appends the request's body; `batches` are sorted by their places, each once.
/// All replicas in sync have to have them (`acks=all`) within `timeout`.
pub(crate) fn put(out: &mut Vec<u8>, timeout: Duration, batches: &[(&Place, &[u8])]) {
    // Not part of a transaction.
    out.put_i16(-1);
    out.put_i16(-1);
    out.put_i32(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    let topics = || batches.chunk_by(|(a, _), (b, _)| a.topic == b.topic);
    out.put_count(topics().count());
    for topic in topics() {
        out.put_text(&topic[0].0.topic);
        out.put_count(topic.len());
        for (place, bytes) in topic {
            out.put_i32(place.partition);
            out.put_count(bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

/// What is said of one record batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) place: Place,
    /// 0: none.
    pub(crate) error: i16,
    /// Records that are to blame, by their number in the batch, and why.
    pub(crate) records: Vec<(i32, Option<String>)>,
    pub(crate) text: Option<String>,
}

pub(crate) fn read(answer: &[u8], version: i16) -> Result<Vec<Answer>, Unreadable> {
    let mut fields = Fields::new(answer);
    let mut answers = Vec::new();
    fields.array(|fields| {
        let topic: Rc<str> = fields.text()?.into();
        fields.array(|fields| {
            let partition = fields.i32()?;
            let error = fields.i16()?;
            // Where it is in the log, and since when.
            fields.i64()?;
            fields.i64()?;
            if version >= 5 {
                fields.i64()?;
            }
            let (mut records, mut text) = (Vec::new(), None);
            if version >= 8 {
                records = fields.array(|fields| {
                    let number = fields.i32()?;
                    Ok((number, fields.optional_text()?.map(str::to_owned)))
                })?;
                text = fields.optional_text()?.map(str::to_owned);
            }
            answers.push(Answer {
                place: Place {
                    topic: topic.clone(),
                    partition,
                },
                error,
                records,
                text,
            });
            Ok(())
        })
    })?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    fn place(topic: &str, partition: i32) -> Place {
        Place {
            topic: topic.into(),
            partition,
        }
    }

    #[test]
    fn the_request_says_what_goes_where_and_is_the_same_in_all_versions() {
        let (a0, a7, b1) = (place("a", 0), place("a", 7), place("b", 1));
        let batches = [(&a0, &b"zero"[..]), (&a7, b"seven"), (&b1, b"one")];
        let mut out = Vec::new();
        put(&mut out, Duration::from_millis(1500), &batches);
        for version in 3..=8 {
            let mut bytes = Bytes::from(out.clone());
            let request = ProduceRequest::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty());
            assert!(request.transactional_id.is_none());
            assert_eq!((request.acks, request.timeout_ms), (-1, 1500));
            let mut read = Vec::new();
            for topic in request.topic_data {
                for partition in topic.partition_data {
                    let place = place(topic.name.as_str(), partition.index);
                    read.push((place, partition.records.unwrap().to_vec()));
                }
            }
            let expected = batches.map(|(place, bytes)| (place.clone(), bytes.to_vec()));
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn the_answer_is_read_in_each_version() {
        let refused = BatchIndexAndErrorMessage::default()
            .with_batch_index(4)
            .with_batch_index_error_message(Some(StrBytes::from_static_str("no key")));
        let good = PartitionProduceResponse::default().with_index(2);
        let bad = PartitionProduceResponse::default()
            .with_index(3)
            .with_error_code(87);
        for version in 3..=8 {
            let mut bad = bad.clone();
            if version >= 8 {
                bad.record_errors = vec![refused.clone()];
                bad.error_message = Some(StrBytes::from_static_str("some"));
            }
            let topic = TopicProduceResponse::default()
                .with_name(StrBytes::from_static_str("events").into())
                .with_partition_responses(vec![good.clone(), bad]);
            let response = ProduceResponse::default().with_responses(vec![topic]);
            let mut bytes = BytesMut::new();
            response.encode(&mut bytes, version).unwrap();
            let answers = read(&bytes, version).unwrap();
            assert_eq!(answers.len(), 2);
            assert_eq!(
                (&answers[0].place, answers[0].error),
                (&place("events", 2), 0)
            );
            assert_eq!(
                (&answers[1].place, answers[1].error),
                (&place("events", 3), 87)
            );
            if version >= 8 {
                assert_eq!(answers[1].records, [(4, Some("no key".to_owned()))]);
                assert_eq!(answers[1].text.as_deref(), Some("some"));
            }
            for cut in 0..bytes.len() - 4 {
                assert!(read(&bytes[..cut], version).is_err(), "{version} {cut}");
            }
        }
    }
}

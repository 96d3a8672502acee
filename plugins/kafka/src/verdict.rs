//! What the error code of a partition means for the record batch that was sent to it.

/// What became of a record batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the log, now or since an earlier try.
    Stored,
    /// It may be in the log or not, and may work later, maybe with another leader: it is
    /// sent again as it is, so that the broker recognises it.
    Again(&'static str),
    /// It is not in the log, since it is larger than allowed.
    TooLarge,
    /// It is not in the log, because of some of its records.
    Invalid(&'static str),
    /// It is not in the log, and this producer's numbers are of no use any more.
    NewProducer,
    /// It is not in the log, and the topic is to blame.
    Topic(&'static str),
    /// It is not in the log, and a setting is to blame.
    Setting(&'static str),
}

/// The meaning of a code in the answer to a produce request.
pub(crate) fn verdict(code: i16) -> Verdict {
    match code {
        // DUPLICATE_SEQUENCE_NUMBER: the broker has it, but no longer knows where.
        0 | 46 => Verdict::Stored,
        10 | 18 => Verdict::TooLarge,
        32 => Verdict::Invalid(
            "INVALID_TIMESTAMP: the event's time is further from now than the topic allows \
             (message.timestamp.before.max.ms, message.timestamp.after.max.ms)",
        ),
        87 => Verdict::Invalid("INVALID_RECORD"),
        // OUT_OF_ORDER_SEQUENCE_NUMBER: the log lost what was acknowledged, or was made anew.
        // UNKNOWN_PRODUCER_ID: it forgot us. INVALID_PRODUCER_EPOCH, PRODUCER_FENCED and
        // INVALID_PRODUCER_ID_MAPPING: another has our id.
        45 | 47 | 49 | 59 | 90 => Verdict::NewProducer,
        17 => Verdict::Topic(
            "INVALID_TOPIC_EXCEPTION: it is no name of a topic, or one of Kafka's own",
        ),
        29 => Verdict::Topic(
            "TOPIC_AUTHORIZATION_FAILED: allow the user to write to it (operation Write)",
        ),
        31 => Verdict::Setting(
            "CLUSTER_AUTHORIZATION_FAILED: allow the user to write to a topic, or IdempotentWrite on the cluster",
        ),
        35 => Verdict::Setting("UNSUPPORTED_VERSION"),
        42 => Verdict::Setting("INVALID_REQUEST"),
        43 => Verdict::Setting(
            "UNSUPPORTED_FOR_MESSAGE_FORMAT: the topic's message.format.version is older than 0.11",
        ),
        76 => Verdict::Setting("UNSUPPORTED_COMPRESSION_TYPE: set another KAFKA_COMPRESSION"),
        // Where nothing is known of a code, the batch is not given up either.
        code => Verdict::Again(transient(code)),
    }
}

fn transient(code: i16) -> &'static str {
    match code {
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT: not all replicas have it in time",
        14 => "COORDINATOR_LOAD_IN_PROGRESS",
        15 => "COORDINATOR_NOT_AVAILABLE",
        19 => "NOT_ENOUGH_REPLICAS: fewer than min.insync.replicas are there",
        20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND: fewer than min.insync.replicas are there",
        56 => "KAFKA_STORAGE_ERROR: a disk of the broker failed",
        74 => "FENCED_LEADER_EPOCH",
        75 => "UNKNOWN_LEADER_EPOCH",
        89 => "THROTTLING_QUOTA_EXCEEDED",
        -1 => "UNKNOWN_SERVER_ERROR: see the broker's log",
        _ => "an error this plugin does not know",
    }
}

/// What a code means where a topic was asked for.
pub(crate) enum TopicState {
    Known,
    /// There is none, or none yet.
    Missing,
    Refused(&'static str),
    Later(&'static str),
}

pub(crate) fn topic_state(code: i16) -> TopicState {
    match (code, verdict(code)) {
        (0, _) => TopicState::Known,
        (3, _) => TopicState::Missing,
        (_, Verdict::Topic(text)) => TopicState::Refused(text),
        (code, _) => TopicState::Later(transient(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::ResponseError;

    #[test]
    fn every_retriable_error_is_tried_again_and_no_other_that_is_known() {
        for code in -1..=130 {
            let verdict = verdict(code);
            let Some(error) = ResponseError::try_from_code(code) else {
                assert_eq!(verdict, Verdict::Stored);
                continue;
            };
            if let Verdict::Again(text) = verdict {
                let known = !text.contains("does not know");
                assert!(
                    !known || error.is_retriable() || code == -1 || code == 2 || code == 89,
                    "{error:?}"
                );
            } else {
                assert!(!error.is_retriable(), "{error:?}");
            }
        }
    }
}

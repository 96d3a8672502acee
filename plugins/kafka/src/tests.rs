//! The producer with a cluster that does what a real one does only now and then.

use crate::message::tests::event;
use crate::producer::Producer;
use crate::scripted::{Arrived, Cluster, Said};
use crate::settings::Settings;
use crate::topic::TopicTemplate;
use backhaul_guest::{Event, Failure, PublishError};
use std::time::Duration;

fn events(ids: std::ops::Range<usize>) -> Vec<Event> {
    let event = |id: usize| Event {
        id: id.to_string(),
        ..event()
    };
    ids.map(event).collect()
}

fn ids(ids: std::ops::Range<usize>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}

fn open(cluster: &Cluster) -> (Settings, Producer) {
    let settings = Settings {
        brokers: cluster.addresses(),
        ..Settings::default()
    };
    let producer = Producer::open(&settings).unwrap();
    (settings, producer)
}

/// Each failure as its index, whether it is for good, and its text.
fn shown(failures: Vec<Failure>) -> Vec<(u32, bool, String)> {
    let show = |failure: Failure| match failure.error {
        PublishError::Permanent(text) => (failure.index, true, text),
        PublishError::Retryable(text) => (failure.index, false, text),
    };
    let mut shown: Vec<_> = failures.into_iter().map(show).collect();
    shown.sort();
    shown
}

/// As they came: to which broker, from which producer, with which number, and how many.
fn heads(arrived: &[Arrived]) -> Vec<(usize, i64, i32, usize)> {
    let head = |a: &Arrived| (a.broker, a.producer_id, a.sequence, a.ids.len());
    arrived.iter().map(head).collect()
}

#[test]
fn numbers_go_on_from_batch_to_batch() {
    let cluster = Cluster::start(&[0], |_| Said::default());
    let (settings, mut producer) = open(&cluster);
    for ids in [0..3, 3..4, 4..9] {
        assert!(producer.publish(&settings, &events(ids)).is_empty());
    }
    let arrived = heads(&cluster.arrived());
    assert_eq!(arrived, [(0, 1, 0, 3), (0, 1, 3, 1), (0, 1, 4, 5)]);
}

#[test]
fn a_batch_follows_its_partition_to_another_leader_as_it_is() {
    let cluster = Cluster::start(&[0], |arrived| match arrived.broker {
        0 => Said {
            error: 6,
            leaders: Some(vec![1]),
            ..Said::default()
        },
        _ => Said::default(),
    });
    let (settings, mut producer) = open(&cluster);
    assert!(producer.publish(&settings, &events(0..3)).is_empty());
    assert!(producer.publish(&settings, &events(3..5)).is_empty());
    let arrived = heads(&cluster.arrived());
    assert_eq!(arrived, [(0, 1, 0, 3), (1, 1, 0, 3), (1, 1, 3, 2)]);
}

#[test]
fn events_of_several_leaders_are_published_in_one_call() {
    let cluster = Cluster::start(&[0, 1, 0], |_| Said::default());
    let (settings, mut producer) = open(&cluster);
    let mut events = events(0..60);
    for (number, event) in events.iter_mut().enumerate() {
        event.attributes[0].1 = format!("key {}", number % 20);
    }
    assert!(producer.publish(&settings, &events).is_empty());
    let arrived = cluster.arrived();
    let mut partitions: Vec<(i32, usize)> =
        arrived.iter().map(|a| (a.partition, a.broker)).collect();
    partitions.sort();
    assert_eq!(partitions, [(0, 0), (1, 1), (2, 0)]);
    assert_eq!(arrived.iter().map(|a| a.ids.len()).sum::<usize>(), 60);
    for arrived in arrived {
        let numbers = arrived.ids.iter().map(|id| id.parse::<usize>().unwrap());
        assert!(numbers.is_sorted());
    }
}

#[test]
fn what_is_in_doubt_comes_again_as_it_was_before_anything_else() {
    let mut tries = 0;
    let cluster = Cluster::start(&[0], move |_| {
        tries += 1;
        Said::error(if tries <= 5 { 20 } else { 0 })
    });
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..3)));
    assert_eq!(failures.len(), 3);
    for (_, is_permanent, text) in failures {
        assert!(
            !is_permanent && text.contains("NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
            "{text}"
        );
    }
    assert_eq!(heads(&cluster.arrived()), [(0, 1, 0, 3); 5]);
    // One is offered again, and the others with new ones later.
    assert!(producer.publish(&settings, &events(0..1)).is_empty());
    assert_eq!(heads(&cluster.arrived()), [(0, 1, 0, 3)]);
    assert!(producer.publish(&settings, &events(1..5)).is_empty());
    let arrived = cluster.arrived();
    assert_eq!(heads(&arrived), [(0, 1, 3, 2)]);
    assert_eq!(arrived[0].ids, ids(3..5));
}

#[test]
fn a_producer_that_is_not_known_any_more_is_replaced_and_nothing_is_lost() {
    for code in [45, 47, 59, 90] {
        let cluster = Cluster::start(&[0], move |arrived| {
            let is_second = arrived.producer_id == 1 && arrived.sequence > 0;
            Said::error(if is_second { code } else { 0 })
        });
        let (settings, mut producer) = open(&cluster);
        assert!(producer.publish(&settings, &events(0..3)).is_empty());
        assert!(producer.publish(&settings, &events(3..5)).is_empty());
        let arrived = cluster.arrived();
        assert_eq!(heads(&arrived), [(0, 1, 0, 3), (0, 1, 3, 2), (0, 2, 0, 2)]);
        assert_eq!(arrived[2].ids, ids(3..5));
    }
}

#[test]
fn a_cluster_that_takes_no_producer_is_given_up_after_a_while() {
    let cluster = Cluster::start(&[0], |_| Said::error(45));
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..2)));
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|(_, is_permanent, _)| !is_permanent));
    assert!(
        failures[0]
            .2
            .contains("does not go on with this producer (45)")
    );
}

#[test]
fn records_that_are_named_are_dead_and_the_others_are_sent_again() {
    let mut tries = 0;
    let cluster = Cluster::start(&[0], move |_| {
        tries += 1;
        Said {
            error: if tries == 1 { 87 } else { 0 },
            records: if tries == 1 { vec![1, 3] } else { vec![] },
            leaders: None,
        }
    });
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..5)));
    let text = "Kafka refuses it for the topic events: INVALID_RECORD no key";
    assert_eq!(
        failures,
        [(1, true, text.to_owned()), (3, true, text.to_owned())]
    );
    let arrived = cluster.arrived();
    assert_eq!(heads(&arrived), [(0, 1, 0, 5), (0, 1, 0, 3)]);
    assert_eq!(arrived[1].ids, ["0", "2", "4"]);
}

#[test]
fn a_record_that_is_not_named_is_found_one_by_one() {
    let cluster = Cluster::start(&[0], |arrived| {
        Said::error(if arrived.ids.contains(&"2".to_owned()) {
            87
        } else {
            0
        })
    });
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..4)));
    assert_eq!(failures.len(), 1);
    assert!(failures[0].0 == 2 && failures[0].1);
    let arrived = heads(&cluster.arrived());
    assert_eq!(
        arrived,
        [
            (0, 1, 0, 4),
            (0, 1, 0, 1),
            (0, 1, 1, 1),
            (0, 1, 2, 1),
            (0, 1, 2, 1)
        ]
    );
}

#[test]
fn a_batch_that_is_too_large_is_parted_until_the_event_is_found() {
    let cluster = Cluster::start(&[0], |arrived| {
        let is_large = arrived.ids.len() > 4 || arrived.ids.contains(&"5".to_owned());
        Said::error(if is_large { 10 } else { 0 })
    });
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..16)));
    assert_eq!(failures.len(), 1);
    assert!(failures[0].0 == 5 && failures[0].1);
    assert!(failures[0].2.contains("max.message.bytes"));
    // What was found out is kept: the next are parted from the beginning.
    cluster.arrived();
    assert!(producer.publish(&settings, &events(16..24)).is_empty());
    assert!(
        cluster
            .arrived()
            .iter()
            .all(|arrived| arrived.ids.len() <= 4)
    );
}

#[test]
fn what_a_setting_or_a_permission_is_to_blame_for_is_tried_again() {
    for (code, text) in [
        (29, "TOPIC_AUTHORIZATION_FAILED"),
        (76, "UNSUPPORTED_COMPRESSION_TYPE"),
    ] {
        let cluster = Cluster::start(&[0], move |_| Said::error(code));
        let (settings, mut producer) = open(&cluster);
        let failures = shown(producer.publish(&settings, &events(0..2)));
        assert_eq!(failures.len(), 2);
        assert!(!failures[0].1 && failures[0].2.contains(text));
        // It was not stored, so the number is used again.
        producer.publish(&settings, &events(0..2));
        assert_eq!(heads(&cluster.arrived()), [(0, 1, 0, 2); 2]);
    }
    let cluster = Cluster::start(&[0], |_| Said::default());
    cluster.refuse_producers(31);
    let (settings, mut producer) = open(&cluster);
    let failures = shown(producer.publish(&settings, &events(0..2)));
    assert_eq!(failures.len(), 2);
    assert!(!failures[0].1 && failures[0].2.contains("IdempotentWrite"));
    cluster.refuse_producers(0);
    assert!(producer.publish(&settings, &events(0..2)).is_empty());
}

#[test]
fn only_a_topic_an_event_chose_and_that_lasts_is_the_events_fault() {
    let cases = [
        (3, "events", false),
        (3, "{type}", true),
        (29, "events", false),
        (29, "{type}", true),
        (5, "events", false),
        (5, "{type}", false),
    ];
    std::thread::scope(|scope| {
        for (code, template, is_permanent) in cases {
            scope.spawn(move || assert_topic_fault(code, template, is_permanent));
        }
    });
}

fn assert_topic_fault(code: i16, template: &str, is_permanent: bool) {
    let cluster = Cluster::start(&[0], |_| Said::default());
    let (mut settings, mut producer) = open(&cluster);
    settings.timeout = Duration::from_secs(2);
    settings.topic = TopicTemplate::parse(template).unwrap();
    cluster.refuse_topic(code);
    let mut events = events(0..1);
    events[0].event_type = "events".into();
    let failures = shown(producer.publish(&settings, &events));
    assert_eq!(failures[0].1, is_permanent, "{code}: {failures:?}");
    cluster.refuse_topic(0);
    settings.timeout = Duration::from_secs(20);
    assert!(producer.publish(&settings, &events).is_empty());
}

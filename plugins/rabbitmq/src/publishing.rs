//! A batch: every message is sent before the first confirm is waited for.

use crate::batch::Batch;
use crate::frames::Broken;
use crate::session::{Session, unexpected};
use crate::settings::Settings;
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::{AMQPMethod, Return};
use backhaul_guest::{Event, Failure};
use std::time::Instant;

/// Events that are encoded before they are sent, so that the server works on
/// them while the next are encoded.
const CHUNK: usize = 32;

/// No queue gets the message.
const NO_ROUTE: u16 = 312;

/// The server refuses something about the request itself, such as its size.
const PRECONDITION_FAILED: u16 = 406;

/// Publishes the events; returns what was not published, and whether the session
/// is broken.
pub(crate) fn publish(
    settings: &Settings,
    session: &mut Session,
    events: &[Event],
) -> (Vec<Failure>, bool) {
    let deadline = Instant::now() + settings.timeout;
    let mut batch = Batch::new(events, session.published + 1);
    // If something cannot be sent, the server may have said why; and which of the
    // messages before it has.
    let sent = send(settings, session, events, &mut batch);
    let collected = collect(settings, session, &mut batch, deadline);
    session.last_used = Instant::now();
    let Err(broken) = collected.and(sent) else {
        return (batch.into_failures(""), false);
    };
    if let Some(limit) = size_limit(&broken) {
        let reason =
            format!("larger than RabbitMQ accepts, {limit} bytes (its setting max_message_size)");
        batch.give_up(|event| event.data.len() as u64 > limit, &reason);
    }
    (
        batch.into_failures(&no_confirm(settings, session, &broken)),
        true,
    )
}

fn send(
    settings: &Settings,
    session: &mut Session,
    events: &[Event],
    batch: &mut Batch<'_>,
) -> Result<(), Broken> {
    let mut sent = Ok(());
    for (number, chunk) in events.chunks(CHUNK).enumerate() {
        for (offset, event) in chunk.iter().enumerate() {
            let index = number * CHUNK + offset;
            if sent.is_err() {
                batch.failed(Failure::retryable(
                    index,
                    "not sent, the connection to RabbitMQ broke",
                ));
                continue;
            }
            match settings.put_message(event, session) {
                Ok(()) => {
                    session.published += 1;
                    batch.sent(index);
                }
                Err(reason) => batch.failed(Failure::permanent(index, reason)),
            }
        }
        if sent.is_ok() {
            sent = session.frames.send();
        }
    }
    sent
}

fn collect(
    settings: &Settings,
    session: &mut Session,
    batch: &mut Batch<'_>,
    deadline: Instant,
) -> Result<(), Broken> {
    while !batch.is_settled() {
        match session.method(deadline)? {
            AMQPClass::Basic(AMQPMethod::Ack(ack)) => {
                batch.acked(ack.delivery_tag, ack.multiple)?
            }
            AMQPClass::Basic(AMQPMethod::Nack(nack)) => {
                batch.nacked(nack.delivery_tag, nack.multiple)?;
            }
            AMQPClass::Basic(AMQPMethod::Return(returned)) => {
                let header = skip_content(session, deadline)?;
                let properties = &header.properties;
                let key = returned.routing_key.as_str();
                batch.returned(
                    |event| settings.is_message_of(event, key, properties),
                    |index| unroutable(settings, &returned, index),
                )?;
            }
            other => return Err(unexpected(&other)),
        }
    }
    Ok(())
}

/// What comes after the method of a message: its header, and the data, which is
/// not kept.
fn skip_content(session: &mut Session, deadline: Instant) -> Result<AMQPContentHeader, Broken> {
    let out_of_turn = |frame: AMQPFrame| {
        Err(Broken::Violation(format!(
            "it sent {frame} within a message it returned"
        )))
    };
    let header = match session.frames.receive(deadline)? {
        AMQPFrame::Header(_, _, header) => *header,
        other => return out_of_turn(other),
    };
    let mut left = header.body_size;
    while left > 0 {
        match session.frames.receive(deadline)? {
            AMQPFrame::Body(_, part) if !part.is_empty() => {
                left = left.saturating_sub(part.len() as u64);
            }
            other => return out_of_turn(other),
        }
    }
    Ok(header)
}

fn unroutable(settings: &Settings, returned: &Return, index: usize) -> Failure {
    let (code, text) = (returned.reply_code, &returned.reply_text);
    let (key, exchange) = (&returned.routing_key, &settings.exchange.name);
    let message = format!("RabbitMQ returned it: {code} {text}");
    if code != NO_ROUTE {
        return Failure::retryable(index, message);
    }
    let key = key.as_str();
    let hint = format!(
        "no queue is bound to the exchange {exchange:?} for the routing key {key:?}; bind one, \
         or set RABBITMQ_MANDATORY = \"false\" if such events may vanish"
    );
    Failure::permanent(index, format!("{message}: {hint}"))
}

/// The size the server allows, in bytes, if it closed because of a larger message.
fn size_limit(broken: &Broken) -> Option<u64> {
    match broken {
        Broken::Closed {
            code: PRECONDITION_FAILED,
            text,
        } if text.contains("message size") => text.rsplit(' ').next()?.parse().ok(),
        _ => None,
    }
}

fn no_confirm(settings: &Settings, session: &Session, broken: &Broken) -> String {
    let place = settings.address.place();
    match (broken, &session.blocked) {
        (
            Broken::Closed {
                code: 403 | 404, ..
            },
            _,
        ) => settings
            .exchange
            .refused(broken)
            .unwrap_or_else(|| broken.to_string()),
        (Broken::TimedOut, Some(reason)) => format!(
            "no confirm from RabbitMQ at {place}: it makes publishers wait, saying {reason:?}"
        ),
        _ => format!("no confirm from RabbitMQ at {place}: {broken}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{ack, messages, nack, say, say_at, send_back, server};
    use amq_protocol::frame::AMQPFrame;
    use amq_protocol::protocol::{channel, connection};
    use backhaul_guest::{PublishError, Timestamp};
    use std::time::Duration;

    fn events(count: usize) -> Vec<Event> {
        let event = |n: usize| Event {
            id: n.to_string(),
            source: "/test".into(),
            event_type: "t".into(),
            subject: None,
            time: Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            content_type: None,
            attributes: Vec::new(),
            data: vec![b'x'; n * 1000],
        };
        (0..count).map(event).collect()
    }

    /// What came of publishing `count` events, and whether the session is broken.
    fn outcome(settings: &Settings, count: usize) -> (Vec<String>, bool) {
        let mut session = Session::open(settings).expect("a session");
        let (failures, broken) = publish(settings, &mut session, &events(count));
        let text = |failure: &Failure| match &failure.error {
            PublishError::Retryable(text) => format!("{} again: {text}", failure.index),
            PublishError::Permanent(text) => format!("{} dead: {text}", failure.index),
        };
        (failures.iter().map(text).collect(), broken)
    }

    #[test]
    fn confirms_in_any_form_are_those_of_the_right_events() {
        let (settings, server) = server(|frames| {
            messages(frames, 100);
            ack(frames, 98, true);
            ack(frames, 100, false);
            nack(frames, 99);
        });
        let (failures, broken) = outcome(&settings, 100);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].starts_with("98 again: RabbitMQ did not take it"));
        assert!(!broken);
        server.join().unwrap();
    }

    #[test]
    fn messages_that_come_back_are_those_events_and_the_data_is_skipped() {
        let (settings, server) = server(|frames| {
            let messages = messages(frames, 10);
            send_back(frames, &messages[0]);
            ack(frames, 5, true);
            send_back(frames, &messages[9]);
            ack(frames, 0, true);
        });
        let (failures, broken) = outcome(&settings, 10);
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("0 dead: RabbitMQ returned it: 312 NO_ROUTE"));
        assert!(failures[1].starts_with("9 dead: "), "{failures:?}");
        assert!(!broken);
        server.join().unwrap();
    }

    #[test]
    fn what_has_no_confirm_when_the_connection_ends_is_tried_again() {
        let (settings, server) = server(|frames| {
            messages(frames, 5);
            ack(frames, 3, true);
        });
        let (failures, broken) = outcome(&settings, 5);
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("3 again: no confirm from RabbitMQ at 127.0.0.1:"));
        assert!(broken);
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_makes_publishers_wait_is_quoted() {
        let (settings, server) = server(|frames| {
            messages(frames, 1);
            let blocked = connection::Blocked {
                reason: "low on memory".into(),
            };
            let blocked = connection::AMQPMethod::Blocked(blocked);
            say_at(frames, 0, AMQPClass::Connection(blocked));
            // Until the client has given up.
            let _ = frames.receive(Instant::now() + Duration::from_secs(10));
        });
        let (failures, broken) = outcome(&settings, 1);
        assert!(failures[0].contains("makes publishers wait, saying \"low on memory\""));
        assert!(broken);
        server.join().unwrap();
    }

    #[test]
    fn the_channels_end_is_blamed_on_the_message_that_was_too_large() {
        let (settings, server) = server(|frames| {
            messages(frames, 5);
            let close = channel::Close {
                reply_code: 406,
                reply_text: "PRECONDITION_FAILED - message size 4000 is larger than configured max size 3000".into(),
                class_id: 60,
                method_id: 40,
            };
            say(
                frames,
                AMQPClass::Channel(channel::AMQPMethod::Close(close)),
            );
        });
        let (failures, broken) = outcome(&settings, 5);
        assert_eq!(failures.len(), 5, "{failures:?}");
        assert!(failures[3].starts_with("3 again: "), "{failures:?}");
        assert!(failures[4].starts_with("4 dead: larger than RabbitMQ accepts, 3000 bytes"));
        assert!(broken);
        server.join().unwrap();
    }

    #[test]
    fn a_confirm_of_what_was_not_sent_ends_the_session_and_loses_nothing() {
        let (settings, server) = server(|frames| {
            messages(frames, 2);
            ack(frames, 7, true);
        });
        let (failures, broken) = outcome(&settings, 2);
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].contains("it confirmed the message 7, which was not sent"));
        assert!(broken);
        server.join().unwrap();
    }

    #[test]
    fn heartbeats_are_sent_while_confirms_are_waited_for() {
        let (mut settings, server) = server(|frames| {
            messages(frames, 1);
            assert!(matches!(frames.receive_any(), AMQPFrame::Heartbeat(0)));
            ack(frames, 1, false);
        });
        settings.heartbeat = Some(Duration::from_millis(500));
        settings.timeout = Duration::from_secs(10);
        assert_eq!(outcome(&settings, 1), (Vec::new(), false));
        server.join().unwrap();
    }

    #[test]
    fn an_event_with_attributes_larger_than_a_frame_is_dead_and_the_rest_is_not() {
        let (settings, server) = server(|frames| {
            assert_eq!(messages(frames, 1)[0].data, b"last");
            ack(frames, 1, false);
        });
        let mut events = events(2);
        events[0].attributes = vec![("large".into(), "x".repeat(4000))];
        events[1].data = b"last".into();
        let mut session = Session::open(&settings).expect("a session");
        let (failures, broken) = publish(&settings, &mut session, &events);
        let [failure] = failures.as_slice() else {
            panic!("{failures:?}");
        };
        assert!(
            matches!(&failure.error, PublishError::Permanent(text) if text.contains("frames 4096"))
        );
        assert!(failure.index == 0 && !broken);
        server.join().unwrap();
    }
}

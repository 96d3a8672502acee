//! The backend against a server that behaves as a real one does only now and then.

use super::*;
use backhaul_guest::{PublishError, Timestamp};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// What a connection is given.
struct Script {
    /// How many commands with a payload it answers before it is closed.
    answers: usize,
    /// The answer to a message, as it follows the subject and the number of the
    /// subscription; the verb stands before.
    to_message: (&'static str, &'static str),
    /// The answer to the question which streams have a subject.
    streams: &'static str,
}

const STORED: (&str, &str) = ("MSG", "27\r\n{\"stream\":\"events\",\"seq\":1}");
const NOBODY: (&str, &str) = ("HMSG", "16 16\r\nNATS/1.0 503\r\n\r\n");

fn start(scripts: Vec<Script>) -> (JetStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        address: listener.local_addr().unwrap().to_string(),
        ..Settings::default()
    };
    let server = std::thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().unwrap();
            // The client may be gone before the script has ended.
            let _ = serve(&stream, &script);
        }
    });
    let backend = JetStream {
        connection: Connection::open(&settings).unwrap(),
        used: Instant::now(),
        settings,
    };
    (backend, server)
}

fn serve(mut stream: &TcpStream, script: &Script) -> std::io::Result<()> {
    stream.write_all(b"INFO {\"max_payload\":1000,\"headers\":true,\"jetstream\":true}\r\n")?;
    let (mut reader, mut line, mut answered) = (BufReader::new(stream), String::new(), 0);
    let mut greeted = false;
    while answered < script.answers || !greeted {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, answer) = match words[0] {
            "PING" => {
                greeted = true;
                stream.write_all(b"PONG\r\n")?;
                continue;
            }
            "HPUB" => (script.to_message.0, script.to_message.1.to_owned()),
            "PUB" => (
                "MSG",
                format!("{}\r\n{}", script.streams.len(), script.streams),
            ),
            _ => continue,
        };
        let size: usize = words.last().unwrap().parse().unwrap();
        reader.read_exact(&mut vec![0; size + 2])?;
        stream.write_all(format!("{verb} {} 1 {answer}\r\n", words[2]).as_bytes())?;
        answered += 1;
    }
    Ok(())
}

fn event() -> Event {
    Event {
        id: "1".into(),
        source: "/test".into(),
        event_type: "t".into(),
        subject: None,
        time: Timestamp {
            seconds: 0,
            nanoseconds: 0,
        },
        content_type: None,
        attributes: vec![],
        data: vec![],
    }
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced_before_events_go_out() {
    let script = |answers| Script {
        answers,
        to_message: STORED,
        streams: "",
    };
    let (mut backend, server) = start(vec![script(0), script(1)]);
    backend.used = Instant::now().checked_sub(IDLE * 2).unwrap();
    assert!(backend.publish(&[event()]).unwrap_err().is_empty());
    server.join().unwrap();
}

#[test]
fn nobody_there_means_no_stream_only_if_jetstream_says_so() {
    for (streams, is_permanent, text) in [
        (
            r#"{"total":0,"streams":null}"#,
            true,
            "no stream takes the subject \"events.t\"",
        ),
        (
            r#"{"total":1,"streams":["orders"]}"#,
            false,
            "the stream orders of the subject",
        ),
        (r#"{"error":{"code":503}}"#, false, "it lists no streams"),
    ] {
        let (mut backend, server) = start(vec![Script {
            answers: 3,
            to_message: NOBODY,
            streams,
        }]);
        // Asked for once, whatever the number of events.
        let failures = backend.publish(&[event(), event()]).unwrap_err();
        server.join().unwrap();
        assert_eq!(failures.len(), 2);
        for failure in failures {
            let (permanent, said) = match failure.error {
                PublishError::Permanent(said) => (true, said),
                PublishError::Retryable(said) => (false, said),
            };
            assert!(permanent == is_permanent && said.contains(text), "{said}");
        }
    }
}

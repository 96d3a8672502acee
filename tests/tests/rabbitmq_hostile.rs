//! What the `rabbitmq` plugin makes of servers that are no RabbitMQ, or a bad one:
//! a clear error, bounded time and memory, and no harm to the plugin beside it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use backhaul_tests::components;
use backhaul_tests::host::Workspace;

/// What a server does with a connection; it ends when this returns.
type Behaviour = fn(TcpStream);

/// Serves every connection in a thread of its own, until the process ends.
fn serve(behaviour: Behaviour) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let _: JoinHandle<()> = std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || behaviour(stream));
        }
    });
    address
}

fn hears_the_greeting(stream: &mut TcpStream) -> bool {
    stream.read_exact(&mut [0; 8]).is_ok()
}

/// A method frame on channel 0 that says it has `length` bytes.
fn frame(length: usize, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length").to_be_bytes();
    [&[1, 0, 0], &length[..], payload, &[0xCE]].concat()
}

/// `connection.start` with these server properties, without the table's length.
fn start(properties: &[u8]) -> Vec<u8> {
    let length = u32::try_from(properties.len()).expect("a length");
    let mut payload = vec![0, 10, 0, 10, 0, 9];
    payload.extend(length.to_be_bytes());
    payload.extend(properties);
    for text in ["PLAIN", "en_US"] {
        payload.extend(u32::try_from(text.len()).expect("a length").to_be_bytes());
        payload.extend(text.as_bytes());
    }
    frame(payload.len(), &payload)
}

/// Answers like a web server.
fn http(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
}

/// Wants AMQP 1.0.
fn another_amqp(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    let _ = stream.write_all(b"AMQP\x03\x01\x00\x00");
}

/// Accepts, and says nothing.
fn silent(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Says hello in so many small pieces that it takes minutes.
fn slow(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    for byte in start(&[]) {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        // The slowness itself, not a wait for something.
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Announces a frame of 4 GB, and sends it until nobody listens.
fn huge(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    let _ = stream.write_all(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    while stream.write_all(&[0; 65_536]).is_ok() {}
}

/// Sends heartbeats, as fast as it can, and nothing else.
fn chatty(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    let heartbeats = [8, 0, 0, 0, 0, 0, 0, 0xCE].repeat(4096);
    while stream.write_all(&heartbeats).is_ok() {}
}

/// Sends tables in tables, as deep as a frame can hold.
fn deep(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    // Each level: a name of no letters, the type of a table, and its length.
    let mut table = Vec::new();
    for _ in 0..1300 {
        let length = u32::try_from(table.len()).expect("a length").to_be_bytes();
        table = [&[0, b'F'], &length[..], &table].concat();
    }
    let _ = stream.write_all(&start(&table));
    silent(stream);
}

/// Ends the connection once it has the password.
fn ends(mut stream: TcpStream) {
    hears_the_greeting(&mut stream);
    let _ = stream.write_all(&start(&[]));
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn hostile_servers_are_explained_and_harm_no_other_plugin() {
    let cases: [(&str, Behaviour, &str); 8] = [
        ("http", http, "it does not speak AMQP 0-9-1, it sent"),
        (
            "another",
            another_amqp,
            "it speaks another version of AMQP than 0-9-1",
        ),
        ("silent", silent, "it does not answer in time"),
        ("slow", slow, "it does not answer in time"),
        ("huge", huge, "it sent a frame of 4294967295 bytes"),
        ("chatty", chatty, "it does not answer in time"),
        (
            "deep",
            deep,
            "it sent tables or arrays nested more than 64 deep",
        ),
        ("ends", ends, "it closed the connection"),
    ];
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    for (name, behaviour, _) in cases {
        let address = serve(behaviour);
        let manifest = format!(
            "name = {name:?}\n[grants]\ntcp = [{address:?}]\nenv = {{ RABBITMQ_URL = \"amqp://u:secret@{address}\" }}\n"
        );
        workspace.add_plugin(name, &components::plugin("rabbitmq"), &manifest);
    }
    let host = workspace.serve_with(&["--drain", "200ms"]);
    let before = host.resident_bytes();
    assert_eq!(host.post_batch("n", 100).status, 202);
    workspace.wait_for_file_lines(100);
    for (name, _, text) in cases {
        let backend = format!("backend=\"{name}\"");
        let line = backhaul_tests::wait_for(&format!("the error of {name}"), || {
            let log = host.log();
            let line = log
                .lines()
                .find(|line| line.contains(&backend) && line.contains("tried again"));
            line.map(str::to_owned)
        });
        assert!(line.contains(text), "{line}");
    }
    let grown = host.peak_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "the host grew by {grown} bytes");
    let (_, log) = host.stop();
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_server_that_is_not_there_is_named_with_the_grant_it_needs() {
    let workspace = Workspace::new();
    let manifest =
        "[grants]\ntcp = [\"127.0.0.1:1\"]\nenv = { RABBITMQ_URL = \"amqp://127.0.0.1:1\" }\n";
    workspace.add_plugin("away", &components::plugin("rabbitmq"), manifest);
    let manifest =
        "name = \"unknown\"\n[grants]\nenv = { RABBITMQ_URL = \"amqp://no-such-host.invalid\" }\n";
    workspace.add_plugin("unknown", &components::plugin("rabbitmq"), manifest);
    let host = workspace.serve_with(&["--drain", "200ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("cannot connect to RabbitMQ at 127.0.0.1:1; is it running");
    host.wait_for_log("cannot connect to RabbitMQ at no-such-host.invalid:5672; is it running");
}

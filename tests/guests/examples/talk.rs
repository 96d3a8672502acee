//! Talks to the server of its orders over TCP, and reports what came of it:
//! `peer HOST:PORT`, `say WORD HOST:PORT`, `echo BYTES HOST:PORT`, and `many MOST HOST:PORT`:
//! how many connections it can have open.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{Shutdown, TcpStream};

use test_guests::{order, pattern, report};

test_guests::export_publish!("talk", |events| {
    let words: Vec<&str> = order(events).split(' ').collect();
    match talk(&words) {
        Ok(text) => report(format!("ok {text}")),
        Err(error) => report(format!("error {error}")),
    }
});

fn talk(words: &[&str]) -> Result<String> {
    match *words {
        ["peer", server] => Ok(TcpStream::connect(server)?.peer_addr()?.to_string()),
        ["say", word, server] => {
            let mut stream = TcpStream::connect(server)?;
            stream.write_all(format!("{word}\n").as_bytes())?;
            let mut answer = String::new();
            match BufReader::new(stream).read_line(&mut answer)? {
                0 => Err(Error::other("no answer")),
                _ => Ok(answer.trim_end().to_owned()),
            }
        }
        ["echo", bytes, server] => {
            let sent = pattern(bytes.parse().expect("a number"));
            let mut stream = TcpStream::connect(server)?;
            stream.write_all(&sent)?;
            stream.shutdown(Shutdown::Write)?;
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            assert!(back == sent, "{} bytes came back", back.len());
            Ok(back.len().to_string())
        }
        ["many", most, server] => {
            let most = most.parse().expect("a number");
            let open: Vec<TcpStream> = (0..most)
                .map_while(|_| TcpStream::connect(server).ok())
                .collect();
            Ok(open.len().to_string())
        }
        _ => unreachable!("no such order"),
    }
}

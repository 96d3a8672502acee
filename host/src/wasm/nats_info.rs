//! The first line of a NATS server, which comes in plain text even where TLS follows.
//!
//! The host reads it, begins TLS, and hands the line on to the guest as it is for the
//! guest: on its side of the host no TLS is wanted. That, and that the plugin keeps
//! refusing a server which wants TLS, sees to it that nothing goes out unencrypted
//! where the grant was forgotten.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line that is taken. A server in a large cluster names many others.
const MAX_LINE: usize = 64 << 10;

/// What the line of a server says, for the guest; or why it is not one to begin TLS
/// with. Ends only with the line or the connection: the caller limits the time.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut line = Vec::with_capacity(1 << 10);
    loop {
        match stream.read_buf(&mut line).await {
            Ok(0) | Err(_) => return Err("it closed the connection before its INFO".to_owned()),
            Ok(_) => {}
        }
        match line.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 == line.len() => return for_guest(&line),
            // It would be taken for something that came encrypted.
            Some(_) => return Err("it sends more than its INFO in plain text".to_owned()),
            None if line.len() > MAX_LINE => break,
            None => {}
        }
    }
    Err("it does not speak NATS: its first line does not end".to_owned())
}

fn for_guest(line: &[u8]) -> Result<Vec<u8>, String> {
    let not_nats = || "it does not speak NATS: its first line is no INFO".to_owned();
    let json = line.strip_prefix(b"INFO ").ok_or_else(not_nats)?;
    let mut info: Value = serde_json::from_slice(json).map_err(|_| not_nats())?;
    let info = info.as_object_mut().ok_or_else(not_nats)?;
    let says = |name: &str| info.get(name) == Some(&Value::Bool(true));
    if !says("tls_required") && !says("tls_available") {
        return Err("it offers no TLS".to_owned());
    }
    info.retain(|name, _| !name.starts_with("tls_"));
    let mut line = b"INFO ".to_vec();
    serde_json::to_writer(&mut line, info).map_err(|error| error.to_string())?;
    line.extend_from_slice(b"\r\n");
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_from(mut bytes: &[u8]) -> Result<String, String> {
        let line = read(&mut bytes).await?;
        Ok(String::from_utf8(line).unwrap())
    }

    #[tokio::test]
    async fn the_guest_gets_the_line_without_a_word_of_tls() {
        let line = "INFO {\"server_id\":\"N\",\"tls_required\":true,\"tls_verify\":true,\"headers\":true} \r\n";
        let shown = read_from(line.as_bytes()).await.unwrap();
        assert_eq!(shown, "INFO {\"headers\":true,\"server_id\":\"N\"}\r\n");
        let offered = read_from(b"INFO {\"tls_available\":true}\r\n").await;
        assert_eq!(offered.as_deref(), Ok("INFO {}\r\n"));
    }

    #[tokio::test]
    async fn what_is_no_line_to_begin_tls_with_is_refused() {
        let endless = vec![b'x'; MAX_LINE * 2];
        for (line, problem) in [
            (&b""[..], "closed"),
            (b"INFO {\"tls_required\":true}", "closed"),
            (b"INFO {}\r\n", "offers no TLS"),
            (b"INFO {\"tls_required\":\"yes\"}\r\n", "offers no TLS"),
            (b"INFO []\r\n", "no INFO"),
            (b"INFO {\r\n", "no INFO"),
            (b"+OK\r\n", "no INFO"),
            (b"HTTP/1.1 400\r\n", "no INFO"),
            (b"INFO {\"tls_required\":true}\r\n+OK\r\n", "more than"),
            (&endless, "does not end"),
        ] {
            let refused = read_from(line).await.unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}

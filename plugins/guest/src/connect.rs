//! TCP within a deadline.

use std::io::{Error, ErrorKind, Result};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Connects to the first address of a name that answers before the deadline, for a
/// protocol of requests and answers (`TCP_NODELAY` is set).
///
/// # Errors
///
/// What went wrong with the last address tried: [`ErrorKind::TimedOut`] if the
/// deadline is over. The text names no address.
pub fn connect(address: impl ToSocketAddrs, deadline: Instant) -> Result<TcpStream> {
    let mut error = Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        let left = remaining(deadline).ok_or(ErrorKind::TimedOut)?;
        let connected = TcpStream::connect_timeout(&address, left).and_then(|stream| {
            // Under WASI a refused connection may look like one until it is used.
            stream.peer_addr()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// How long it is until the deadline, for a socket's time limit; `None` if it is over.
/// WASI's sockets count in whole milliseconds or less, and zero would mean for ever.
pub fn remaining(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (left >= Duration::from_millis(1)).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [gone.local_addr().unwrap(), listener.local_addr().unwrap()];
        drop(gone);
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = connect(&addresses[..], deadline).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        let error = connect(addresses[0], deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_deadline_that_is_over_is_a_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = connect(listener.local_addr().unwrap(), Instant::now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

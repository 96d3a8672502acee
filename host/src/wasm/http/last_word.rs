//! A stream to a server that may answer and hang up before it has read everything.
//!
//! The server's side then resets the connection, and the next write fails. The
//! answer has arrived all the same, but hyper takes the failed write for the end
//! of the exchange. So here a failed write only waits: what was sent by the
//! server is read first, and reading says at its end that the connection is
//! gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lets the server have the last word.
pub(super) struct LastWord<S> {
    stream: S,
    /// Why writing failed, until reading has come to an end or failed, too.
    unwritable: Option<io::Error>,
}

impl<S> LastWord<S> {
    pub(super) fn new(stream: S) -> LastWord<S> {
        LastWord {
            stream,
            unwritable: None,
        }
    }

    /// Puts off a failure of writing to the end of reading.
    fn put_off<T>(&mut self, written: io::Result<T>) -> Poll<io::Result<T>> {
        match written {
            Err(error) if is_hang_up(&error) => {
                self.unwritable = Some(error);
                // No waker: the task waits to read as well, and what made writing
                // fail has reading go on or end.
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWord<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if read.is_ok() && buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match self.unwritable.take() {
            Some(error) => Err(error),
            None => read,
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWord<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.put_off(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        self.put_off(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.put_off(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_sent_before_a_hang_up_is_read_and_only_then_it_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let mut server = accepted.unwrap().0;
        server.write_all(b"no more").await.unwrap();
        let mut stream = LastWord::new(stream.unwrap());
        stream.write_all(b"unread").await.unwrap();
        // What was not read makes it a reset.
        server.readable().await.unwrap();
        drop(server);

        let (mut reader, mut writer) = tokio::io::split(stream);
        let writing = async move {
            loop {
                if let Err(error) = writer.write_all(&[0; 4096]).await {
                    return error;
                }
            }
        };
        let mut said = Vec::new();
        let reading = reader.read_to_end(&mut said);
        tokio::select! {
            error = writing => panic!("the failed write is put off, but was shown: {error}"),
            read = reading => assert!(is_hang_up(&read.unwrap_err())),
        }
        assert_eq!(said, b"no more");
    }
}

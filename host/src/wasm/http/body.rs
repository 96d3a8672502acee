//! The bodies of a request and its response, watched while they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::client::failed;
use super::pool::Lease;

/// The most bytes of one response's body. They are streamed, so it bounds time
/// and traffic, not memory; no queue answers with as much.
pub(super) const MAX_RESPONSE_BODY: u64 = 64 << 20;

/// A request's body, which tells when the host is done with it.
///
/// A server may answer before it has read everything. What the guest still
/// writes then is thrown away: were its stream closed instead, most HTTP clients
/// in guests would report that, and never look at the answer.
pub(super) struct RequestBody {
    /// `None` after its end.
    body: Option<WasiBody>,
    /// Whether all of it has been handed over; shared with the response.
    sent: Arc<AtomicBool>,
    /// Dropped when the guest has no more to write. `None` after that.
    done: Option<oneshot::Sender<()>>,
}

impl RequestBody {
    /// The second value says whether the host is done with the body, the third
    /// can be awaited for that.
    pub(super) fn new(body: WasiBody) -> (RequestBody, Arc<AtomicBool>, oneshot::Receiver<()>) {
        let sent = Arc::new(AtomicBool::new(false));
        let (done, wait) = oneshot::channel();
        let body = RequestBody {
            body: Some(body),
            sent: sent.clone(),
            done: Some(done),
        };
        (body, sent, wait)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.sent.store(true, Ordering::Release);
        let (Some(mut body), done) = (self.body.take(), self.done.take()) else {
            return;
        };
        // Not there while the host stops; then no guest runs that could mind.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Ends with the guest's stream, and so at the latest with the instance.
            runtime.spawn(async move {
                while let Some(Ok(_unread)) = body.frame().await {}
                drop(done);
            });
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(WasiBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.as_ref().map(WasiBody::size_hint);
        rest.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

/// A response's body: bounded in bytes and in the time between them. It holds
/// the connection, and gives it back at the end.
pub(super) struct ResponseBody {
    /// `None` after the end or an error.
    open: Option<Open>,
    received: u64,
    /// How long nothing may come while the guest waits.
    silence: Duration,
    /// Runs from the first time the guest waited for what comes next.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

struct Open {
    incoming: Incoming,
    lease: Lease,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, silence: Duration) -> ResponseBody {
        ResponseBody {
            open: Some(Open { incoming, lease }),
            received: 0,
            silence,
            timer: None,
            waiting: false,
        }
    }

    /// Ends with an error, and with the connection.
    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.open = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Ends, and gives the connection back.
    fn finish(&mut self) {
        if let Some(Open { incoming, lease }) = self.open.take() {
            // First: hyper finds a connection free when nobody reads from it.
            drop(incoming);
            lease.give_back();
        }
    }

    /// Whether nothing has come for too long.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let silence = self.silence;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + silence);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut open.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let received = self.received.saturating_add(bytes as u64);
                self.received = received;
                if received > MAX_RESPONSE_BODY {
                    return self.fail(Error::HttpResponseBodySize(Some(received)));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(failed(&error)),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending if self.is_silent(cx) => self.fail(Error::ConnectionReadTimeout),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.open {
            Some(open) => open.incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A guest that only wants the status drops the rest; hyper reads what has
        // already come and otherwise closes the connection.
        self.finish();
    }
}

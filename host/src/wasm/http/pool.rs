//! Connections that are kept for the next request of the same instance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::body::RequestBody;
use super::origin::HttpGrant;

/// How many connections without a request an instance keeps.
const MAX_IDLE: usize = 8;

/// How long a connection without a request is kept. Servers close theirs after
/// 5 seconds (Node.js) or more; a request sent just then would be lost.
const IDLE: Duration = Duration::from_secs(4);

/// How old a connection may be and still get a request, so that a changed
/// address or certificate counts before long.
const MAX_AGE: Duration = Duration::from_secs(60);

/// An open connection. Dropping it closes it.
pub(super) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    origin: HttpGrant,
    opened: Instant,
    /// Drives the connection.
    driver: JoinHandle<()>,
}

impl Connection {
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        origin: HttpGrant,
        driver: JoinHandle<()>,
    ) -> Connection {
        Connection {
            sender,
            origin,
            opened: Instant::now(),
            driver,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connections of one instance that wait for a request.
#[derive(Default)]
pub(super) struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The last one used is the last.
    idle: Vec<(Connection, Instant)>,
    /// Whether a task is closing what has waited too long.
    reaping: bool,
}

impl Pool {
    /// A connection to `origin` that can take a request, if one is kept.
    pub(super) async fn take(&self, origin: &HttpGrant) -> Option<Connection> {
        loop {
            let mut connection = {
                let mut kept = self.lock();
                let fits = |(kept, since): &(Connection, Instant)| {
                    kept.origin == *origin && since.elapsed() < IDLE
                };
                let index = kept.idle.iter().rposition(fits)?;
                kept.idle.remove(index).0
            };
            // It is ready at once, or the server has closed it.
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn put(self: &Arc<Self>, connection: Connection) {
        if connection.sender.is_closed() || connection.opened.elapsed() > MAX_AGE {
            return;
        }
        // A store may be dropped anywhere, and all it holds with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut kept = self.lock();
        if kept.idle.len() == MAX_IDLE {
            kept.idle.remove(0);
        }
        kept.idle.push((connection, Instant::now()));
        if !kept.reaping {
            kept.reaping = true;
            runtime.spawn(reap(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing under this lock can leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what has waited too long, until nothing waits.
async fn reap(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut kept = pool.lock();
        kept.idle.retain(|(_, since)| since.elapsed() < IDLE);
        if kept.idle.is_empty() {
            kept.reaping = false;
            return;
        }
    }
}

/// A connection in use, with the places it takes.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) pool: Arc<Pool>,
    /// Whether the host is done with the request's body.
    pub(super) sent: Arc<AtomicBool>,
    pub(super) _places: [OwnedSemaphorePermit; 2],
}

impl Lease {
    /// Keeps the connection for another request. Not if the server answered
    /// before it had the whole request: the rest is still on its way.
    pub(super) fn give_back(self) {
        if self.sent.load(Ordering::Acquire) {
            self.pool.put(self.connection);
        }
    }
}

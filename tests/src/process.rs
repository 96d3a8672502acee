//! What servers are started with: a port nobody has, and their process ids.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Child;
use std::sync::Mutex;

use rustix::process::Pid;

pub(crate) fn pid(process: &Child) -> Pid {
    Pid::from_child(process)
}

/// A port that was free a moment ago, and that this process has asked for once only: the
/// system may give one again that nobody listens at yet.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("the port").port();
        let mut given = GIVEN
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if given.insert(port) {
            return port;
        }
    }
}

//! Components of any kind: refused with a reason, or run within their limits.
//!
//! Input: which component, one byte; then orders for how to damage it. Or the
//! bytes of a file, if it begins like Wasm.

use std::sync::OnceLock;
use std::time::Duration;

use backhaul::{AsyncBackend, Event};

use crate::damage::damaged;
use crate::sandbox::{self, built};
use crate::{shown, small};

pub(crate) fn run(input: &[u8]) {
    let wasm = match input {
        [0, b'a', ..] | [] => input.to_vec(),
        [which, orders @ ..] => damaged(base(*which), orders),
    };
    // Start, name, two publishes and a close; a broken instance starts anew.
    sandbox::run(12, async {
        let component = match sandbox::engine().load(wasm).await {
            Ok(component) => component,
            Err(error) => return sandbox::check_load_error(&error),
        };
        for import in component.imports() {
            shown::check("the name of an import", &import, 4096);
        }
        let Some(backend) = sandbox::start(component, Vec::new()).await else {
            return;
        };
        let name = backend.name();
        let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        assert!((1..=64).contains(&name.len()) && name.chars().all(valid));
        let events = [(); 3].map(|()| Event::new("t", "data").expect("an event"));
        for _ in 0..2 {
            backend.forgive();
            let result = backend.publish(&events).await;
            sandbox::check_published(&events, &result);
        }
        backend.close(Duration::from_secs(5)).await.expect("closed");
    });
}

/// Half of the choices are the small one: it compiles a hundred times as fast.
fn base(which: u8) -> &'static [u8] {
    static BUILT: OnceLock<[Vec<u8>; 5]> = OnceLock::new();
    let components = BUILT.get_or_init(|| {
        [
            small::component(),
            built("test-guests/record_blocking"),
            built("test-guests/record_async"),
            built("plugins/file"),
            built("test-guests/connect_async"),
        ]
    });
    match which {
        ..128 => &components[0],
        128.. => &components[1 + usize::from(which % 4)],
    }
}

//! When to look at the plugins folder: when the system says that something
//! happened there, and every two seconds all the same. Some file systems
//! (network shares, volumes of containers) never say anything.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::{Inner, PluginHost};

/// How often the folder is looked at without a sign that it changed.
const POLL: Duration = Duration::from_secs(2);

/// How often while something there changes.
const RESTLESS_POLL: Duration = Duration::from_millis(100);

/// How long at least between two looks, whatever happens there.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Runs until the host is closed or gone.
pub(super) async fn follow(host: Weak<Inner>) {
    let (path, mut closed) = match host.upgrade() {
        Some(inner) => (inner.path.clone(), inner.closed.subscribe()),
        None => return,
    };
    let touched = Arc::new(Notify::new());
    let mut watcher = watcher(&path, &touched);
    let mut unreadable = false;
    loop {
        let Some(inner) = host.upgrade() else { return };
        // On a thread of its own: a network share may take its time.
        let look = tokio::task::spawn_blocking(move || PluginHost::look(&inner));
        let looked = look
            .await
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let restless = match looked {
            Ok(restless) => {
                if std::mem::take(&mut unreadable) {
                    tracing::info!(folder = %path.display(), "the plugins folder can be read again");
                    // The old watcher may be on a folder that is no longer there.
                    watcher = self::watcher(&path, &touched);
                }
                restless
            }
            Err(error) => {
                if !std::mem::replace(&mut unreadable, true) {
                    tracing::warn!(folder = %path.display(), %error,
                        "the plugins folder cannot be read; the plugins stay as they are");
                }
                false
            }
        };
        tokio::time::sleep(SHORTEST_PAUSE).await;
        let wait = if restless { RESTLESS_POLL } else { POLL };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = touched.notified(), if !restless => {}
            _ = closed.wait_for(|closed| *closed) => break,
        }
    }
    drop(watcher);
}

/// Tells `touched` of whatever happens in the folder.
fn watcher(folder: &Path, touched: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let touched = touched.clone();
    let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is nothing; an error may have swallowed something.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            touched.notify_one();
        }
    });
    let watching = watching.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| {
            tracing::debug!(folder = %folder.display(), %error,
                "no word of changes in the plugins folder; it is looked at every {POLL:?}");
        })
        .ok()
}

//! The task that reads ahead: from the feed into the window, while there is room.

use std::sync::Arc;

use super::feed::Feed;
use super::item::Item;
use super::window::Window;

/// Runs until the window is closed.
pub(super) async fn pump(window: &Window, feed: Arc<dyn Feed>) {
    let fill = async {
        loop {
            let (events, bytes) = window.room().await;
            let entries = feed.next(events, bytes).await;
            window.fill(entries.into_iter().map(Item::from));
        }
    };
    // What the feed is asked for and does not get to give stays there.
    tokio::select! {
        biased;
        () = window.closed() => {}
        () = fill => {}
    }
}

//! Events are in a stream of a real NATS server, carried by the `nats-jetstream`
//! plugin, also when the server comes late, goes away, or stands still.

mod delivery;
mod hostile;
mod login;
mod refusals;

use backhaul_tests::books::{Book, book};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::nats_server::NatsServer;
use backhaul_tests::{components, wait_for};

const STREAM: &str = "events";
const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];

/// A folder with the plugin, aimed at `address`; `env` are further variables as the
/// manifest writes them.
fn workspace(address: &str, env: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nNATS_URL = \"nats://{address}\"\n{env}\n"
    );
    workspace.add_plugin(
        "nats-jetstream",
        &components::plugin("nats-jetstream"),
        &manifest,
    );
    workspace
}

/// A server with a stream of everything under `events`.
fn server() -> Option<NatsServer> {
    let server = NatsServer::start()?;
    server.create_stream(STREAM, &["events.>"], &serde_json::json!({}));
    Some(server)
}

fn wait_for_messages(server: &NatsServer, count: usize) {
    wait_for(&format!("{count} messages"), || {
        (server.len(STREAM) >= count).then_some(())
    });
}

fn the_book(host: &Host) -> Book {
    book(host, "nats-jetstream")
}

/// Ids `PREFIX-0` to `PREFIX-(count-1)`.
fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

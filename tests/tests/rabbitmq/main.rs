//! Events are in the queues of a real RabbitMQ, carried by the `rabbitmq` plugin:
//! whole, in order, by their routing keys, and none lost while the server goes
//! away and comes back. What it refuses is explained.

mod delivery;
mod faults;
mod refusals;

use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::rabbitmq_server::{Message, RabbitMqServer};
use lapin::ExchangeKind::Topic;

/// The lines of a manifest for a server, with further settings.
fn manifest(address: &str, url: &str, settings: &[(&str, &str)]) -> String {
    let settings: String = settings
        .iter()
        .map(|(name, value)| format!(", {name} = {value:?}"))
        .collect();
    format!("[grants]\ntcp = [{address:?}]\nenv = {{ RABBITMQ_URL = {url:?}{settings} }}\n")
}

fn workspace(server: &RabbitMqServer, settings: &[(&str, &str)]) -> Workspace {
    let workspace = Workspace::new();
    let manifest = manifest(&server.address(), &server.url(), settings);
    workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
    workspace
}

/// The same plugin once more, under another name.
fn add_named(workspace: &Workspace, name: &str, manifest: &str) {
    let manifest = format!("name = {name:?}\n{manifest}");
    workspace.add_plugin(name, &components::plugin("rabbitmq"), &manifest);
}

/// An exchange and a queue of this name, which gets all that comes to it.
fn exchange_with_queue(server: &RabbitMqServer, name: &str) {
    server.declare_exchange(name, Topic);
    server.bind(name, name, "#");
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn ids_of(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .filter_map(|message| message.id.clone())
        .collect()
}

fn assert_delivers_all_and_stops(host: Host) {
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

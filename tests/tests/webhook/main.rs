//! Events are posted to a server by the `webhook` plugin, signed, in both content
//! modes; and what the server's answers, good and bad, have it do.

mod answers;
mod hostile;
mod requests;

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::webhook_server::WebhookServer;

/// A folder with the plugin, aimed at `origin`; `env` are further variables as the
/// manifest writes them, `more` what follows.
fn workspace(origin: &str, env: &str, more: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\nhttp = [\"{origin}\"]\n[grants.env]\nWEBHOOK_URL = \"{origin}/hook?a=b\"\n{env}\n{more}\n"
    );
    workspace.add_plugin("webhook", &components::plugin("webhook"), &manifest);
    workspace
}

fn wait_for_requests(server: &WebhookServer, count: usize) {
    backhaul_tests::wait_for(&format!("{count} requests"), || {
        (server.requests().len() >= count).then_some(())
    });
}

/// Ids `PREFIX-0` to `PREFIX-(count-1)`.
fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

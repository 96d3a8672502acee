//! Events are in queues of a server that speaks SQS, sent there by the `sqs` plugin or
//! by way of a topic by `sns`; and what answers, good and bad, have the plugins do.

mod delivery;
mod fifo;
mod hostile;
mod refusals;
mod sns;

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::moto_server::REGION;

const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];
const SECRET: &str = "hush-hush/secret+key";
const TOKEN: &str = "hush-hush-token==";

/// A folder with the plugin `sqs`, aimed at a queue; `env` are further variables as the
/// manifest writes them, `more` what follows.
fn sqs(origin: &str, url: &str, env: &str, more: &str) -> Workspace {
    let target = format!("SQS_QUEUE_URL = \"{url}\"\n{env}");
    workspace("sqs", origin, &target, more)
}

/// The same with `sns` and a topic.
fn sns(origin: &str, arn: &str, env: &str) -> Workspace {
    let target = format!("SNS_TOPIC_ARN = \"{arn}\"\nAWS_ENDPOINT_URL = \"{origin}\"\n{env}");
    workspace("sns", origin, &target, "")
}

fn workspace(plugin: &str, origin: &str, env: &str, more: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\nhttp = [\"{origin}\"]\n[grants.env]\nAWS_REGION = \"{REGION}\"\n\
         AWS_ACCESS_KEY_ID = \"KEYOFTESTS\"\nAWS_SECRET_ACCESS_KEY = \"{SECRET}\"\n\
         AWS_SESSION_TOKEN = \"{TOKEN}\"\n{env}\n{more}\n"
    );
    workspace.add_plugin(plugin, &components::plugin(plugin), &manifest);
    workspace
}

//! The plugin `rabbitmq` and a RabbitMQ server with TLS.

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use backhaul_tests::redis_server::free_port;
use lapin::ExchangeKind::Topic;

use crate::scene::Certificates;

#[test]
fn events_reach_a_rabbitmq_that_wants_tls_and_a_client_certificate() {
    let certificates = Certificates::new();
    let (certificate, key) = certificates.server(None);
    let port = free_port();
    let configuration = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true",
        certificates.roots().display(),
        certificate.display(),
        key.display(),
    );
    let Some(server) = RabbitMqServer::with(&configuration) else {
        return;
    };
    server.declare_exchange("private", Topic);
    server.bind("private", "private", "#");
    let workspace = |tls: &str| {
        let workspace = Workspace::new();
        let manifest = format!(
            "[grants]\ntcp = [\"tls://localhost:{port}\"]\n\
             env = {{ RABBITMQ_URL = \"amqp://guest:guest@localhost:{port}\", \
             RABBITMQ_EXCHANGE = \"private\" }}\n\
             [tls]\nroots = [{:?}]\n{tls}\n",
            certificates.roots()
        );
        workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
        workspace
    };

    let without = workspace("");
    let host = without.serve();
    assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
    host.wait_for_log(&format!(
        "no TLS with the server at tls://localhost:{port}: it asks for a client certificate; "
    ));
    host.kill();
    assert!(server.take("private").is_empty());

    let client = certificates.issuer.issue(&["backhaul"]);
    let (certificate, key) = client.write(certificates.folder(), "client");
    let with = workspace(&format!("certificate = {certificate:?}\nkey = {key:?}"));
    let host = with.serve();
    assert_eq!(host.post_batch("event", 100).status, 202);
    assert_eq!(server.take_count("private", 100).len(), 100);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

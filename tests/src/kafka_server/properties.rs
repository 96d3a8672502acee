//! The settings of a broker.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::free_port;
use crate::skip;

/// The file they are in.
pub(super) const FILE: &str = "server.properties";

/// A further port, with TLS.
pub struct TlsListener {
    /// Where it listens.
    pub port: u16,
    /// The broker's certificate and its key, as PEM.
    pub certificate: (PathBuf, PathBuf),
    /// Whose certificates clients need, as PEM; `None` if they need none.
    pub clients: Option<PathBuf>,
    /// Whether they log in there, with SCRAM-SHA-512.
    pub login: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) sasl: u16,
    pub(super) only_plain: u16,
    pub(super) controller: u16,
}

pub(super) struct Properties {
    node: u32,
    roles: &'static str,
    pub(super) ports: Ports,
    /// Where the controller is.
    voters: String,
    /// Where it says it is reached without a login.
    pub(super) advertised: String,
    pub(super) tls: Vec<TlsListener>,
}

impl Properties {
    /// Of a broker that is its own controller; `None`, and the test is skipped, if this
    /// machine has none.
    pub(super) fn new() -> Option<Properties> {
        if !super::is_installed() {
            skip::skip_because("Apache Kafka and Java not found (cargo xtask servers)");
            return None;
        }
        let ports = Ports {
            plain: free_port(),
            sasl: free_port(),
            only_plain: free_port(),
            controller: free_port(),
        };
        Some(Properties {
            node: 1,
            roles: "broker,controller",
            ports,
            voters: format!("1@127.0.0.1:{}", ports.controller),
            advertised: format!("127.0.0.1:{}", ports.plain),
            tls: Vec::new(),
        })
    }

    /// Of a second broker, which leaves the control to this one.
    pub(super) fn second(&self) -> Option<Properties> {
        Some(Properties {
            node: 2,
            roles: "broker",
            voters: self.voters.clone(),
            ..Properties::new()?
        })
    }

    pub(super) fn write(&self, folder: &Path) {
        let Ports {
            plain,
            sasl,
            only_plain,
            controller,
        } = self.ports;
        let mut listeners = format!(
            "PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},ONLY://127.0.0.1:{only_plain}"
        );
        let mut advertised = format!(
            "PLAINTEXT://{},SASL_PLAINTEXT://127.0.0.1:{sasl},ONLY://127.0.0.1:{only_plain}",
            self.advertised
        );
        let mut protocols = "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,ONLY:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        let mut more = String::new();
        for (index, listener) in self.tls.iter().enumerate() {
            let name = format!("TLS{index}");
            let protocol = if listener.login { "SASL_SSL" } else { "SSL" };
            let port = listener.port;
            let _ = write!(listeners, ",{name}://127.0.0.1:{port}");
            let _ = write!(advertised, ",{name}://localhost:{port}");
            let _ = write!(protocols, ",{name}:{protocol}");
            let prefix = format!("listener.name.{}", name.to_lowercase());
            more.push_str(&listener.properties(&prefix, &folder.join(format!("{name}.pem"))));
        }
        if self.roles.contains("controller") {
            let _ = write!(listeners, ",CONTROLLER://127.0.0.1:{controller}");
        }
        let (node, roles, voters) = (self.node, self.roles, &self.voters);
        let data = folder.join("data").display().to_string();
        let text = format!(
            "process.roles={roles}
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.only.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada=\"right\" user_bob=\"right\";
listener.name.only.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada=\"right\";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:ada
auto.create.topics.enable=false
auto.leader.rebalance.enable=true
leader.imbalance.check.interval.seconds=1
message.max.bytes=2000000
log.dirs={data}
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
{more}"
        );
        fs::write(folder.join(FILE), text).expect("its settings");
    }
}

impl TlsListener {
    /// Its settings, whose names begin with `prefix`; certificate and key go into the
    /// file `both`, which is how Kafka wants them.
    fn properties(&self, prefix: &str, both: &Path) -> String {
        let read = |path: &Path| fs::read_to_string(path).expect("PEM");
        let (certificate, key) = &self.certificate;
        fs::write(both, read(key) + &read(certificate)).expect("PEM");
        let mut text = format!(
            "{prefix}.ssl.keystore.type=PEM\n{prefix}.ssl.keystore.location={}\n",
            both.display()
        );
        if let Some(clients) = &self.clients {
            let _ = write!(
                text,
                "{prefix}.ssl.client.auth=required\n{prefix}.ssl.truststore.type=PEM\n\
                 {prefix}.ssl.truststore.location={}\n",
                clients.display()
            );
        }
        if self.login {
            let _ = write!(
                text,
                "{prefix}.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
                 {prefix}.scram-sha-512.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            );
        }
        text
    }
}

//! `cargo xtask servers`: the servers of the tests that are no Debian packages, each
//! installed into a folder of its own under target/servers. One file for each; what is
//! there already is left alone.

mod maven;
mod moto;

use anyhow::Result;

use crate::step::Steps;
use crate::workspace::Workspace;

/// Install the servers of the tests that Debian does not package into target/servers
#[derive(clap::Args)]
pub(crate) struct Servers {}

impl Servers {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        let mut steps = Steps::new(2);
        steps.next("Apache Kafka, from Maven Central");
        maven::install(workspace, "kafka")?;
        steps.next("moto, from PyPI");
        moto::install(workspace)
    }
}

/// Installs the brokers' own benchmarks, as the servers.
pub(crate) fn install_benchmarks(workspace: &Workspace) -> Result<()> {
    maven::install(workspace, "kafka-perf-test")?;
    maven::install(workspace, "rabbitmq-perf-test")
}

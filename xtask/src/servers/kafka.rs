//! Apache Kafka: the jars that tests/servers/kafka/pom.xml names, and what they need.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::{Workspace, copy_if_different};

/// Copies the jars to target/servers/kafka, with the pom.xml they are of.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let folder = workspace.in_target("servers/kafka");
    let pom = workspace.root.join("tests/servers/kafka/pom.xml");
    let installed = folder.join("pom.xml");
    let wanted = std::fs::read(&pom).with_context(|| format!("cannot read {}", pom.display()))?;
    if std::fs::read(&installed).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    let sh = &workspace.sh;
    // Jars of another version would be used, too.
    sh.remove_path(&folder)?;
    cmd!(
        sh,
        "mvn -q -B -f {pom} dependency:copy-dependencies -DoutputDirectory={folder}"
    )
    .run()
    .context("cannot get Kafka's jars with mvn (Debian: apt-get install maven)")?;
    copy_if_different(&pom, &installed)?;
    Ok(())
}

//! What comes from Maven Central: the jars that tests/servers/NAME/pom.xml names, and
//! what they need.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::{Workspace, copy_if_different};

/// Copies the jars to target/servers/NAME, with the pom.xml they are of.
pub(super) fn install(workspace: &Workspace, name: &str) -> Result<()> {
    let folder = workspace.in_target("servers").join(name);
    let pom = workspace
        .root
        .join("tests/servers")
        .join(name)
        .join("pom.xml");
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
    .with_context(|| {
        format!("cannot get the jars of {name} with mvn (Debian: apt-get install maven)")
    })?;
    copy_if_different(&pom, &installed)?;
    Ok(())
}

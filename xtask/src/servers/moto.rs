//! moto, a server that speaks SQS and SNS: from PyPI, in a virtual environment.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::{Workspace, copy_if_different};

/// Installs what tests/servers/moto/requirements.txt names to target/servers/moto, with a copy
/// of it.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let folder = workspace.in_target("servers/moto");
    let wanted = workspace.root.join("tests/servers/moto/requirements.txt");
    let installed = folder.join("requirements.txt");
    let new =
        std::fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read(&installed).is_ok_and(|there| there == new) {
        return Ok(());
    }
    let sh = &workspace.sh;
    sh.remove_path(&folder)?;
    cmd!(sh, "python3 -m venv {folder}").run().context(
        "cannot make a virtual environment with python3 (Debian: apt-get install python3-venv)",
    )?;
    let pip = folder.join("bin/pip");
    cmd!(
        sh,
        "{pip} install --quiet --disable-pip-version-check --requirement {wanted}"
    )
    .run()
    .context("cannot get moto with pip")?;
    copy_if_different(&wanted, &installed)?;
    Ok(())
}

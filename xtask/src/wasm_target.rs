//! Makes sure that the toolchain has the target the components are built for.
//!
//! The ordinary way is `rustup target add`. Where there is no rustup, or its
//! server is out of reach, the target's standard library is built from Debian's
//! packages instead (`debian_std`), into the place where rustup would have put
//! it, so that a plain `cargo build --target wasm32-wasip2` works from then on.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::debian_std;
use crate::step::Steps;
use crate::workspace::Workspace;

/// The target of every component.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// The step of a chore that provides the target.
pub(crate) fn step(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let sh = &workspace.sh;
    let sysroot = PathBuf::from(cmd!(sh, "rustc --print sysroot").quiet().read()?);
    debian_std::remove_outdated(sh, &sysroot)?;
    if is_in(&sysroot) {
        steps.next(&format!("the {TARGET} target: already there"));
        return Ok(());
    }
    steps.next(&format!("the {TARGET} target: not there yet, adding it"));
    add(sh, &sysroot)
}

fn add(sh: &Shell, sysroot: &Path) -> Result<()> {
    let rustup = match add_with_rustup(sh, sysroot) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    eprintln!("{rustup:#}; building it from Debian's packages instead");
    let debian = match debian_std::install(sh, sysroot) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    bail!(
        "the Rust toolchain in {sysroot} has no {TARGET} target, and it could not be added\n\
         - with rustup: {rustup:#}\n\
         - from Debian's packages: {debian:#}\n\
         Run `rustup target add {TARGET}` where rustup's server can be reached, then start again.",
        sysroot = sysroot.display()
    )
}

fn add_with_rustup(sh: &Shell, sysroot: &Path) -> Result<()> {
    if cmd!(sh, "rustup --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_err()
    {
        bail!("rustup is not on the PATH");
    }
    if cmd!(sh, "rustup target add {TARGET}").run().is_err() {
        bail!("`rustup target add {TARGET}` failed");
    }
    // It need not be: the rustc on the PATH may not be one that rustup manages.
    if !is_in(sysroot) {
        bail!(
            "rustup has nothing to add, yet {TARGET} is not in the toolchain whose rustc is on the PATH"
        );
    }
    Ok(())
}

/// Where the target's standard library lies in a toolchain.
pub(crate) fn folder(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET)
}

/// Whether the toolchain has the target. Looks for the library itself: an
/// interrupted installation leaves the folder behind.
fn is_in(sysroot: &Path) -> bool {
    folder(sysroot)
        .join("lib")
        .read_dir()
        .is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| {
                    let name = file.file_name();
                    let name = name.to_string_lossy();
                    name.starts_with("libstd-") && name.ends_with(".rlib")
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_target_folder_is_not_a_target() {
        let sh = Shell::new().unwrap();
        let sysroot = sh.create_temp_dir().unwrap();
        assert!(!is_in(sysroot.path()));
        let lib = folder(sysroot.path()).join("lib");
        sh.write_file(lib.join("libstd-0123.rmeta"), "").unwrap();
        sh.write_file(lib.join("libstd_detect-0123.rlib"), "")
            .unwrap();
        assert!(!is_in(sysroot.path()));
        sh.write_file(lib.join("libstd-0123.rlib"), "").unwrap();
        assert!(is_in(sysroot.path()));
    }
}

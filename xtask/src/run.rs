//! `cargo xtask run`: from a fresh clone to a running host.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::components;
use crate::step::Steps;
use crate::wasm_target;
use crate::workspace::{Workspace, cargo_build, copy_if_different};

/// Build the plugins and the host, and start the host in the foreground, from the repository's root
///
/// While the folder plugins/ holds no plugin, `run` puts the `file` backend there. A file it
/// has put there, and that nobody has changed since, follows the sources: it is replaced when
/// a newer one was built. Any other file in plugins/ is left alone; if it is a file.wasm or
/// file.toml that differs from the built one, `run` says so. (What was put there is remembered
/// in target/placed/.) With `--plugins`, or BACKHAUL_PLUGINS set, nothing is put anywhere.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Run {
    /// Build the host optimised
    #[arg(long)]
    release: bool,
    /// Arguments for `backhaul serve`
    #[arg(last = true)]
    args: Vec<String>,
}

impl Run {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        let mut steps = Steps::new(3);
        wasm_target::step(workspace, &mut steps)?;

        steps.next("the plugins");
        components::build_plugins(workspace)?;
        if !self.uses_another_folder() {
            let notes = place_default(
                &workspace.in_target("plugins"),
                &workspace.root.join("plugins"),
                // Not in a target folder that several clones may share.
                &workspace.root.join("target/placed"),
            )?;
            for note in notes {
                eprintln!("{note}");
            }
        }

        steps.next("the host");
        let sh = &workspace.sh;
        let release = self.release.then_some("--release");
        let program = cargo_build(cmd!(
            sh,
            "cargo build --package backhaul --bin backhaul {release...}"
        ))?
        .into_iter()
        .find(|artifact| artifact.kinds.iter().any(|kind| kind == "bin"))
        .and_then(|host| host.files.into_iter().next())
        .context("cargo built the package backhaul, but no program came of it")?;

        let mut host = Command::new(&program);
        host.current_dir(&workspace.root)
            .arg("serve")
            .args(&self.args);
        become_process(host).with_context(|| format!("cannot start {}", program.display()))
    }

    fn uses_another_folder(&self) -> bool {
        std::env::var_os("BACKHAUL_PLUGINS").is_some()
            || self
                .args
                .iter()
                .any(|arg| arg == "--plugins" || arg.starts_with("--plugins="))
    }
}

/// Turns this process into the host, so that a signal reaches the host itself
/// and the exit code is the host's.
#[cfg(unix)]
fn become_process(mut host: Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    Err(host.exec().into())
}

#[cfg(not(unix))]
fn become_process(mut host: Command) -> Result<()> {
    std::process::exit(host.status()?.code().unwrap_or(1))
}

/// Puts the `file` backend from `built` into the plugins folder, if that holds
/// no plugin, and keeps up to date what an earlier run has put there.
/// `placed` keeps a copy of each file that was put there: as long as the one in
/// the folder equals its copy, nobody has made it their own. Returns what there
/// is to say about it.
fn place_default(built: &Path, plugins: &Path, placed: &Path) -> Result<Vec<String>> {
    let holds_plugin = plugins
        .read_dir()
        .with_context(|| format!("cannot read {}", plugins.display()))?
        .any(|file| {
            file.is_ok_and(|file| {
                file.path()
                    .extension()
                    .is_some_and(|extension| extension == "wasm")
            })
        });

    let mut notes = Vec::new();
    for name in ["file.wasm", "file.toml"] {
        let (built, there, remembered) = (built.join(name), plugins.join(name), placed.join(name));
        let ours = std::fs::read(&there).ok();
        let unchanged = ours.is_some() && ours == std::fs::read(&remembered).ok();
        match ours {
            None if !holds_plugin => {
                copy_if_different(&built, &there)?;
                copy_if_different(&built, &remembered)?;
                notes.push(format!(
                    "put plugins/{name} in place: the folder held no plugin"
                ));
            }
            // The developer runs other plugins, without this one.
            None => {}
            Some(_) if unchanged => {
                // First the copy: killed in between, the next run leaves the
                // file alone, instead of overwriting what it cannot vouch for.
                copy_if_different(&built, &remembered)?;
                if copy_if_different(&built, &there)? {
                    notes.push(format!("updated plugins/{name}: an earlier run put it there, and it has been rebuilt"));
                }
            }
            Some(own) => {
                let built_path = &built;
                if std::fs::read(built_path)
                    .with_context(|| format!("cannot read {}", built_path.display()))?
                    != own
                {
                    notes.push(format!(
                        "left plugins/{name} as it is: it is not what `cargo xtask run` put there; \
                         delete plugins/file.* to get the default back"
                    ));
                }
            }
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use xshell::{Shell, TempDir};

    struct Folders {
        sh: Shell,
        root: TempDir,
    }

    impl Folders {
        /// A built `file` backend and an empty plugins folder.
        fn new() -> Self {
            let sh = Shell::new().unwrap();
            let root = sh.create_temp_dir().unwrap();
            let folders = Self { sh, root };
            folders.sh.create_dir(folders.path("plugins")).unwrap();
            folders.write("built/file.wasm", "wasm 1");
            folders.write("built/file.toml", "manifest 1");
            folders
        }

        fn path(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn write(&self, path: &str, content: &str) {
            self.sh.write_file(self.path(path), content).unwrap();
        }

        fn read(&self, path: &str) -> Option<String> {
            std::fs::read_to_string(self.path(path)).ok()
        }

        fn place(&self) -> Vec<String> {
            place_default(
                &self.path("built"),
                &self.path("plugins"),
                &self.path("placed"),
            )
            .unwrap()
        }
    }

    #[test]
    fn an_empty_folder_gets_the_file_backend_and_says_so() {
        let folders = Folders::new();
        folders
            .sh
            .create_dir(folders.path("plugins/redis-streams"))
            .unwrap();
        assert_eq!(folders.place().len(), 2);
        assert_eq!(folders.read("plugins/file.wasm").unwrap(), "wasm 1");
        assert_eq!(folders.read("plugins/file.toml").unwrap(), "manifest 1");
        assert!(
            folders.place().is_empty(),
            "a second run has nothing to say"
        );
    }

    #[test]
    fn a_folder_with_another_plugin_is_left_alone() {
        let folders = Folders::new();
        folders.write("plugins/redis-streams.wasm", "own");
        assert!(folders.place().is_empty());
        assert_eq!(folders.read("plugins/file.wasm"), None);
        assert_eq!(folders.read("plugins/file.toml"), None);
    }

    #[test]
    fn a_default_that_nobody_changed_follows_the_sources() {
        let folders = Folders::new();
        folders.place();
        folders.write("built/file.wasm", "wasm 2");
        let notes = folders.place();
        assert!(
            notes.len() == 1 && notes[0].contains("updated plugins/file.wasm"),
            "{notes:?}"
        );
        assert_eq!(folders.read("plugins/file.wasm").unwrap(), "wasm 2");
    }

    #[test]
    fn a_manifest_edited_by_its_user_stays_while_the_component_follows() {
        let folders = Folders::new();
        folders.place();
        folders.write("plugins/file.toml", "edited");
        folders.write("built/file.wasm", "wasm 2");
        let notes = folders.place();
        assert!(
            notes
                .iter()
                .any(|note| note.contains("left plugins/file.toml")),
            "{notes:?}"
        );
        assert_eq!(folders.read("plugins/file.toml").unwrap(), "edited");
        assert_eq!(folders.read("plugins/file.wasm").unwrap(), "wasm 2");
    }

    #[test]
    fn a_plugin_of_the_users_own_is_never_overwritten() {
        let folders = Folders::new();
        folders.write("plugins/file.wasm", "own");
        let notes = folders.place();
        assert!(
            notes.len() == 1 && notes[0].contains("left plugins/file.wasm"),
            "{notes:?}"
        );
        assert_eq!(folders.read("plugins/file.wasm").unwrap(), "own");
        assert_eq!(folders.read("plugins/file.toml"), None);

        // Nor is one that replaced the default.
        let folders = Folders::new();
        folders.place();
        folders.write("plugins/file.wasm", "own");
        folders.place();
        folders.write("built/file.wasm", "wasm 2");
        folders.place();
        assert_eq!(folders.read("plugins/file.wasm").unwrap(), "own");
    }

    #[test]
    fn a_plugin_removed_by_its_user_stays_away_while_others_are_there() {
        let folders = Folders::new();
        folders.place();
        std::fs::remove_file(folders.path("plugins/file.wasm")).unwrap();
        std::fs::remove_file(folders.path("plugins/file.toml")).unwrap();
        folders.write("plugins/redis-streams.wasm", "own");
        assert!(folders.place().is_empty());
        assert_eq!(folders.read("plugins/file.wasm"), None);
    }
}

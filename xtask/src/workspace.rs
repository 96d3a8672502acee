//! Where things are: the repository's root, cargo's target folder, and what a
//! cargo build left there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

/// The repository this chore is for, and a shell standing in its root.
pub(crate) struct Workspace {
    pub(crate) sh: Shell,
    pub(crate) root: PathBuf,
    /// Cargo's target folder; not `root/target` where the developer has set another.
    pub(crate) target: PathBuf,
}

/// One thing a cargo build has produced.
pub(crate) struct Artifact {
    /// The crate's `Cargo.toml`.
    pub(crate) manifest: PathBuf,
    /// The file its target starts from, such as `src/lib.rs`.
    pub(crate) source: PathBuf,
    /// `bin`, `cdylib`, `example` and so on.
    pub(crate) kinds: Vec<String>,
    pub(crate) files: Vec<PathBuf>,
}

impl Workspace {
    /// Finds the repository from the variable cargo sets for `cargo run`, so
    /// that a build of xtask shared by two clones serves the one it was called in.
    pub(crate) fn find() -> Result<Self> {
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own
            .parent()
            .context("xtask/ has no folder above it")?
            .to_path_buf();

        let sh = Shell::new()?;
        sh.change_dir(&root);
        let metadata = cmd!(sh, "cargo metadata --no-deps --format-version 1")
            .quiet()
            .read()?;
        let metadata: Value =
            serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target_directory")?
            .into();
        Ok(Self { sh, root, target })
    }

    /// A path under the target folder.
    pub(crate) fn in_target(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    /// `path` as it is best shown: relative to the root where it lies below it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// Runs a `cargo build` and returns what it has built or found up to date.
/// Cargo's progress stays visible.
pub(crate) fn cargo_build(build: Cmd<'_>) -> Result<Vec<Artifact>> {
    let messages = build
        .arg("--message-format=json-render-diagnostics")
        .quiet()
        .read()?;
    Ok(messages.lines().filter_map(artifact).collect())
}

fn artifact(message: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let strings = |list: &Value| -> Vec<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect()
    };
    Some(Artifact {
        manifest: message["manifest_path"].as_str()?.into(),
        source: message["target"]["src_path"].as_str()?.into(),
        kinds: strings(&message["target"]["kind"]),
        files: strings(&message["filenames"])
            .into_iter()
            .map(PathBuf::from)
            .collect(),
    })
}

/// Gives `to` the content of `from`, or leaves it untouched, its time stamp
/// included, when it has that content already. Whoever reads `to` meanwhile
/// sees the old content or the new, never a part. Returns whether it changed.
pub(crate) fn copy_if_different(from: &Path, to: &Path) -> Result<bool> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let folder = to.parent().context("a file to write needs a folder")?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let partial = to.with_added_extension("partial");
    std::fs::write(&partial, new)
        .and_then(|()| std::fs::rename(&partial, to))
        .with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_the_same_content_is_not_written_again() {
        let sh = Shell::new().unwrap();
        let folder = sh.create_temp_dir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("deeper/to"));
        std::fs::write(&from, "one").unwrap();
        assert!(copy_if_different(&from, &to).unwrap());
        let written = std::fs::metadata(&to).unwrap().modified().unwrap();
        assert!(!copy_if_different(&from, &to).unwrap());
        assert_eq!(std::fs::metadata(&to).unwrap().modified().unwrap(), written);

        std::fs::write(&from, "two").unwrap();
        assert!(copy_if_different(&from, &to).unwrap());
        assert_eq!(std::fs::read(&to).unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(to.parent().unwrap()).unwrap().count(),
            1,
            "no partial file is left"
        );
    }

    #[test]
    fn only_the_artifacts_among_cargos_messages_are_taken() {
        let built =
            r#"{"reason":"compiler-artifact","manifest_path":"/r/plugins/redis-streams/Cargo.toml",
            "target":{"kind":["cdylib"],"src_path":"/r/plugins/redis-streams/src/lib.rs"},
            "filenames":["/t/release/redis_streams.wasm"],"executable":null}"#
                .replace('\n', "");
        let artifact = artifact(&built).unwrap();
        assert_eq!(artifact.kinds, ["cdylib"]);
        assert_eq!(artifact.files, [Path::new("/t/release/redis_streams.wasm")]);
        assert!(super::artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(super::artifact("   Compiling something").is_none());
    }
}

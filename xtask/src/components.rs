//! `cargo xtask plugins`: builds the first-party backends, and the guests the
//! tests run, to components, and lays each where the rest of the project looks
//! for it.
//!
//! Both are workspaces of their own and share one target folder,
//! `target/guests`, so that their common dependencies are built once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::step::Steps;
use crate::wasm_target::{self, TARGET};
use crate::workspace::{Artifact, Workspace, cargo_build, copy_if_different};

/// Build every first-party backend to target/plugins/NAME.wasm, with its example manifest NAME.toml
#[derive(clap::Args)]
pub(crate) struct Plugins {}

impl Plugins {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        let mut steps = Steps::new(2);
        wasm_target::step(workspace, &mut steps)?;
        steps.next("the first-party plugins");
        let plugins = build_plugins(workspace)?;

        let width = plugins
            .iter()
            .map(|plugin| plugin.name.len())
            .max()
            .unwrap_or(0);
        for Plugin { name, wasm } in &plugins {
            let kilobytes = std::fs::metadata(wasm)?.len().div_ceil(1000);
            println!(
                "{name:width$}  {kilobytes:>6} kB  {}",
                workspace.shown(wasm)
            );
        }
        println!(
            "Use one: cp {}/NAME.* plugins/",
            workspace.shown(&workspace.in_target("plugins"))
        );
        Ok(())
    }
}

/// A first-party backend, built.
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) wasm: PathBuf,
}

/// Builds the first-party backends to `target/plugins/NAME.wasm`, each with its
/// example manifest beside it. Needs the wasm target in place.
pub(crate) fn build_plugins(workspace: &Workspace) -> Result<Vec<Plugin>> {
    let names = first_party(&workspace.root.join("plugins"))?;
    let artifacts = build_guests(workspace, "plugins/Cargo.toml", &[])?;
    names
        .into_iter()
        .map(|name| {
            let folder = workspace.root.join("plugins").join(&name);
            let built = artifacts
                .iter()
                .find(|artifact| {
                    artifact.manifest == folder.join("Cargo.toml")
                        && artifact.kinds.iter().any(|kind| kind == "cdylib")
                })
                .and_then(wasm_file)
                .with_context(|| {
                    format!(
                        "plugins/{name} has a manifest but gave no component: \
                         add it to the members in plugins/Cargo.toml, with crate-type = [\"cdylib\"]"
                    )
                })?;
            let wasm = workspace.in_target("plugins").join(format!("{name}.wasm"));
            copy_if_different(built, &wasm)?;
            copy_if_different(&folder.join(format!("{name}.toml")), &wasm.with_extension("toml"))?;
            Ok(Plugin { name, wasm })
        })
        .collect()
}

/// Builds the guests of the test suites, one component for each file in
/// `tests/guests/examples`, to `target/test-guests/NAME.wasm`. Needs the wasm
/// target in place.
pub(crate) fn build_test_guests(workspace: &Workspace) -> Result<()> {
    let artifacts = build_guests(workspace, "tests/guests/Cargo.toml", &["--examples"])?;
    let folder = workspace.in_target("test-guests");
    for artifact in artifacts
        .iter()
        .filter(|artifact| artifact.kinds.iter().any(|kind| kind == "example"))
    {
        let name = artifact
            .source
            .file_stem()
            .context("an example without a file name")?;
        let built = wasm_file(artifact).with_context(|| {
            format!(
                "{} gave no component: it needs crate-type = [\"cdylib\"]",
                artifact.source.display()
            )
        })?;
        copy_if_different(built, &folder.join(name).with_extension("wasm"))?;
    }
    Ok(())
}

fn build_guests(workspace: &Workspace, manifest: &str, what: &[&str]) -> Result<Vec<Artifact>> {
    let sh = &workspace.sh;
    let guests = workspace.in_target("guests");
    cargo_build(cmd!(
        sh,
        "cargo build --release {what...} --target {TARGET} --manifest-path {manifest} --target-dir {guests}"
    ))
}

fn wasm_file(artifact: &Artifact) -> Option<&PathBuf> {
    artifact.files.iter().find(|file| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    })
}

/// The names of the backends whose sources are in the plugins folder: the
/// folders that hold a crate and the example manifest a plugin is used with.
/// (The guest crate has no manifest, and what users drop in are no folders.)
fn first_party(plugins: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in plugins
        .read_dir()
        .with_context(|| format!("cannot read {}", plugins.display()))?
    {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if folder.join("Cargo.toml").is_file() && folder.join(format!("{name}.toml")).is_file() {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        bail!(
            "no first-party plugin in {}: a plugin is a folder NAME with Cargo.toml and NAME.toml",
            plugins.display()
        );
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_a_folder_with_a_crate_and_a_manifest_of_its_name() {
        let sh = xshell::Shell::new().unwrap();
        let plugins = sh.create_temp_dir().unwrap();
        for file in [
            "Cargo.toml",
            "redis-streams/Cargo.toml",
            "redis-streams/redis-streams.toml",
            "file/Cargo.toml",
            "file/file.toml",
            "guest/Cargo.toml",
            "notes/notes.toml",
            "other/Cargo.toml",
            "other/another.toml",
            "dropped-in.wasm",
            "dropped-in.toml",
        ] {
            sh.write_file(plugins.path().join(file), "").unwrap();
        }
        assert_eq!(
            first_party(plugins.path()).unwrap(),
            ["file", "redis-streams"]
        );
    }

    #[test]
    fn a_folder_without_plugins_is_an_error_that_says_what_a_plugin_is() {
        let sh = xshell::Shell::new().unwrap();
        let plugins = sh.create_temp_dir().unwrap();
        let error = first_party(plugins.path()).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml and NAME.toml"), "{error}");
    }
}

//! `backhaul check`: what a component is, and what it would need granted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::runtime;
use crate::backend::AsyncBackend;
use crate::plugins::{Manifest, PluginError};
use crate::wasm::{Component, Grants, WasmBackend, WasmEngine};

/// Says what a plugin is: its world, name and imports, and what it would need
/// granted; or why it would be refused.
///
/// The component is started and asked for its name, with nothing granted and
/// within the limits of the manifest beside it, if there is one. The manifest is
/// checked, too.
///
/// Exit code: 0 it can be loaded, 1 it is refused.
#[derive(Args)]
pub(super) struct Arguments {
    /// Component to check
    #[arg(value_name = "PLUGIN.wasm")]
    file: PathBuf,
}

pub(super) fn run(Arguments { file }: Arguments) -> anyhow::Result<ExitCode> {
    let wasm =
        std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let size = wasm.len();
    match runtime()?.block_on(inspect(wasm, &file.with_extension("toml"))) {
        Ok((component, name)) => {
            println!("{}: a backend, {size} bytes", file.display());
            show(&component, &name, &file.with_extension("toml"));
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            println!("{}: refused: {reason}", file.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn inspect(wasm: Vec<u8>, manifest: &Path) -> Result<(Component, String), PluginError> {
    let Manifest { name, limits, .. } = Manifest::read(manifest)?;
    let component = WasmEngine::new()?.load(wasm).await?;
    let backend = WasmBackend::start(component.clone(), "check", Grants::default(), limits).await?;
    Ok((component, name.unwrap_or_else(|| backend.name().to_owned())))
}

fn show(component: &Component, name: &str, manifest: &Path) {
    println!("  name     {name}");
    println!("  world    {}", component.world());
    let imports = component.imports();
    println!(
        "  imports{}",
        if imports.is_empty() { "  nothing" } else { "" }
    );
    for import in &imports {
        println!("    {import}");
    }
    println!("  could ask for, in {} under [grants]", manifest.display());
    let needs: Vec<_> = NEEDS
        .iter()
        .filter(|need| need.shown_by(&imports))
        .collect();
    if needs.is_empty() {
        println!("    nothing: it imports no network, files or environment");
    }
    for need in needs {
        println!("    {:<58} {}", need.line, need.what);
    }
    println!(
        "  an import says what it could use, not what it does: grant what its author documents"
    );
}

/// A grant, and the imports that show a component could use it.
struct Need {
    interfaces: &'static [&'static str],
    line: &'static str,
    what: &'static str,
}

impl Need {
    fn shown_by(&self, imports: &[String]) -> bool {
        imports.iter().any(|import| {
            self.interfaces
                .iter()
                .any(|prefix| import.starts_with(prefix))
        })
    }
}

const NEEDS: [Need; 3] = [
    Need {
        interfaces: &["wasi:sockets/tcp", "wasi:sockets/types"],
        line: "tcp = [\"HOST:PORT\"]",
        what: "to connect to a server",
    },
    Need {
        interfaces: &["wasi:filesystem/types"],
        line: "files = [{ host = \"DIR\", guest = \"/DIR\", write = true }]",
        what: "to read or write a folder",
    },
    Need {
        interfaces: &["wasi:cli/environment"],
        line: "env = { NAME = \"VALUE\" }",
        what: "to be configured",
    },
];

//! `backhaul check`: what a component is, and what it would need granted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use sha2::{Digest, Sha256};

use super::{compile, end_with_the_reader, runtime};
use crate::backend::AsyncBackend;
use crate::plugins::{Manifest, PluginError, check_folders};
use crate::wasm::{Component, Grants, LoadError, WasmBackend, WasmEngine, hex, read_component};

/// Says what a plugin is: its world, name, SHA-256 and imports, and what it would
/// need granted; or why it would be refused.
///
/// The component is started, asked for its name and closed, with nothing granted
/// and within the limits of the manifest beside it, if there is one. The manifest
/// is checked, too.
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
        read_component(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let (size, sha256) = (wasm.len(), hex(&Sha256::digest(&wasm)));
    let engine = compile::engine(WasmEngine::default_cache())?;
    let manifest = file.with_extension("toml");
    let inspected = runtime()?.block_on(inspect(&engine, wasm, &sha256, &manifest));
    end_with_the_reader();
    match inspected {
        Ok((component, name)) => {
            println!("{}: a backend, {size} bytes", file.display());
            show(&component, &name, &sha256, &manifest);
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            println!("{}: refused: {reason}", file.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn inspect(
    engine: &WasmEngine,
    wasm: Vec<u8>,
    sha256: &str,
    manifest_file: &Path,
) -> Result<(Component, String), PluginError> {
    let manifest = Manifest::read(manifest_file)?;
    if let Some(pinned) = manifest.sha256.map(|digest| hex(&digest))
        && pinned != sha256
    {
        return Err(PluginError::WrongHash {
            manifest: manifest_file.to_owned(),
            pinned,
            actual: sha256.to_owned(),
        });
    }
    // One that is missing is made when the plugin is loaded, and not here.
    let no_folder = |path: &Path| path.exists() && !path.is_dir();
    let mut folders = manifest.grants.files.iter().map(|grant| &grant.host);
    if let Some(host) = folders.find(|host| no_folder(host)) {
        let problem = format!("{} is granted as a folder, and is none", host.display());
        return Err(LoadError::Grant(problem).into());
    }
    check_folders(manifest_file, &manifest, engine, None)?;
    let Manifest { name, limits, .. } = manifest;
    let component = engine.load_within(wasm, limits.compile_timeout).await?;
    let backend = WasmBackend::start(component.clone(), "check", Grants::default(), limits).await?;
    let name = name.unwrap_or_else(|| backend.name().to_owned());
    // What goes wrong is logged; it is no reason to refuse the plugin.
    let _ = backend.close(limits.timeout).await;
    Ok((component, name))
}

fn show(component: &Component, name: &str, sha256: &str, manifest: &Path) {
    println!("  name     {name}");
    println!("  world    {}", component.world());
    println!("  sha256   {sha256}");
    match component.compiled_in() {
        Some(took) => println!("  code     compiled in {:.2} s", took.as_secs_f64()),
        None => println!("  code     was compiled before"),
    }
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

const NEEDS: [Need; 5] = [
    Need {
        interfaces: &["wasi:sockets/tcp", "wasi:sockets/types"],
        line: "tcp = [\"HOST:PORT\"]",
        what: "to connect to a server",
    },
    Need {
        interfaces: &["wasi:sockets/udp", "wasi:sockets/types"],
        line: "udp = [\"HOST:PORT\"]",
        what: "to exchange datagrams with a server",
    },
    Need {
        interfaces: &["wasi:http/outgoing-handler", "wasi:http/client"],
        line: "http = [\"https://HOST\"]",
        what: "to send HTTP requests",
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

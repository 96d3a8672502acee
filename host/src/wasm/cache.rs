//! Compiled code on disk, so that a component is compiled once per machine.
//!
//! An entry is named by the component's SHA-256 and by Wasmtime's own mark of
//! version, settings and processor. It holds the SHA-256 of the code, then the
//! code. The code is run as it is, so whoever can write here can run code as
//! this user: the folder must belong to the user, and be writable by nobody
//! else. The digest is against damage, not against that.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const DIGEST_LEN: usize = 32;

pub(super) struct CodeCache {
    folder: PathBuf,
    /// What besides the component the code depends on.
    engine_mark: u64,
}

impl CodeCache {
    /// A cache in `folder`, which is made if missing.
    ///
    /// # Errors
    ///
    /// If the folder is not private to this user, or cannot be made.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<CodeCache> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        if !is_private(&fs::metadata(folder)?) {
            let problem = "it belongs to another user, or others may write to it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(CodeCache {
            folder: folder.to_owned(),
            engine_mark: hasher.finish(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The compiled component, if there is a sound entry for `wasm`.
    pub(super) fn get(&self, engine: &Engine, wasm: &[u8]) -> Option<Component> {
        let path = self.path(wasm);
        let mut file = fs::File::open(&path).ok()?;
        if !is_private(&file.metadata().ok()?) {
            tracing::warn!(entry = %path.display(), "a cache entry is not private; compiling anew");
            return None;
        }
        let mut entry = Vec::new();
        file.read_to_end(&mut entry).ok()?;
        let code = entry.get(DIGEST_LEN..)?;
        if Sha256::digest(code)[..] != entry[..DIGEST_LEN] {
            tracing::warn!(entry = %path.display(), "a cache entry is damaged; compiling anew");
            return None;
        }
        // SAFETY: this is what `put` wrote: the opened file belongs to this user,
        // nobody else may write to it, and the code's digest is right. Wasmtime
        // itself refuses code of another version or other settings.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(entry = %path.display(), %error, "a cache entry does not fit");
                None
            }
        }
    }

    /// Keeps the compiled code of `wasm`. Written beside and renamed, so that
    /// another process sees a whole entry or none.
    pub(super) fn put(&self, wasm: &[u8], code: &[u8]) -> io::Result<()> {
        let path = self.path(wasm);
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = (|| {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            fs::rename(&unfinished, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn path(&self, wasm: &[u8]) -> PathBuf {
        let digest = Sha256::digest(wasm);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder
            .join(format!("{digest}-{:016x}.cwasm", self.engine_mark))
    }
}

/// Whether only this user may write to a file or folder.
fn is_private(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

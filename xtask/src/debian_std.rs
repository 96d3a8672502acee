//! Builds the wasm target's standard library from Debian's packages: the
//! library's source from `rust-src`, of the same release as the toolchain, and
//! the C library from `wasi-libc`. For machines that reach a Debian mirror but
//! not rustup's server.
//!
//! The system is left as it was: the package lists and the packages go to a
//! temporary folder, nothing is installed through dpkg, and root is not needed,
//! only a toolchain that may be written to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::wasm_target::{self, TARGET};

/// Debian's suites, the likeliest first: each costs a download of its package
/// list, and the backports carry several Rust releases in a short one.
const SUITES: [&str; 5] = [
    "stable-backports",
    "testing",
    "unstable",
    "oldstable-backports",
    "stable",
];

/// Where Debian's packages of the archive keys put them.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// In the target's folder, the `rustc -vV` of the compiler it was built with.
const BUILT_WITH: &str = "built-with";

/// Removes a standard library that `install` built for another compiler than
/// the toolchain now has: rustup updates what it has installed itself, and
/// leaves this behind.
pub(crate) fn remove_outdated(sh: &Shell, sysroot: &Path) -> Result<()> {
    let folder = wasm_target::folder(sysroot);
    let Ok(built_with) = std::fs::read_to_string(folder.join(BUILT_WITH)) else {
        return Ok(());
    };
    if built_with != cmd!(sh, "rustc -vV").quiet().read()? {
        eprintln!("removing the {TARGET} target that was built for another release of Rust");
        sh.remove_path(&folder)?;
    }
    Ok(())
}

/// Builds the target's standard library and lays it into the toolchain.
pub(crate) fn install(sh: &Shell, sysroot: &Path) -> Result<()> {
    for tool in ["apt-get", "apt-cache", "dpkg"] {
        if cmd!(sh, "{tool} --version")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run()
            .is_err()
        {
            bail!("{tool} is not on the PATH (is this a Debian?)");
        }
    }
    // Beside its destination, so that a rename puts the finished target in
    // place at once; and tried first, because the rest takes a while.
    let staging = Staging::beside(&wasm_target::folder(sysroot))?;

    let release = rust_release(&cmd!(sh, "rustc --version").quiet().read()?)?;
    let work = sh.create_temp_dir()?;
    let apt = Apt::new(sh, work.path())?;
    let [rust_src, wasi_libc] = apt.find(&release)?;
    eprintln!(
        "downloading rust-src {} and wasi-libc {}",
        rust_src.version, wasi_libc.version
    );
    let unpacked =
        apt.download_and_unpack(&[("rust-src", &rust_src), ("wasi-libc", &wasi_libc)])?;

    eprintln!("building the standard library for {TARGET}, about a minute");
    let libraries = {
        let _source =
            LinkedSource::new(sysroot, &unpacked.join(format!("usr/src/rustc-{release}")))?;
        build(sh, &work.path().join("build"))?
    };

    let lib = staging.0.join("lib");
    for file in ["libc.a", "crt1-command.o", "crt1-reactor.o"] {
        let from = unpacked.join("usr/lib").join(TARGET).join(file);
        sh.copy_file(&from, lib.join("self-contained").join(file))
            .with_context(|| {
                format!("wasi-libc {} has no {file} for {TARGET}", wasi_libc.version)
            })?;
    }
    for library in libraries {
        sh.copy_file(library, &lib)?;
    }
    sh.write_file(
        staging.0.join(BUILT_WITH),
        cmd!(sh, "rustc -vV").quiet().read()?,
    )?;
    let destination = staging.into_place()?;
    if let Err(why) = prove(sh, work.path()) {
        // Otherwise the next start would take it for a working one.
        sh.remove_path(&destination)?;
        return Err(why);
    }
    eprintln!(
        "{TARGET} built from rust-src {}, in {}",
        rust_src.version,
        destination.display()
    );
    Ok(())
}

/// The release in the output of `rustc --version`.
fn rust_release(version: &str) -> Result<String> {
    let release = version
        .split(' ')
        .nth(1)
        .with_context(|| format!("cannot read the release from {version:?}"))?;
    if release.contains('-') {
        bail!("Debian packages released Rust versions only, and this toolchain is {release}");
    }
    Ok(release.to_owned())
}

/// A package version on offer.
#[derive(Clone, Debug, PartialEq)]
struct Offer {
    version: String,
    suite: String,
}

/// apt, with package lists of its own.
struct Apt<'a> {
    sh: &'a Shell,
    work: PathBuf,
    mirror: String,
    keyring: &'static str,
}

impl<'a> Apt<'a> {
    fn new(sh: &'a Shell, work: &Path) -> Result<Self> {
        let uris = cmd!(sh, "apt-get indextargets --format $(REPO_URI)")
            .quiet()
            .read()?;
        let mirror = debian_mirror(&uris)
            .context("the apt sources of this machine name no Debian mirror")?
            .to_owned();
        let keyring = KEYRINGS
            .into_iter()
            .find(|keyring| Path::new(keyring).exists())
            .context("Debian's keys are missing: apt-get install debian-archive-keyring")?;
        sh.write_file(work.join("apt.conf"), apt_conf(work))?;
        Ok(Self {
            sh,
            work: work.to_path_buf(),
            mirror,
            keyring,
        })
    }

    /// Looks through the suites for the two packages.
    fn find(&self, release: &str) -> Result<[Offer; 2]> {
        self.sh.create_dir(self.work.join("lists/partial"))?;
        let mut sources = String::new();
        let mut updated = Ok(());
        for suite in SUITES {
            eprintln!("reading Debian's package list: {suite}");
            let Self {
                mirror, keyring, ..
            } = self;
            sources +=
                &format!("deb [signed-by={keyring} target=Packages] {mirror} {suite} main\n");
            self.sh
                .write_file(self.work.join("sources.list"), &sources)?;
            // A mirror need not carry every suite, so what counts is what is found.
            updated = updated.and(self.apt("apt-get").args(["update", "-qq"]).run());
            let rust_src = self.offers("rust-src")?;
            let rust_src = rust_src
                .iter()
                .find(|offer| is_release(&offer.version, release));
            let wasi_libc = self.offers("wasi-libc")?;
            if let Some(rust_src) = rust_src
                && let Some(wasi_libc) = matching(&wasi_libc, rust_src)
            {
                return Ok([rust_src.clone(), wasi_libc.clone()]);
            }
        }
        updated.with_context(|| {
            format!(
                "cannot read all of Debian's package lists from {}",
                self.mirror
            )
        })?;
        bail!("{} carries no rust-src {release}", self.mirror)
    }

    fn offers(&self, package: &str) -> Result<Vec<Offer>> {
        Ok(madison(
            &self.apt("apt-cache").args(["madison", package]).read()?,
        ))
    }

    fn download_and_unpack(&self, packages: &[(&str, &Offer)]) -> Result<PathBuf> {
        let unpacked = self.work.join("unpacked");
        let debs = self.work.join("debs");
        self.sh.create_dir(&debs)?;
        let _there = self.sh.push_dir(&debs);
        for (package, Offer { version, .. }) in packages {
            // As root, apt would hand the download to a user who cannot write
            // here, and warn about it. The archive's signature is checked anyway.
            self.apt("apt-get")
                .args(["-o", "APT::Sandbox::User=root", "-qq", "download"])
                .arg(format!("{package}={version}"))
                .run()
                .with_context(|| format!("cannot download {package} {version}"))?;
        }
        let sh = self.sh;
        for deb in sh.read_dir(&debs)? {
            cmd!(sh, "dpkg -x {deb} {unpacked}").quiet().run()?;
        }
        Ok(unpacked)
    }

    fn apt(&self, program: &str) -> Cmd<'a> {
        self.sh
            .cmd(program)
            .quiet()
            .arg("-c")
            .arg(self.work.join("apt.conf"))
    }
}

/// Settings that keep apt inside `work`. The hooks that a system may run after
/// an update are for its own lists and caches.
fn apt_conf(work: &Path) -> String {
    let work = work.display();
    format!(
        "Dir::Etc::SourceList \"{work}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::State::Lists \"{work}/lists\";\n\
         Dir::Cache \"{work}/cache\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n"
    )
}

/// The first of apt's repositories that is Debian's main archive; its security
/// archive has none of the suites.
fn debian_mirror(uris: &str) -> Option<&str> {
    uris.lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
}

/// Reads `apt-cache madison`: lines of `package | version | mirror suite/component ...`.
fn madison(lines: &str) -> Vec<Offer> {
    lines
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            let version = columns.nth(1)?;
            let suite = columns.next()?.split(' ').nth(1)?.split('/').next()?;
            Some(Offer {
                version: version.to_owned(),
                suite: suite.to_owned(),
            })
        })
        .collect()
}

/// Whether a Debian version such as `1.95.0+dfsg1-2~bpo13+1` packages this release.
fn is_release(version: &str, release: &str) -> bool {
    version
        .strip_prefix(release)
        .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

/// The C library to go with a source: that of the same suite, since the two
/// were made for each other.
fn matching<'a>(wasi_libc: &'a [Offer], rust_src: &Offer) -> Option<&'a Offer> {
    wasi_libc
        .iter()
        .find(|offer| offer.suite == rust_src.suite)
        .or(wasi_libc.first())
}

/// The target while it is put together; removed unless it gets into place.
struct Staging(PathBuf);

impl Staging {
    fn beside(destination: &Path) -> Result<Self> {
        let staging = destination.with_added_extension(format!("partial-{}", std::process::id()));
        std::fs::create_dir_all(staging.join("lib/self-contained")).with_context(|| {
            format!(
                "cannot write to {}: run this once as the owner of the toolchain",
                staging.display()
            )
        })?;
        Ok(Self(staging))
    }

    fn into_place(self) -> Result<PathBuf> {
        let destination = self.0.with_extension("");
        // What an interrupted `rustup target add` may have left.
        if destination.exists() {
            std::fs::remove_dir_all(&destination)?;
        }
        std::fs::rename(&self.0, &destination)
            .with_context(|| format!("cannot create {}", destination.display()))?;
        Ok(destination)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The library's source where cargo's `-Zbuild-std` looks for it, inside the
/// toolchain; removed when dropped. A `rust-src` component that rustup has put
/// there is used as it is: it is of the toolchain's own release.
struct LinkedSource(Option<PathBuf>);

impl LinkedSource {
    fn new(sysroot: &Path, source: &Path) -> Result<Self> {
        let place = sysroot.join("lib/rustlib/src/rust");
        if place.join("library/Cargo.lock").is_file() {
            return Ok(Self(None));
        }
        let folder = place.parent().context("the source's place has a parent")?;
        std::fs::create_dir_all(folder)?;
        if place.is_symlink() {
            // Left by a run that was killed.
            std::fs::remove_file(&place)?;
        }
        symlink(source, &place).with_context(|| format!("cannot create {}", place.display()))?;
        Ok(Self(Some(place)))
    }
}

impl Drop for LinkedSource {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            let _ = std::fs::remove_file(place);
            // Only if nothing else is in it.
            let _ = place.parent().map(std::fs::remove_dir);
        }
    }
}

#[cfg(unix)]
fn symlink(source: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(source, place)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Has cargo build the standard library, as the dependency of an empty crate.
fn build(sh: &Shell, crate_folder: &Path) -> Result<Vec<PathBuf>> {
    sh.write_file(
        crate_folder.join("Cargo.toml"),
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )?;
    sh.write_file(crate_folder.join("src/lib.rs"), "")?;
    let _there = sh.push_dir(crate_folder);
    let target = crate_folder.join("target");
    // -Zbuild-std is unstable; the bitcode lets components be linked with LTO,
    // as with the library that rustup has.
    cmd!(
        sh,
        "cargo build --release --target {TARGET} -Zbuild-std=std,panic_abort --target-dir {target}"
    )
    .env("RUSTC_BOOTSTRAP", "1")
    .env_remove("CARGO_ENCODED_RUSTFLAGS")
    .env("RUSTFLAGS", "-Cembed-bitcode=yes")
    .quiet()
    .run()
    .context("cannot build the standard library")?;
    let mut built = sh.read_dir(target.join(TARGET).join("release/deps"))?;
    built.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".rlib") && !name.starts_with("libprobe-")
    });
    Ok(built)
}

/// Links a small component against what was laid into the toolchain.
fn prove(sh: &Shell, work: &Path) -> Result<()> {
    let (source, component) = (work.join("prove.rs"), work.join("prove.wasm"));
    sh.write_file(
        &source,
        "fn main() { println!(\"{:?}\", std::env::args()); }\n",
    )?;
    cmd!(sh, "rustc --target {TARGET} -o {component} {source}")
        .quiet()
        .run()
        .context("the standard library was built, but no component can be linked with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.example/debian stable-backports/main amd64 Packages
  rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian stable-backports/main amd64 Packages
  rust-src | 1.85.1+dfsg1-1+deb13u1 | http://mirror.example/debian stable/main amd64 Packages";

    fn offer(version: &str, suite: &str) -> Offer {
        Offer {
            version: version.to_owned(),
            suite: suite.to_owned(),
        }
    }

    #[test]
    fn the_source_of_exactly_this_release_is_taken() {
        let offers = madison(MADISON);
        assert_eq!(offers.len(), 3);
        let found = offers
            .iter()
            .find(|offer| is_release(&offer.version, "1.95.0"))
            .unwrap();
        assert_eq!(*found, offer("1.95.0+dfsg1-2~bpo13+1", "stable-backports"));
        assert!(!is_release("1.95.01+dfsg1-1", "1.95.0"));
        assert!(!is_release("1.95.1+dfsg1-1", "1.95.0"));
    }

    #[test]
    fn the_c_library_comes_from_the_suite_of_the_source() {
        let source = offer("1.95.0+dfsg1-2~bpo13+1", "stable-backports");
        let newer = offer("0.0~git2026", "unstable");
        let same = offer("0.0~git2025~bpo13+1", "stable-backports");
        assert_eq!(
            matching(&[newer.clone(), same.clone()], &source),
            Some(&same)
        );
        assert_eq!(
            matching(std::slice::from_ref(&newer), &source),
            Some(&newer)
        );
        assert_eq!(matching(&[], &source), None);
    }

    #[test]
    fn the_security_archive_is_not_taken_for_the_mirror() {
        let uris = "http://mirror.example/debian-security/\nhttp://mirror.example/debian/\n";
        assert_eq!(debian_mirror(uris), Some("http://mirror.example/debian/"));
        assert_eq!(debian_mirror("http://mirror.example/ubuntu/"), None);
    }

    #[test]
    fn a_nightly_toolchain_is_refused_with_the_reason() {
        assert_eq!(
            rust_release("rustc 1.95.0 (59807616e 2026-04-14)").unwrap(),
            "1.95.0"
        );
        let error = rust_release("rustc 1.97.0-nightly (0 2026-05-01)")
            .unwrap_err()
            .to_string();
        assert!(error.contains("1.97.0-nightly"), "{error}");
    }
}

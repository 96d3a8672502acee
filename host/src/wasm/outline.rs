//! What the bytes of a file say before anything is compiled: what kind of file
//! it is, and whether all of it is there.
//!
//! Cheap, whatever is in the file: it walks over the outermost sections by their
//! lengths and looks into none.

#[cfg(feature = "plugins")]
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::LoadError;

/// The largest component that is loaded, in bytes. Compiling takes time and
/// memory in proportion; a whole Python interpreter is under 50 MB.
pub const MAX_COMPONENT: u64 = 128 << 20;

/// `\0asm`, then the version and the layer: here, a component.
const HEAD: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// The bytes of a core module's head.
const CORE_HEAD: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Reads a file that may be a component, unless it is too large to be one.
///
/// # Errors
///
/// If it cannot be read, is no file or larger than [`MAX_COMPONENT`].
#[cfg(feature = "plugins")]
pub(crate) fn read_component(file: &Path) -> io::Result<Vec<u8>> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(file)?;
    let too_large = |size| {
        let problem = LoadError::TooLarge(size).to_string();
        Err(io::Error::new(io::ErrorKind::FileTooLarge, problem))
    };
    let size = file.metadata()?.len();
    if size > MAX_COMPONENT {
        return too_large(size);
    }
    let mut wasm = Vec::with_capacity(size as usize);
    // It may grow while it is read.
    file.take(MAX_COMPONENT + 1).read_to_end(&mut wasm)?;
    match wasm.len() as u64 {
        size if size > MAX_COMPONENT => too_large(size),
        _ => Ok(wasm),
    }
}

/// Refuses what cannot be a component, with what it is instead.
pub(super) fn check(wasm: &[u8]) -> Result<(), LoadError> {
    if wasm.len() as u64 > MAX_COMPONENT {
        return Err(LoadError::TooLarge(wasm.len() as u64));
    }
    let problem = match wasm {
        [] => "the file is empty; was it copied whole?",
        _ if wasm.starts_with(&HEAD) && is_whole(wasm) => return Ok(()),
        _ if wasm.starts_with(&HEAD) => {
            "it is not a whole component: it ends within a section, or does not consist of \
             sections; was it copied whole?"
        }
        _ if wasm.starts_with(&CORE_HEAD) => {
            "it is a core Wasm module, not a component; build it for wasm32-wasip2, \
             or make it a component with `wasm-tools component new`"
        }
        [b'\0', b'a', b's', b'm', _, _, _, _, ..] => "it is Wasm of a kind this host does not know",
        [b'\0', b'a', b's', b'm', ..] => "it ends within the first 8 bytes; was it copied whole?",
        _ => "it is not Wasm: it does not start with \\0asm",
    };
    Err(LoadError::NotAComponent(problem.to_owned()))
}

/// Whether `wasm` is Wasm of which nothing is missing: its outermost sections end
/// where it does.
///
/// Says nothing of what is in them. A file that was cut exactly between two
/// sections looks whole; the one thing that tells is that it lacks an export.
fn is_whole(wasm: &[u8]) -> bool {
    if wasm.len() < HEAD.len() || !wasm.starts_with(&HEAD[..4]) {
        return false;
    }
    let mut rest = &wasm[HEAD.len()..];
    while let [_id, after_id @ ..] = rest {
        let section = length(after_id).and_then(|(length, body)| body.get(length..));
        match section {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// A length in LEB128, of at most 32 bits, and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let length = u32::try_from(length).ok()?;
            return Some((length as usize, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head and two sections, one of 300 bytes, whose length takes two.
    fn sample() -> Vec<u8> {
        let mut wasm = HEAD.to_vec();
        wasm.extend([0, 2, b'x', b'y']);
        wasm.extend([1, 0xac, 0x02]);
        wasm.extend([7; 300]);
        wasm
    }

    #[test]
    fn a_file_that_ends_where_its_last_section_does_is_whole() {
        assert!(is_whole(&sample()));
        assert!(is_whole(&HEAD));
        assert!(is_whole(&CORE_HEAD));
    }

    #[test]
    fn a_file_that_is_cut_anywhere_but_between_sections_is_not() {
        let sample = sample();
        let between = [8, 12];
        for cut in 0..sample.len() {
            assert_eq!(is_whole(&sample[..cut]), between.contains(&cut), "{cut}");
        }
    }

    #[test]
    fn neither_is_one_with_something_else_behind() {
        let mut more = sample();
        more.extend([0, 5]);
        assert!(!is_whole(&more));
        for length in [&[0x80; 5][..], &[0x80; 9], &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
            let mut overlong = sample();
            overlong.push(0);
            overlong.extend(length);
            assert!(!is_whole(&overlong), "{length:?}");
        }
    }

    #[test]
    fn what_is_no_wasm_is_not_whole() {
        for bytes in [
            &b""[..],
            b"\0as",
            b"\0asm\x0d\0\x01",
            b"(component)",
            b"GIF89a......",
        ] {
            assert!(!is_whole(bytes), "{bytes:?}");
        }
    }
}

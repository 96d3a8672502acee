//! The codecs of Kafka's record batches.

use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;
use std::io::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    /// As the attributes of a record batch name it.
    pub(crate) fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Appends `plain`, compressed.
    pub(crate) fn append(self, plain: &[u8], out: &mut Vec<u8>) {
        const MEMORY: &str = "memory takes what is written";
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(plain).expect(MEMORY);
                encoder.finish().expect(MEMORY);
            }
            Self::Snappy => append_snappy(plain, out),
            Self::Lz4 => {
                let mut encoder = FrameEncoder::new(out);
                encoder.write_all(plain).expect(MEMORY);
                encoder.finish().expect(MEMORY);
            }
            Self::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                ruzstd::encoding::compress(plain, out, level);
            }
        }
    }
}

/// Kafka's snappy is that of a Java library: a header, and blocks that each begin with
/// their length.
fn append_snappy(plain: &[u8], out: &mut Vec<u8>) {
    /// The library's own size of blocks.
    const BLOCK: usize = 32 << 10;
    // A magic number, and version 1 that is compatible with version 1.
    out.extend_from_slice(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(BLOCK) {
        let compressed = encoder.compress_vec(block);
        let compressed = compressed.expect("a block is less than 4 GiB");
        let length = u32::try_from(compressed.len()).expect("a block is small");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_was_compressed_is_smaller_and_read_back() {
        let plain: Vec<u8> = (0..20_000u32)
            .flat_map(|n| format!("event {} ", n % 700).into_bytes())
            .collect();
        let compressed = |compression: Compression| {
            let mut out = b"before".to_vec();
            compression.append(&plain, &mut out);
            assert!(out.starts_with(b"before"));
            out.drain(..6);
            out
        };
        assert!(compressed(Compression::None) == plain);

        let gzip = compressed(Compression::Gzip);
        let mut read = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&gzip[..]);
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == plain && gzip.len() * 4 < plain.len());

        let lz4 = compressed(Compression::Lz4);
        read.clear();
        let mut decoder = lz4_flex::frame::FrameDecoder::new(&lz4[..]);
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == plain && lz4.len() * 4 < plain.len());

        let zstd = compressed(Compression::Zstd);
        read.clear();
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&zstd[..]).unwrap();
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == plain && zstd.len() * 4 < plain.len());

        let snappy = compressed(Compression::Snappy);
        let (head, mut blocks) = snappy.split_at(16);
        assert_eq!(head, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        read.clear();
        while let Some((length, rest)) = blocks.split_first_chunk() {
            let (block, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            read.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
            blocks = rest;
        }
        assert!(read == plain && snappy.len() * 4 < plain.len());
    }
}

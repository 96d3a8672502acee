//! Which partition a key belongs to: as Kafka's Java client and most others have it,
//! so that events of one key meet those of other producers.

/// The partition of `key` among `count`, which is at least 1.
pub(crate) fn partition(key: &[u8], count: usize) -> usize {
    // The sign is cut off, not turned.
    (murmur2(key) & 0x7fff_ffff) as usize % count
}

/// MurmurHash2 in 32 bits, with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka's keys are less than 2 GiB.
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &[(&str, i32, usize)] = &[
        ("", 275646681, 2),
        ("a", -1563381124, 5),
        ("21", -973932308, 3),
        ("abc", 479470107, 4),
        ("foobar", -790332482, 0),
        ("Zoë", -1306457314, 1),
        ("a-little-bit-longer-string", -1486304829, 0),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58897971,
            3,
        ),
    ];

    #[test]
    fn a_key_has_the_hash_and_the_partition_of_the_java_client() {
        // `Utils.murmur2` of kafka-clients 4.4.0, and `Utils.toPositive` of it modulo 7.
        for (key, hash, seventh) in VECTORS {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), *hash, "{key:?}");
            assert_eq!(partition(key.as_bytes(), 7), *seventh, "{key:?}");
            assert_eq!(partition(key.as_bytes(), 1), 0);
        }
    }
}

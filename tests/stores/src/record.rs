//! What is stored: records whose bytes follow from their number.
//!
//! So that a reader can tell a wrong record from a right one without keeping
//! a second copy. The bytes do not compress.

/// The length of every record: an event of 256 bytes of data with its head.
pub(crate) const LENGTH: usize = 350;

/// The bytes of record `seq`.
pub(crate) fn body(seq: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seq);
    let mut bytes = Vec::with_capacity(LENGTH + 8);
    while bytes.len() < LENGTH {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.truncate(LENGTH);
    bytes
}

/// The records `first ..`, as many as `count`.
pub(crate) fn group(first: u64, count: usize) -> Vec<Vec<u8>> {
    (first..).take(count).map(body).collect()
}

/// Numbers that look random and are the same in each run.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The numbers that follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64, so that neighbouring seeds share nothing.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

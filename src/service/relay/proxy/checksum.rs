//! CRC-32C (Castagnoli), as RFC 3720 appendix B.4 defines it for iSCSI.

// Constant evaluation: a sum that overflows or an index out of bounds would not compile.
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let mut value = byte;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0x82F6_3B78
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[byte as usize] = value;
        byte += 1;
    }
    table
}

static TABLE: [u32; 256] = table();

/// A sum in progress.
#[derive(Clone, Copy)]
pub(super) struct Crc32c(u32);

impl Crc32c {
    pub(super) const fn new() -> Self {
        Self(u32::MAX)
    }

    #[must_use]
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let value = bytes.iter().fold(self.0, |value, byte| {
            let [low, ..] = value.to_le_bytes();
            let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0);
            (value >> 8) ^ entry
        });
        Self(value)
    }

    pub(super) const fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Crc32c;

    #[track_caller]
    fn check(bytes: &[u8], expected: u32) {
        assert_eq!(Crc32c::new().with(bytes).value(), expected);
    }

    #[test]
    fn the_vectors_of_rfc_3720_fit() {
        check(b"", 0);
        check(b"123456789", 0xE306_9283);
        check(&[0; 32], 0x8A91_36AA);
        check(&[0xFF; 32], 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        check(&rising, 0x46DD_794E);
    }

    #[test]
    fn parts_give_the_same_sum_as_the_whole() {
        let parts = Crc32c::new().with(b"1234").with(b"").with(b"56789");
        assert_eq!(parts.value(), 0xE306_9283);
    }
}

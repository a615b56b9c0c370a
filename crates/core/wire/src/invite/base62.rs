//! Bytes as letters and digits.
//!
//! A code of only letters and digits survives what breaks base64url: dashes that are autocorrected, underscores that are
//! markup, and line breaks at hyphens. Every 32 bytes become 43 letters, as they would in base64; the rest of `n` bytes
//! becomes as few letters as can hold it.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BLOCK: usize = 32;
const BLOCK_LETTERS: usize = letters_for(BLOCK);

/// Returns the number of letters of up to [`BLOCK`] bytes; log2(62) is 5.954196.
const fn letters_for(bytes: usize) -> usize {
    (bytes * 8_000_000).div_ceil(5_954_196)
}

/// Returns the value of a letter.
pub(super) const fn value(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'A'..=b'Z' => Some(letter - b'A' + 10),
        b'a'..=b'z' => Some(letter - b'a' + 36),
        _ => None,
    }
}

/// Returns the letter of the lowest digit.
pub(super) fn letter(value: usize) -> u8 {
    ALPHABET[value % 62]
}

/// Returns a number as `N` letters, highest digit first.
pub(super) fn number<const N: usize>(mut number: u64) -> [u8; N] {
    let mut out = [b'0'; N];
    for place in out.iter_mut().rev() {
        *place = letter((number % 62) as usize);
        number /= 62;
    }
    out
}

/// Appends the letters of `bytes`.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for block in bytes.chunks(BLOCK) {
        let mut number = block.to_vec();
        let start = out.len();
        out.resize(start + letters_for(block.len()), b'0');
        for place in out[start..].iter_mut().rev() {
            let mut rest = 0;
            for byte in &mut number {
                let dividend = rest << 8 | usize::from(*byte);
                *byte = (dividend / 62) as u8;
                rest = dividend % 62;
            }
            *place = letter(rest);
        }
    }
}

/// Returns the bytes of letters that [`encode`] made; `None` for any others.
pub(super) fn decode(letters: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(letters.len());
    for block in letters.chunks(BLOCK_LETTERS) {
        let bytes = (1..=BLOCK).find(|&bytes| letters_for(bytes) == block.len())?;
        let mut number = [0; BLOCK];
        for &letter in block {
            let mut carry = usize::from(value(letter)?);
            for byte in number[..bytes].iter_mut().rev() {
                carry += usize::from(*byte) * 62;
                *byte = carry as u8;
                carry >>= 8;
            }
            if carry != 0 {
                return None;
            }
        }
        out.extend(&number[..bytes]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn block_of_32_bytes_has_43_letters() {
        assert_eq!(BLOCK_LETTERS, 43);
        let lengths: Vec<_> = (1..=BLOCK).map(letters_for).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] < pair[1]), "{lengths:?}");
    }

    #[test]
    fn extremes_round_trip_and_overflow_is_refused() {
        for length in 0..=70 {
            for byte in [0, 1, 255] {
                let bytes = vec![byte; length];
                let mut letters = Vec::new();
                encode(&bytes, &mut letters);
                assert_eq!(decode(&letters), Some(bytes));
            }
        }
        assert_eq!(decode(&[b'z'; BLOCK_LETTERS]), None);
        assert_eq!(decode(b"A-"), None);
        assert_eq!(decode(b"A"), None);
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut letters = Vec::new();
            encode(&bytes, &mut letters);
            prop_assert_eq!(decode(&letters), Some(bytes));
        }
    }
}

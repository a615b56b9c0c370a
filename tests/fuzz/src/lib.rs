//! Properties and helpers that the fuzz targets share.

use std::fmt::Debug;

/// Checks that whatever decodes also encodes, and decodes to the same value again.
///
/// # Panics
/// If it does not.
pub fn round_trip<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
) {
    let Some(value) = decode(bytes) else { return };
    let encoded = encode(&value).expect("what was decoded can be encoded");
    assert_eq!(decode(&encoded).as_ref(), Some(&value), "the encoded value decodes to itself");
}

/// Splits an input into messages for state machines. Each starts with one byte for the caller's use and a length of two
/// bytes.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, high, low], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        Some((*kind, message))
    })
}

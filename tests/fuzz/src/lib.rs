//! What the fuzz targets share: the one property of every format.

use std::fmt::Debug;

/// Whatever decodes must encode, and decode to the same value again.
///
/// # Panics
/// When it does not.
pub fn round_trip<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
) {
    let Some(value) = decode(bytes) else { return };
    let encoded = encode(&value).expect("what was decoded can be encoded");
    assert_eq!(decode(&encoded).as_ref(), Some(&value), "decoding our own bytes");
}

/// Cuts an input into messages for machines that take many: each a byte that says from whom or which way, two bytes of
/// length, and that many bytes.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, high, low], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        Some((*kind, message))
    })
}

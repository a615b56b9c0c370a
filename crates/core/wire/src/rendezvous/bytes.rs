//! Serializes byte strings in one copy, instead of serde's byte by byte.
//!
//! The format is that of a `Vec<u8>`. The length is checked against what was received before memory is allocated.

use std::fmt;

use serde::{Deserializer, Serializer, de};

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }

    deserializer.deserialize_bytes(Bytes)
}

/// Serializes Ed25519 signatures as 64 bytes without a length.
pub(super) mod signature {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        let (front, back) = bytes.split_at(32);
        let half = |bytes: &[u8]| std::array::from_fn::<u8, 32, _>(|i| bytes[i]);
        (half(front), half(back)).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let (front, back) = <([u8; 32], [u8; 32])>::deserialize(from)?;
        Ok(std::array::from_fn(|i| if i < 32 { front[i] } else { back[i - 32] }))
    }
}

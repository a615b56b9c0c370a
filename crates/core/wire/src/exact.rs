//! Signed documents together with the exact bytes that were signed.
//!
//! A signature covers bytes, not values. A member that forwards a signed document must forward the bytes that it
//! received, and a member that verifies it must verify those bytes: encoding the decoded value again would tie every
//! signature to one version of one encoder. Each kind of document is signed under a domain of its own, so that none
//! can be used in place of another.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

use crate::name::NameError;

/// Why bytes from outside cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes are longer than allowed.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The allowed length in bytes.
        limit: usize,
    },
    /// The bytes are not in the expected form, or more bytes follow.
    #[error("its bytes are not in the expected form")]
    Encoding,
    /// A list has more entries than allowed.
    #[error("it lists too many {what}")]
    TooMany {
        /// What the list contains.
        what: &'static str,
    },
    /// A field's value is outside its range.
    #[error("its {what} is outside the allowed range")]
    Range {
        /// The field.
        what: &'static str,
    },
    /// A name breaks the rules for names.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A kind of document that can be signed.
pub trait Document: Serialize + DeserializeOwned {
    /// The domain that separates its signatures from those of other kinds.
    const DOMAIN: &'static str;
    /// The maximum length of its encoding in bytes.
    const LIMIT: usize;

    /// Checks what the types alone do not: list lengths, names and ranges.
    ///
    /// # Errors
    /// The limit that is exceeded.
    fn check(&self) -> Result<(), Malformed>;
}

/// A document with the exact bytes that were or will be signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Exact<T> {
    value: T,
    bytes: Vec<u8>,
}

impl<T: Document> Exact<T> {
    /// Encodes a document of this member.
    #[must_use]
    pub fn new(value: T) -> Self {
        let bytes = encode(&value);
        Self { value, bytes }
    }

    /// Decodes a document from outside.
    ///
    /// # Errors
    /// The bytes are too long, not in the expected form, or exceed a limit.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let value: T = decode(&bytes, T::LIMIT)?;
        value.check()?;
        Ok(Self { value, bytes })
    }

    /// Returns what signatures cover: the domain, a zero byte, and the document's bytes.
    #[must_use]
    pub fn subject(&self) -> Vec<u8> {
        [T::DOMAIN.as_bytes(), &[0], &self.bytes].concat()
    }
}

impl<T> Exact<T> {
    /// Returns the document.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T: fmt::Debug> fmt::Debug for Exact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Serialize for Exact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.bytes))
        } else {
            self.bytes.serialize(serializer)
        }
    }
}

impl<'de, T: Document> Deserialize<'de> for Exact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            STANDARD_NO_PAD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?
        } else {
            Vec::deserialize(deserializer)?
        };
        Self::decode(bytes).map_err(D::Error::custom)
    }
}

/// An Ed25519 signature that was not verified yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&STANDARD_NO_PAD.encode(self.0));
        }
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&self.0[..32]);
        second.copy_from_slice(&self.0[32..]);
        (first, second).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let bytes =
                STANDARD_NO_PAD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
            return bytes.try_into().map(Self).map_err(|_| D::Error::custom("a signature has 64 bytes"));
        }
        let (first, second) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&first);
        bytes[32..].copy_from_slice(&second);
        Ok(Self(bytes))
    }
}

/// Encodes a value. Every type of this crate has an encoding, so that the empty fallback is never taken.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

/// Decodes a value that fills `bytes` completely.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, Malformed> {
    if bytes.len() > limit {
        return Err(Malformed::TooLong { limit });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Malformed::Encoding),
    }
}

/// Rejects a list with more than `limit` entries.
pub(crate) const fn at_most<T>(list: &[T], limit: usize, what: &'static str) -> Result<(), Malformed> {
    if list.len() > limit { Err(Malformed::TooMany { what }) } else { Ok(()) }
}

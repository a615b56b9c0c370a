//! Identifiers. Each is a fixed number of bytes, is written as lower-case hexadecimal digits, and has a type of its
//! own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct IdError {
    /// The number of digits that the identifier has.
    pub expected: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "specta", derive(specta::Type))]
        pub struct $name(#[cfg_attr(feature = "specta", specta(type = String))] pub [u8; $len]);

        impl $name {
            /// The identifier's length in bytes.
            pub const LEN: usize = $len;

            /// Returns the identifier's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the first eight hexadecimal digits, for people and logs.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                decode_hex(text.as_bytes(), &mut bytes).map(|()| Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serde_bytes_array::serialize(&self.0, serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    serde_bytes_array::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// Identifies a party: the public half of its Ed25519 authority key.
    PartyId, 32
}
id! {
    /// Identifies an installation of Partyline: the public half of its Ed25519 device key.
    DeviceId, 32
}
id! {
    /// The WireGuard static public key (X25519) of one device in one party.
    TunnelPublicKey, 32
}
id! {
    /// Identifies an invite: the public half of its Ed25519 key.
    InviteId, 32
}
id! {
    /// Names a party on rendezvous servers: an Ed25519 public key derived from the party secret, so that a server can
    /// check the right to enter without knowing the party.
    Topic, 32
}
id! {
    /// Names a member on one topic: the start of a hash of its [`HandleKey`]. It cannot be linked to the device without
    /// the topic's keys.
    Handle, 16
}
id! {
    /// The key behind a handle: the device's Ed25519 public key, blinded for one topic. The device alone can sign with it.
    HandleKey, 32
}
id! {
    /// Identifies one run of a member's engine; drawn at random at its start. Probe keys are bound to it, so that
    /// nothing recorded during an earlier run can be replayed.
    SessionNonce, 16
}

fn decode_hex(text: &[u8], out: &mut [u8]) -> Result<(), IdError> {
    let error = IdError { expected: out.len() * 2 };
    if text.len() != out.len() * 2 {
        return Err(error);
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(error) };
        *byte = high << 4 | low;
    }
    Ok(())
}

/// Serializes arrays as plain bytes in binary formats: exactly their length, without a prefix.
mod serde_bytes_array {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
        ser::SerializeTuple,
    };

    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        bytes.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        struct Bytes<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<[u8; N], A::Error> {
                let mut bytes = [0; N];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = sequence.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &self))?;
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_tuple(N, Bytes::<N>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_forms_round_trip() {
        let id = DeviceId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<DeviceId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<DeviceId>(&json).unwrap(), id);
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes, id.0);
        assert_eq!(postcard::from_bytes::<DeviceId>(&bytes).unwrap(), id);
    }

    #[test]
    fn wrong_lengths_and_digits_are_rejected() {
        assert!("00".parse::<Handle>().is_err());
        assert!("zz".repeat(16).parse::<Handle>().is_err());
        assert!("é".repeat(16).parse::<Handle>().is_err());
    }
}

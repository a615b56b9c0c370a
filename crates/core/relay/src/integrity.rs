//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT on the raw bytes of a message (RFC 8489, sections 14.5 to 14.7).
//!
//! Each covers the message up to itself, with a length field that ends just behind it. The codec could check them too,
//! but it compares in variable time and accepts a message without them.

use std::fmt;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

const HEADER_LEN: usize = 20;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// One of the two integrity attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, possibly truncated to 16 bytes or more.
    Sha256,
}

impl Integrity {
    /// Computes the code over the parts of a message.
    pub(crate) fn code(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha1 => code::<Hmac<Sha1>>(key, parts),
            Self::Sha256 => code::<Hmac<Sha256>>(key, parts),
        }
    }
}

fn code<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC accepts keys of any length; the empty result would match nothing.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// How a response is signed: by the attribute and the key that the request was signed with.
#[derive(Clone)]
pub(crate) struct Signature {
    pub(crate) kind: Integrity,
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// An integrity attribute found in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IntegrityAttribute<'a> {
    pub(crate) kind: Integrity,
    covered: &'a [u8],
    code: &'a [u8],
}

impl IntegrityAttribute<'_> {
    /// Returns true if the code is correct, in time that does not depend on where it differs.
    pub(crate) fn verify(&self, key: &[u8]) -> bool {
        let lengths = match self.kind {
            Integrity::Sha1 => 20..=20,
            Integrity::Sha256 => 16..=32,
        };
        if !lengths.contains(&self.code.len()) || !self.code.len().is_multiple_of(4) {
            return false;
        }
        let length = (self.covered.len() - HEADER_LEN + 4 + self.code.len()) as u16;
        let parts = [&self.covered[..2], &length.to_be_bytes(), &self.covered[4..]];
        let expected = self.kind.code(key, &parts);
        expected.len() >= self.code.len() && bool::from(expected[..self.code.len()].ct_eq(self.code))
    }
}

/// Returns the attribute that counts: the SHA-256 one where both are present, the first of its kind, and none behind
/// FINGERPRINT.
pub(crate) fn find_integrity(message: &[u8]) -> Option<IntegrityAttribute<'_>> {
    let mut found = None;
    for (at, kind, code) in attributes(message) {
        let covered = &message[..at];
        match kind {
            MESSAGE_INTEGRITY_SHA256 => {
                return Some(IntegrityAttribute { kind: Integrity::Sha256, covered, code });
            }
            MESSAGE_INTEGRITY if found.is_none() => {
                found = Some(IntegrityAttribute { kind: Integrity::Sha1, covered, code })
            }
            FINGERPRINT => break,
            _ => {}
        }
    }
    found
}

/// Returns true if the fingerprint is correct, or `None` if there is none.
pub(crate) fn fingerprint(message: &[u8]) -> Option<bool> {
    let (at, _, value) = attributes(message).find(|(_, kind, _)| *kind == FINGERPRINT)?;
    Some(
        at + 8 == message.len() && value == (crc32fast::hash(&message[..at]) ^ FINGERPRINT_XOR).to_be_bytes(),
    )
}

/// Appends an integrity attribute.
pub(crate) fn append_integrity(message: &mut Vec<u8>, kind: Integrity, key: &[u8]) {
    let (attribute, length) = match kind {
        Integrity::Sha1 => (MESSAGE_INTEGRITY, 20),
        Integrity::Sha256 => (MESSAGE_INTEGRITY_SHA256, 32),
    };
    set_length(message, 4 + length);
    let code = kind.code(key, &[message]);
    append(message, attribute, &code);
}

/// Appends FINGERPRINT.
pub(crate) fn append_fingerprint(message: &mut Vec<u8>) {
    set_length(message, 8);
    let value = crc32fast::hash(message) ^ FINGERPRINT_XOR;
    append(message, FINGERPRINT, &value.to_be_bytes());
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - HEADER_LEN + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn append(message: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    message.extend_from_slice(&attribute.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
}

/// Returns offset, type and value of each attribute; ends at the first that does not fit.
fn attributes(message: &[u8]) -> impl Iterator<Item = (usize, u16, &[u8])> {
    let mut at = HEADER_LEN;
    std::iter::from_fn(move || {
        let &[a, b, c, d] = message.get(at..at + 4)? else { return None };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = message.get(at + 4..at + 4 + length)?;
        let here = at;
        at += 4 + length.next_multiple_of(4);
        Some((here, u16::from_be_bytes([a, b]), value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Binding request with some attributes.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        message.extend_from_slice(&[9; 12]);
        for (kind, value) in attributes {
            append(&mut message, *kind, value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        set_length(&mut message, 0);
        message
    }

    #[test]
    fn integrity_verifies_under_its_key_only() {
        for kind in [Integrity::Sha1, Integrity::Sha256] {
            let mut bytes = message(&[(0x8022, b"abc")]);
            append_integrity(&mut bytes, kind, b"key");
            append_fingerprint(&mut bytes);
            let found = find_integrity(&bytes).unwrap();
            assert_eq!(found.kind, kind);
            assert!(found.verify(b"key"));
            assert!(!found.verify(b"other"));
            assert_eq!(fingerprint(&bytes), Some(true));
        }
    }

    #[test]
    fn codec_and_server_compute_the_same_integrity() {
        let key = stun_rs::HMACKey::new_short_term("password").unwrap();
        let message =
            stun_rs::StunMessageBuilder::new(stun_rs::methods::BINDING, stun_rs::MessageClass::Request)
                .with_attribute(stun_rs::attributes::stun::MessageIntegrity::new(key.clone()))
                .with_attribute(stun_rs::attributes::stun::MessageIntegritySha256::new(key.clone()))
                .with_attribute(stun_rs::attributes::stun::Fingerprint::default())
                .build();
        let mut bytes = vec![0; 200];
        let size = stun_rs::MessageEncoder::default().encode(&mut bytes, &message).unwrap();
        let found = find_integrity(&bytes[..size]).unwrap();
        assert_eq!(found.kind, Integrity::Sha256);
        assert!(found.verify(key.as_bytes()));
        assert_eq!(fingerprint(&bytes[..size]), Some(true));
    }

    #[test]
    fn sha256_may_be_truncated_to_sixteen_bytes() {
        for (length, valid) in [(12, false), (16, true), (18, false), (28, true), (32, true)] {
            let mut bytes = message(&[]);
            set_length(&mut bytes, 4 + length);
            let code = Integrity::Sha256.code(b"key", &[&bytes]);
            append(&mut bytes, MESSAGE_INTEGRITY_SHA256, &code[..length]);
            assert_eq!(find_integrity(&bytes).unwrap().verify(b"key"), valid, "{length}");
        }
    }

    #[test]
    fn integrity_behind_the_fingerprint_is_ignored() {
        let mut bytes = message(&[]);
        append_fingerprint(&mut bytes);
        append_integrity(&mut bytes, Integrity::Sha1, b"key");
        assert_eq!(find_integrity(&bytes), None);
        assert_eq!(fingerprint(&bytes), Some(false));
    }

    proptest! {
        #[test]
        fn flipped_bit_fails_verification(bit in 0usize..8 * 20, sha256: bool) {
            let kind = if sha256 { Integrity::Sha256 } else { Integrity::Sha1 };
            let mut bytes = message(&[(0x0006, b"user")]);
            append_integrity(&mut bytes, kind, b"key");
            // The length field is computed, not compared.
            prop_assume!(!(16..32).contains(&bit));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!find_integrity(&bytes).is_some_and(|found| found.verify(b"key")));
        }

        #[test]
        fn malformed_messages_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (find_integrity(&bytes).map(|found| found.verify(b"key")), fingerprint(&bytes));
        }
    }
}

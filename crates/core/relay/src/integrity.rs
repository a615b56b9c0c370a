//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT on the raw bytes of a message (RFC 8489, sections 14.5 to 14.7).
//!
//! Each covers the message up to itself, with a length field that ends just behind it. The codec could check them too,
//! but it compares in variable time and accepts a message that lacks them.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

const HEADER: usize = 20;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Which of the two integrity attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, possibly truncated to 16 bytes or more.
    Sha256,
}

impl Integrity {
    /// The code over a message's parts.
    pub(crate) fn code(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha1 => code::<Hmac<Sha1>>(key, parts),
            Self::Sha256 => code::<Hmac<Sha256>>(key, parts),
        }
    }
}

fn code<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length; the empty result cannot match anything.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// An integrity attribute found in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal<'a> {
    pub(crate) kind: Integrity,
    covered: &'a [u8],
    code: &'a [u8],
}

impl Seal<'_> {
    /// Whether the code is right, in time that does not depend on where it is wrong.
    pub(crate) fn verify(&self, key: &[u8]) -> bool {
        let lengths = match self.kind {
            Integrity::Sha1 => 20..=20,
            Integrity::Sha256 => 16..=32,
        };
        if !lengths.contains(&self.code.len()) || !self.code.len().is_multiple_of(4) {
            return false;
        }
        let length = (self.covered.len() - HEADER + 4 + self.code.len()) as u16;
        let parts = [&self.covered[..2], &length.to_be_bytes(), &self.covered[4..]];
        let expected = self.kind.code(key, &parts);
        expected.len() >= self.code.len() && bool::from(expected[..self.code.len()].ct_eq(self.code))
    }
}

/// The attribute that counts: the SHA-256 one where both are there, the first of its kind, and none behind FINGERPRINT.
pub(crate) fn find(message: &[u8]) -> Option<Seal<'_>> {
    let mut found = None;
    for (at, kind, code) in attributes(message) {
        let covered = &message[..at];
        match kind {
            MESSAGE_INTEGRITY_SHA256 => return Some(Seal { kind: Integrity::Sha256, covered, code }),
            MESSAGE_INTEGRITY if found.is_none() => {
                found = Some(Seal { kind: Integrity::Sha1, covered, code })
            }
            FINGERPRINT => break,
            _ => {}
        }
    }
    found
}

/// Whether the message's fingerprint is right; `None` if it has none.
pub(crate) fn fingerprint(message: &[u8]) -> Option<bool> {
    let (at, _, value) = attributes(message).find(|(_, kind, _)| *kind == FINGERPRINT)?;
    Some(at + 8 == message.len() && value == (crc32(&message[..at]) ^ FINGERPRINT_XOR).to_be_bytes())
}

/// Appends an integrity attribute.
pub(crate) fn seal(message: &mut Vec<u8>, kind: Integrity, key: &[u8]) {
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
    let value = crc32(message) ^ FINGERPRINT_XOR;
    append(message, FINGERPRINT, &value.to_be_bytes());
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - HEADER + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn append(message: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    message.extend_from_slice(&attribute.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
}

/// Offset, type and value of each attribute; ends at the first that does not fit.
fn attributes(message: &[u8]) -> impl Iterator<Item = (usize, u16, &[u8])> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let &[a, b, c, d] = message.get(at..at + 4)? else { return None };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = message.get(at + 4..at + 4 + length)?;
        let here = at;
        at += 4 + length.next_multiple_of(4);
        Some((here, u16::from_be_bytes([a, b]), value))
    })
}

/// CRC-32 as ITU-T V.42 has it, bit by bit: messages with a fingerprint are few and short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
#[path = "integrity/tests.rs"]
mod tests;

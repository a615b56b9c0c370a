//! Direct signaling: sealed messages as datagrams on the shared UDP socket.
//!
//! ```text
//! 0x50 | 0 request, 1 response | nonce 8 | HMAC-SHA256 under the topic's direct key of all before, 16     (26 bytes)
//! 0x50 | 2 part | nonce 8 | message id 4 | part 1 | parts 1 | at most 1,180 bytes of a tagged message
//! ```
//!
//! A request shows that its sender has the keys of a topic, and a response that somebody else who has them can be reached
//! at its source. Both have one length, so that nothing is amplified. Nothing in them but the first two bytes is the same
//! twice: others cannot tell which party they belong to. The parts of a message ([`crate::tagged`]) go only to an address
//! that has answered, and name the nonce that it answered.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{sealed::MAX_SEALED, tagged};

/// What all datagrams of direct signaling begin with. Neither WireGuard, STUN, ChannelData nor the DHT does.
pub const FIRST_BYTE: u8 = 0x50;
/// The length of a request and of a response in bytes.
pub const REQUEST_LEN: usize = 2 + NONCE_LEN + MAC_LEN;
/// The maximum length of what one part carries, in bytes.
pub const MAX_PART: usize = 1180;
/// The maximum number of parts of a message.
pub const MAX_PARTS: usize = (MAX_SEALED + tagged::TAG_LEN).div_ceil(MAX_PART);

const NONCE_LEN: usize = 8;
const MAC_LEN: usize = 16;
const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const PART: u8 = 2;

/// Names an exchange of request and response; drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(pub [u8; NONCE_LEN]);

/// A datagram of direct signaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct<'a> {
    /// Asks whether somebody is there who has the topic's keys.
    Request(Greeting),
    /// Answers a request.
    Response(Greeting),
    /// Carries a piece of a message.
    Part(Part<'a>),
}

/// A request or a response, which is genuine if [`Self::is_under`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The nonce of the request.
    pub nonce: Nonce,
    kind: u8,
    mac: [u8; MAC_LEN],
}

/// A piece of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The nonce of a request of the sender that the receiver has answered.
    pub nonce: Nonce,
    /// Names the message among those that follow the same nonce.
    pub message: u32,
    /// The number of this part, below [`Self::parts`].
    pub part: u8,
    /// The number of parts, 1 to [`MAX_PARTS`].
    pub parts: u8,
    /// The piece, at least one byte; all but the last have [`MAX_PART`].
    pub bytes: &'a [u8],
}

impl Greeting {
    /// Returns true if the sender has this key.
    #[must_use]
    pub fn is_under(&self, key: &[u8; 32]) -> bool {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
        mac.chain_update(head(self.kind, self.nonce)).verify_truncated_left(&self.mac).is_ok()
    }
}

impl<'a> Direct<'a> {
    /// Decodes a datagram; `None` if it is malformed.
    #[must_use]
    pub fn decode(datagram: &'a [u8]) -> Option<Self> {
        let (&[FIRST_BYTE, kind], rest) = datagram.split_first_chunk()? else { return None };
        let (nonce, rest) = rest.split_first_chunk()?;
        let nonce = Nonce(*nonce);
        if kind == PART {
            return decode_part(nonce, rest).map(Self::Part);
        }
        let greeting = Greeting { nonce, kind, mac: rest.try_into().ok()? };
        match kind {
            REQUEST => Some(Self::Request(greeting)),
            RESPONSE => Some(Self::Response(greeting)),
            _ => None,
        }
    }
}

/// Encodes a request under a topic's direct key.
#[must_use]
pub fn request(key: &[u8; 32], nonce: Nonce) -> Vec<u8> {
    greeting(key, REQUEST, nonce)
}

/// Encodes the response to the request with this nonce.
#[must_use]
pub fn response(key: &[u8; 32], nonce: Nonce) -> Vec<u8> {
    greeting(key, RESPONSE, nonce)
}

/// Encodes a tagged message as the datagrams that carry it; none if it is longer than a sealed message may be.
#[must_use]
pub fn parts(nonce: Nonce, message: u32, tagged: &[u8]) -> Vec<Vec<u8>> {
    let pieces = tagged.chunks(MAX_PART);
    let Some(count) = u8::try_from(pieces.len()).ok().filter(|count| usize::from(*count) <= MAX_PARTS) else {
        return Vec::new();
    };
    let encode = |(part, bytes): (u8, &[u8])| {
        let numbers = [part, count];
        [&head(PART, nonce)[..], &message.to_be_bytes(), &numbers, bytes].concat()
    };
    (0..count).zip(pieces).map(encode).collect()
}

fn decode_part(nonce: Nonce, rest: &[u8]) -> Option<Part<'_>> {
    let (message, rest) = rest.split_first_chunk()?;
    let (&[part, parts], bytes) = rest.split_first_chunk()?;
    let is_last = parts.checked_sub(1) == Some(part);
    let fits = if is_last { (1..=MAX_PART).contains(&bytes.len()) } else { bytes.len() == MAX_PART };
    let numbered = part < parts && usize::from(parts) <= MAX_PARTS;
    (fits && numbered).then_some(Part { nonce, message: u32::from_be_bytes(*message), part, parts, bytes })
}

fn greeting(key: &[u8; 32], kind: u8, nonce: Nonce) -> Vec<u8> {
    let head = head(kind, nonce);
    // HMAC takes keys of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    let digest = mac.chain_update(head).finalize().into_bytes();
    [&head[..], &digest[..MAC_LEN]].concat()
}

fn head(kind: u8, Nonce(nonce): Nonce) -> [u8; 2 + NONCE_LEN] {
    let mut head = [FIRST_BYTE, kind, 0, 0, 0, 0, 0, 0, 0, 0];
    head[2..].copy_from_slice(&nonce);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE: Nonce = Nonce([1, 2, 3, 4, 5, 6, 7, 8]);

    #[test]
    fn greetings_are_genuine_under_their_key_and_kind_only() {
        let request = request(&KEY, NONCE);
        assert_eq!(request.len(), REQUEST_LEN);
        let Some(Direct::Request(read)) = Direct::decode(&request) else { panic!("a request") };
        assert!(read.nonce == NONCE && read.is_under(&KEY) && !read.is_under(&[8; 32]));
        let turned = [&[FIRST_BYTE, RESPONSE], &request[2..]].concat();
        let Some(Direct::Response(forged)) = Direct::decode(&turned) else { panic!("a response") };
        assert!(!forged.is_under(&KEY), "a request is no response to itself");
        let response = response(&KEY, NONCE);
        assert!(
            matches!(Direct::decode(&response), Some(Direct::Response(read)) if read.is_under(&KEY)),
            "{response:?}"
        );
        for cut in 0..response.len() {
            assert_eq!(Direct::decode(&response[..cut]), None, "{cut}");
        }
        assert_eq!(Direct::decode(&[&response[..], &[0]].concat()), None);
    }

    #[test]
    fn messages_round_trip_in_parts() {
        for len in [1, MAX_PART, MAX_PART + 1, MAX_SEALED + tagged::TAG_LEN] {
            let message: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let datagrams = parts(NONCE, 9, &message);
            assert_eq!(datagrams.len(), len.div_ceil(MAX_PART));
            let mut read: Vec<u8> = Vec::new();
            for (index, datagram) in datagrams.iter().enumerate() {
                let Some(Direct::Part(part)) = Direct::decode(datagram) else { panic!("a part") };
                assert_eq!((part.nonce, part.message, usize::from(part.part)), (NONCE, 9, index));
                assert_eq!(usize::from(part.parts), datagrams.len());
                read.extend(part.bytes);
            }
            assert_eq!(read, message);
        }
        assert!(parts(NONCE, 9, &[0; MAX_SEALED + 2 * MAX_PART]).is_empty());
    }

    #[test]
    fn parts_with_impossible_numbers_or_lengths_are_refused() {
        let part = |part: u8, parts: u8, len: usize| {
            let numbers = [part, parts];
            [&head(PART, NONCE)[..], &[0; 4], &numbers, &vec![0; len]].concat()
        };
        assert!(Direct::decode(&part(0, 1, 5)).is_some() && Direct::decode(&part(0, 2, MAX_PART)).is_some());
        for (number, parts, len) in [
            (0, 0, 5),
            (1, 1, 5),
            (0, 2, 5),
            (0, 1, 0),
            (0, 1, MAX_PART + 1),
            (255, 0, 5),
            (0, 255, MAX_PART),
        ] {
            assert_eq!(Direct::decode(&part(number, parts, len)), None, "{number} of {parts}, {len} bytes");
        }
    }
}

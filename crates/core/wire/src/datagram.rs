//! Demultiplexes the datagrams on the shared UDP socket by their first bytes (as RFC 7983 does), and frames relayed
//! data.
//!
//! WireGuard messages start with a type from 1 to 4 and three zero bytes. STUN messages (RFC 8489) start with two
//! zero bits and carry the magic cookie at bytes 4 to 7. ChannelData (RFC 8656, section 12.4) starts with a channel
//! number from 0x4000 to 0x4FFF and a length. Direct signaling starts with 0x50, and messages of the DHT, which are
//! bencoded dictionaries (BEP 5), with `d`. Nothing else belongs on the socket.
//!
//! Over TCP and TLS the same STUN and ChannelData messages follow each other in one stream; [`Deframer`] cuts it.
//! There ChannelData is padded to a multiple of four bytes, which its length field does not count.

use std::ops::Range;

use crate::{direct, probe};

/// The magic cookie of RFC 8489, section 5.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// The length of a STUN header in bytes.
pub const STUN_HEADER: usize = 20;
/// The length of a ChannelData header in bytes.
pub const CHANNEL_HEADER: usize = 4;
/// The lowest channel number (RFC 8656, section 12).
pub const MIN_CHANNEL: u16 = 0x4000;
/// The highest channel number.
pub const MAX_CHANNEL: u16 = 0x4fff;

/// The protocol that a datagram claims to belong to. Nothing is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A WireGuard message.
    WireGuard,
    /// A STUN or TURN message.
    Stun,
    /// Data that a TURN server relays.
    ChannelData,
    /// Direct signaling between members ([`crate::direct`]).
    Direct,
    /// A message of a node of the DHT.
    Dht,
    /// None of these.
    Unknown,
}

/// Returns the protocol that a datagram claims to belong to.
#[must_use]
pub fn classify(bytes: &[u8]) -> Kind {
    match bytes {
        [1..=4, 0, 0, 0, ..] => Kind::WireGuard,
        [0x40..=0x4f, _, _, _, ..] => Kind::ChannelData,
        [0..=0x3f, _, _, _, c0, c1, c2, c3, ..]
            if bytes.len() >= STUN_HEADER && [*c0, *c1, *c2, *c3] == MAGIC_COOKIE =>
        {
            Kind::Stun
        }
        [direct::FIRST_BYTE, ..] => Kind::Direct,
        [b'd', ..] => Kind::Dht,
        _ => Kind::Unknown,
    }
}

/// The length of a WireGuard handshake initiation in bytes.
const HANDSHAKE_INITIATION: usize = 148;
/// The length of a WireGuard handshake response in bytes.
const HANDSHAKE_RESPONSE: usize = 92;
/// The length of a WireGuard cookie reply in bytes.
const COOKIE_REPLY: usize = 64;
/// The length of the shortest WireGuard transport data message, a keepalive, in bytes.
const KEEPALIVE: usize = 32;
/// The STUN message types of connectivity checks (RFC 8445, section 7): Binding request, success and error response.
const BINDING_TYPES: [[u8; 2]; 3] = [[0x00, 0x01], [0x01, 0x01], [0x01, 0x11]];

/// Returns true if a datagram has the form of those that members send to each other: a WireGuard message of the length
/// that its type has, or a STUN Binding message no longer than a connectivity check. Nothing is verified beyond the form.
#[must_use]
pub fn is_between_members(bytes: &[u8]) -> bool {
    match classify(bytes) {
        Kind::WireGuard => match bytes.first() {
            Some(1) => bytes.len() == HANDSHAKE_INITIATION,
            Some(2) => bytes.len() == HANDSHAKE_RESPONSE,
            Some(3) => bytes.len() == COOKIE_REPLY,
            _ => bytes.len() >= KEEPALIVE,
        },
        Kind::Stun => is_binding(bytes),
        Kind::ChannelData | Kind::Direct | Kind::Dht | Kind::Unknown => false,
    }
}

fn is_binding(bytes: &[u8]) -> bool {
    let &[t0, t1, l0, l1, ..] = bytes else { return false };
    let len = STUN_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    BINDING_TYPES.contains(&[t0, t1]) && len == bytes.len() && len <= probe::MAX_LEN
}

/// Returns the header of a ChannelData message. Lengths above 65,535 do not occur in UDP and are clamped.
#[must_use]
pub fn channel_header(channel: u16, len: usize) -> [u8; CHANNEL_HEADER] {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    [c0, c1, l0, l1]
}

/// Returns how many zero bytes follow a ChannelData message with `len` bytes of data on a stream.
#[must_use]
pub const fn stream_padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Returns the channel number and the range of the data in a ChannelData message, or `None` if it is truncated.
#[must_use]
pub fn channel_data(bytes: &[u8]) -> Option<(u16, Range<usize>)> {
    let &[c0, c1, l0, l1, ..] = bytes else { return None };
    let channel = u16::from_be_bytes([c0, c1]);
    let end = CHANNEL_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    ((MIN_CHANNEL..=MAX_CHANNEL).contains(&channel) && end <= bytes.len())
        .then_some((channel, CHANNEL_HEADER..end))
}

/// A stream carried something that is neither STUN nor ChannelData. It cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream carries something that is neither STUN nor ChannelData")]
pub struct FramingError;

/// Splits a TURN stream (RFC 8656, section 3.1) into messages.
///
/// Take every complete message with [`Self::next_message`] before pushing more bytes; then at most one incomplete
/// message and one push are held.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    taken: usize,
}

impl Deframer {
    /// Adds bytes that were read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete message without padding, if there is one.
    ///
    /// # Errors
    /// [`FramingError`] once the stream has lost its framing; close it.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((len, padding)) = message_len(rest)? else { return Ok(None) };
        if rest.len() < len + padding {
            return Ok(None);
        }
        let start = self.taken;
        self.taken += len + padding;
        Ok(self.buffer.get(start..start + len))
    }
}

/// Returns the length and padding of the message at the start of `bytes`, once its header is complete.
fn message_len(bytes: &[u8]) -> Result<Option<(usize, usize)>, FramingError> {
    let &[b0, _, l0, l1, ..] = bytes else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    match b0 {
        0x40..=0x4f => Ok(Some((CHANNEL_HEADER + len, stream_padding(len)))),
        0..=0x3f => match bytes.get(4..8) {
            Some(cookie) if cookie == MAGIC_COOKIE && len % 4 == 0 => Ok(Some((STUN_HEADER + len, 0))),
            Some(_) => Err(FramingError),
            None => Ok(None),
        },
        _ => Err(FramingError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(len: u16) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(len.to_be_bytes());
        bytes.extend(MAGIC_COOKIE);
        bytes.resize(STUN_HEADER + usize::from(len), 7);
        bytes
    }

    #[test]
    fn protocols_are_told_apart_by_their_first_bytes() {
        for kind in 1..=4 {
            assert_eq!(classify(&[kind, 0, 0, 0, 9]), Kind::WireGuard);
        }
        assert_eq!(classify(&stun(0)), Kind::Stun);
        assert_eq!(classify(&channel_header(0x4001, 0)), Kind::ChannelData);
        for unknown in [&[][..], &[1, 0, 0], &[5, 0, 0, 0], &[0; 20], &[0x80; 40], &stun(0)[..19]] {
            assert_eq!(classify(unknown), Kind::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn only_wireguard_messages_and_bindings_of_the_right_length_are_between_members() {
        let wireguard = |kind: u8, len: usize| {
            let mut bytes = vec![0; len];
            bytes[0] = kind;
            is_between_members(&bytes)
        };
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 33), (4, 1452)] {
            assert!(wireguard(kind, len), "type {kind} of {len} bytes");
        }
        for (kind, len) in [(0, 148), (1, 147), (1, 149), (2, 148), (3, 92), (4, 31), (5, 64)] {
            assert!(!wireguard(kind, len), "type {kind} of {len} bytes");
        }
        assert!(is_between_members(&stun(0)) && is_between_members(&stun(236)));
        let mut allocate = stun(0);
        allocate[1] = 3;
        let mut followed = stun(0);
        followed.push(0);
        for foreign in [allocate, followed, stun(240), b"GET / HTTP/1.1".to_vec(), Vec::new()] {
            assert!(!is_between_members(&foreign), "{foreign:?}");
        }
    }

    #[test]
    fn truncated_channel_data_is_rejected() {
        let mut bytes = channel_header(0x4abc, 3).to_vec();
        bytes.extend([1, 2, 3, 0]);
        assert_eq!(channel_data(&bytes), Some((0x4abc, 4..7)));
        assert_eq!(channel_data(&bytes[..6]), None);
        assert_eq!(channel_data(&channel_header(0x5000, 0)), None);
    }

    #[test]
    fn stream_that_is_not_turn_is_rejected() {
        let mut frames = Deframer::default();
        frames.push(b"\x15\x03\x03\x00\x02\x02\x28 is a TLS alert");
        assert_eq!(frames.next_message(), Err(FramingError));
    }

    proptest! {
        #[test]
        fn stream_is_split_into_messages_however_it_is_chunked(lens in prop::collection::vec((any::<bool>(), 0u16..64), 0..8), chunk in 1usize..40) {
            let messages: Vec<Vec<u8>> = lens.into_iter().map(|(relayed, len)| if relayed {
                let mut bytes = channel_header(MIN_CHANNEL, usize::from(len)).to_vec();
                bytes.resize(CHANNEL_HEADER + usize::from(len), 3);
                bytes
            } else { stun(len & !3) }).collect();
            let stream: Vec<u8> = messages.iter().flat_map(|m| {
                let padding = if m[0] == 0x40 { stream_padding(m.len()) } else { 0 };
                m.iter().copied().chain(std::iter::repeat_n(0, padding))
            }).collect();
            let mut frames = Deframer::default();
            let mut out = Vec::new();
            for bytes in stream.chunks(chunk) {
                frames.push(bytes);
                while let Some(message) = frames.next_message().unwrap() { out.push(message.to_vec()); }
            }
            prop_assert_eq!(out, messages);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = classify(&bytes);
            let _ = channel_data(&bytes);
            let mut frames = Deframer::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_message() {}
        }
    }
}

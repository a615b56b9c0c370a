//! The two encodings of data between client and server (RFC 8656, sections 11 and 12), read and written in place.
//!
//! ```text
//! ChannelData:      channel (2) | length (2) | payload | on streams zeros up to a multiple of 4
//! Send, Data:       STUN header (20) | XOR-PEER-ADDRESS (12 or 24) | DATA header (4) | payload | zeros up to a multiple of 4
//! ```
//!
//! A [`Packet`] keeps [`HEADROOM`] free bytes before what was received, so that the header for the other side is written
//! directly before the payload and nothing is copied.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

/// Free bytes that a packet needs before its first byte: the longest header, that of a Data indication with an IPv6 peer.
pub const HEADROOM: usize = 48;
/// Free bytes that a packet needs after its last byte, for padding.
pub const TAILROOM: usize = 3;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const STUN_HEADER_LEN: usize = 20;

/// A received datagram or frame inside a larger buffer.
#[derive(Debug)]
pub struct Packet<'a> {
    buffer: &'a mut [u8],
    range: Range<usize>,
}

impl<'a> Packet<'a> {
    /// Wraps the bytes of `buffer` in `range`. Returns `None` without [`HEADROOM`] before or [`TAILROOM`] after them.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], range: Range<usize>) -> Option<Self> {
        let fits =
            range.start >= HEADROOM && range.start <= range.end && range.end + TAILROOM <= buffer.len();
        fits.then_some(Self { buffer, range })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Returns the bytes in a range of the buffer; none if it is not in there.
    pub(crate) fn payload(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.get(range.clone()).unwrap_or_default()
    }

    /// Writes a ChannelData header before the payload, and padding after it if it leaves on a stream (RFC 8656,
    /// section 12.5).
    pub(crate) fn frame_channel(
        &mut self,
        payload: Range<usize>,
        channel: u16,
        stream: bool,
    ) -> Range<usize> {
        let start = payload.start - 4;
        let length = (payload.end - payload.start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&channel.to_be_bytes());
        self.buffer[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        let end = if stream { self.pad(payload.clone()) } else { payload.end };
        start..end
    }

    /// Writes the headers of a Data indication before the payload, and padding after it.
    pub(crate) fn frame_data(
        &mut self,
        payload: Range<usize>,
        peer: SocketAddr,
        id: [u8; 12],
    ) -> Range<usize> {
        let mut header = [0; HEADROOM];
        let length = write_data_header(&mut header, payload.end - payload.start, peer, id);
        let start = payload.start - length;
        self.buffer[start..payload.start].copy_from_slice(&header[..length]);
        start..self.pad(payload)
    }

    fn pad(&mut self, payload: Range<usize>) -> usize {
        let end = payload.end + padding(payload.end - payload.start);
        self.buffer[payload.end..end].fill(0);
        end
    }
}

fn write_data_header(out: &mut [u8; HEADROOM], payload: usize, peer: SocketAddr, id: [u8; 12]) -> usize {
    out[..2].copy_from_slice(&DATA_INDICATION.to_be_bytes());
    out[4..8].copy_from_slice(&COOKIE);
    out[8..20].copy_from_slice(&id);
    out[20..22].copy_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
    let address = write_xor_address(&mut out[24..], peer, id);
    out[22..24].copy_from_slice(&(address as u16).to_be_bytes());
    let data = 24 + address;
    out[data..data + 2].copy_from_slice(&DATA.to_be_bytes());
    out[data + 2..data + 4].copy_from_slice(&(payload as u16).to_be_bytes());
    let header = data + 4;
    let length = header - STUN_HEADER_LEN + payload + padding(payload);
    out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    header
}

fn write_xor_address(out: &mut [u8], address: SocketAddr, id: [u8; 12]) -> usize {
    let port = address.port() ^ 0x2112;
    out[2..4].copy_from_slice(&port.to_be_bytes());
    let mask = address_mask(id);
    let write = |out: &mut [u8], bytes: &[u8]| {
        out.iter_mut().zip(bytes.iter().zip(mask)).for_each(|(out, (byte, mask))| *out = byte ^ mask);
    };
    match address.ip() {
        IpAddr::V4(ip) => {
            out[1] = 1;
            write(&mut out[4..8], &ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = 2;
            write(&mut out[4..20], &ip.octets());
            20
        }
    }
}

fn read_xor_address(value: &[u8], id: [u8; 12]) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk()?;
    let mask = address_mask(id);
    let ip = match family {
        1 => {
            let bytes: [u8; 4] = ip.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| bytes[i] ^ mask[i])))
        }
        2 => {
            let bytes: [u8; 16] = ip.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[i] ^ mask[i])))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low]) ^ 0x2112))
}

fn address_mask(id: [u8; 12]) -> [u8; 16] {
    std::array::from_fn(|i| if i < 4 { COOKIE[i] } else { id[i - 4] })
}

const fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// What a client's packet is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// ChannelData.
    ChannelData,
    /// A Send indication.
    SendIndication,
    /// Any other STUN message.
    Stun,
    /// A STUN message without the magic cookie, as in RFC 3489.
    Classic,
    /// Neither STUN nor ChannelData.
    Unknown,
}

pub(crate) fn classify(bytes: &[u8]) -> Class {
    match bytes {
        [0x40..=0x7F, _, _, _, ..] => Class::ChannelData,
        [0..=3, _, _, _, cookie @ ..] if bytes.len() >= STUN_HEADER_LEN => {
            if !cookie.starts_with(&COOKIE) {
                Class::Classic
            } else if bytes.starts_with(&SEND_INDICATION.to_be_bytes()) {
                Class::SendIndication
            } else {
                Class::Stun
            }
        }
        _ => Class::Unknown,
    }
}

/// Returns the channel and the payload of ChannelData; the range is relative to `bytes`.
pub(crate) fn read_channel(bytes: &[u8]) -> Option<(u16, Range<usize>)> {
    let &[a, b, c, d, ref rest @ ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([c, d]));
    (length <= rest.len()).then_some((u16::from_be_bytes([a, b]), 4..4 + length))
}

/// Returns the peer and the payload of a Send indication; the range is relative to `bytes`.
///
/// An indication without both attributes, or with a comprehension-required attribute that is not understood, is discarded
/// (RFC 8656, section 11.2). DONT-FRAGMENT, which this server does not offer, is one of these.
pub(crate) fn read_send(bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let id: [u8; 12] = bytes.get(8..STUN_HEADER_LEN)?.try_into().ok()?;
    let end = STUN_HEADER_LEN + length;
    if end > bytes.len() {
        return None;
    }
    let (mut peer, mut data, mut at) = (None, None, STUN_HEADER_LEN);
    while at < end {
        let &[a, b, c, d] = bytes.get(at..at + 4)? else { return None };
        let value = at + 4..at + 4 + usize::from(u16::from_be_bytes([c, d]));
        if value.end > end {
            return None;
        }
        match u16::from_be_bytes([a, b]) {
            XOR_PEER_ADDRESS => peer = peer.or(Some(read_xor_address(&bytes[value.clone()], id)?)),
            DATA => data = data.or(Some(value.clone())),
            0x8000.. => {}
            _ => return None,
        }
        at = value.end + padding(value.end - value.start);
    }
    Some((peer?, data?))
}

/// Where the first message on a stream ends (RFC 8656, section 12.5, and RFC 8489, section 6.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed to tell, or to complete the message.
    Partial,
    /// The message has `length` bytes, and the next one starts after `advance` bytes.
    Complete {
        /// Length of the message in bytes.
        length: usize,
        /// Length of the message and its padding in bytes.
        advance: usize,
    },
    /// Not TURN: the stream is out of step and has to be closed.
    Invalid,
}

/// Finds the end of the first message in the bytes read from a stream.
#[must_use]
pub fn next_frame(bytes: &[u8]) -> Frame {
    let &[first, _, high, low, ..] = bytes else { return Frame::Partial };
    let declared = usize::from(u16::from_be_bytes([high, low]));
    let length = match first {
        0..=3 if declared.is_multiple_of(4) => STUN_HEADER_LEN + declared,
        0x40..=0x7F => 4 + declared,
        _ => return Frame::Invalid,
    };
    let advance = length + padding(length);
    if bytes.len() < advance { Frame::Partial } else { Frame::Complete { length, advance } }
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;

//! IPv4 fragmentation (RFC 791 section 3.2) for packets that are too big and allow it.

use crate::{
    checksum,
    packet::{Header, V4_HEADER},
};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Whether a packet may be fragmented on the way: IPv4 without DF, and without options, which nobody uses and every
/// fragment would have to carry differently.
pub(crate) fn allowed(packet: &[u8], header: &Header) -> bool {
    packet[0] == 0x45 && header.payload == V4_HEADER && flags(packet) & DONT_FRAGMENT == 0
}

fn flags(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[6], packet[7]])
}

/// The packet's fragments, none longer than `mtu`.
pub(crate) fn split<'a>(
    packet: &'a [u8],
    header: &Header,
    mtu: usize,
) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let payload = &packet[V4_HEADER..header.len];
    let step = (mtu.saturating_sub(V4_HEADER) & !7).max(8);
    let original = flags(packet);
    let last = payload.len().saturating_sub(1) / step;
    payload.chunks(step).enumerate().map(move |(i, part)| {
        let offset = (original & OFFSET) + (i * step / 8) as u16;
        let more = if i < last { MORE_FRAGMENTS } else { original & MORE_FRAGMENTS };
        fragment(&packet[..V4_HEADER], part, more | offset & OFFSET)
    })
}

fn fragment(header: &[u8], part: &[u8], flags: u16) -> Vec<u8> {
    let mut fragment = [header, part].concat();
    fragment[2..4].copy_from_slice(&((V4_HEADER + part.len()) as u16).to_be_bytes());
    fragment[6..8].copy_from_slice(&flags.to_be_bytes());
    fragment[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&fragment[..V4_HEADER]));
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment
}

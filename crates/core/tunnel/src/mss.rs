//! TCP maximum segment size, lowered in passing so that connections never meet a packet that is too big.

use std::net::IpAddr;

use crate::{
    checksum,
    packet::{Header, TCP, V4_HEADER, V6_HEADER},
};

const TCP_HEADER: usize = 20;
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the maximum segment size that a SYN announces to what fits `mtu`, and mends its checksum.
pub(crate) fn clamp(packet: &mut [u8], header: &Header, mtu: usize) {
    if header.protocol != TCP || header.later_fragment {
        return;
    }
    let Some(segment) = packet.get_mut(header.payload..header.len) else { return };
    if segment.len() <= TCP_HEADER || segment[13] & SYN == 0 {
        return;
    }
    let ip_header = if matches!(header.source, IpAddr::V4(_)) { V4_HEADER } else { V6_HEADER };
    let limit = u16::try_from(mtu.saturating_sub(ip_header + TCP_HEADER)).unwrap_or(u16::MAX);
    if let Some(at) = find_mss(segment) {
        lower(segment, at, limit);
    }
}

/// Where the option's value is.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let mut at = TCP_HEADER;
    while at < end {
        match segment[at] {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*segment[..end].get(at + 1)?);
                if kind == OPTION_MSS {
                    return (len == 4 && at + 4 <= end).then_some(at + 2);
                }
                at += len.max(2);
            }
        }
    }
    None
}

fn lower(segment: &mut [u8], at: usize, limit: u16) {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= limit {
        return;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    let checksum = u16::from_be_bytes([segment[16], segment[17]]);
    // An option at an odd offset has its bytes in the other halves of the summed words.
    let (old, new) = if at.is_multiple_of(2) { (old, limit) } else { (old.swap_bytes(), limit.swap_bytes()) };
    segment[16..18].copy_from_slice(&checksum::update(checksum, old, new).to_be_bytes());
}

//! TCP MSS clamping: lowers the maximum segment size that a SYN announces (RFC 9293, section 3.7.1), so that connections
//! through the tunnel never send a packet that exceeds the path MTU.

use std::net::IpAddr;

use crate::{
    checksum,
    ip::{IpHeader, TCP, V4_HEADER_LEN, V6_HEADER_LEN},
};

const TCP_HEADER_LEN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the maximum segment size of a SYN to what fits `mtu` bytes, and updates its checksum. Leaves every other
/// packet as it is.
pub(crate) fn clamp(packet: &mut [u8], header: &IpHeader, mtu: usize) {
    if header.protocol != TCP || header.later_fragment {
        return;
    }
    let Some(segment) = packet.get_mut(header.payload..header.len) else { return };
    if segment.len() <= TCP_HEADER_LEN || segment[13] & FLAG_SYN == 0 {
        return;
    }
    let ip_header = if matches!(header.source, IpAddr::V4(_)) { V4_HEADER_LEN } else { V6_HEADER_LEN };
    let max = u16::try_from(mtu.saturating_sub(ip_header + TCP_HEADER_LEN)).unwrap_or(u16::MAX);
    if let Some(at) = find_mss(segment) {
        lower(segment, at, max);
    }
}

/// Returns the offset of the MSS option's value.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let mut at = TCP_HEADER_LEN;
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

fn lower(segment: &mut [u8], at: usize, max: u16) {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= max {
        return;
    }
    segment[at..at + 2].copy_from_slice(&max.to_be_bytes());
    let checksum = u16::from_be_bytes([segment[16], segment[17]]);
    // The bytes of an option at an odd offset lie in the other halves of the summed words.
    let (old, new) = if at.is_multiple_of(2) { (old, max) } else { (old.swap_bytes(), max.swap_bytes()) };
    segment[16..18].copy_from_slice(&checksum::update(checksum, old, new).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{checksum_holds, syn, u16_at, v4, v6};

    #[test]
    fn segments_without_syn_are_left_alone() {
        let mut packet = syn(v4(0), v4(1), 1460, 0);
        packet[20 + 13] = 0x10;
        let before = packet.clone();
        let header = IpHeader::parse(&packet).unwrap();
        clamp(&mut packet, &header, 1000);
        assert_eq!(packet, before);
    }

    proptest! {
        #[test]
        fn clamping_keeps_the_checksum_correct(size in 0u16.., padding in 0usize..8, mtu in 576usize..1500, six: bool) {
            let (from, to): (IpAddr, IpAddr) = if six { (v6(0).into(), v6(1).into()) } else { (v4(0).into(), v4(1).into()) };
            let mut packet = syn(from, to, size, padding);
            let header = IpHeader::parse(&packet).unwrap();
            clamp(&mut packet, &header, mtu);
            let max = (mtu - header.payload - 20) as u16;
            prop_assert_eq!(u16_at(&packet, header.payload + 22 + padding), size.min(max));
            prop_assert!(checksum_holds(&packet));
        }

        #[test]
        fn malformed_options_do_not_panic(mut packet in proptest::collection::vec(any::<u8>(), 20..120), six: bool) {
            packet[0] = if six { 0x60 } else { 0x45 };
            packet[if six { 6 } else { 9 }] = 6;
            if let Some(header) = IpHeader::parse(&packet) {
                clamp(&mut packet, &header, 1400);
            }
        }
    }
}

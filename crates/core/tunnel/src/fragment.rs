//! IPv4 fragmentation (RFC 791, section 3.2) of packets that exceed the path MTU and may be fragmented.

use crate::{
    checksum,
    ip::{IpHeader, V4_HEADER_LEN},
};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Returns true if a packet may be fragmented: IPv4 without DF and without options. Options are not used in practice,
/// and each would need its own rule for which fragments carry it.
pub(crate) fn allowed(packet: &[u8], header: &IpHeader) -> bool {
    packet[0] == 0x45 && header.payload == V4_HEADER_LEN && flags(packet) & DONT_FRAGMENT == 0
}

fn flags(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[6], packet[7]])
}

/// Returns the packet's fragments, none longer than `mtu` bytes. The packet may be a fragment itself.
pub(crate) fn split<'a>(
    packet: &'a [u8],
    header: &IpHeader,
    mtu: usize,
) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let payload = &packet[V4_HEADER_LEN..header.len];
    // Offsets count units of eight bytes.
    let step = (mtu.saturating_sub(V4_HEADER_LEN) & !7).max(8);
    let original = flags(packet);
    let last = payload.len().saturating_sub(1) / step;
    payload.chunks(step).enumerate().map(move |(i, part)| {
        let offset = (original & OFFSET_MASK) + (i * step / 8) as u16;
        let more = if i < last { MORE_FRAGMENTS } else { original & MORE_FRAGMENTS };
        fragment(&packet[..V4_HEADER_LEN], part, more | offset & OFFSET_MASK)
    })
}

fn fragment(header: &[u8], part: &[u8], flags: u16) -> Vec<u8> {
    let mut fragment = [header, part].concat();
    fragment[2..4].copy_from_slice(&((V4_HEADER_LEN + part.len()) as u16).to_be_bytes());
    fragment[6..8].copy_from_slice(&flags.to_be_bytes());
    fragment[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&fragment[..V4_HEADER_LEN]));
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{udp, v4, v6};

    #[test]
    fn df_options_and_ipv6_forbid_fragmentation() {
        let mut packet = udp(v4(0), v4(1), 7, 2000);
        let header = IpHeader::parse(&packet).unwrap();
        assert!(allowed(&packet, &header));
        packet[6] = 0x40;
        assert!(!allowed(&packet, &header));
        packet[6] = 0;
        packet[0] = 0x46;
        assert!(!allowed(&packet, &IpHeader::parse(&packet).unwrap()));
        let packet = udp(v6(0), v6(1), 7, 2000);
        assert!(!allowed(&packet, &IpHeader::parse(&packet).unwrap()));
    }

    #[test]
    fn fragmenting_a_fragment_keeps_its_offset_and_more_flag() {
        let mut packet = udp(v4(0), v4(1), 7, 1992);
        packet[6..8].copy_from_slice(&(MORE_FRAGMENTS | 100).to_be_bytes());
        let header = IpHeader::parse(&packet).unwrap();
        let parts: Vec<_> = split(&packet, &header, 1020).map(|part| flags(&part)).collect();
        assert_eq!(parts, [MORE_FRAGMENTS | 100, MORE_FRAGMENTS | 225]);
    }

    proptest! {
        #[test]
        fn fragments_reassemble_to_the_packet(len in 1301usize..8000, mtu in 576u16..1300) {
            let packet = udp(v4(0), v4(1), 7, len);
            let header = IpHeader::parse(&packet).unwrap();
            let mut payload = Vec::new();
            let parts: Vec<_> = split(&packet, &header, mtu.into()).collect();
            for (i, part) in parts.iter().enumerate() {
                let flags = flags(part);
                prop_assert!(part.len() <= mtu.into() && IpHeader::parse(part).unwrap().len == part.len());
                prop_assert_eq!(usize::from(flags & OFFSET_MASK) * 8, payload.len());
                prop_assert_eq!(flags & MORE_FRAGMENTS != 0, i + 1 < parts.len());
                prop_assert_eq!(checksum::finish(checksum::sum(&part[..20])), 0);
                payload.extend_from_slice(&part[20..]);
            }
            prop_assert_eq!(&payload[..], &packet[20..]);
        }
    }
}

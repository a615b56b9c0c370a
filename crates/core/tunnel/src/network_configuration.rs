//! Messages by which a router or server tells a host how its network is configured.
//!
//! A party's network has neither: its addresses and routes are set by the service. A member that sends such messages, on
//! purpose or because it offers a network on all of its interfaces, would change the routes, addresses and name servers
//! of all others. They are Router Solicitations, Router Advertisements and Redirects (RFC 4861, section 4; RFC 1256;
//! RFC 792), and what a server of DHCP (RFC 2131) or DHCPv6 (RFC 8415) sends to clients.

use crate::ip::{ICMP, ICMP_V6, IpHeader, UDP};

/// Redirect, Router Advertisement.
const ICMP_TYPES: [u8; 2] = [5, 9];
/// Router Solicitation, Router Advertisement, Redirect.
const ICMP_V6_TYPES: [u8; 3] = [133, 134, 137];
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP_V6_CLIENT: u16 = 546;
const DHCP_V6_SERVER: u16 = 547;

/// Returns true if a packet would configure the network of the host that receives it.
pub(crate) fn configures_network(packet: &[u8], header: &IpHeader) -> bool {
    let Some((protocol, payload)) = header.upper_layer(packet) else { return false };
    match (protocol, payload) {
        (ICMP, [kind, ..]) => ICMP_TYPES.contains(kind),
        (ICMP_V6, [kind, ..]) => ICMP_V6_TYPES.contains(kind),
        (UDP, [a, b, c, d, ..]) => {
            let (source, destination) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            matches!(source, DHCP_SERVER | DHCP_V6_SERVER)
                || matches!(destination, DHCP_CLIENT | DHCP_V6_CLIENT)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{udp, v4, v6};

    fn judged(packet: &[u8]) -> bool {
        configures_network(packet, &IpHeader::parse(packet).unwrap())
    }

    /// A packet with another protocol and payload, behind extension headers, each with its length in units of 8 bytes
    /// beyond the first.
    fn packet_v6(extensions: &[(u8, u8)], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = udp(v6(0), v6(1), 7, 0)[..40].to_vec();
        let following = extensions.iter().skip(1).map(|(kind, _)| *kind).chain([protocol]);
        packet[6] = extensions.first().map_or(protocol, |(kind, _)| *kind);
        for ((_, units), next) in extensions.iter().zip(following) {
            packet.extend([next, *units, 0, 0, 0, 0, 0, 0]);
            packet.extend(vec![0; 8 * usize::from(*units)]);
        }
        packet.extend(payload);
        let len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    }

    #[test]
    fn router_advertisements_and_redirects_are_recognized_behind_extension_headers() {
        for kind in ICMP_V6_TYPES {
            for extensions in [&[][..], &[(0, 0)], &[(60, 2), (43, 0)], &[(44, 0)]] {
                assert!(judged(&packet_v6(extensions, ICMP_V6, &[kind, 0, 0, 0])), "{kind} {extensions:?}");
            }
        }
        for echo_or_neighbor in [128, 129, 135, 136] {
            assert!(!judged(&packet_v6(&[], ICMP_V6, &[echo_or_neighbor, 0, 0, 0])));
        }
    }

    #[test]
    fn icmp_redirects_are_recognized() {
        let mut packet = udp(v4(0), v4(1), 7, 10);
        packet[9] = ICMP;
        for (kind, expected) in [(5, true), (9, true), (0, false), (3, false), (8, false)] {
            packet[20] = kind;
            assert_eq!(judged(&packet), expected, "{kind}");
        }
    }

    #[test]
    fn what_dhcp_servers_send_is_recognized_and_what_games_send_is_not() {
        for (source, destination, expected) in
            [(67, 68, true), (67, 9, true), (9, 68, true), (68, 67, false), (27_015, 27_015, false)]
        {
            let mut packet = udp(v4(0), v4(1), destination, 10);
            packet[20..22].copy_from_slice(&u16::to_be_bytes(source));
            assert_eq!(judged(&packet), expected, "{source} to {destination}");
        }
        assert!(judged(&udp(v6(0), v6(1), 546, 10)));
        assert!(!judged(&udp(v6(0), v6(1), 5353, 10)));
    }

    #[test]
    fn a_chain_of_headers_that_ends_nowhere_is_no_configuration() {
        let mut packet = packet_v6(&[(0, 0)], ICMP_V6, &[134]);
        packet[41] = 255;
        assert!(!judged(&packet));
        assert!(!judged(&packet_v6(&[(0, 0)], ICMP_V6, &[])));
    }
}

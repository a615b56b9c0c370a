//! Which addresses are of the Internet, and which belong together.

use std::net::IpAddr;

use ipnet::Ipv6Net;

/// Length of the IPv6 prefix all addresses of which one host can have (RFC 4291, section 2.5.1; RFC 8981).
pub const HOST_PREFIX_LEN: u8 = 64;

/// Returns the address that stands for all addresses of one host: itself for IPv4, its /64 for IPv6.
#[must_use]
pub fn host_network(ip: IpAddr) -> IpAddr {
    network_of(ip, HOST_PREFIX_LEN)
}

/// Returns an IPv4 address as it is, and of an IPv6 address the network with a prefix of this length, at most 128. An
/// IPv4-mapped address is an IPv4 address.
#[must_use]
pub fn network_of(ip: IpAddr, v6_prefix_len: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Net::new(v6, v6_prefix_len).map_or(v6, |network| network.network())),
    }
}

/// Returns true for an address of the Internet, false for one of a private, shared, link-local or loopback range.
#[must_use]
pub const fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified();
            !local && !is_shared(ip)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local())
        }
    }
}

/// Returns true for 100.64.0.0/10 (RFC 6598), the space between a carrier's NAT and its customers' routers.
#[must_use]
pub const fn is_shared(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64,
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_share_a_network() {
        let host = |text: &str| host_network(text.parse().expect("an address"));
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:2"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_eq!(host("::ffff:192.0.2.1"), host("192.0.2.1"));
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
        let site = |text: &str| network_of(text.parse().expect("an address"), 56);
        assert_eq!(site("2001:db8::1"), site("2001:db8:0:ff::1"));
        assert_ne!(site("2001:db8::1"), site("2001:db8:0:100::1"));
    }

    #[test]
    fn private_and_shared_addresses_are_not_public() {
        for (ip, public) in [
            ([11, 0, 0, 1], true),
            ([100, 63, 255, 255], true),
            ([100, 64, 0, 0], false),
            ([100, 127, 255, 255], false),
            ([100, 128, 0, 0], true),
            ([10, 1, 2, 3], false),
            ([169, 254, 0, 1], false),
            ([127, 0, 0, 1], false),
        ] {
            assert_eq!(is_public(ip.into()), public, "{ip:?}");
        }
        assert!(is_public("2001:db8::1".parse().expect("an address")));
        assert!(!is_public("fd00::1".parse().expect("an address")));
    }
}

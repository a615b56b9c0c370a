//! Which addresses are of the Internet, and which belong together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Returns true for an address of the Internet, false for one of a private, shared, link-local, site-local or loopback
/// range. An IPv6 address that a translator or tunnel turns into an IPv4 address is as public as that.
#[must_use]
pub const fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0;
            !local && !is_shared(ip)
        }
        IpAddr::V6(v6) => {
            let site_local = v6.segments()[0] & 0xffc0 == 0xfec0;
            let local =
                v6.is_unique_local() || v6.is_unicast_link_local() || site_local || is_local_nat64(v6);
            match embedded(v6) {
                Some(v4) => is_public(IpAddr::V4(v4)),
                None => !local,
            }
        }
    }
}

/// Returns true for 64:ff9b:1::/48, which each network divides for translators of its own (RFC 8215). Where in the address
/// the IPv4 address lies depends on the length of the prefix that the network chose, so no address of it counts as public.
const fn is_local_nat64(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [0x64, 0xff9b, 1, ..])
}

/// Returns the IPv4 address that packets to an IPv6 address may end at: the loopback and IPv4-compatible addresses
/// (RFC 4291, section 2.5.5.1), the well-known prefix of NAT64 (RFC 6052), and 6to4 (RFC 3056).
const fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, _, _, _, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// The addresses at which a server may be contacted. A server that others named must not lead this computer's packets
/// into its own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScope {
    /// All addresses: the user named or confirmed the server.
    Any,
    /// Addresses of the Internet alone: others named the server.
    Public,
}

impl AddressScope {
    /// Returns true if the server may be contacted at the address.
    #[must_use]
    pub const fn allows(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Public => is_public(ip) && is_host(ip),
        }
    }
}

/// Returns true unless the address stands for many hosts or for none.
const fn is_host(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] < 224,
        IpAddr::V6(v6) => !v6.is_multicast(),
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
            ([0, 0, 0, 1], false),
        ] {
            assert_eq!(is_public(ip.into()), public, "{ip:?}");
        }
        assert!(is_public("2001:db8::1".parse().expect("an address")));
        assert!(!is_public("::1".parse().expect("an address")));
        assert!(!is_public("fd00::1".parse().expect("an address")));
    }

    #[test]
    fn server_that_others_named_is_contacted_at_no_address_of_this_network() {
        let allowed = |text: &str| AddressScope::Public.allows(text.parse().expect("an address"));
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.0.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:192.168.1.1",
            "fe80::1",
            "fec0::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::127.0.0.1",
            // 192.168.1.1 in the /48 itself and in a /64 of it, and a public address, which may be read as another.
            "64:ff9b:1:c0a8:1:100::",
            "64:ff9b:1:0:c0:a801:100:0",
            "64:ff9b:1::198.51.100.1",
            "2002:c0a8:101::1",
        ] {
            assert!(!allowed(private), "{private}");
            assert!(AddressScope::Any.allows(private.parse().expect("an address")));
        }
        for public in ["198.51.100.1", "2001:db8::1", "64:ff9b::198.51.100.1", "2002:c633:6401::1"] {
            assert!(allowed(public), "{public}");
        }
    }
}

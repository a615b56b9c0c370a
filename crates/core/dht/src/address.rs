//! Which addresses may be asked, and which belong to one network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use partyline_model::{is_public, network_of};

/// The length of the IPv6 prefix that counts as one network: what a provider assigns to one customer at most (RFC 6177).
const NETWORK_PREFIX_V6: u8 = 48;
/// Ports below are those of other services, at which a hostile node could aim this client's queries.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Decides which addresses may be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressPolicy {
    pub(crate) allow_private: bool,
}

impl AddressPolicy {
    /// Returns true if an address that the caller named may be asked.
    pub(crate) fn permits(self, address: SocketAddr) -> bool {
        let ip = address.ip();
        let unicast = match ip {
            // 240.0.0.0/4 is reserved (RFC 1112, section 4) and ends with the broadcast address.
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && v4.octets()[0] < 240,
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
        };
        unicast && address.port() != 0 && (self.allow_private || is_public(ip))
    }

    /// Returns true if an address that a node named may be asked.
    pub(crate) fn permits_learned(self, address: SocketAddr) -> bool {
        self.permits(address) && (self.allow_private || address.port() >= FIRST_UNPRIVILEGED_PORT)
    }

    /// Returns the network of an address, of which only few nodes count: the /24 or /48. `None` if networks do not
    /// matter.
    pub(crate) fn network(self, ip: IpAddr) -> Option<IpAddr> {
        let network = match ip {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00)),
            IpAddr::V6(_) => network_of(ip, NETWORK_PREFIX_V6),
        };
        (!self.allow_private).then_some(network)
    }

    /// Returns what has one vote on this computer's address: a node's network, or the node if networks do not matter.
    pub(crate) fn voter(self, node: SocketAddr) -> SocketAddr {
        self.network(node.ip()).map_or(node, |network| SocketAddr::new(network, 0))
    }
}

/// Returns an address in the form in which it is compared: an IPv4-mapped IPv6 address as IPv4, without flow and scope.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: AddressPolicy = AddressPolicy { allow_private: false };
    const LAB: AddressPolicy = AddressPolicy { allow_private: true };

    #[test]
    fn only_unicast_addresses_with_a_port_are_asked() {
        for address in [
            "0.0.0.0:6881",
            "224.0.0.1:6881",
            "255.255.255.255:6881",
            "240.0.0.1:6881",
            "11.0.0.1:0",
            "[::]:6881",
            "[ff02::1]:6881",
            "[::ffff:11.0.0.1]:6881",
        ] {
            let address = address.parse().unwrap();
            assert!(!LAB.permits(address) && !PUBLIC.permits(address), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_asked_in_labs_alone() {
        for address in ["10.0.0.1:6881", "127.0.0.1:6881", "100.64.0.1:6881", "[fe80::1]:6881", "[::1]:6881"]
        {
            let address = address.parse().unwrap();
            assert!(LAB.permits(address) && !PUBLIC.permits(address), "{address}");
        }
        let (public, dns) = ("11.0.0.1:6881".parse().unwrap(), "11.0.0.1:53".parse().unwrap());
        assert!(PUBLIC.permits_learned(public) && PUBLIC.permits(dns) && !PUBLIC.permits_learned(dns));
    }

    #[test]
    fn networks_are_the_24_and_the_48() {
        let network = |ip: &str| PUBLIC.network(ip.parse().unwrap()).unwrap().to_string();
        assert_eq!(network("11.1.2.3"), "11.1.2.0");
        assert_eq!(network("2a00:1:2:3::4"), "2a00:1:2::");
        assert_eq!(LAB.network("11.1.2.3".parse().unwrap()), None);
    }
}

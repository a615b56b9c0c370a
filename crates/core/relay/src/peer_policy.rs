//! Which peers packets may be relayed to. A relay inside an operator's network must not become a way into it (RFC 8656,
//! section 21.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The peers that packets may be relayed to. Relayed addresses of this very server are always allowed, its listening
/// addresses never, and other programs on the computer's own addresses only where private peers are.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    /// Allows loopback, private and link-local peers, and programs on the server's own computer. Only for tests and closed
    /// networks.
    pub allow_private: bool,
    /// Further address ranges to refuse.
    pub denied: Vec<IpNet>,
}

impl PeerPolicy {
    /// Returns true if packets may be exchanged with an address that is not the server's own.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let real = effective(address);
        let never = match real {
            IpAddr::V4(ip) => is_never_a_peer(ip),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        let private = match real {
            IpAddr::V4(ip) => is_private(ip),
            IpAddr::V6(ip) => is_private_v6(ip),
        };
        let denied = |address| self.denied.iter().any(|net| net.contains(&address));
        !never && (self.allow_private || !private) && !denied(address) && !denied(real)
    }
}

/// Returns the IPv4 address that packets for an IPv6 address reach: mapped, compatible, NAT64 or 6to4.
pub(crate) fn effective(address: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = address else { return address };
    let octets = ip.octets();
    let v4 =
        |at: usize| IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, ..] | [0x64, 0xFF9B, 0, 0, 0, 0, ..] => v4(12),
        [0x2002, ..] => v4(2),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => v4(12),
        _ => address,
    }
}

fn is_never_a_peer(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    // 0.0.0.0/8 is this host, 224/4 multicast, and 240/4 reserved with the broadcast address at its end.
    first == 0 || first >= 224
}

fn is_private(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let special = (a, b, c) == (192, 0, 0) || (a == 198 && (18..20).contains(&b));
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared || special
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let site_local = ip.segments()[0] & 0xFFC0 == 0xFEC0;
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || site_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &PeerPolicy, address: &str) -> bool {
        policy.permits(address.parse().unwrap())
    }

    #[test]
    fn public_peers_are_permitted_and_private_ones_are_not() {
        let policy = PeerPolicy::default();
        for address in ["203.0.113.1", "8.8.8.8", "2001:db8::1", "64:ff9b::808:808"] {
            assert!(permits(&policy, address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn private_peers_can_be_allowed_and_multicast_cannot() {
        let policy = PeerPolicy { allow_private: true, denied: vec!["10.0.0.0/8".parse().unwrap()] };
        assert!(permits(&policy, "127.0.0.1") && permits(&policy, "::1") && permits(&policy, "192.168.0.1"));
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "224.0.0.1", "ff02::1", "0.0.0.0"] {
            assert!(!permits(&policy, address), "{address}");
        }
    }
}

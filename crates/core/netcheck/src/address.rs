//! Address families, and which addresses are public or beyond the NAT.

use std::net::{IpAddr, SocketAddr};

pub(crate) use partyline_model::{is_public, is_shared};

/// An address family. Each is measured on its own, side by side with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Returns true if a server sees this computer from inside its own network: at a private address that is this computer's
/// own, or, as a router's hairpin shows it, though the server's address is public. That says nothing of what the router
/// does to packets that leave.
pub(crate) fn is_inside_view(server: IpAddr, reflexive: IpAddr, own: impl Fn(IpAddr) -> bool) -> bool {
    !is_public(reflexive) && (own(reflexive) || is_public(server))
}

/// Returns true if one host can be reached at the address.
pub(crate) fn is_unicast(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Returns true if packets from `remote` to `own` surely pass all of this computer's NATs. A carrier's NAT may turn
/// packets around between its own customers, past the filter; as far as that shows, those share a /24.
pub(crate) fn is_beyond_nat(remote: SocketAddr, own: SocketAddr) -> bool {
    is_public(remote.ip()) == is_public(own.ip()) && !share_prefix(remote.ip(), own.ip())
}

fn share_prefix(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_in_this_network_is_told_from_one_behind_a_private_network() {
        let inside = |server: [u8; 4], reflexive: [u8; 4]| {
            is_inside_view(server.into(), reflexive.into(), |ip| ip == IpAddr::from([192, 168, 1, 10]))
        };
        assert!(inside([192, 168, 1, 5], [192, 168, 1, 10]), "on this LAN");
        assert!(inside([11, 0, 0, 1], [192, 168, 1, 1]), "turned around by the router");
        assert!(!inside([10, 0, 0, 5], [10, 0, 0, 7]), "beyond a NAT of a private network");
        assert!(!inside([11, 0, 0, 1], [11, 0, 0, 9]));
    }

    #[test]
    fn neighbors_in_a_carrier_network_are_not_beyond_the_nat() {
        let own = ([11, 0, 0, 1], 5).into();
        let beyond = |ip: [u8; 4]| is_beyond_nat((ip, 5).into(), own);
        assert!(beyond([11, 0, 7, 1]));
        assert!(!beyond([11, 0, 0, 99]) && !beyond([192, 168, 1, 9]) && !beyond([100, 64, 1, 1]));
    }
}

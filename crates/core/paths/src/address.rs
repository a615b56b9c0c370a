//! Properties of addresses that decide which candidates can be paired.

use std::net::{IpAddr, SocketAddr};

use partyline_model::{Candidate, CandidateKind};

/// Returns true if an address is only meaningful on a local network.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

/// Converts IPv4-mapped IPv6 addresses, as dual-stack sockets report them, to IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        _ => address,
    }
}

/// Returns true if checks to a remote candidate may leave this computer's main socket.
///
/// Excluded are address families we lack, unspecified and multicast addresses, loopback unless we announce loopback
/// ourselves, and IPv6 link-local addresses unless the LAN beacon heard them (their scope is ours then).
pub(crate) fn is_reachable(candidate: &Candidate, local: &[Candidate]) -> bool {
    let ip = candidate.address.ip();
    let link_local = matches!(candidate.address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
    let same_family = |c: &Candidate| c.address.is_ipv6() == ip.is_ipv6() && c.kind != CandidateKind::Relayed;
    !ip.is_unspecified()
        && !ip.is_multicast()
        && candidate.address.port() != 0
        && (ip.is_ipv4() || local.iter().any(same_family))
        && (!ip.is_loopback() || local.iter().any(|c| c.address.ip().is_loopback()))
        && (!link_local || candidate.kind == CandidateKind::Lan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, address: &str) -> Candidate {
        Candidate { kind, address: address.parse().unwrap() }
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped = "[::ffff:198.51.100.7]:9".parse().unwrap();
        assert_eq!(canonical(mapped), "198.51.100.7:9".parse().unwrap());
        let v6 = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }

    #[test]
    fn only_addresses_that_can_be_meant_for_us_are_reachable() {
        use CandidateKind::{Host, Lan};
        let v4 = [candidate(Host, "192.168.1.2:1")];
        let v6 = [candidate(Host, "[2001:db8::2]:1")];
        let reaches = |kind, address, local: &[Candidate]| is_reachable(&candidate(kind, address), local);
        assert!(reaches(Host, "198.51.100.1:5", &v4));
        assert!(!reaches(Host, "198.51.100.1:0", &v4), "port zero");
        assert!(!reaches(Host, "0.0.0.0:5", &v4) && !reaches(Host, "224.0.0.1:5", &v4));
        assert!(!reaches(Host, "127.0.0.1:5", &v4), "loopback of another computer");
        assert!(reaches(Host, "127.0.0.1:5", &[candidate(Host, "127.0.0.1:1")]));
        assert!(!reaches(Host, "[2001:db8::1]:5", &v4), "no IPv6 here");
        assert!(reaches(Host, "[2001:db8::1]:5", &v6));
        assert!(!reaches(Host, "[fe80::1]:5", &v6) && reaches(Lan, "[fe80::1]:5", &v6));
    }
}

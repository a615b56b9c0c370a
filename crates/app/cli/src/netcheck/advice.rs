//! What a network means for playing, and what its owner could do.

use partyline_model::{Badge, Filtering, NetworkView};

/// What to expect, in a sentence.
pub fn meaning(network: &NetworkView) -> Option<&'static str> {
    Some(match network.badge? {
        Badge::Open => "Nothing is in the way: everybody connects to this computer directly.",
        Badge::FullCone => "Everybody connects to this computer directly.",
        Badge::Restricted | Badge::PortRestricted => {
            "Direct connections with nearly everybody; only players behind symmetric networks take longer."
        }
        Badge::Symmetric => {
            "Direct connections with most players, found with more effort; with others behind such a network a relay \
             carries the game, with more delay."
        }
        Badge::UdpBlocked => "No UDP gets out: everything goes through a relay over TLS, with more delay.",
    })
}

/// What would help, the most helpful first; empty if nothing is wanting.
pub fn advice(network: &NetworkView) -> Vec<&'static str> {
    let nat = &network.nat;
    let opened = network.report.router.iter().any(|check| check.works);
    let mut advice = Vec::new();
    if network.badge == Some(Badge::UdpBlocked) {
        advice.push("Allow UDP in the firewall, or use another network, such as a phone's hotspot.");
        return advice;
    }
    if nat.carrier_nat == Some(true) {
        advice.push("The provider shares its addresses between customers: ask it for an own IPv4 address, or for IPv6.");
    } else if nat.double_nat == Some(true) {
        advice.push("Two routers stand one behind the other: set the provider's box to bridge mode, or use one of them only.");
    }
    let reachable = matches!(network.badge, Some(Badge::Open | Badge::FullCone));
    if !opened && !reachable && !network.report.router.is_empty() {
        advice.push(
            "Switch on UPnP (or NAT-PMP, PCP) in the router's settings, so that it opens a port for games.",
        );
    }
    if nat.ipv6 == Some(false) && !reachable {
        advice.push("Switch on IPv6 in the router, if the provider has it: it needs no NAT.");
    }
    let closed = nat.firewall_v6.is_some_and(|policy| policy != Filtering::EndpointIndependent);
    if closed && !opened && !reachable {
        advice.push("Let the router open IPv6 ports on request (pinholes), or allow UDP to this computer.");
    }
    advice
}

#[cfg(test)]
mod tests {
    use partyline_model::{NatProfile, RouterCheck};

    use super::*;

    fn network(badge: Option<Badge>, nat: NatProfile) -> NetworkView {
        NetworkView { badge, nat, ..NetworkView::default() }
    }

    #[test]
    fn a_good_network_needs_no_advice() {
        assert!(advice(&network(Some(Badge::Open), NatProfile::default())).is_empty());
        assert!(meaning(&network(None, NatProfile::default())).is_none());
    }

    #[test]
    fn the_worst_comes_first() {
        let nat = NatProfile { carrier_nat: Some(true), ipv6: Some(false), ..NatProfile::default() };
        let mut view = network(Some(Badge::Symmetric), nat);
        let upnp = RouterCheck { protocol: "UPnP".into(), works: false, problem: None };
        view.report.router.push(upnp);
        let advice = advice(&view);
        assert_eq!(advice.len(), 3);
        assert!(advice[0].contains("provider") && advice[1].contains("UPnP") && advice[2].contains("IPv6"));
    }
}

//! This device's own candidates, gathered from the interfaces, the router and STUN servers.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use partyline_model::{Candidate, CandidateKind, CardKind};

use crate::io::{HostAddress, LocalNetwork};

/// Where the main socket can be reached.
#[derive(Debug, Default)]
pub(super) struct LocalCandidates {
    network: LocalNetwork,
    /// Ports that the router opened for the main socket.
    mapped: Vec<SocketAddr>,
    /// Addresses at which servers see the main socket, best first.
    reflexive: Vec<SocketAddr>,
}

/// What another list of local addresses means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetworkChange {
    /// True if a host address was added or is gone.
    pub addresses_changed: bool,
    /// True if a host address is gone, and with it every connection made from it; then `addresses_changed` is true, too.
    pub address_lost: bool,
}

impl LocalCandidates {
    /// Takes the computer's addresses; `None` if nothing changed.
    pub(super) fn set_network(&mut self, network: LocalNetwork) -> Option<NetworkChange> {
        if network == self.network {
            return None;
        }
        let before: BTreeSet<_> = self.host_addresses().into_iter().collect();
        self.network = network;
        let after: BTreeSet<_> = self.host_addresses().into_iter().collect();
        let address_lost = before.iter().any(|address| !after.contains(address));
        Some(NetworkChange { addresses_changed: after != before, address_lost })
    }

    /// Returns the computer's networks.
    pub(super) const fn network(&self) -> &LocalNetwork {
        &self.network
    }

    /// Takes the ports that the router opened; returns true if they are others than before.
    pub(super) fn set_mapped(&mut self, mapped: Vec<SocketAddr>) -> bool {
        let changed = self.mapped != mapped;
        self.mapped = mapped;
        changed
    }

    /// Returns the router's public IPv4 address, as far as an opened port shows it.
    pub(super) fn router_address(&self) -> Option<IpAddr> {
        self.mapped.iter().map(SocketAddr::ip).find(IpAddr::is_ipv4)
    }

    /// Takes the addresses at which servers see the main socket.
    pub(super) fn set_reflexive(&mut self, reflexive: Vec<SocketAddr>) {
        self.reflexive = reflexive;
    }

    /// Returns the addresses at which servers see the main socket, best first.
    pub(super) fn reflexive(&self) -> &[SocketAddr] {
        &self.reflexive
    }

    /// Returns the addresses of the main socket on this computer's interfaces, best first.
    pub(super) fn host_addresses(&self) -> Vec<SocketAddr> {
        self.hosts().map(|(_, address)| address).collect()
    }

    /// Returns the same with what stands behind each interface. Those on hardware come first, and within a kind those
    /// that are not deprecated.
    fn hosts(&self) -> impl Iterator<Item = (CardKind, SocketAddr)> {
        let LocalNetwork { addresses, port_v4, port_v6, .. } = &self.network;
        let mut hosts: Vec<&HostAddress> = addresses.iter().collect();
        hosts.sort_by_key(|host| (host.card, host.deprecated));
        hosts.into_iter().filter_map(move |HostAddress { address, card, .. }| {
            let port = if address.is_ipv4() { *port_v4 } else { *port_v6 };
            Some((*card, SocketAddr::new(*address, port?)))
        })
    }

    /// Returns all candidates, each address once, under the best kind it is known by. The last are those that only
    /// this computer, or another VPN, reaches.
    pub(super) fn gather(&self) -> Vec<Candidate> {
        let on = |wanted: CardKind| {
            self.hosts().filter(move |(card, _)| *card == wanted).map(|(_, address)| address)
        };
        let kinds: [(CandidateKind, Vec<SocketAddr>); 5] = [
            (CandidateKind::Host, on(CardKind::Physical).collect()),
            (CandidateKind::Mapped, self.mapped.clone()),
            (CandidateKind::ServerReflexive, self.reflexive.clone()),
            (CandidateKind::Host, on(CardKind::Internal).collect()),
            (CandidateKind::Overlay, on(CardKind::Overlay).collect()),
        ];
        let mut candidates: Vec<Candidate> = Vec::new();
        for (kind, addresses) in kinds {
            for address in addresses {
                if candidates.iter().all(|known| known.address != address) {
                    candidates.push(Candidate { kind, address });
                }
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str) -> HostAddress {
        address.parse::<IpAddr>().expect("an address").into()
    }

    fn network(addresses: &[&str]) -> LocalNetwork {
        LocalNetwork {
            addresses: addresses.iter().map(|address| host(address)).collect(),
            port_v4: Some(1000),
            ..LocalNetwork::default()
        }
    }

    #[test]
    fn address_that_is_known_twice_is_one_candidate() {
        let mut local = LocalCandidates::default();
        local.set_network(network(&["11.0.0.1", "2001:db8::1"]));
        local.set_mapped(vec![([11, 0, 0, 1], 2000).into()]);
        local.set_reflexive(vec![([11, 0, 0, 1], 1000).into(), ([11, 0, 0, 1], 3000).into()]);
        let gathered: Vec<_> =
            local.gather().into_iter().map(|candidate| (candidate.kind, candidate.address.port())).collect();
        let expected = [
            (CandidateKind::Host, 1000),
            (CandidateKind::Mapped, 2000),
            (CandidateKind::ServerReflexive, 3000),
        ];
        assert_eq!(gathered, expected, "without a socket for IPv6 there is no such candidate");
    }

    #[test]
    fn what_only_this_computer_or_another_vpn_reaches_comes_last() {
        let on = |address, card| HostAddress { card, ..host(address) };
        let mut local = LocalCandidates::default();
        local.set_reflexive(vec![([11, 0, 0, 1], 7).into()]);
        local.set_network(LocalNetwork {
            addresses: vec![
                on("10.147.17.1", CardKind::Overlay),
                on("172.17.0.1", CardKind::Internal),
                HostAddress { deprecated: true, ..host("192.168.1.9") },
                host("192.168.1.10"),
            ],
            ..network(&[])
        });
        let gathered: Vec<_> =
            local.gather().into_iter().map(|known| (known.kind, known.address.ip().to_string())).collect();
        let expected = [
            (CandidateKind::Host, "192.168.1.10"),
            (CandidateKind::Host, "192.168.1.9"),
            (CandidateKind::ServerReflexive, "11.0.0.1"),
            (CandidateKind::Host, "172.17.0.1"),
            (CandidateKind::Overlay, "10.147.17.1"),
        ];
        assert_eq!(gathered, expected.map(|(kind, address)| (kind, address.to_owned())));
    }

    #[test]
    fn another_order_of_addresses_costs_nothing() {
        let mut local = LocalCandidates::default();
        local.set_network(network(&["11.0.0.1", "11.0.0.2"]));
        let change = local.set_network(network(&["11.0.0.2", "11.0.0.1"]));
        assert_eq!(change, Some(NetworkChange { addresses_changed: false, address_lost: false }));
    }

    #[test]
    fn only_a_lost_address_costs_connections() {
        let mut local = LocalCandidates::default();
        let change =
            |addresses_changed, address_lost| Some(NetworkChange { addresses_changed, address_lost });
        assert_eq!(local.set_network(network(&["11.0.0.1"])), change(true, false));
        assert_eq!(local.set_network(network(&["11.0.0.1"])), None);
        assert_eq!(local.set_network(network(&["11.0.0.1", "11.0.0.2"])), change(true, false));
        let routers = vec![[11, 0, 0, 254].into()];
        let known = LocalNetwork { routers, ..network(&["11.0.0.1", "11.0.0.2"]) };
        assert_eq!(local.set_network(known), change(false, false));
        assert_eq!(local.set_network(network(&["11.0.0.2"])), change(true, true));
    }
}

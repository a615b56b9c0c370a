//! The members that the path machine knows, under the ids that it uses: one for each device in each party.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use partyline_model::{Candidate, CandidateKind, DeviceId, Mapping, NatProfile, PartyId};
use partyline_paths::PeerId;

use crate::control::MemberTag;

/// Both directions of the numbering, and what each member announced about itself. Ids are never used again.
#[derive(Debug, Default)]
pub(super) struct Peers {
    ids: BTreeMap<(PartyId, DeviceId), PeerId>,
    peers: BTreeMap<PeerId, Peer>,
    next: u32,
}

#[derive(Debug)]
struct Peer {
    party: PartyId,
    device: DeviceId,
    candidates: Vec<Candidate>,
    nat: NatProfile,
}

impl Peers {
    /// Returns a member's id, if it has one.
    pub(super) fn id(&self, party: PartyId, device: DeviceId) -> Option<PeerId> {
        self.ids.get(&(party, device)).copied()
    }

    /// Returns the member with an id.
    pub(super) fn member(&self, id: PeerId) -> Option<(PartyId, DeviceId)> {
        self.peers.get(&id).map(|peer| (peer.party, peer.device))
    }

    /// Returns how many members have an id.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Adds a member, or updates what it announced; returns its id and whether it is new.
    pub(super) fn insert(
        &mut self,
        party: PartyId,
        device: DeviceId,
        candidates: Vec<Candidate>,
        nat: NatProfile,
    ) -> (PeerId, bool) {
        let known = self.id(party, device);
        let id = known.unwrap_or(PeerId(self.next));
        if known.is_none() {
            self.next = self.next.wrapping_add(1);
            self.ids.insert((party, device), id);
        }
        self.peers.insert(id, Peer { party, device, candidates, nat });
        (id, known.is_none())
    }

    /// Forgets a member; returns the id it had.
    pub(super) fn remove(&mut self, party: PartyId, device: DeviceId) -> Option<PeerId> {
        let id = self.ids.remove(&(party, device))?;
        self.peers.remove(&id);
        Some(id)
    }

    /// Returns the one member of a party with this tag; `None` if there is none, or more than one.
    pub(super) fn by_tag(&self, party: PartyId, tag: MemberTag) -> Option<DeviceId> {
        let bound = |fill: u8| {
            let mut id = [fill; 32];
            id[..tag.len()].copy_from_slice(&tag);
            (party, DeviceId(id))
        };
        let mut found = self.ids.range(bound(0)..=bound(0xff)).map(|((_, device), _)| *device);
        found.next().filter(|_| found.next().is_none())
    }

    /// Returns true if the member's NAT is known to use one mapping for all destinations.
    pub(super) fn has_independent_mapping(&self, party: PartyId, device: DeviceId) -> bool {
        let peer = self.id(party, device).and_then(|id| self.peers.get(&id));
        peer.is_some_and(|peer| peer.nat.mapping == Some(Mapping::EndpointIndependent))
    }

    /// Returns true if the member announced that servers see it at this IPv4 address.
    pub(super) fn is_seen_at(&self, party: PartyId, device: DeviceId, address: SocketAddr) -> bool {
        let peer = self.id(party, device).and_then(|id| self.peers.get(&id));
        peer.is_some_and(|peer| is_seen_at(&peer.nat, &peer.candidates, address))
    }
}

fn is_seen_at(nat: &NatProfile, candidates: &[Candidate], address: SocketAddr) -> bool {
    let IpAddr::V4(v4) = address.ip() else { return false };
    let unicast = !(v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified());
    let reflexive = candidates.iter().any(|candidate| {
        candidate.kind == CandidateKind::ServerReflexive && candidate.address.ip() == address.ip()
    });
    unicast && address.port() != 0 && (nat.public.contains(&address.ip()) || reflexive)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);

    fn device(first: u8, last: u8) -> DeviceId {
        let mut id = [first; 32];
        id[31] = last;
        DeviceId(id)
    }

    fn add(peers: &mut Peers, party: PartyId, device: DeviceId) -> PeerId {
        peers.insert(party, device, Vec::new(), NatProfile::default()).0
    }

    #[test]
    fn ids_are_never_used_again() {
        let mut peers = Peers::default();
        let first = add(&mut peers, PARTY, device(1, 0));
        assert_eq!(add(&mut peers, PARTY, device(1, 0)), first, "an update");
        assert_eq!(peers.remove(PARTY, device(1, 0)), Some(first));
        assert_ne!(add(&mut peers, PARTY, device(1, 0)), first);
        assert_eq!((peers.member(first), peers.len()), (None, 1));
    }

    #[test]
    fn tag_names_a_member_of_the_party_unless_two_share_it() {
        let mut peers = Peers::default();
        add(&mut peers, PARTY, device(1, 0));
        add(&mut peers, PartyId([2; 32]), device(2, 0));
        assert_eq!(peers.by_tag(PARTY, [1; 8]), Some(device(1, 0)));
        assert_eq!(peers.by_tag(PARTY, [2; 8]), None, "a member of another party");
        add(&mut peers, PARTY, device(1, 9));
        assert_eq!(peers.by_tag(PARTY, [1; 8]), None, "two members");
    }

    #[test]
    fn member_is_only_seen_where_it_says_servers_see_it() {
        let at = |address: &str| address.parse().expect("an address");
        let candidate = |kind, address| Candidate { kind, address: at(address) };
        let candidates = vec![
            candidate(CandidateKind::Host, "192.168.1.7:41641"),
            candidate(CandidateKind::Relayed, "11.0.9.9:50000"),
            candidate(CandidateKind::ServerReflexive, "11.0.0.1:41641"),
        ];
        let public = vec![[11, 0, 0, 2].into(), [127, 0, 0, 1].into()];
        let mut peers = Peers::default();
        peers.insert(PARTY, device(1, 0), candidates, NatProfile { public, ..NatProfile::default() });
        let cases = [
            ("11.0.0.1:5000", true),
            ("11.0.0.2:5000", true),
            ("11.0.0.1:0", false),
            ("11.0.9.9:50000", false),
            ("192.168.1.7:41641", false),
            ("11.0.0.3:41641", false),
            ("127.0.0.1:53", false),
            ("[2001:db8::1]:41641", false),
        ];
        for (address, seen) in cases {
            assert_eq!(peers.is_seen_at(PARTY, device(1, 0), at(address)), seen, "{address}");
        }
        assert!(!peers.is_seen_at(PARTY, device(2, 0), at("11.0.0.1:5000")), "another member");
    }
}

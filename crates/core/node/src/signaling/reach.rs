//! How somebody with some candidates can be reached from the internet.

use std::net::SocketAddr;

use partyline_model::{Candidate, CandidateKind, Filtering, Mapping, NatProfile, is_public};
use partyline_wire::contact_list::MAX_ADDRESSES;

/// Returns how hard it is to reach somebody with these candidates: 0 from anywhere, 1 behind a NAT that anybody can open, 2
/// behind any other.
pub(super) fn reach_rank(candidates: &[Candidate], nat: Option<&NatProfile>) -> u8 {
    let open = |candidate: &Candidate| {
        let kind = matches!(candidate.kind, CandidateKind::Mapped | CandidateKind::Host);
        kind && is_public(candidate.address.ip()) && candidate.address.is_ipv4()
    };
    let filters = nat.and_then(|nat| nat.filtering) != Some(Filtering::EndpointIndependent);
    let varies = nat.and_then(|nat| nat.mapping) != Some(Mapping::EndpointIndependent);
    if candidates.iter().any(open) || !(filters || varies) { 0 } else { 1 + u8::from(varies) }
}

/// Returns the addresses among some candidates at which anybody on the internet may reach their owner, the surest first.
pub(super) fn public_addresses(candidates: &[Candidate]) -> Vec<SocketAddr> {
    let rank = |candidate: &Candidate| match candidate.kind {
        CandidateKind::Mapped => Some(0),
        CandidateKind::Host => Some(1),
        CandidateKind::ServerReflexive => Some(2),
        _ => None,
    };
    let public = candidates.iter().filter(|candidate| is_public(candidate.address.ip()));
    let mut ranked: Vec<(u8, SocketAddr)> =
        public.filter_map(|candidate| Some((rank(candidate)?, candidate.address))).collect();
    ranked.sort_unstable();
    ranked.dedup_by_key(|(_, address)| *address);
    ranked.into_iter().map(|(_, address)| address).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, address: &str) -> Candidate {
        Candidate { kind, address: address.parse().expect("an address") }
    }

    #[test]
    fn the_surest_public_addresses_come_first_and_private_ones_not_at_all() {
        use CandidateKind::{Host, Mapped, Relayed, ServerReflexive};
        let list = [
            candidate(Host, "192.168.1.2:7"),
            candidate(ServerReflexive, "5.5.5.5:9"),
            candidate(Host, "[2606:4700::7]:7"),
            candidate(Relayed, "6.6.6.6:9"),
            candidate(Mapped, "5.5.5.5:8"),
        ];
        let expected =
            ["5.5.5.5:8", "[2606:4700::7]:7", "5.5.5.5:9"].map(|text| text.parse().expect("an address"));
        assert_eq!(public_addresses(&list), expected);
    }

    #[test]
    fn the_least_filtered_member_ranks_first() {
        let nat = |mapping, filtering| NatProfile {
            mapping: Some(mapping),
            filtering: Some(filtering),
            ..NatProfile::default()
        };
        let (independent, dependent) = (Mapping::EndpointIndependent, Mapping::AddressAndPortDependent);
        let (open, closed) = (Filtering::EndpointIndependent, Filtering::AddressAndPortDependent);
        let mapped = [candidate(CandidateKind::Mapped, "5.5.5.5:8")];
        assert_eq!(reach_rank(&mapped, Some(&nat(dependent, closed))), 0);
        assert_eq!(reach_rank(&[], Some(&nat(independent, open))), 0);
        assert_eq!(reach_rank(&[], Some(&nat(independent, closed))), 1);
        assert_eq!(reach_rank(&[], Some(&nat(dependent, open))), 2);
        assert_eq!(reach_rank(&[], None), 2, "unknown");
    }
}

//! Which candidates are announced, and in which order.

use partyline_model::{Candidate, CandidateKind};
use partyline_wire::announcement::MAX_CANDIDATES;

/// Returns at most [`MAX_CANDIDATES`] of the candidates gathered, so that thirty bridges cannot crowd out the one address
/// that a member needs. First comes the best one of each kind and family, then what works across networks, then further
/// addresses of interfaces; those of other VPNs are last. Among the same kind, the order stays. A shorter list, as in a
/// beacon, takes the first of these.
pub(super) fn most_useful(candidates: &[Candidate]) -> Vec<Candidate> {
    let place = |candidate: &Candidate| match candidate.kind {
        CandidateKind::Relayed => 0,
        CandidateKind::Mapped => 1,
        CandidateKind::Overlay => 3,
        kind if kind == CandidateKind::Host || kind == CandidateKind::Lan => 2,
        _ => 1,
    };
    let is_first = |at: usize, candidate: &Candidate| {
        let same = |other: &Candidate| {
            other.kind == candidate.kind && other.address.is_ipv4() == candidate.address.is_ipv4()
        };
        candidate.kind != CandidateKind::Overlay && !candidates.iter().take(at).any(same)
    };
    let mut ordered: Vec<(bool, u8, Candidate)> = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| (!is_first(at, candidate), place(candidate), *candidate))
        .collect();
    // Of the first ones, addresses of interfaces lead: they are those that a beacon is about.
    ordered.sort_by_key(|(further, place, _)| (*further, if *further { *place } else { 0 }));
    ordered.into_iter().map(|(_, _, candidate)| candidate).take(MAX_CANDIDATES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use CandidateKind::{Host, Mapped, Overlay, Relayed, ServerReflexive};

    fn candidate(kind: CandidateKind, address: &str) -> Candidate {
        Candidate { kind, address: address.parse().expect("an address") }
    }

    #[test]
    fn thirty_bridges_cut_nothing_off() {
        let bridge = |n: u8| candidate(Host, &format!("172.{n}.0.1:7"));
        let vpn = |n: u8| candidate(Overlay, &format!("10.{n}.0.1:7"));
        let useful = [
            candidate(Host, "192.168.1.10:7"),
            candidate(Host, "[2001:db8::10]:7"),
            candidate(Mapped, "198.51.100.1:7777"),
            candidate(ServerReflexive, "198.51.100.1:7"),
            candidate(ServerReflexive, "198.51.100.1:8"),
            candidate(ServerReflexive, "[2001:db8::99]:8"),
            candidate(Relayed, "203.0.113.1:50000"),
            candidate(Relayed, "203.0.113.2:50000"),
        ];
        let (cards, relayed) = useful.split_at(6);
        let gathered: Vec<Candidate> =
            [cards, &(0..30).map(bridge).collect::<Vec<_>>(), &(0..9).map(vpn).collect::<Vec<_>>(), relayed]
                .concat();
        let announced = most_useful(&gathered);
        assert_eq!(announced.len(), MAX_CANDIDATES);
        assert!(useful.iter().all(|wanted| announced.contains(wanted)), "{announced:?}");
        assert!(announced.iter().all(|known| known.kind != Overlay), "bridges go before other VPNs");
        assert_eq!(announced[0], useful[0]);
    }

    #[test]
    fn a_short_list_is_complete_with_other_vpns_last() {
        let list = [
            candidate(Overlay, "10.0.0.1:7"),
            candidate(Host, "192.168.1.2:7"),
            candidate(Host, "172.17.0.1:7"),
        ];
        assert_eq!(most_useful(&list), [list[1], list[2], list[0]]);
    }
}

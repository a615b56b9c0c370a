//! Which of our near ends are paired with which candidates of a peer (RFC 8445, section 6.1.2.2, with fewer pairs).

use std::{collections::BTreeMap, net::SocketAddr};

use partyline_model::{Candidate, CandidateKind, PathKind, SocketId};

use crate::{
    address::{is_private, is_reachable},
    context::Device,
    pair::path_kind,
    path::{AllocationId, MemberRelay, Path, PeerId, Via},
    relays::RelayPool,
    remote::Remote,
};

/// Paths worth checking, each with the best kind of candidate that asks for it.
pub(crate) type WantedPaths = BTreeMap<Path, CandidateKind>;

/// Returns the paths to a peer that are worth checking: from the main socket to its candidates, through each of the
/// given members, and through our allocations.
pub(crate) fn wanted_paths(
    remote: &Remote,
    forwarders: &[PeerId],
    device: &Device,
    relays: &RelayPool,
) -> WantedPaths {
    let mut wanted = WantedPaths::new();
    let permitted = remote.candidates.iter().filter(|candidate| !device.is_excluded(candidate.address.ip()));
    let (relayed, direct): (Vec<Candidate>, Vec<Candidate>) = permitted
        .map(|candidate| classified(device, *candidate))
        .partition(|candidate| candidate.kind == CandidateKind::Relayed);
    if device.config.direct {
        let main = Via::Socket(SocketId::MAIN);
        let tried = |c: &&Candidate| {
            let path = Path { via: main, remote: c.address };
            is_reachable(c, &device.candidates) && is_permitted(device, path, c.kind)
        };
        direct.iter().filter(tried).for_each(|candidate| want(&mut wanted, main, candidate));
    }
    if device.config.methods.member_relay {
        for through in forwarders.iter().filter(|through| device.direct_peers.contains(through)) {
            wanted.insert(MemberRelay { through: *through, to: remote.id }.path(), CandidateKind::Relayed);
        }
    }
    if device.config.relay {
        want_relayed(&mut wanted, device, relays, &relayed, &direct);
    }
    wanted
}

/// Returns a candidate as it is seen from here: whatever the peer calls it, our packets may reach it by another VPN.
fn classified(device: &Device, candidate: Candidate) -> Candidate {
    let direct = candidate.kind != CandidateKind::Relayed;
    let overlay = direct && device.is_behind_overlay(candidate.address.ip());
    Candidate { kind: if overlay { CandidateKind::Overlay } else { candidate.kind }, ..candidate }
}

fn want(wanted: &mut WantedPaths, via: Via, candidate: &Candidate) {
    let kind = wanted.entry(Path { via, remote: candidate.address }).or_insert(candidate.kind);
    *kind = (*kind).min(candidate.kind);
}

/// Adds the paths on which at least one side uses a relay server.
fn want_relayed(
    wanted: &mut WantedPaths,
    device: &Device,
    relays: &RelayPool,
    relayed: &[Candidate],
    direct: &[Candidate],
) {
    let ours: Vec<(AllocationId, SocketAddr)> =
        relays.announced().filter_map(|held| Some((held.id, held.relayed()?))).collect();
    let near: Vec<SocketAddr> = ours.iter().map(|(_, address)| *address).collect();
    let far: Vec<SocketAddr> = relayed.iter().map(|candidate| candidate.address).collect();
    for (at, remote) in relay_pairs(&near, &far) {
        if let (Some((id, _)), Some(candidate)) = (ours.get(at), relayed.get(remote)) {
            want(wanted, Via::Relay(*id), candidate);
        }
    }
    // A peer without a relay is reached from ours, and we reach its relay if we have none.
    if relayed.is_empty() {
        for (id, address) in &ours {
            let outside = |c: &&Candidate| {
                c.kind != CandidateKind::Overlay
                    && c.address.is_ipv4() == address.is_ipv4()
                    && !is_private(c.address.ip())
            };
            direct.iter().filter(outside).for_each(|candidate| want(wanted, Via::Relay(*id), candidate));
        }
    }
    if ours.is_empty() {
        let reachable = relayed.iter().filter(|candidate| is_reachable(candidate, &device.candidates));
        reachable.for_each(|candidate| want(wanted, Via::Socket(SocketId::MAIN), candidate));
    }
}

/// Returns which of our relayed addresses are paired with which of the peer's, by their places in both lists.
///
/// Paired are the two that one relay gave to both sides, so that packets cross one relay only; those whose relay the
/// other side does not use; and the best of both. Both sides come to the same result, so that channels are bound on
/// both ends.
fn relay_pairs(ours: &[SocketAddr], theirs: &[SocketAddr]) -> Vec<(usize, usize)> {
    let shares = |one: &SocketAddr, others: &[SocketAddr]| others.iter().any(|other| one.ip() == other.ip());
    let best = |list: &[SocketAddr], v4| list.iter().position(|address| address.is_ipv4() == v4);
    let mut pairs = Vec::new();
    for (at, near) in ours.iter().enumerate() {
        for (remote, far) in theirs.iter().enumerate().filter(|(_, far)| far.is_ipv4() == near.is_ipv4()) {
            let v4 = near.is_ipv4();
            let both_best = best(ours, v4) == Some(at) && best(theirs, v4) == Some(remote);
            let neither_shared = !shares(near, theirs) && !shares(far, ours);
            if near.ip() == far.ip() || both_best || neither_shared {
                pairs.push((at, remote));
            }
        }
    }
    pairs
}

/// Returns true if the method that a path stands for is switched on, and the path does not lead into a party.
pub(crate) fn is_permitted(device: &Device, path: Path, kind: CandidateKind) -> bool {
    if device.is_excluded(path.remote.ip()) {
        return false;
    }
    let config = &device.config;
    let methods = &config.methods;
    match (path_kind(path, kind), kind) {
        (PathKind::Relay, _) => config.relay,
        (PathKind::MemberRelay, _) => methods.member_relay,
        _ if !config.direct => false,
        (PathKind::Overlay, _) => true,
        (PathKind::Lan, _) => methods.lan,
        (PathKind::DirectV6, _) => methods.ipv6,
        (PathKind::Mapped, _) => methods.mapped,
        (_, CandidateKind::Predicted) => methods.predict,
        (_, CandidateKind::Sprayed) => methods.spray,
        // Members reach ports that our router opened for us from addresses that they never announced.
        (_, CandidateKind::PeerReflexive) => true,
        _ => methods.punch,
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::Methods;

    use super::*;
    use crate::api::Config;
    use crate::{api::PeerParams, context::Shared, testing::params};

    /// The pairs of relayed addresses, written as the letters of their relays.
    fn pairs(ours: &str, theirs: &str) -> String {
        let addresses = |letters: &str, port: u16| -> Vec<_> {
            letters.bytes().map(|letter| ([203, 0, 113, letter], port).into()).collect()
        };
        let (near, far) = (addresses(ours, 1), addresses(theirs, 2));
        let name = |(at, remote): (usize, usize)| {
            [ours.as_bytes()[at], theirs.as_bytes()[remote]].map(char::from).iter().collect::<String>()
        };
        relay_pairs(&near, &far).into_iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn members_use_the_relays_they_share_and_otherwise_two() {
        assert_eq!(pairs("ab", "ab"), "aa bb");
        assert_eq!(pairs("ab", "ba"), "ab aa bb");
        assert_eq!(pairs("ab", "cd"), "ac ad bc bd");
        assert_eq!(pairs("ab", "bc"), "ab ac bb");
        assert_eq!(pairs("a", "ab"), "aa");
        assert_eq!(pairs("", "ab"), "");
    }

    #[test]
    fn both_sides_form_the_same_relay_pairs() {
        let lists = ["a", "b", "ab", "ba", "bc", "cb", "cd"];
        for (ours, theirs) in lists.iter().flat_map(|ours| lists.map(|theirs| (*ours, theirs))) {
            let mirrored = |pair: &str| pair.chars().rev().collect::<String>();
            let mut there: Vec<_> = pairs(theirs, ours).split(' ').map(mirrored).collect();
            there.sort_unstable();
            let mut here: Vec<_> = pairs(ours, theirs).split(' ').map(str::to_owned).collect();
            here.sort_unstable();
            assert_eq!(here, there, "{ours} {theirs}");
        }
    }

    fn remote(candidates: &[(CandidateKind, &str)]) -> Remote {
        let candidates = candidates.iter();
        let params = PeerParams {
            candidates: candidates
                .map(|(kind, address)| Candidate { kind: *kind, address: address.parse().unwrap() })
                .collect(),
            ..params()
        };
        Remote::new(PeerId(2), params)
    }

    fn kinds(remote: &Remote, forwarders: &[PeerId], config: Config) -> Vec<CandidateKind> {
        let mut shared = Shared::new([1; 32], config);
        shared.device.direct_peers.insert(PeerId(1));
        wanted_paths(remote, forwarders, &shared.device, &shared.relays).into_values().collect()
    }

    #[test]
    fn an_address_that_is_announced_twice_is_one_path_of_the_better_kind() {
        use CandidateKind::{Host, ServerReflexive};
        let address = "198.51.100.1:1";
        let remote = remote(&[(ServerReflexive, address), (Host, address)]);
        assert_eq!(kinds(&remote, &[], Config::default()), [Host]);
    }

    #[test]
    fn methods_that_are_switched_off_are_not_tried() {
        use CandidateKind::{Lan, Mapped, Relayed, ServerReflexive};
        let list = [(Lan, "192.168.1.9:1"), (Mapped, "198.51.100.1:1"), (ServerReflexive, "198.51.100.1:2")];
        let remote = remote(&list);
        let all = Config::default();
        let punch_only = Methods { lan: false, mapped: false, ..all.methods };
        assert_eq!(kinds(&remote, &[], Config { methods: punch_only, ..all.clone() }), [ServerReflexive]);
        assert_eq!(kinds(&remote, &[], Config { direct: false, ..all.clone() }), []);
        let through_member = Config { direct: false, ..all };
        assert_eq!(kinds(&remote, &[PeerId(1), PeerId(9)], through_member), [Relayed], "9 is not direct");
    }

    #[test]
    fn a_relay_of_the_peer_is_reached_from_the_main_socket_without_one_of_ours() {
        let remote = remote(&[(CandidateKind::Relayed, "203.0.113.1:5")]);
        assert_eq!(kinds(&remote, &[], Config::default()), [CandidateKind::Relayed]);
        assert_eq!(kinds(&remote, &[], Config { relay: false, ..Config::default() }), []);
    }
}

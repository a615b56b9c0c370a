//! Which pairs a peer has: those its candidates and our allocations ask for, and those its packets show.

use std::collections::{BTreeMap, BTreeSet};

use partyline_model::{Candidate, CandidateKind, PathKind};
use rand_core::RngCore;
use std::net::SocketAddr;

use crate::{
    address::is_private,
    api::{AllocationId, Config, MemberRelay, Path, PeerId, RelayTransport, SocketId, Via},
    pair::{Pair, State, kind_of},
    peer::{Env, Peer},
};

/// Addresses learned from the peer's own packets that are remembered.
const MAX_LEARNED: usize = 8;
/// Pairs in all.
const MAX_PAIRS: usize = 64;

impl Peer {
    /// Makes the pairs that candidates and allocations ask for, and removes those they no longer do.
    pub(crate) fn sync(&mut self, env: &mut Env<'_>) {
        let wanted = self.wanted(env);
        self.recognise_relays();
        let selected = self.selected;
        let works = |pair: &Pair| wanted.contains_key(&pair.path) && pair.state == State::Valid;
        let served = self.pairs.iter().any(works);
        let announced: BTreeSet<SocketAddr> = self.candidates.iter().map(|c| c.address).collect();
        let stays = |pair: &Pair| {
            let (alive, retiring) = match pair.path.via {
                Via::Socket(_) => (true, false),
                Via::Member(passage) => (env.direct.contains(&passage.through), false),
                Via::Relay(id) => (env.relays.get(id).is_some(), env.relays.retires(id)),
            };
            let in_use = selected == Some(pair.path) && pair.state == State::Valid;
            let learned = is_learned(pair);
            // Once the peer has a relay of its own it is reached there; until that works, packets come as before.
            let relayed = matches!(pair.path.via, Via::Relay(_));
            let until_better = relayed && !served && announced.contains(&pair.path.remote);
            wanted.contains_key(&pair.path) || (alive && (retiring || in_use || learned || until_better))
        };
        let gone: Vec<Pair> = self.pairs.extract_if(.., |pair| !stays(pair)).collect();
        gone.iter().for_each(|pair| forget(pair, env));
        for pair in &mut self.pairs {
            pair.outdated = !wanted.contains_key(&pair.path) && !is_learned(pair);
        }
        for (path, kind) in wanted {
            match self.pair_mut(path) {
                Some(pair) => pair.kind = kind,
                None => self.add(env, path, kind),
            }
        }
        self.pairs.sort_by_key(|pair| (pair.tier(), pair.kind, pair.path));
    }

    /// Gives up what is not wanted any more, though it may work, and looks for what is.
    pub(crate) fn reconsider(&mut self, env: &mut Env<'_>) {
        let config = env.config;
        let gone: Vec<Pair> =
            self.pairs.extract_if(.., |pair| !permitted(config, pair.path, pair.kind)).collect();
        gone.iter().for_each(|pair| forget(pair, env));
        self.sync(env);
    }

    /// A path may show itself before the peer says that its end is at a relay; it is none the better for that.
    fn recognise_relays(&mut self) {
        let Self { pairs, candidates, .. } = self;
        for pair in pairs.iter_mut().filter(|pair| pair.kind == CandidateKind::PeerReflexive) {
            if ends_at_relay(candidates, pair.path) {
                (pair.kind, pair.transport) = (CandidateKind::Relayed, Some(RelayTransport::Udp));
            }
        }
    }

    /// Paths worth checking, each with the best of its reasons.
    fn wanted(&self, env: &Env<'_>) -> BTreeMap<Path, CandidateKind> {
        let mut wanted = BTreeMap::new();
        let want = |wanted: &mut BTreeMap<_, _>, via, candidate: &Candidate| {
            let kind = wanted.entry(Path { via, remote: candidate.address }).or_insert(candidate.kind);
            *kind = (*kind).min(candidate.kind);
        };
        let (relayed, direct): (Vec<Candidate>, Vec<Candidate>) =
            self.candidates.iter().partition(|candidate| candidate.kind == CandidateKind::Relayed);
        if env.config.direct {
            let tried = |c: &&Candidate| {
                let path = Path { via: Via::Socket(SocketId::MAIN), remote: c.address };
                reachable(c, env.local) && permitted(env.config, path, c.kind)
            };
            direct.iter().filter(tried).for_each(|c| want(&mut wanted, Via::Socket(SocketId::MAIN), c));
        }
        if env.config.methods.member_relay {
            let usable = |(through, _): &&(PeerId, _)| env.direct.contains(through);
            for (through, _) in self.offers.iter().filter(usable) {
                let path = MemberRelay { through: *through, to: self.id }.path();
                wanted.insert(path, CandidateKind::Relayed);
            }
        }
        if env.config.relay {
            let ours: Vec<(AllocationId, SocketAddr)> =
                env.relays.offered().filter_map(|a| Some((a.id, a.relayed()?))).collect();
            let theirs: Vec<SocketAddr> = relayed.iter().map(|c| c.address).collect();
            let near: Vec<SocketAddr> = ours.iter().map(|(_, address)| *address).collect();
            for (at, remote) in meetings(&near, &theirs) {
                if let (Some((id, _)), Some(far)) = (ours.get(at), relayed.get(remote)) {
                    want(&mut wanted, Via::Relay(*id), far);
                }
            }
            for (id, address) in ours.iter().filter(|_| relayed.is_empty()) {
                let outside =
                    |c: &&Candidate| c.address.is_ipv4() == address.is_ipv4() && !is_private(c.address.ip());
                direct.iter().filter(outside).for_each(|c| want(&mut wanted, Via::Relay(*id), c));
            }
            if ours.is_empty() {
                relayed
                    .iter()
                    .filter(|c| reachable(c, env.local))
                    .for_each(|c| want(&mut wanted, Via::Socket(SocketId::MAIN), c));
            }
        }
        wanted
    }

    fn add(&mut self, env: &mut Env<'_>, path: Path, kind: CandidateKind) {
        if self.pairs.len() >= MAX_PAIRS {
            return;
        }
        let spread = 0.75 + f64::from(env.rng.next_u32()) / f64::from(u32::MAX) / 2.0;
        let mut transport = None;
        let mut bound = false;
        if let Via::Relay(id) = path.via
            && let Some(allocation) = env.relays.get_mut(id)
        {
            transport = Some(allocation.server.transport);
            allocation.bind(env.now, path.remote, env.out);
            bound = allocation.channel(path.remote).is_some();
        } else if kind == CandidateKind::Relayed && matches!(path.via, Via::Socket(_)) {
            transport = Some(RelayTransport::Udp);
        }
        let mut pair = Pair::new(path, kind, transport, spread, env.config.direct_timeout);
        if bound {
            pair.bound();
        }
        self.pairs.push(pair);
    }

    /// The pair of this path; made if the peer's packets come from an address that nobody announced.
    pub(crate) fn learn(&mut self, env: &mut Env<'_>, path: Path) -> Option<&mut Pair> {
        if self.pair(path).is_none() {
            if !permitted(env.config, path, CandidateKind::PeerReflexive) || !self.make_room(env) {
                return None;
            }
            let relayed = ends_at_relay(&self.candidates, path).then_some(CandidateKind::Relayed);
            let kind = relayed.or_else(|| self.punch.kind_of(path)).unwrap_or(CandidateKind::PeerReflexive);
            self.add(env, path, kind);
            self.pairs.sort_by_key(|pair| (pair.tier(), pair.kind, pair.path));
        }
        let openings = self.punch.opened_to(path);
        let pair = self.pair_mut(path)?;
        pair.openings.extend(openings.into_iter().filter(|remote| *remote != path.remote));
        Some(pair)
    }

    /// Gives up a learned address that has failed, if there are too many to learn another.
    fn make_room(&mut self, env: &mut Env<'_>) -> bool {
        let learned = |pair: &&Pair| pair.kind == CandidateKind::PeerReflexive;
        if self.pairs.iter().filter(learned).count() < MAX_LEARNED {
            return true;
        }
        let failed = |pair: &Pair| learned(&pair) && pair.state == State::Failed;
        let Some(at) = self.pairs.iter().position(failed) else { return false };
        forget(&self.pairs.remove(at), env);
        true
    }
}

/// Which of our relayed addresses exchange packets with which of theirs, by their places in both lists, best first:
/// the two that a relay gave to both, so that packets cross one relay only; those that are left over on both sides;
/// and the best of both. Both sides come to the same result, so that the channels on both ends fit.
fn meetings(ours: &[SocketAddr], theirs: &[SocketAddr]) -> Vec<(usize, usize)> {
    let shares = |one: &SocketAddr, others: &[SocketAddr]| others.iter().any(|other| one.ip() == other.ip());
    let best = |list: &[SocketAddr], v4| list.iter().position(|address| address.is_ipv4() == v4);
    let mut meetings = Vec::new();
    for (at, near) in ours.iter().enumerate() {
        for (remote, far) in theirs.iter().enumerate().filter(|(_, far)| far.is_ipv4() == near.is_ipv4()) {
            let v4 = near.is_ipv4();
            let bests = best(ours, v4) == Some(at) && best(theirs, v4) == Some(remote);
            if near.ip() == far.ip() || bests || (!shares(near, theirs) && !shares(far, ours)) {
                meetings.push((at, remote));
            }
        }
    }
    meetings
}

/// Whether the way of connecting that a path stands for is switched on.
pub(crate) fn permitted(config: &Config, path: Path, kind: CandidateKind) -> bool {
    let methods = &config.methods;
    match (kind_of(path, kind), kind) {
        (PathKind::Relay, _) => config.relay,
        (PathKind::MemberRelay, _) => config.methods.member_relay,
        _ if !config.direct => false,
        (PathKind::Lan, _) => methods.lan,
        (PathKind::DirectV6, _) => methods.ipv6,
        (PathKind::Mapped, _) => methods.mapped,
        (_, CandidateKind::Predicted) => methods.predict,
        (_, CandidateKind::Sprayed) => methods.spray,
        // Members knock at ports that our router opened from addresses that nobody announced.
        (_, CandidateKind::PeerReflexive) => true,
        _ => methods.punch,
    }
}

/// Whether the peer's packets or answers showed it, rather than an announcement.
fn is_learned(pair: &Pair) -> bool {
    use CandidateKind::{PeerReflexive, Predicted, Sprayed};
    matches!(pair.kind, PeerReflexive | Predicted | Sprayed)
}

/// Whether a path goes straight to a relay of the peer's.
fn ends_at_relay(candidates: &[Candidate], path: Path) -> bool {
    let relayed = |c: &Candidate| c.kind == CandidateKind::Relayed && c.address == path.remote;
    matches!(path.via, Via::Socket(_)) && candidates.iter().any(relayed)
}

/// Gives back what a pair holds.
pub(crate) fn forget(pair: &Pair, env: &mut Env<'_>) {
    env.aliases.retain(|_, path| *path != pair.path);
    for id in pair.open_ids() {
        env.open_checks.remove(&id);
    }
    if let Via::Relay(id) = pair.path.via
        && let Some(allocation) = env.relays.get_mut(id)
    {
        allocation.unbind(pair.path.remote);
    }
}

/// Whether an address of a peer's can be meant for us: a family we have, no wildcard, no group, no loopback unless we
/// live there ourselves, and link-local only where the beacon heard it.
fn reachable(candidate: &Candidate, local: &[Candidate]) -> bool {
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
    use super::meetings;

    /// Relays by letter; equal letters are one relay.
    fn meet(ours: &str, theirs: &str) -> String {
        let addresses = |letters: &str, port: u16| -> Vec<_> {
            letters.bytes().map(|letter| ([203, 0, 113, letter], port).into()).collect()
        };
        let (near, far) = (addresses(ours, 1), addresses(theirs, 2));
        let name = |(at, remote): (usize, usize)| {
            [ours.as_bytes()[at], theirs.as_bytes()[remote]].map(char::from).iter().collect::<String>()
        };
        meetings(&near, &far).into_iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn members_meet_at_the_relays_they_share_and_otherwise_across() {
        assert_eq!(meet("ab", "ab"), "aa bb");
        assert_eq!(meet("ab", "ba"), "ab aa bb");
        assert_eq!(meet("ab", "cd"), "ac ad bc bd");
        assert_eq!(meet("ab", "bc"), "ab ac bb");
        assert_eq!(meet("a", "ab"), "aa");
        assert_eq!(meet("", "ab"), "");
    }

    #[test]
    fn both_sides_agree() {
        let lists = ["a", "b", "ab", "ba", "bc", "cb", "cd"];
        for (ours, theirs) in lists.iter().flat_map(|ours| lists.map(|theirs| (*ours, theirs))) {
            let mirrored = |pair: &str| pair.chars().rev().collect::<String>();
            let mut there: Vec<_> = meet(theirs, ours).split(' ').map(mirrored).collect();
            there.sort_unstable();
            let mut here: Vec<_> = meet(ours, theirs).split(' ').map(str::to_owned).collect();
            here.sort_unstable();
            assert_eq!(here, there, "{ours} {theirs}");
        }
    }
}

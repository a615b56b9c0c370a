//! Members that pass packets on for each other.
//!
//! A peer that is reached directly may pass on what is meant for another one, so that two that cannot reach each other
//! need no server. The caller finds out who would (it asks them) and says so with [`Paths::offer_member_relay`]; the path through
//! such a peer is then checked, chosen and given up like any other. It ends as soon as the peer in between is not
//! reached directly any more, so that nothing is ever passed on twice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::PathKind;

use crate::{
    Paths,
    api::{MemberRelay, Path, PeerId, Via},
    pair::{Pair, State},
    peer::Peer,
};

/// Offers kept for one peer: the fastest.
const MOST_OFFERS: usize = 3;
/// How much slower than a relay server a member may be to be tried at all: half as slow again, and this.
const SLOWER: Duration = Duration::from_millis(20);

impl Path {
    /// Whether packets of this peer may come this way.
    pub(crate) fn leads_to(&self, peer: PeerId) -> bool {
        !matches!(self.via, Via::Member(MemberRelay { to, .. }) if to != peer)
    }

    /// The peer that passes the packets on, if one does.
    pub(crate) const fn through(&self) -> Option<PeerId> {
        match self.via {
            Via::Member(passage) => Some(passage.through),
            Via::Socket(_) | Via::Relay(_) => None,
        }
    }
}

impl Peer {
    /// Whether it is reached without anybody's help.
    pub(crate) fn is_direct(&self) -> bool {
        let selected = self.selected.and_then(|path| self.pair(path));
        selected.is_some_and(|pair| pair.is_direct() && pair.state == State::Valid)
    }

    /// Whether a relay server is the best there is, or nothing, although there was time for something better.
    fn wants_passage(&self, now: Instant, patience: Duration) -> bool {
        let carried = self.selected.and_then(|path| self.pair(path)).map(Pair::carries);
        matches!(carried, None | Some(PathKind::Relay)) && now >= self.known + patience
    }

    /// The round trip through the relay server in use.
    fn relayed_rtt(&self) -> Option<Duration> {
        let relayed = self.pairs.iter().filter(|pair| pair.carries() == PathKind::Relay);
        relayed.filter(|pair| pair.state == State::Valid).filter_map(|pair| pair.estimate.rtt()).min()
    }

    /// Forgets offers that have come to nothing.
    pub(crate) fn drop_failed_offers(&mut self) {
        let (id, pairs) = (self.id, &self.pairs);
        self.offers.retain(|(through, _)| {
            let path = MemberRelay { through: *through, to: id }.path();
            !pairs.iter().any(|pair| pair.path == path && pair.state == State::Failed)
        });
    }
}

impl Paths {
    /// Whether a peer is reached directly: then it may pass packets on, and have packets passed on to it.
    #[must_use]
    pub fn is_direct(&self, id: PeerId) -> bool {
        self.shared.direct.contains(&id)
    }

    /// The round trip to a peer that is reached directly.
    #[must_use]
    pub fn direct_rtt(&self, id: PeerId) -> Option<Duration> {
        let peer = self.peers.get(&id).filter(|_| self.is_direct(id))?;
        peer.selected.and_then(|path| peer.pair(path))?.estimate.rtt()
    }

    /// Peers for whom somebody should be asked to pass packets on.
    #[must_use]
    pub fn peers_wanting_member_relay(&self, now: Instant) -> Vec<PeerId> {
        let config = &self.shared.config;
        let wanted = |peer: &&Peer| peer.wants_passage(now, config.direct_timeout);
        let any = config.methods.member_relay;
        self.peers.values().filter(wanted).filter(|_| any).map(|peer| peer.id).collect()
    }

    /// A peer that is reached directly would pass packets on to another one, to which it has the given round trip.
    pub fn offer_member_relay(&mut self, now: Instant, passage: MemberRelay, rest: Duration) {
        let MemberRelay { through, to } = passage;
        let Some(first) = self.direct_rtt(through) else { return };
        let whole = first + rest;
        self.with_peer(now, to, |peer, env| {
            let slower = peer.relayed_rtt().is_some_and(|rtt| whole > rtt.mul_f64(1.5) + SLOWER);
            if slower || through == to {
                return;
            }
            peer.offers.retain(|(known, _)| *known != through);
            peer.offers.push((through, whole));
            peer.offers.sort_by_key(|(through, rtt)| (*rtt, *through));
            peer.offers.truncate(MOST_OFFERS);
            peer.sync(env);
        });
    }

    /// Keeps the list of those that may pass packets on; what led through one that no longer may is over.
    pub(crate) fn note_direct(&mut self, id: PeerId, direct: bool) {
        if direct {
            self.shared.direct.insert(id);
        } else {
            self.shared.direct.remove(&id);
        }
    }

    /// Where the packets go first, for people.
    pub(crate) fn far_end(&self, path: Path) -> Option<SocketAddr> {
        let Some(through) = path.through() else { return Some(path.remote) };
        self.peers.get(&through)?.selected.map(|path| path.remote)
    }
}

//! The candidate pairs of one peer.

use std::{collections::BTreeSet, net::SocketAddr};

use partyline_model::{CandidateKind, Mapping};
use partyline_wire::probe::TransactionId;
use tracing::{debug, trace};

use crate::{
    api::RelayTransport,
    context::Context,
    pair::CandidatePair,
    pairing::{WantedPaths, is_permitted},
    path::{Path, Via},
    remote::Remote,
};

/// Bounds the peer-reflexive addresses remembered per peer.
const MAX_LEARNED: usize = 8;
/// Bounds the pairs of one peer.
const MAX_PAIRS: usize = 64;

/// All candidate pairs of one peer, best tier first.
///
/// Invariants: there is at most one pair per path, [`MAX_PAIRS`] in all, and [`MAX_LEARNED`] of peer-reflexive
/// addresses. Each pair through an allocation holds one use of a channel from when it is added until it is removed;
/// removal also forgets its pending transactions and aliases.
#[derive(Debug, Default)]
pub(crate) struct CandidatePairs {
    list: Vec<CandidatePair>,
}

impl CandidatePairs {
    pub(crate) fn get(&self, path: Path) -> Option<&CandidatePair> {
        self.list.iter().find(|pair| pair.path == path)
    }

    pub(crate) fn get_mut(&mut self, path: Path) -> Option<&mut CandidatePair> {
        self.list.iter_mut().find(|pair| pair.path == path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CandidatePair> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut CandidatePair> {
        self.list.iter_mut()
    }

    /// Returns the paths of all pairs, in order.
    pub(crate) fn paths(&self) -> Vec<Path> {
        self.list.iter().map(|pair| pair.path).collect()
    }

    /// Returns true if some direct path is valid.
    pub(crate) fn has_direct(&self) -> bool {
        self.list.iter().any(|pair| pair.is_direct() && pair.is_valid())
    }

    /// Returns true if some pair has this near end.
    pub(crate) fn uses(&self, via: Via) -> bool {
        self.list.iter().any(|pair| pair.path.via == via)
    }

    /// Returns the path that a pending check with this id was sent along.
    pub(crate) fn checked_path(&self, id: TransactionId) -> Option<Path> {
        self.list.iter().find(|pair| pair.open_ids().any(|open| open == id)).map(|pair| pair.path)
    }

    /// Adds the pairs that are wanted and not there yet, and removes those that nothing asks for any more.
    ///
    /// Kept are, besides the wanted ones, as long as their near end works: the selected pair while it is valid, learned
    /// ones, those through an allocation that retires, and, until a wanted one is valid, relayed ones to an address
    /// that is still announced: once the peer has a relay of its own it is reached there, but until that works packets
    /// arrive as before.
    pub(crate) fn reconcile(
        &mut self,
        ctx: &mut Context<'_>,
        remote: &Remote,
        wanted: WantedPaths,
        selected: Option<Path>,
    ) {
        self.recognize_relayed(remote);
        self.recognize_overlays(ctx);
        let serves = |pair: &CandidatePair| pair.is_valid() && !pair.is_overlay();
        let served = self.list.iter().any(|pair| wanted.contains_key(&pair.path) && serves(pair));
        let announced: BTreeSet<SocketAddr> = remote.candidates.iter().map(|c| c.address).collect();
        self.remove_where(ctx, "no longer announced", |ctx, pair| {
            let (alive, retiring) = near_end(ctx, pair.path);
            let in_use = selected == Some(pair.path) && pair.is_valid();
            let relayed = matches!(pair.path.via, Via::Relay(_));
            let until_served = relayed && !served && announced.contains(&pair.path.remote);
            let kept = alive && (retiring || in_use || pair.is_learned() || until_served);
            !wanted.contains_key(&pair.path) && !kept
        });
        for pair in &mut self.list {
            let outdated = !wanted.contains_key(&pair.path) && !pair.is_learned();
            if outdated && !pair.outdated {
                debug!(path = %pair.path, reason = "no longer announced", "candidate pair kept until replaced");
            }
            pair.outdated = outdated;
        }
        for (path, kind) in wanted {
            match self.get_mut(path) {
                Some(pair) => pair.set_kind(kind),
                None => self.add(ctx, path, kind),
            }
        }
        self.sort();
    }

    /// Reclassifies pairs that the peer's packets showed before the peer announced the address as its relay's.
    fn recognize_relayed(&mut self, remote: &Remote) {
        for pair in self.list.iter_mut().filter(|pair| pair.kind == CandidateKind::PeerReflexive) {
            if remote.ends_at_relay(pair.path) {
                debug!(path = %pair.path, reason = "peer announced it as relayed", "candidate pair reclassified");
                (pair.kind, pair.transport) = (CandidateKind::Relayed, Some(RelayTransport::Udp));
            }
        }
    }

    /// Reclassifies learned pairs that packets now reach by another VPN.
    fn recognize_overlays(&mut self, ctx: &Context<'_>) {
        for pair in self.list.iter_mut().filter(|pair| pair.is_learned()) {
            if matches!(pair.path.via, Via::Socket(_)) && ctx.device.is_behind_overlay(pair.path.remote.ip())
            {
                pair.set_kind(CandidateKind::Overlay);
            }
        }
    }

    fn sort(&mut self) {
        self.list.sort_by_key(|pair| (pair.tier(), pair.kind, pair.path));
    }

    fn add(&mut self, ctx: &mut Context<'_>, path: Path, kind: CandidateKind) {
        if self.list.len() >= MAX_PAIRS {
            debug!(%path, ?kind, reason = "too many pairs", "candidate pair refused");
            return;
        }
        let retry_jitter = 0.75 + ctx.transactions.random_share() / 2.0;
        let mut bound = false;
        let mut transport = None;
        match path.via {
            Via::Relay(id) => {
                if let Some(allocation) = ctx.relays.get_mut(id) {
                    transport = Some(allocation.server.transport);
                    bound = allocation.acquire_channel(ctx.now, path.remote, ctx.transmits);
                }
            }
            Via::Socket(_) if kind == CandidateKind::Relayed => transport = Some(RelayTransport::Udp),
            Via::Socket(_) | Via::Member(_) => {}
        }
        debug!(%path, ?kind, ?transport, "candidate pair added");
        let timeout = ctx.device.config.direct_timeout;
        let mut pair = CandidatePair::new(path, kind, transport, retry_jitter, timeout);
        if bound {
            pair.on_channel_bound();
        }
        self.list.push(pair);
    }

    /// Returns the pair of a path by which the peer's packets arrive, and adds one of the given kind if the address was
    /// not announced. Returns `None` if direct paths are switched off or there are too many learned pairs.
    pub(crate) fn learn(
        &mut self,
        ctx: &mut Context<'_>,
        path: Path,
        kind: CandidateKind,
    ) -> Option<&mut CandidatePair> {
        if self.get(path).is_none() {
            let permitted = is_permitted(ctx.device, path, CandidateKind::PeerReflexive);
            if !permitted {
                trace!(%path, reason = "not permitted", "address not learned");
                return None;
            }
            if !self.make_room(ctx) {
                return None;
            }
            self.add(ctx, path, kind);
            self.sort();
        }
        self.get_mut(path)
    }

    /// Removes a failed learned pair if there are too many to learn another. Returns false if none has failed.
    fn make_room(&mut self, ctx: &mut Context<'_>) -> bool {
        let learned = |pair: &&CandidatePair| pair.kind == CandidateKind::PeerReflexive;
        if self.list.iter().filter(learned).count() < MAX_LEARNED {
            return true;
        }
        let failed = |pair: &CandidatePair| learned(&pair) && pair.is_failed();
        let Some(at) = self.list.iter().position(failed) else {
            debug!(count = MAX_LEARNED, reason = "too many learned addresses", "candidate pair refused");
            return false;
        };
        release(&self.list.remove(at), ctx, "another address was learned");
        true
    }

    /// Removes all pairs that a predicate selects, and returns their paths.
    pub(crate) fn remove_where(
        &mut self,
        ctx: &mut Context<'_>,
        reason: &'static str,
        mut is_gone: impl FnMut(&Context<'_>, &CandidatePair) -> bool,
    ) -> Vec<Path> {
        let gone: Vec<CandidatePair> = self.list.extract_if(.., |pair| is_gone(ctx, pair)).collect();
        gone.iter().for_each(|pair| release(pair, ctx, reason));
        gone.into_iter().map(|pair| pair.path).collect()
    }

    /// Keeps alive the further NAT mappings that a path depends on, if they are due (RFC 8445, section 11).
    ///
    /// Where the peer's packets come from another port than ours go to, or by another mapping in our router than ours
    /// leave by, nothing else would be sent by the mapping that lets them in, and it would expire.
    pub(crate) fn keep_mappings(&mut self, ctx: &mut Context<'_>, path: Path) {
        let Some(pair) = self.get_mut(path).filter(|pair| pair.is_mapping_refresh_due(ctx.now)) else {
            return;
        };
        pair.on_mappings_kept(ctx.now);
        let per_port =
            !matches!(ctx.device.nat.mapping, Some(Mapping::EndpointIndependent | Mapping::AddressDependent));
        let received = |pair: &&CandidatePair| per_port || pair.last_received().is_some();
        let beside = self.list.iter().filter(received).map(|pair| pair.path);
        let opened = self.get(path).into_iter().flat_map(|pair| &pair.opened_ports);
        let mut others: BTreeSet<Path> = beside
            .filter(|other| other.is_beside(&path))
            .chain(ctx.aliases.sources_of(path))
            .chain(opened.map(|remote| Path { remote: *remote, ..path }))
            .collect();
        others.remove(&path);
        for other in others {
            trace!(%path, kept = %other, "mapping kept alive");
            let bytes = binding_indication(ctx.transactions.next_counter());
            ctx.send(other, bytes);
        }
    }
}

/// Returns whether a path's near end works, and whether it will soon be given up.
fn near_end(ctx: &Context<'_>, path: Path) -> (bool, bool) {
    match path.via {
        Via::Socket(_) => (true, false),
        Via::Member(relay) => (ctx.device.direct_peers.contains(&relay.through), false),
        Via::Relay(id) => (ctx.relays.get(id).is_some(), ctx.relays.is_retiring(id)),
    }
}

/// Releases what a pair holds.
fn release(pair: &CandidatePair, ctx: &mut Context<'_>, reason: &'static str) {
    debug!(path = %pair.path, state = ?pair.state(), reason, "candidate pair removed");
    ctx.aliases.remove(pair.path);
    for id in pair.open_ids() {
        ctx.transactions.close(id);
    }
    if let Via::Relay(id) = pair.path.via
        && let Some(allocation) = ctx.relays.get_mut(id)
    {
        allocation.release_channel(pair.path.remote);
    }
}

/// Encodes a STUN Binding indication (RFC 8489, section 6.3.2), which refreshes mappings and is never answered.
fn binding_indication(counter: u64) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0];
    bytes.extend(counter.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use partyline_model::{Candidate, SocketId};
    use partyline_wire::datagram;

    use super::*;
    use crate::{
        context::Shared,
        path::PeerId,
        testing::{remote, shared, start},
    };

    fn path(port: u16) -> Path {
        Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], port).into() }
    }

    fn wanted(ports: &[u16]) -> WantedPaths {
        ports.iter().map(|port| (path(*port), CandidateKind::ServerReflexive)).collect()
    }

    fn ports(pairs: &CandidatePairs) -> Vec<u16> {
        pairs.iter().map(|pair| pair.path.remote.port()).collect()
    }

    /// Makes a pair valid by a check that is answered after 20 ms.
    fn validate(pairs: &mut CandidatePairs, shared: &mut Shared, now: Instant, path: Path) {
        let id = shared.transactions.next_id();
        shared.transactions.open(id, PeerId(1));
        let pair = pairs.get_mut(path).unwrap();
        pair.on_check_sent(now, id);
        pair.on_response(now + Duration::from_millis(20), id).unwrap();
        shared.transactions.close(id);
    }

    #[test]
    fn pairs_follow_what_is_wanted() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[1, 2]), None);
        assert_eq!(ports(&pairs), [1, 2]);
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[2, 3]), None);
        assert_eq!(ports(&pairs), [2, 3]);
    }

    #[test]
    fn the_selected_pair_stays_while_it_is_valid_though_no_longer_announced() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[1]), None);
        validate(&mut pairs, &mut shared, now, path(1));
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[2]), Some(path(1)));
        assert_eq!(ports(&pairs), [1, 2]);
        assert!(pairs.get(path(1)).unwrap().outdated);
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[2]), Some(path(2)));
        assert_eq!(ports(&pairs), [2]);
    }

    #[test]
    fn pairs_are_bounded() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        let many: Vec<u16> = (1..200).collect();
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&many), None);
        assert_eq!(pairs.iter().count(), MAX_PAIRS);
    }

    #[test]
    fn learned_addresses_are_bounded_and_only_failed_ones_make_room() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        let kind = CandidateKind::PeerReflexive;
        for port in 1..=20 {
            pairs.learn(&mut shared.context(now), path(port), kind);
        }
        assert_eq!(pairs.iter().count(), MAX_LEARNED);
        assert!(pairs.learn(&mut shared.context(now), path(1), kind).is_some(), "known already");
        let failed = pairs.get_mut(path(3)).unwrap();
        (0..20).for_each(|counter| failed.on_check_sent(now, TransactionId::new(counter, 0)));
        failed.expire(now + Duration::from_secs(5));
        assert!(pairs.learn(&mut shared.context(now), path(30), kind).is_some());
        assert!(pairs.get(path(3)).is_none());
    }

    #[test]
    fn nothing_is_learned_while_direct_paths_are_off() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        shared.device.config.direct = false;
        assert!(pairs.learn(&mut shared.context(now), path(1), CandidateKind::PeerReflexive).is_none());
    }

    #[test]
    fn removed_pairs_leave_neither_transactions_nor_aliases() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[1]), None);
        let id = shared.transactions.next_id();
        shared.transactions.open(id, PeerId(1));
        pairs.get_mut(path(1)).unwrap().on_check_sent(now, id);
        shared.aliases.add(path(9), path(1));
        assert_eq!(pairs.checked_path(id), Some(path(1)));
        pairs.remove_where(&mut shared.context(now), "test", |_, _| true);
        assert_eq!((shared.transactions.pending(), shared.aliases.resolve(path(9))), (0, path(9)));
    }

    #[test]
    fn a_path_that_turns_out_to_end_at_a_relay_loses_its_tier() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        pairs.learn(&mut shared.context(now), path(1), CandidateKind::PeerReflexive);
        assert!(pairs.get(path(1)).unwrap().is_direct());
        let mut remote = remote();
        remote.candidates = vec![Candidate { kind: CandidateKind::Relayed, address: path(1).remote }];
        let relayed = [(path(1), CandidateKind::Relayed)].into();
        pairs.reconcile(&mut shared.context(now), &remote, relayed, None);
        assert!(!pairs.get(path(1)).unwrap().is_direct());
    }

    #[test]
    fn further_mappings_of_a_path_are_kept_alive_at_most_every_four_seconds() {
        let (mut shared, now, mut pairs) = (shared(), start(), CandidatePairs::default());
        pairs.reconcile(&mut shared.context(now), &remote(), wanted(&[1]), None);
        validate(&mut pairs, &mut shared, now, path(1));
        pairs.get_mut(path(1)).unwrap().opened_ports.insert(path(7).remote);
        shared.aliases.add(path(8), path(1));
        let mut kept = |after| {
            pairs.keep_mappings(&mut shared.context(now + Duration::from_secs(after)), path(1));
            shared.transmits.drain(..).map(|sent| (sent.destination.port(), sent.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(kept(3), []);
        let sent = kept(4);
        assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [7, 8]);
        assert!(sent.iter().all(|(_, bytes)| datagram::classify(bytes) == datagram::Kind::Stun));
        assert_eq!((kept(5), kept(8).len()), (vec![], 2));
    }
}

//! One peer: its candidate pairs, the path in use, and punching, side by side.
//!
//! Each part has its own state and sees the others only as arguments: [`CandidatePairs`] the checks, [`PathSelection`]
//! the choice, [`Punch`] the attempts to cross both NATs. The peer passes events between them.

use std::time::{Duration, Instant};

use partyline_model::{CandidateKind, PathKind, SharedNat, SocketId};
use partyline_wire::{probe::TransactionId, punch::Signal};
use tracing::{debug, trace};

use crate::{
    api::{Event, PeerParams},
    context::{Context, Device},
    member_relays::MemberRelayOffers,
    pair::CandidatePair,
    pairing::{is_permitted, wanted_paths},
    pairs::CandidatePairs,
    path::{MemberRelay, Path, PeerId, Route, Via},
    punch::{PeerState, Punch},
    relays::RelayPool,
    remote::{Refusal, Remote},
    selection::{PathSelection, Selector},
    strategy::{self, Side},
    traffic::TrafficMonitor,
};

/// How long an unused path by a punch socket is kept beside the direct one in use.
const UNUSED_PUNCH_SOCKET_TIMEOUT: Duration = Duration::from_secs(10);

/// One peer.
pub(crate) struct Peer {
    remote: Remote,
    pairs: CandidatePairs,
    selection: PathSelection,
    punch: Punch,
    member_relays: MemberRelayOffers,
    traffic: TrafficMonitor,
    known_since: Instant,
}

impl Peer {
    pub(crate) fn new(now: Instant, id: PeerId, params: PeerParams) -> Self {
        debug!(controlling = params.controlling, candidates = params.candidates.len(), "peer added");
        Self {
            remote: Remote::new(id, params),
            pairs: CandidatePairs::default(),
            selection: PathSelection::default(),
            punch: Punch::default(),
            member_relays: MemberRelayOffers::default(),
            traffic: TrafficMonitor::default(),
            known_since: now,
        }
    }

    pub(crate) const fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) const fn pairs(&self) -> &CandidatePairs {
        &self.pairs
    }

    pub(crate) const fn selection(&self) -> &PathSelection {
        &self.selection
    }

    pub(crate) const fn punch(&self) -> &Punch {
        &self.punch
    }

    /// Returns the pair in use.
    pub(crate) fn selected_pair(&self) -> Option<&CandidatePair> {
        self.selection.pair(&self.pairs)
    }

    /// Returns true if the path in use is direct and valid.
    pub(crate) fn is_direct(&self) -> bool {
        self.selection.is_direct(&self.pairs)
    }

    /// Takes what the peer announces now.
    pub(crate) fn update(&mut self, params: PeerParams) {
        self.remote.update(params);
    }

    /// Brings the candidate pairs in line with candidates, allocations and offers.
    pub(crate) fn sync_pairs(&mut self, ctx: &mut Context<'_>) {
        let members = self.member_relays.members();
        let wanted = wanted_paths(&self.remote, &members, ctx.device, ctx.relays);
        self.pairs.reconcile(ctx, &self.remote, wanted, self.selection.path());
    }

    /// Applies a changed configuration: gives up what is not permitted any more though it may work, and checks what is.
    pub(crate) fn apply_config(&mut self, ctx: &mut Context<'_>) {
        self.pairs
            .remove_where(ctx, "not permitted", |ctx, pair| !is_permitted(ctx.device, pair.path, pair.kind));
        self.sync_pairs(ctx);
    }

    /// Reacts to a possible change of network: nothing that was measured counts until it is measured again.
    pub(crate) fn on_network_changed(&mut self, now: Instant) {
        debug!(reason = "network changed", "every path must be validated again");
        self.punch.retry_now();
        self.pairs.iter_mut().for_each(|pair| pair.require_liveness(now));
    }

    /// Unfreezes the pair of a path whose channel is bound now.
    pub(crate) fn on_channel_bound(&mut self, path: Path) {
        if let Some(pair) = self.pairs.get_mut(path) {
            pair.on_channel_bound();
        }
    }

    /// Measures the path in use on request.
    pub(crate) fn measure(&mut self, now: Instant) {
        if let Some(pair) = self.selection.path().and_then(|path| self.pairs.get_mut(path)) {
            pair.request_measurement(now);
        }
    }

    /// Answers a check of the peer, and takes it as a sign that packets arrive by this path.
    pub(crate) fn handle_request(
        &mut self,
        ctx: &mut Context<'_>,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let request = self.remote.session.open_request(bytes)?;
        // A response would tell the peer that it may use this path.
        let kind = self.pairs.get(path).map_or(CandidateKind::PeerReflexive, |pair| pair.kind);
        if !is_permitted(ctx.device, path, kind) {
            trace!(%path, reason = "not permitted", "check not answered");
            return Ok(());
        }
        trace!(%path, nominate = request.nominate, "check received");
        let controlled = !self.remote.controlling;
        if let Some(pair) = self.learn(ctx, path) {
            pair.on_request(ctx.now);
            if !pair.is_valid() {
                pair.trigger_check("the peer's check arrived");
            }
            if request.nominate && controlled {
                self.selection.nominate(path);
            }
        }
        let state = PeerState { remote: &self.remote, pairs: &self.pairs, selected: self.selection.path() };
        self.punch.on_request(&state, ctx, path, request.id);
        self.remote.send_response(ctx, path, request.id);
        if self.selection.path() == Some(path) {
            self.pairs.keep_mappings(ctx, path);
        }
        Ok(())
    }

    /// Takes the response to a check. It must come from where the check was sent (RFC 8445, section 7.2.5.2.1), or from
    /// another port of that host; see [`crate::context::Aliases`].
    pub(crate) fn handle_response(
        &mut self,
        ctx: &mut Context<'_>,
        path: Path,
        id: TransactionId,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let from_server = ctx.device.stun_servers.contains(&path.remote);
        if from_server && self.punch.on_stun_response(ctx.now, id, bytes) {
            return Ok(());
        }
        let response = self.remote.session.open_response(bytes)?;
        let checked = self.checked_path(response.id).filter(|checked| checked.is_beside(&path));
        let checked = checked.ok_or(Refusal::Unsolicited)?;
        if self.pairs.get(checked).is_none() {
            self.promote_probe(ctx, checked, response.id);
        }
        let in_use = self.selection.path() == Some(checked);
        let pair = self.pairs.get_mut(checked).ok_or(Refusal::Unsolicited)?;
        let before = pair.state();
        let rtt = pair.on_response(ctx.now, response.id).ok_or(Refusal::Unsolicited)?;
        trace!(path = %checked, rtt_ms = rtt.as_millis(), "check answered");
        ctx.events.extend(pair.attempt_event(before));
        if in_use {
            let kind = pair.path_kind();
            ctx.events.push_back(Event::Sampled { peer: self.remote.id, rtt: Some(rtt), kind });
        }
        if checked != path && self.pairs.get(path).is_none() {
            ctx.aliases.add(path, checked);
        }
        Ok(())
    }

    /// Returns the path that a check or probe with this id was sent along.
    fn checked_path(&self, id: TransactionId) -> Option<Path> {
        self.pairs.checked_path(id).or_else(|| self.punch.probe(id).map(|(path, _)| path))
    }

    /// Makes a candidate pair of a path on which a probe was answered.
    fn promote_probe(&mut self, ctx: &mut Context<'_>, path: Path, id: TransactionId) {
        let Some((_, sent)) = self.punch.probe(id) else { return };
        debug!(%path, after_ms = (ctx.now - sent).as_millis(), "probe answered; path found");
        if let Some(pair) = self.learn(ctx, path) {
            pair.on_check_sent(sent, id);
        }
    }

    /// Returns the pair of a path by which the peer's packets arrive, learning it if it is new.
    fn learn(&mut self, ctx: &mut Context<'_>, path: Path) -> Option<&mut CandidatePair> {
        let relayed = self.remote.ends_at_relay(path).then_some(CandidateKind::Relayed);
        let overlay = self.remote.is_on_overlay(ctx.device, path).then_some(CandidateKind::Overlay);
        let kind = relayed.or(overlay).or_else(|| self.punch.candidate_kind(path));
        let opened_ports = self.punch.predicted_ports(path);
        let pair = self.pairs.learn(ctx, path, kind.unwrap_or(CandidateKind::PeerReflexive))?;
        pair.opened_ports.extend(opened_ports.into_iter().filter(|remote| *remote != path.remote));
        Some(pair)
    }

    /// Notes that the tunnel has authenticated a packet of this peer on a known path. Returns false if the path is new;
    /// see [`Self::learn_authenticated`].
    pub(crate) fn on_authenticated(&mut self, now: Instant, path: Path) -> bool {
        let pair = self.pairs.get_mut(path);
        let known = pair.is_some();
        pair.into_iter().for_each(|pair| pair.on_received(now));
        known
    }

    /// Learns a path from a packet that the tunnel has authenticated, and checks it.
    pub(crate) fn learn_authenticated(&mut self, ctx: &mut Context<'_>, path: Path) {
        let now = ctx.now;
        debug!(%path, "authenticated packet from a new address");
        if let Some(pair) = self.learn(ctx, path) {
            pair.on_received(now);
            pair.trigger_check("an authenticated packet arrived");
        }
    }

    /// Takes a signal of the peer about a punch attempt.
    pub(crate) fn handle_signal(&mut self, ctx: &mut Context<'_>, signal: Signal) {
        let state = PeerState { remote: &self.remote, pairs: &self.pairs, selected: self.selection.path() };
        self.punch.on_signal(&state, ctx, signal);
    }

    /// Takes sockets that punching asked for.
    pub(crate) fn on_sockets_opened(&mut self, ctx: &mut Context<'_>, opened: &[(SocketId, Option<u16>)]) {
        self.punch.on_sockets_opened(ctx, opened);
    }

    /// Takes a member's offer to relay to this peer with the given round trip time.
    pub(crate) fn on_member_relay_offer(&mut self, ctx: &mut Context<'_>, relay: MemberRelay, rtt: Duration) {
        if self.member_relays.add(relay, rtt, self.server_rtt()) {
            self.sync_pairs(ctx);
        }
    }

    /// Returns the round trip time through the best relay server.
    fn server_rtt(&self) -> Option<Duration> {
        let relayed = self.pairs.iter().filter(|pair| pair.path_kind() == PathKind::Relay);
        relayed.filter(|pair| pair.is_valid()).filter_map(|pair| pair.quality().rtt()).min()
    }

    /// Returns true if a relay server is the best there is, or nothing, although there was time for something better.
    pub(crate) fn wants_member_relay(&self, now: Instant, direct_timeout: Duration) -> bool {
        let kind = self.selected_pair().map(CandidatePair::path_kind);
        matches!(kind, None | Some(PathKind::Relay | PathKind::Overlay))
            && now >= self.known_since + direct_timeout
    }

    /// Returns the NAT that both members are behind and that keeps them apart because it does not hairpin. `None` while
    /// a direct path is still looked for.
    pub(crate) fn separating_nat(&self, device: &Device) -> Option<SharedNat> {
        let open = |pair: &CandidatePair| pair.is_direct() && (pair.is_valid() || !pair.has_failed_before());
        if !device.config.direct || self.pairs.iter().any(open) {
            return None;
        }
        let local = Side::of(&device.nat, &device.candidates);
        let remote = Side::of(&self.remote.nat, &self.remote.candidates);
        strategy::shared_nat_without_hairpin(&local, &remote)
    }

    /// Returns where the next packets go, and notes that they are sent.
    pub(crate) fn route(&mut self, now: Instant, relays: &RelayPool) -> Option<Route> {
        if self.selection.path().is_some() {
            self.traffic.on_sent(now);
        }
        self.selection.route(now, &mut self.pairs, relays)
    }

    /// Does what is due, and returns when to continue.
    pub(crate) fn drive(&mut self, ctx: &mut Context<'_>) -> Option<Instant> {
        self.expire_checks(ctx);
        self.member_relays.remove_failed(self.remote.id, &self.pairs);
        let selector = Selector { peer: self.remote.id, controlling: self.remote.controlling };
        self.selection.update(ctx.now, selector, &mut self.pairs, ctx.events);
        self.verify_relays(ctx);
        let next_check = self.send_due_checks(ctx);
        self.remove_unused_punch_sockets(ctx);
        let strained = self.traffic.is_strained(self.selection.pair(&self.pairs), ctx.now);
        ctx.pacing.sprays.set_strained(ctx.now, self.remote.id, strained);
        let state = PeerState { remote: &self.remote, pairs: &self.pairs, selected: self.selection.path() };
        let selection = self.selection.next_change();
        [next_check, self.punch.drive(&state, ctx), selection].into_iter().flatten().min()
    }

    fn expire_checks(&mut self, ctx: &mut Context<'_>) {
        for pair in self.pairs.iter_mut() {
            let before = pair.state();
            let expired = pair.expire(ctx.now);
            ctx.events.extend(pair.attempt_event(before));
            for check in expired {
                ctx.transactions.close(check.id);
                if check.lost && self.selection.path() == Some(pair.path) {
                    let kind = pair.path_kind();
                    ctx.events.push_back(Event::Sampled { peer: self.remote.id, rtt: None, kind });
                }
            }
        }
    }

    /// Asks relay servers whether they still know us where a relayed path is suspect, since the server may have restarted, and
    /// where the path in use is, which may have to be replaced and whose router may have lost every mapping.
    fn verify_relays(&self, ctx: &mut Context<'_>) {
        let in_trouble = self.selected_pair().is_some_and(|pair| pair.is_suspect(ctx.now));
        for pair in self.pairs.iter().filter(|pair| in_trouble || pair.is_suspect(ctx.now)) {
            if let Via::Relay(id) = pair.path.via
                && let Some(allocation) = ctx.relays.get_mut(id)
            {
                trace!(path = %pair.path, relay = %allocation.server.name, "path in trouble; asking its relay server");
                allocation.verify(ctx.now, ctx.transmits);
            }
        }
    }

    /// Sends the checks that are due as far as the pace allows. Returns when the next one is due or a pair changes.
    fn send_due_checks(&mut self, ctx: &mut Context<'_>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for path in self.pairs.paths() {
            let mut due = self.next_check(ctx, path);
            if due.is_some_and(|at| at <= ctx.now) {
                due = self.await_turn(ctx, path).or_else(|| self.check(ctx, path));
            }
            let change = self.pairs.get(path).and_then(|pair| pair.next_change(ctx.now));
            next = [next, due, change].into_iter().flatten().min();
        }
        next
    }

    fn next_check(&self, ctx: &Context<'_>, path: Path) -> Option<Instant> {
        let pair = self.pairs.get(path)?;
        let used_as = self.selection.use_of(pair, &self.pairs, self.remote.controlling, ctx.now);
        pair.next_check(ctx.now, used_as, ctx.device.keepalive())
    }

    /// Returns when the pacers give a pair its turn; `None` means now.
    fn await_turn(&mut self, ctx: &mut Context<'_>, path: Path) -> Option<Instant> {
        let pair = self.pairs.get_mut(path)?;
        let pacing = &mut *ctx.pacing;
        let pacer = if pair.only_measures() { &mut pacing.measurements } else { &mut pacing.checks };
        pair.await_turn(ctx.now, || pacer.take(ctx.now))
    }

    /// Sends a check on a pair; returns when its next one is due.
    fn check(&mut self, ctx: &mut Context<'_>, path: Path) -> Option<Instant> {
        let pair = self.pairs.get_mut(path)?;
        let id = ctx.transactions.next_id();
        pair.on_check_sent(ctx.now, id);
        let priority = pair.priority();
        let in_use = self.selection.path() == Some(path);
        self.remote.send_check(ctx, path, id, priority, self.remote.controlling && in_use);
        if in_use {
            self.pairs.keep_mappings(ctx, path);
        }
        self.next_check(ctx, path)
    }

    /// Gives up paths by punch sockets that have failed or are not used beside a direct one, and with the last path of a
    /// socket the socket itself.
    fn remove_unused_punch_sockets(&mut self, ctx: &mut Context<'_>) {
        let selected = self.selection.path();
        let on_direct = self.selected_pair().is_some_and(CandidatePair::is_direct);
        let removed = self.pairs.remove_where(ctx, "failed or not used", |ctx, pair| {
            let old = pair.is_older_than(UNUSED_PUNCH_SOCKET_TIMEOUT, ctx.now);
            let unused = selected != Some(pair.path) && on_direct && old;
            pair.path.uses_punch_socket() && (pair.is_failed() || unused)
        });
        for path in removed {
            if let Via::Socket(id) = path.via
                && !self.pairs.uses(path.via)
                && !self.punch.holds(id)
            {
                debug!(socket = id.0, reason = "no path uses it", "punch socket given up");
                ctx.sockets.close(id, ctx.events);
            }
        }
    }

    /// Releases everything the peer holds.
    pub(crate) fn close(mut self, ctx: &mut Context<'_>, reason: &'static str) {
        debug!(reason, "peer removed");
        self.punch.abandon(ctx);
        self.pairs.remove_where(ctx, "peer removed", |_, _| true);
        ctx.sockets.close_all(self.remote.id, ctx.events);
        ctx.pacing.sprays.set_strained(ctx.now, self.remote.id, false);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use partyline_model::{Candidate, NatProfile};
    use partyline_wire::probe::Tag;

    use super::*;
    use crate::{api::Config, context::Shared, pair::PairState};

    /// One of two members on computers of their own.
    struct Member {
        peer: Peer,
        shared: Shared,
        address: SocketAddr,
    }

    impl Member {
        fn new(me: u8, now: Instant) -> Self {
            let other = 1 - me;
            let address = |host: u8| SocketAddr::from(([198, 51, 100, host], 7777));
            let params = PeerParams {
                probe_key: [7; 32],
                local_tag: Tag([me; 8]),
                remote_tag: Tag([other; 8]),
                controlling: me == 0,
                nat: NatProfile::default(),
                candidates: vec![Candidate { kind: CandidateKind::Host, address: address(other) }],
            };
            let shared = Shared::new([me; 32], Config::default());
            Self { peer: Peer::new(now, PeerId(1), params), shared, address: address(me) }
        }

        /// Calls the peer and drives it.
        fn call<R>(&mut self, now: Instant, what: impl FnOnce(&mut Peer, &mut Context<'_>) -> R) -> R {
            let mut ctx = self.shared.context(now);
            let result = what(&mut self.peer, &mut ctx);
            self.peer.drive(&mut ctx);
            result
        }

        fn sent(&mut self) -> Vec<Vec<u8>> {
            self.shared.transmits.drain(..).map(|transmit| transmit.bytes).collect()
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn members() -> (Member, Member, Instant) {
        let now = Instant::now();
        let (mut one, mut other) = (Member::new(0, now), Member::new(1, now));
        one.call(now, Peer::sync_pairs);
        other.call(now, Peer::sync_pairs);
        (one, other, now)
    }

    fn path_to(member: &Member) -> Path {
        Path { via: Via::Socket(SocketId::MAIN), remote: member.address }
    }

    #[test]
    fn a_check_is_answered_and_triggers_one_in_the_other_direction() {
        let (mut one, mut other, now) = members();
        let check = one.sent().remove(0);
        let first = other.sent().len();
        let path = path_to(&one);
        assert_eq!(other.call(now, |peer, ctx| peer.handle_request(ctx, path, &check)), Ok(()));
        assert_eq!((first, other.sent().len()), (1, 2), "the response and a triggered check");
        assert_eq!(
            other.call(now, |peer, ctx| peer.handle_request(ctx, path, &check)),
            Err(Refusal::Replayed)
        );
    }

    #[test]
    fn a_response_validates_the_path_only_if_it_comes_from_the_host_that_was_asked() {
        let (mut one, mut other, now) = members();
        let check = one.sent().remove(0);
        other.sent();
        let path = path_to(&one);
        other.call(now, |peer, ctx| peer.handle_request(ctx, path, &check)).unwrap();
        let response = other.sent().remove(0);
        let id = partyline_wire::probe::TransactionId(*response[8..].first_chunk().unwrap());
        let path = path_to(&other);
        let elsewhere = Path { remote: ([192, 0, 2, 1], 7777).into(), ..path };
        let mut receive = |path| one.call(now, |peer, ctx| peer.handle_response(ctx, path, id, &response));
        assert_eq!(receive(elsewhere), Err(Refusal::Unsolicited));
        assert_eq!(receive(path), Ok(()));
        assert!(one.peer.is_direct());
        assert_eq!(one.peer.pairs().get(path).map(CandidatePair::state), Some(PairState::Valid));
    }

    #[test]
    fn a_check_by_a_method_that_is_switched_off_is_not_answered() {
        let (mut one, mut other, now) = members();
        let check = one.sent().remove(0);
        other.shared.device.config.direct = false;
        other.call(now, Peer::apply_config);
        other.sent();
        let path = path_to(&one);
        assert_eq!(other.call(now, |peer, ctx| peer.handle_request(ctx, path, &check)), Ok(()));
        assert!(other.sent().is_empty());
    }

    #[test]
    fn a_closed_peer_leaves_nothing_pending() {
        let (one, _, now) = members();
        let Member { peer, mut shared, .. } = one;
        assert_eq!(shared.transactions.pending(), 1);
        peer.close(&mut shared.context(now), "test");
        assert_eq!(shared.transactions.pending(), 0);
    }
}

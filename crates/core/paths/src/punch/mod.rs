//! Crossing two NATs together: when, by which method, and with what result.
//!
//! The announced candidates are checked in any case ([`crate::pair`]). Where [`crate::strategy`] says that this cannot
//! suffice, the side with the better NAT proposes a [`attempt::PunchAttempt`]:
//!
//! - **Prediction** (`sampling`, `prediction`, `simultaneous_open`): both sides send to the ports at which the other
//!   will appear.
//! - **Spray** (`spray`): one side opens hundreds of sockets, the other tries ports at random until it finds one.
//!
//! Attempts that fail are repeated with growing pauses ([`breaker`]), and without pause once something changes
//! about either network.

mod attempt;
mod breaker;
mod flow_checks;
mod prediction;
mod probes;
mod sampling;
mod simultaneous_open;
mod spray;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{AttemptOutcome, CandidateKind, Method, SocketId};
use partyline_wire::{
    probe::TransactionId,
    punch::{Body, EndReason, PunchAction, PunchPlan, Signal},
};
use tracing::{debug, trace};

use crate::{
    api::{Config, Event},
    context::Context,
    path::Path,
    router_table::MIN_SPRAY_FLOWS,
    strategy::{self, End, Infeasible, Side, Strategy},
};

use attempt::{AttemptEnd, PunchAttempt};
pub(crate) use attempt::{AttemptRecord, PeerState};
use breaker::Breaker;
use spray::PortOrder;

/// How long NAT measurements are awaited before everything is tried without them.
const MEASUREMENT_WAIT: Duration = Duration::from_millis(2500);
/// How much later the side that is not the proposer proposes nevertheless, in case the other does not.
const SECOND_PROPOSER_DELAY: Duration = Duration::from_secs(4);
/// How long an attempt waits for sockets that others use, jittered between half and one and a half times.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Least time between two attempts that the other side may ask for.
const MIN_ATTEMPT_GAP: Duration = Duration::from_millis(400);

/// Everything about punching towards one peer.
#[derive(Debug, Default)]
pub(crate) struct Punch {
    attempt: Option<PunchAttempt>,
    breakers: BTreeMap<Method, Breaker>,
    /// What the last attempt of each method came to.
    records: BTreeMap<Method, AttemptRecord>,
    /// What is known about both NATs.
    sides: Option<(Side, Side)>,
    /// When that was first known.
    known_since: Option<Instant>,
    last_ended: Option<Instant>,
    /// When there may be another attempt after one side had no sockets left.
    resumes_at: Option<Instant>,
    port_order: Option<PortOrder>,
}

impl Punch {
    /// Returns the kind of a path that the peer's packets show, if the current attempt is where they come from.
    pub(crate) fn candidate_kind(&self, path: Path) -> Option<CandidateKind> {
        let attempt = self.attempt.as_ref()?;
        (path.uses_punch_socket() || attempt.is_target(path)).then(|| attempt.candidate_kind())
    }

    /// Returns the ports of the peer that the current attempt has sent to by a path's near end, if they were predicted.
    pub(crate) fn predicted_ports(&self, path: Path) -> BTreeSet<SocketAddr> {
        self.attempt.as_ref().map(|attempt| attempt.probes().predicted_ports(path)).unwrap_or_default()
    }

    /// Returns the path of a probe of the current attempt, and when it was sent.
    pub(crate) fn probe(&self, id: TransactionId) -> Option<(Path, Instant)> {
        self.attempt.as_ref()?.probes().get(id)
    }

    /// Returns true if the current attempt uses a socket.
    pub(crate) fn holds(&self, id: SocketId) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.holds(id))
    }

    /// Returns what each method came to, for the user.
    pub(crate) fn records(&self, now: Instant) -> BTreeMap<Method, AttemptRecord> {
        let mut records = self.records.clone();
        if let Some(attempt) = &self.attempt {
            records.insert(attempt.method(), attempt.record(now, AttemptOutcome::Trying));
        }
        for (method, breaker) in &self.breakers {
            if let (Some(record), Some(failures)) = (records.get_mut(method), breaker.failures_if_open())
                && record.outcome == AttemptOutcome::NoAnswer
                && let Some(retry_at) = breaker.retry_at(now)
            {
                let seconds = (retry_at - now).as_secs() + 1;
                let note = record.note.trim_end();
                record.note = format!("{note} Failed {failures} times; trying again in {seconds} s.");
            }
        }
        records
    }

    /// Returns why no direct path is possible, if so.
    pub(crate) fn infeasible(&self) -> Option<Infeasible> {
        match self.sides.map(|(local, remote)| strategy::choose(&local, &remote)) {
            Some(Strategy::Relay(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Takes what may be a STUN server's response to a port sample; returns false if it is not.
    pub(crate) fn on_stun_response(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        self.attempt.as_mut().is_some_and(|attempt| attempt.on_stun_response(now, id, bytes))
    }

    /// Takes sockets that were asked for, with their ports, or `None` where one could not be opened.
    pub(crate) fn on_sockets_opened(&mut self, ctx: &mut Context<'_>, opened: &[(SocketId, Option<u16>)]) {
        match &mut self.attempt {
            Some(attempt) => attempt.on_sockets_opened(ctx, opened),
            None => opened.iter().for_each(|(id, _)| ctx.sockets.close(*id, ctx.events)),
        }
    }

    /// Takes a probe of the peer that arrived by a path.
    pub(crate) fn on_request(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        path: Path,
        id: TransactionId,
    ) {
        if let Some(attempt) = &mut self.attempt {
            attempt.on_request(peer.remote, ctx, path, id);
        }
    }

    /// Forgets failures, because they say nothing about another network.
    pub(crate) fn retry_now(&mut self) {
        self.close_breakers("network changed");
        self.known_since = None;
    }

    fn close_breakers(&mut self, reason: &'static str) {
        self.breakers.values_mut().for_each(|breaker| breaker.reset(reason));
    }

    /// Takes a signal of the peer.
    pub(crate) fn on_signal(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>, signal: Signal) {
        trace!(attempt = signal.attempt, body = ?signal.body, "signal received");
        let current = self.attempt.as_mut().filter(|attempt| attempt.number() == signal.attempt);
        match (signal.body, current) {
            (Body::Offer(_), Some(attempt)) => {
                // The offer was repeated, so our answer may have been lost.
                if !attempt.is_ours() {
                    debug!(attempt = attempt.number(), reason = "offer repeated", "answer repeated");
                    attempt.send_plan(peer.remote, ctx);
                }
            }
            (Body::Offer(plan), None) => self.on_offer(peer, ctx, signal.attempt, plan),
            (Body::Answer(plan), Some(attempt)) => attempt.on_answer(ctx.now, plan),
            (Body::ProbeReceived(id), Some(attempt)) => attempt.on_probe_received(TransactionId(id)),
            (Body::End(EndReason::Failed), Some(_)) => self.end(peer, ctx, AttemptEnd::Declined),
            (Body::End(EndReason::Unavailable), Some(_)) => self.end(peer, ctx, AttemptEnd::Busy),
            // Whether the other side is connected shows by its packets.
            (Body::End(EndReason::Connected), Some(_)) => {}
            (Body::Answer(_) | Body::ProbeReceived(_) | Body::End(_), None) => {
                trace!(attempt = signal.attempt, reason = "no such attempt", "signal dropped");
            }
        }
    }

    /// Takes part in an attempt that the other side proposes, if possible.
    fn on_offer(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>, number: u32, plan: PunchPlan) {
        let decline = |ctx: &mut Context<'_>, ending: EndReason| {
            debug!(attempt = number, reason = ?ending, "punch attempt declined");
            peer.remote.send_signal(ctx, number, Body::End(ending));
        };
        if peer.pairs.has_direct() {
            return decline(ctx, EndReason::Connected);
        }
        if let Some(attempt) = &self.attempt {
            // Where both have proposed, the controlling side's attempt counts.
            if attempt.is_ours() && peer.remote.controlling {
                debug!(attempt = number, reason = "ours counts, this side controls", "offer ignored");
                return;
            }
            self.end(peer, ctx, AttemptEnd::Superseded);
        }
        let local = Side::of(&ctx.device.nat, &ctx.device.candidates);
        let room = ctx.pacing.sprays.table.room(ctx.now);
        let (action, method) = match plan.action {
            PunchAction::Predict => (PunchAction::Predict, Method::Predict),
            PunchAction::Open { .. } => (prediction::spray_action(&local, room), Method::Spray),
            PunchAction::Spray { .. } => (prediction::open_action(room), Method::Spray),
        };
        if !is_permitted(&ctx.device.config, method) {
            return decline(ctx, EndReason::Failed);
        }
        let too_soon = self.last_ended.is_some_and(|ended| ctx.now < ended + MIN_ATTEMPT_GAP);
        let crowded = method == Method::Spray && room < MIN_SPRAY_FLOWS;
        self.attempt = (!too_soon && !crowded)
            .then(|| PunchAttempt::prepare(peer, ctx, local, action, (number, Some(plan))))
            .flatten();
        if self.attempt.is_none() {
            decline(ctx, EndReason::Unavailable);
        }
    }

    /// Drops the current attempt because the peer is forgotten. Nobody is told, and nothing stays pending.
    pub(crate) fn abandon(&mut self, ctx: &mut Context<'_>) {
        if let Some(attempt) = self.attempt.take() {
            attempt.forget_transactions(ctx);
        }
    }

    /// Does what is due, and returns when to continue.
    pub(crate) fn drive(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>) -> Option<Instant> {
        if peer.pairs.has_direct() {
            self.end(peer, ctx, AttemptEnd::Connected);
            return None;
        }
        if let Some(attempt) = &mut self.attempt {
            match attempt.drive(peer, ctx, &mut self.port_order) {
                Ok(next) => return Some(next),
                Err(end) => self.end(peer, ctx, end),
            }
        }
        self.begin(peer, ctx)
    }

    /// Ends the current attempt, if there is one.
    fn end(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>, end: AttemptEnd) {
        let Some(mut attempt) = self.attempt.take() else { return };
        attempt.close(peer, ctx, end);
        let outcome = match end {
            AttemptEnd::Connected => AttemptOutcome::Worked,
            AttemptEnd::Failed | AttemptEnd::Declined | AttemptEnd::RouterFull => AttemptOutcome::NoAnswer,
            AttemptEnd::Busy => return self.pause(ctx),
            AttemptEnd::Superseded => return,
        };
        let method = attempt.method();
        let succeeded =
            peer.pairs.iter().any(|pair| pair.kind == attempt.candidate_kind() && pair.is_valid());
        // If checks of the announced candidates connected meanwhile, the attempt neither succeeded nor failed.
        if succeeded || end != AttemptEnd::Connected {
            let took = ctx.now.saturating_duration_since(attempt.began());
            ctx.events.push_back(Event::Attempted { method, succeeded, took });
        }
        let breaker = self.breakers.entry(method).or_insert_with(|| Breaker::new(method));
        if end == AttemptEnd::Connected {
            breaker.reset("connected");
        } else {
            breaker.on_failure(ctx.now, ctx.transactions.random_share());
        }
        self.last_ended = Some(ctx.now);
        let mut record = attempt.record(ctx.now, outcome);
        if end == AttemptEnd::RouterFull {
            record.note = "Stopped: this network's router has no room for more connections.".into();
        }
        self.records.insert(method, record);
    }

    /// Waits a little before the next attempt, because one of the two sides has no sockets left for it.
    fn pause(&mut self, ctx: &mut Context<'_>) {
        let pause = BUSY_PAUSE.mul_f64(0.5 + ctx.transactions.random_share());
        debug!(retry_ms = pause.as_millis(), reason = "no sockets left", "punching paused");
        self.resumes_at = Some(ctx.now + pause);
    }

    /// Proposes an attempt if it is time for one; returns when to continue.
    fn begin(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>) -> Option<Instant> {
        let remote = peer.remote;
        let local_side = Side::of(&ctx.device.nat, &ctx.device.candidates);
        let remote_side = Side::of(&remote.nat, &remote.candidates);
        let known_since = self.note_sides(ctx.now, local_side, remote_side);
        if remote.candidates.is_empty() || !ctx.device.config.direct {
            return None;
        }
        let (methods, ready_at) = match strategy::choose(&local_side, &remote_side) {
            Strategy::Predict => (vec![(Method::Predict, End::Local)], known_since),
            Strategy::Spray(opener) => (vec![(Method::Spray, opener)], known_since),
            Strategy::Either(opener) => {
                let methods = vec![(Method::Predict, opener), (Method::Spray, opener)];
                (methods, known_since + MEASUREMENT_WAIT)
            }
            Strategy::Checks | Strategy::Relay(_) => return None,
        };
        let proposes = strategy::is_proposer(&local_side, &remote_side, remote.controlling);
        let delay = if proposes { Duration::ZERO } else { SECOND_PROPOSER_DELAY };
        let mut next: Option<Instant> = None;
        for (method, opener) in methods {
            if !is_permitted(&ctx.device.config, method) {
                continue;
            }
            let room_at = ctx.pacing.sprays.table.room_at(ctx.now).filter(|_| method == Method::Spray);
            let earliest = self.earliest(ctx.now, method).max(room_at);
            let at = earliest.map_or(ready_at, |at| at.max(ready_at)) + delay;
            if at <= ctx.now {
                return self.propose(peer, ctx, local_side, (method, opener));
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        next
    }

    /// Notes what is known about both NATs, and returns since when something has been. News close the breakers.
    fn note_sides(&mut self, now: Instant, local: Side, remote: Side) -> Instant {
        if self.sides != Some((local, remote)) {
            self.sides = Some((local, remote));
            self.close_breakers("NAT profile changed");
            debug!(strategy = ?strategy::choose(&local, &remote), ?local, ?remote, "strategy chosen");
        }
        *self.known_since.get_or_insert(now)
    }

    /// Returns before when there must be no attempt by a method, if there is such a moment.
    fn earliest(&self, now: Instant, method: Method) -> Option<Instant> {
        let retry_at = self.breakers.get(&method).and_then(|breaker| breaker.retry_at(now));
        [retry_at, self.last_ended, self.resumes_at].into_iter().flatten().max()
    }

    fn propose(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        local: Side,
        (method, opener): (Method, End),
    ) -> Option<Instant> {
        let room = ctx.pacing.sprays.table.room(ctx.now);
        let action = match (method, opener) {
            (Method::Spray, End::Local) => prediction::open_action(room),
            (Method::Spray, End::Remote) => prediction::spray_action(&local, room),
            _ => PunchAction::Predict,
        };
        let number = rand_core::RngCore::next_u32(ctx.transactions.rng());
        self.attempt = PunchAttempt::prepare(peer, ctx, local, action, (number, None));
        if self.attempt.is_none() {
            self.pause(ctx);
            return self.resumes_at;
        }
        self.drive(peer, ctx)
    }
}

/// Returns true if a method is switched on.
const fn is_permitted(config: &Config, method: Method) -> bool {
    let switched_on = match method {
        Method::Predict => config.methods.predict,
        Method::Spray => config.methods.spray,
        _ => true,
    };
    config.direct && switched_on
}

#[cfg(test)]
mod tests {
    use partyline_model::{Allocation, Candidate, Filtering, Mapping, NatProfile};
    use partyline_wire::probe::Tag;

    use super::*;
    use crate::{api::PeerParams, context::Shared, pairs::CandidatePairs, path::PeerId, remote::Remote};

    /// One member's punching, without pairs: nothing ever gets through.
    struct Member {
        shared: Shared,
        remote: Remote,
        pairs: CandidatePairs,
        punch: Punch,
        now: Instant,
        next: Option<Instant>,
    }

    fn symmetric(allocation: Allocation, host: u8) -> NatProfile {
        NatProfile {
            mapping: Some(Mapping::AddressAndPortDependent),
            filtering: Some(Filtering::AddressDependent),
            allocation: Some(allocation),
            public: vec![[198, 51, 100, host].into()],
            udp_blocked: Some(false),
            ..NatProfile::default()
        }
    }

    fn candidates(host: u8) -> Vec<Candidate> {
        let address = ([198, 51, 100, host], 40_000).into();
        vec![Candidate { kind: CandidateKind::ServerReflexive, address }]
    }

    impl Member {
        /// Two members behind NATs that preserve ports but map each destination to another one.
        #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
        fn new(me: u8) -> Self {
            let other = 3 - me;
            let mut shared = Shared::new([me; 32], Config::default());
            shared.device.nat = symmetric(Allocation::Preserving, me);
            shared.device.candidates = candidates(me);
            let params = PeerParams {
                probe_key: [7; 32],
                local_tag: Tag([me; 8]),
                remote_tag: Tag([other; 8]),
                controlling: me == 1,
                nat: symmetric(Allocation::Preserving, other),
                candidates: candidates(other),
            };
            Self {
                shared,
                remote: Remote::new(PeerId(1), params),
                pairs: CandidatePairs::default(),
                punch: Punch::default(),
                now: Instant::now(),
                next: None,
            }
        }

        fn call<R>(&mut self, what: impl FnOnce(&mut Punch, &PeerState<'_>, &mut Context<'_>) -> R) -> R {
            let peer = PeerState { remote: &self.remote, pairs: &self.pairs, selected: None };
            let mut ctx = self.shared.context(self.now);
            let result = what(&mut self.punch, &peer, &mut ctx);
            self.next = self.punch.drive(&peer, &mut ctx);
            result
        }

        /// Drives until nothing is due, opening sockets as they are asked for. Returns the other events.
        fn settle(&mut self) -> Vec<Event> {
            let mut others = Vec::new();
            self.call(|_, _, _| ());
            while let Some(event) = self.shared.events.pop_front() {
                match event {
                    Event::OpenSockets(ids) => {
                        let opened: Vec<_> = ids.iter().map(|id| (*id, Some(30_000 + id.0))).collect();
                        self.call(|punch, _, ctx| punch.on_sockets_opened(ctx, &opened));
                    }
                    other => others.push(other),
                }
            }
            others
        }

        fn signals(&mut self) -> Vec<Signal> {
            let signal = |event| match event {
                Event::Signal { bytes, .. } => Signal::decode(&bytes).ok(),
                _ => None,
            };
            self.settle().into_iter().filter_map(signal).collect()
        }

        fn receive(&mut self, signal: Signal) {
            self.call(|punch, peer, ctx| punch.on_signal(peer, ctx, signal));
        }
    }

    fn is_offer(signal: &Signal) -> bool {
        matches!(signal.body, Body::Offer(_))
    }

    #[test]
    fn the_controlling_side_proposes_where_both_nats_are_alike() {
        let offers = Member::new(1).signals();
        assert!(matches!(&offers[..], [offer] if is_offer(offer)));
        let mut second = Member::new(2);
        assert_eq!(second.signals(), []);
        assert_eq!(second.next, Some(second.now + SECOND_PROPOSER_DELAY));
    }

    #[test]
    fn an_offer_is_answered_and_both_send_to_the_predicted_ports() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        let offer = one.signals().remove(0);
        other.receive(offer);
        let answer = other.signals().remove(0);
        assert!(matches!(answer.body, Body::Answer(_)));
        one.receive(answer);
        other.now = other.next.unwrap();
        other.settle();
        for member in [&mut one, &mut other] {
            let ports: BTreeSet<u16> =
                member.shared.transmits.iter().map(|sent| sent.destination.port()).collect();
            assert_eq!(ports.into_iter().collect::<Vec<_>>(), [30_001, 30_002, 30_003, 30_004]);
        }
    }

    #[test]
    fn a_repeated_offer_is_answered_again_and_starts_nothing() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        let offer = one.signals().remove(0);
        other.receive(offer.clone());
        let answer = other.signals();
        other.receive(offer);
        assert_eq!(other.signals(), answer);
    }

    #[test]
    fn an_offer_without_answer_is_repeated_and_then_counts_as_failed() {
        let mut one = Member::new(1);
        let mut offers = one.signals().len();
        while one.punch.attempt.is_some() {
            one.now = one.next.unwrap();
            let events = one.settle();
            offers += events.iter().filter(|event| matches!(event, Event::Signal { .. })).count();
            if events.iter().any(|event| matches!(event, Event::Attempted { succeeded: false, .. })) {
                break;
            }
        }
        assert_eq!(offers, 4);
        let record = &one.punch.records(one.now)[&Method::Predict];
        assert_eq!(record.outcome, AttemptOutcome::NoAnswer);
        assert!(one.next > Some(one.now), "it waits before it tries again");
    }

    #[test]
    fn an_abandoned_attempt_leaves_nothing_pending() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        other.receive(one.signals().remove(0));
        one.receive(other.signals().remove(0));
        assert!(one.shared.transactions.pending() > 0);
        one.punch.abandon(&mut one.shared.context(one.now));
        assert_eq!(one.shared.transactions.pending(), 0);
    }

    #[test]
    fn where_both_propose_the_controlling_sides_attempt_counts() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        other.settle();
        other.now += SECOND_PROPOSER_DELAY;
        let (first, second) = (one.signals().remove(0), other.signals().remove(0));
        one.receive(second);
        assert_eq!(one.signals(), []);
        other.receive(first.clone());
        let answer = other.signals().pop().unwrap();
        assert_eq!(answer.attempt, first.attempt);
    }

    #[test]
    fn a_method_that_is_switched_off_is_declined() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        other.shared.device.config.methods.predict = false;
        let offer = one.signals().remove(0);
        other.receive(offer.clone());
        let declined = Signal { attempt: offer.attempt, body: Body::End(EndReason::Failed) };
        one.receive(declined.clone());
        assert_eq!(other.signals(), vec![declined]);
        assert!(one.punch.attempt.is_none());
    }

    #[test]
    fn endpoints_that_the_peer_does_not_claim_are_never_sent_to() {
        let (mut one, mut other) = (Member::new(1), Member::new(2));
        let mut offer = one.signals().remove(0);
        let Body::Offer(plan) = &mut offer.body else { panic!("no offer") };
        plan.endpoints = vec![([192, 0, 2, 66], 53).into()];
        other.receive(offer);
        other.settle();
        other.now = other.next.unwrap();
        other.settle();
        assert!(!other.shared.transmits.is_empty());
        let own =
            |sent: &crate::api::Transmit| sent.destination.ip() == std::net::IpAddr::from([198, 51, 100, 1]);
        assert!(other.shared.transmits.iter().all(own));
    }

    #[test]
    fn news_about_a_nat_end_the_pauses() {
        let mut one = Member::new(1);
        one.settle();
        one.call(|punch, peer, ctx| punch.end(peer, ctx, AttemptEnd::Failed));
        let paused = one.next.unwrap();
        assert!(paused > one.now);
        one.remote.nat.hairpin = Some(true);
        assert!(one.signals().iter().any(is_offer));
    }

    #[test]
    fn a_busy_peer_is_asked_again_without_counting_a_failure() {
        let mut one = Member::new(1);
        let offer = one.signals().remove(0);
        one.receive(Signal { attempt: offer.attempt, body: Body::End(EndReason::Unavailable) });
        let pause = one.next.unwrap() - one.now;
        assert!(pause >= BUSY_PAUSE / 2 && pause <= BUSY_PAUSE * 3 / 2, "{pause:?}");
        assert!(one.punch.breakers.is_empty());
    }

    #[test]
    fn sockets_are_closed_when_the_attempt_ends() {
        let mut one = Member::new(1);
        one.settle();
        one.call(|punch, peer, ctx| punch.end(peer, ctx, AttemptEnd::Failed));
        let closed = one.shared.events.iter().filter(|event| matches!(event, Event::CloseSocket(_))).count();
        assert_eq!(closed, 4);
    }
}

//! One punch attempt, which both sides make together.
//!
//! 1. The proposer opens the sockets it needs and samples its NAT's ports ([`super::sampling`]).
//! 2. It predicts at which addresses it will appear ([`super::prediction`]) and sends an offer with its plan.
//! 3. The other side prepares in the same way, sends an answer with its own plan, and starts one signaling delay
//!    later; the proposer starts when the answer arrives. So both start at about the same moment.
//! 4. Each side acts: by probing the predicted ports, opening sockets, or spraying. The first response makes a
//!    candidate pair; the attempt ends when that is valid, or when nothing more can arrive.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Allocation, AttemptOutcome, CandidateKind, Mapping, Method, SocketId};
use partyline_wire::{
    probe::TransactionId,
    punch::{Body, EndReason, NatPolicies, PunchAction, PunchPlan},
};
use tracing::{debug, trace};

use super::{
    flow_checks::FlowChecks,
    prediction::{Basis, PortPredictability, SocketNeeds, main_endpoint},
    probes::SentProbes,
    sampling::{PortSampler, binding_request},
    simultaneous_open::SimultaneousOpen,
    spray::{PortOrder, SprayListener, SpraySender},
};
use crate::{
    api::Transmit,
    context::Context,
    pairs::CandidatePairs,
    path::{Local, Path, Via},
    remote::Remote,
    sockets::PunchSocket,
    strategy::Side,
};

/// Interval at which an unanswered offer is repeated.
const OFFER_INTERVAL: Duration = Duration::from_millis(700);
/// How often an offer is sent in all.
const MAX_OFFERS: u32 = 4;
/// The delay of a signal where no round trip time is known.
const DEFAULT_SIGNAL_DELAY: Duration = Duration::from_millis(40);
/// Bounds the delay of a signal that is waited for.
const MAX_SIGNAL_DELAY: Duration = Duration::from_millis(250);
/// How long the caller may take to open sockets.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(2);

/// What an attempt may know about the peer.
#[derive(Clone, Copy)]
pub(crate) struct PeerState<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) pairs: &'a CandidatePairs,
    /// The path in use.
    pub(crate) selected: Option<Path>,
}

impl PeerState<'_> {
    /// Estimates the delay of a signal in one direction.
    fn signal_delay(&self) -> Duration {
        let rtt = self.selected.and_then(|path| self.pairs.get(path)).and_then(|pair| pair.quality().rtt());
        rtt.map_or(DEFAULT_SIGNAL_DELAY, |rtt| rtt / 2).min(MAX_SIGNAL_DELAY)
    }
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    /// A direct path is valid.
    Connected,
    /// Everything was tried in vain.
    Failed,
    /// The other side declined, or did not answer.
    Declined,
    /// The other side is busy with other members, which says nothing about the method.
    Busy,
    /// An attempt proposed by the other side takes its place.
    Superseded,
    /// The router has no room for more flows.
    RouterFull,
}

/// What one method came to, for the user.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptRecord {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) took: Duration,
    pub(crate) note: String,
}

#[derive(Debug)]
enum Stage {
    OpeningSockets { until: Instant },
    SamplingPorts(PortSampler),
    AwaitingAnswer { repeat_at: Instant, offers: u32 },
    AwaitingStart(Instant),
    Probing(SimultaneousOpen),
    Listening(SprayListener),
    Spraying(SpraySender, SimultaneousOpen),
}

/// What one step of an attempt came to.
enum Progress {
    /// The next step can be made at once.
    Continue,
    /// The next step is due then.
    Wait(Instant),
}

/// One punch attempt, from our side.
///
/// Invariant: every socket in `requested` was asked for by this attempt and is open or being opened; all but those
/// that carry candidate pairs are closed when it ends.
#[derive(Debug)]
pub(super) struct PunchAttempt {
    number: u32,
    action: PunchAction,
    local: Side,
    began: Instant,
    stage: Stage,
    requested: BTreeSet<SocketId>,
    opened: Vec<PunchSocket>,
    senders: Vec<PunchSocket>,
    flow_checks: FlowChecks,
    /// Our own plan, once it is known.
    local_plan: Option<PunchPlan>,
    remote_plan: Option<PunchPlan>,
    is_ours: bool,
    probes: SentProbes,
    /// Requests to STUN servers.
    samples_asked: Vec<TransactionId>,
    /// Near ends for which a probe from an unexpected port was acted on already.
    reacted_on: BTreeSet<Via>,
}

impl PunchAttempt {
    /// Prepares an attempt and asks for its sockets; returns `None` if there would be too many. `plan` is that of
    /// the other side if it has proposed the attempt.
    pub(super) fn prepare(
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        local: Side,
        action: PunchAction,
        (number, plan): (u32, Option<PunchPlan>),
    ) -> Option<Self> {
        let needs = SocketNeeds::of(&local, action).with(&ctx.device.stun_servers);
        let count = needs.samples + needs.senders + needs.checks;
        let requested = ctx.sockets.open(peer.remote.id, count, ctx.events)?;
        if action != PunchAction::Predict {
            ctx.pacing.sprays.table.begin(ctx.now);
        }
        let is_ours = plan.is_none();
        debug!(
            attempt = number,
            ?action,
            proposed_here = is_ours,
            sockets = requested.len(),
            "punch attempt started"
        );
        Some(Self {
            number,
            action,
            local,
            began: ctx.now,
            stage: Stage::OpeningSockets { until: ctx.now + SOCKET_TIMEOUT },
            requested: requested.into_iter().collect(),
            opened: Vec::new(),
            senders: Vec::new(),
            flow_checks: FlowChecks::default(),
            local_plan: None,
            remote_plan: plan,
            is_ours,
            probes: SentProbes::default(),
            samples_asked: Vec::new(),
            reacted_on: BTreeSet::new(),
        })
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Returns true if this side has proposed the attempt.
    pub(super) const fn is_ours(&self) -> bool {
        self.is_ours
    }

    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    pub(super) const fn method(&self) -> Method {
        match self.action {
            PunchAction::Predict => Method::Predict,
            PunchAction::Open { .. } | PunchAction::Spray { .. } => Method::Spray,
        }
    }

    /// Returns the kind of the pairs that this attempt finds.
    pub(super) const fn candidate_kind(&self) -> CandidateKind {
        match self.action {
            PunchAction::Predict => CandidateKind::Predicted,
            PunchAction::Open { .. } | PunchAction::Spray { .. } => CandidateKind::Sprayed,
        }
    }

    /// Returns true if a socket was opened for this attempt.
    pub(super) fn holds(&self, id: SocketId) -> bool {
        self.requested.contains(&id)
    }

    /// Returns true if this attempt sends packets along a path.
    pub(super) fn is_target(&self, path: Path) -> bool {
        match &self.stage {
            Stage::Probing(open) => open.contains(path),
            Stage::Listening(listener) => listener.owns(path),
            Stage::Spraying(_, open) => open.contains(path) || self.probes.contains(path),
            _ => false,
        }
    }

    /// Returns the probes sent so far.
    pub(super) const fn probes(&self) -> &SentProbes {
        &self.probes
    }

    /// Takes sockets that were opened, or could not be.
    pub(super) fn on_sockets_opened(&mut self, ctx: &mut Context<'_>, opened: &[(SocketId, Option<u16>)]) {
        for (id, port) in opened {
            match port.filter(|_| self.requested.contains(id)) {
                Some(port) => self.opened.push(PunchSocket { id: *id, port }),
                None => {
                    debug!(socket = id.0, reason = "could not be opened", "punch socket dropped");
                    self.requested.remove(id);
                    ctx.sockets.close(*id, ctx.events);
                }
            }
        }
        // In the order of their numbers, whatever order they were opened in.
        self.opened.sort_by_key(|socket| self.requested.iter().position(|id| *id == socket.id));
    }

    /// Proceeds as far as possible. Returns when to continue, or how the attempt ended.
    pub(super) fn drive(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        order: &mut Option<PortOrder>,
    ) -> Result<Instant, AttemptEnd> {
        loop {
            if let Progress::Wait(next) = self.step(peer, ctx, order)? {
                return Ok(next);
            }
        }
    }

    fn step(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        order: &mut Option<PortOrder>,
    ) -> Result<Progress, AttemptEnd> {
        let next = match &mut self.stage {
            Stage::OpeningSockets { until } => {
                let until = *until;
                return self.await_sockets(ctx, until);
            }
            Stage::SamplingPorts(_) => return Ok(self.sample(peer, ctx)),
            Stage::AwaitingAnswer { repeat_at, offers } => {
                if ctx.now >= *repeat_at && *offers < MAX_OFFERS {
                    debug!(
                        attempt = self.number,
                        count = *offers + 1,
                        reason = "no answer",
                        "offer repeated"
                    );
                    (*repeat_at, *offers) = (ctx.now + OFFER_INTERVAL, *offers + 1);
                    self.send_plan(peer.remote, ctx);
                    return Ok(Progress::Continue);
                }
                Some(*repeat_at).filter(|at| ctx.now < *at).ok_or(AttemptEnd::Declined)?
            }
            Stage::AwaitingStart(start) if ctx.now < *start => *start,
            Stage::AwaitingStart(_) => {
                self.stage = self.start(peer, ctx)?;
                return Ok(Progress::Continue);
            }
            Stage::Probing(open) => {
                open.drive(peer.remote, ctx, &mut self.probes).ok_or(AttemptEnd::Failed)?
            }
            Stage::Listening(_) => self.listen(peer, ctx)?,
            Stage::Spraying(..) => self.spray(peer, ctx, order)?,
        };
        Ok(Progress::Wait(next))
    }

    fn await_sockets(&mut self, ctx: &Context<'_>, until: Instant) -> Result<Progress, AttemptEnd> {
        if self.opened.len() < self.requested.len() {
            return if ctx.now < until { Ok(Progress::Wait(until)) } else { Err(AttemptEnd::Failed) };
        }
        let servers = &ctx.device.stun_servers;
        let needs = SocketNeeds::of(&self.local, self.action).with(servers);
        self.senders = self.opened.split_off(needs.samples.min(self.opened.len()));
        let checks = self.senders.split_off(needs.senders.min(self.senders.len()));
        trace!(
            attempt = self.number,
            samples = needs.samples,
            senders = self.senders.len(),
            checks = checks.len(),
            "punch sockets ready"
        );
        self.flow_checks = FlowChecks::new(checks);
        self.stage = Stage::SamplingPorts(PortSampler::new(servers.clone(), self.opened.clone()));
        Ok(Progress::Continue)
    }

    fn sample(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>) -> Progress {
        let Stage::SamplingPorts(sampler) = &mut self.stage else { return Progress::Continue };
        if let Some(request) = sampler.poll_request(ctx.now, ctx.transactions) {
            trace!(socket = request.socket.id.0, "port sample requested");
            self.samples_asked.push(request.id);
            ctx.transactions.open(request.id, peer.remote.id);
            let (local, destination) = (Local::Socket(request.socket.id), request.server);
            ctx.transmits.push_back(Transmit { local, destination, bytes: binding_request(request.id) });
        }
        match sampler.deadline(ctx.now) {
            Some(next) => Progress::Wait(next),
            None => {
                self.announce_plan(peer, ctx);
                Progress::Continue
            }
        }
    }

    /// Sends our plan once the preparation is over.
    fn announce_plan(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>) {
        let Stage::SamplingPorts(sampler) = &self.stage else { return };
        let sampled = sampler.evaluate(self.local.nat.allocation);
        let delay = peer.signal_delay();
        let basis = Basis {
            local: &self.local,
            action: self.action,
            senders: &self.senders,
            sampled: &sampled,
            candidates: &ctx.device.candidates,
            lead: if self.remote_plan.is_some() { delay } else { delay * 2 },
        };
        let endpoints = basis.predict(ctx.now);
        debug!(attempt = self.number, ?sampled, ?endpoints, "ports predicted");
        let nat = NatPolicies { allocation: sampled.allocation, ..self.local.nat };
        self.local.nat = nat;
        self.local_plan = Some(PunchPlan { action: self.action, nat, endpoints });
        self.stage = if self.remote_plan.is_some() {
            Stage::AwaitingStart(ctx.now + delay)
        } else {
            Stage::AwaitingAnswer { repeat_at: ctx.now + OFFER_INTERVAL, offers: 1 }
        };
        self.send_plan(peer.remote, ctx);
    }

    /// Sends our plan, perhaps once more.
    pub(super) fn send_plan(&self, remote: &Remote, ctx: &mut Context<'_>) {
        let Some(plan) = self.local_plan.clone() else { return };
        let body = if self.is_ours { Body::Offer(plan) } else { Body::Answer(plan) };
        remote.send_signal(ctx, self.number, body);
    }

    /// Takes the other side's answer.
    pub(super) fn on_answer(&mut self, now: Instant, plan: PunchPlan) {
        if matches!(self.stage, Stage::AwaitingAnswer { .. }) {
            debug!(attempt = self.number, action = ?plan.action, endpoints = ?plan.endpoints, "offer answered");
            self.remote_plan = Some(plan);
            self.stage = Stage::AwaitingStart(now);
        }
    }

    /// Takes what may be a STUN server's response to a sample; returns false if it is not.
    pub(super) fn on_stun_response(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        match &mut self.stage {
            Stage::SamplingPorts(sampler) => sampler.on_response(now, id, bytes),
            _ => self.flow_checks.on_response(id),
        }
    }

    /// Returns the stage in which we act.
    fn start(&self, peer: &PeerState<'_>, ctx: &Context<'_>) -> Result<Stage, AttemptEnd> {
        let plan = self.remote_plan.as_ref().ok_or(AttemptEnd::Failed)?;
        let claimed = peer.remote.claimed_addresses();
        let mut targets: Vec<SocketAddr> = plan.endpoints.clone();
        // Nobody can aim our packets at a third party: they go only to addresses that the peer claims as its own.
        targets.retain(|target| claimed.contains(&target.ip()) && target.port() != 0);
        let predicted = !targets.is_empty();
        targets.extend(main_endpoint(&peer.remote.candidates).filter(|_| !predicted));
        let first = *targets.first().ok_or(AttemptEnd::Failed)?;
        debug!(attempt = self.number, ?targets, predicted, "both sides start now");
        match (self.action, plan.action) {
            (PunchAction::Open { .. }, PunchAction::Spray { packets }) => {
                Ok(Stage::Listening(SprayListener::new(ctx.now, self.senders.clone(), first, packets)))
            }
            (PunchAction::Spray { packets }, PunchAction::Open { .. }) => {
                let sender =
                    SpraySender::new(ctx.now, self.spray_via(), first.ip(), packets, peer.signal_delay());
                Ok(Stage::Spraying(sender, SimultaneousOpen::default()))
            }
            (PunchAction::Predict, PunchAction::Predict) => {
                Ok(Stage::Probing(self.simultaneous_open(ctx.now, &targets, predicted)))
            }
            _ => Err(AttemptEnd::Declined),
        }
    }

    fn spray_via(&self) -> Via {
        match (PortPredictability::of(&self.local), self.senders.first()) {
            (PortPredictability::PerAddress, Some(socket)) => Via::Socket(socket.id),
            _ => Via::Socket(SocketId::MAIN),
        }
    }

    /// Pairs each of our sockets with each of the peer's endpoints, or one to one where every destination sees another
    /// port of ours.
    fn simultaneous_open(&self, now: Instant, targets: &[SocketAddr], predicted: bool) -> SimultaneousOpen {
        let mut open = SimultaneousOpen::default();
        let main = [PunchSocket { id: SocketId::MAIN, port: 0 }];
        let predictability = PortPredictability::of(&self.local);
        let senders = match predictability {
            PortPredictability::PerEndpoint | PortPredictability::Unpredictable => &main[..],
            PortPredictability::PerAddress | PortPredictability::PerDestination => &self.senders[..],
        };
        let one_to_one = predictability == PortPredictability::PerDestination;
        // The other sockets are kept for the port by which the first one is reached; see `on_request`.
        let count = if one_to_one && !predicted { 1 } else { senders.len() };
        for (at, socket) in senders.iter().take(count).enumerate() {
            let via = Via::Socket(socket.id);
            let own = targets.get(at).or(targets.last()).filter(|_| one_to_one);
            let all = targets.iter().filter(|_| !one_to_one);
            all.chain(own).for_each(|remote| open.add(now, Path { via, remote: *remote }));
        }
        open
    }

    fn listen(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>) -> Result<Instant, AttemptEnd> {
        let check = self.check_router(peer, ctx)?;
        let can_check = self.flow_checks.can_check(ctx);
        let Stage::Listening(listener) = &mut self.stage else { return Err(AttemptEnd::Failed) };
        let next = listener.drive(peer.remote, ctx, &mut self.probes, can_check);
        let next = next.ok_or(AttemptEnd::Failed)?;
        Ok(check.map_or(next, |check| next.min(check)))
    }

    fn spray(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
        order: &mut Option<PortOrder>,
    ) -> Result<Instant, AttemptEnd> {
        let checked = self.flow_checks.count();
        let check = self.check_router(peer, ctx)?;
        let new_checks = self.flow_checks.count() - checked;
        let can_check = self.flow_checks.can_check(ctx);
        let counts_ports = matches!(self.local.nat.allocation, Some(Allocation::Contiguous { .. }));
        let Stage::Spraying(sender, open) = &mut self.stage else { return Err(AttemptEnd::Failed) };
        if counts_ports {
            sender.on_other_flows(u16::try_from(new_checks).unwrap_or(u16::MAX));
        }
        let order = order.get_or_insert_with(|| PortOrder::new(ctx.transactions.rng()));
        let next = sender.drive(peer.remote, ctx, &mut self.probes, order, can_check);
        if let Some(remote) = sender.take_found() {
            for socket in &self.senders {
                open.add(ctx.now, Path { via: Via::Socket(socket.id), remote });
            }
        }
        let answers = open.drive(peer.remote, ctx, &mut self.probes);
        let next = next.into_iter().chain(answers).min().ok_or(AttemptEnd::Failed)?;
        Ok(check.map_or(next, |check| next.min(check)))
    }

    /// Checks whether the router has room for more flows, if it is time. Returns when to continue with that.
    fn check_router(
        &mut self,
        peer: &PeerState<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<Option<Instant>, AttemptEnd> {
        let next = self.flow_checks.drive(ctx, peer.remote.id).map_err(|_| AttemptEnd::RouterFull)?;
        // Another attempt may have found out.
        if ctx.pacing.sprays.table.is_full(ctx.now) { Err(AttemptEnd::RouterFull) } else { Ok(next) }
    }

    /// Takes a probe of the other side that arrived by a path, by its transaction id.
    pub(super) fn on_request(
        &mut self,
        remote: &Remote,
        ctx: &mut Context<'_>,
        path: Path,
        id: TransactionId,
    ) {
        let predictability = PortPredictability::of(&self.local);
        let one_to_one = predictability == PortPredictability::PerDestination;
        let port_changes = one_to_one || self.local.nat.mapping != Some(Mapping::AddressDependent);
        match &mut self.stage {
            // Our response leaves by another mapping than the one that was found, and may not be let in.
            Stage::Listening(listener)
                if port_changes && listener.owns(path) && listener.target() != path.remote =>
            {
                if !self.reacted_on.insert(path.via) {
                    return;
                }
                let predicted = self.remote_plan.as_ref().is_some_and(|plan| !plan.endpoints.is_empty());
                debug!(attempt = self.number, %path, predicted, "found by the spray on another port than expected");
                if predicted {
                    remote.send_signal(ctx, self.number, Body::ProbeReceived(id.0));
                } else {
                    listener.retarget(ctx.now, path.remote);
                }
            }
            // The peer comes from a port that was not predicted: probe it from sockets that have sent nothing yet.
            Stage::Probing(open)
                if one_to_one
                    && !open.contains(path)
                    && is_one_of(&self.senders, path.via)
                    && self.reacted_on.insert(path.via) =>
            {
                debug!(attempt = self.number, %path, "probe came from a port that was not predicted");
                for socket in self.senders.iter().skip(1) {
                    open.add(ctx.now, Path { via: Via::Socket(socket.id), remote: path.remote });
                }
            }
            _ => {}
        }
    }

    /// Takes the report that a probe of ours reached the other side, whose response may not reach us: probes it from
    /// where it expects us.
    pub(super) fn on_probe_received(&mut self, id: TransactionId) {
        let Some((path, _)) = self.probes.get(id) else { return };
        if let Stage::Spraying(sender, _) = &mut self.stage
            && !self.senders.is_empty()
        {
            debug!(attempt = self.number, %path, tried = sender.sent(), "spray found an open port");
            // A contiguous allocation has to advance to the port that was predicted.
            let stop = !matches!(self.local.nat.allocation, Some(Allocation::Contiguous { .. }));
            sender.on_found(path.remote, stop);
        }
    }

    /// Gives back everything but what carries candidate pairs, and reports the end to the other side.
    pub(super) fn close(&mut self, peer: &PeerState<'_>, ctx: &mut Context<'_>, end: AttemptEnd) {
        let after_ms = ctx.now.saturating_duration_since(self.began).as_millis();
        debug!(
            attempt = self.number, method = self.method().name(), reason = ?end, after_ms,
            count = self.probes.count(), "punch attempt ended"
        );
        self.forget_transactions(ctx);
        for id in &self.requested {
            if !peer.pairs.uses(Via::Socket(*id)) {
                ctx.sockets.close(*id, ctx.events);
            }
        }
        let ending = match end {
            AttemptEnd::Connected => EndReason::Connected,
            AttemptEnd::Failed | AttemptEnd::RouterFull => EndReason::Failed,
            AttemptEnd::Declined | AttemptEnd::Busy | AttemptEnd::Superseded => return,
        };
        peer.remote.send_signal(ctx, self.number, Body::End(ending));
    }

    /// Forgets everything that awaits a response.
    pub(super) fn forget_transactions(&self, ctx: &mut Context<'_>) {
        let samples = self.samples_asked.iter().copied();
        for id in self.probes.ids().chain(samples).chain(self.flow_checks.ids()) {
            ctx.transactions.close(id);
        }
    }

    /// Describes the attempt to the user.
    pub(super) fn record(&self, now: Instant, outcome: AttemptOutcome) -> AttemptRecord {
        let took = now.saturating_duration_since(self.began);
        let note = match (&self.stage, outcome) {
            (Stage::OpeningSockets { .. } | Stage::SamplingPorts(_), _) => "Preparing.".into(),
            (Stage::AwaitingAnswer { .. }, AttemptOutcome::Trying) => "Waiting for the member.".into(),
            (Stage::AwaitingAnswer { .. } | Stage::AwaitingStart(_), _) => {
                "The member did not take part.".into()
            }
            (Stage::Probing(_), _) => format!("Sent {} packets to predicted ports.", self.probes.count()),
            (Stage::Listening(listener), _) => {
                format!("Opened {} ports towards {}.", self.senders.len(), listener.target().ip())
            }
            (Stage::Spraying(sender, _), _) => {
                format!("Tried {} random ports of the member.", sender.sent())
            }
        };
        AttemptRecord { outcome, took, note }
    }
}

fn is_one_of(sockets: &[PunchSocket], via: Via) -> bool {
    sockets.iter().any(|socket| via == Via::Socket(socket.id))
}

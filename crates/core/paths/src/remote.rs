//! What is known about a peer, and the keys with which checks to and from it are protected.

use std::{collections::BTreeSet, net::IpAddr};

use partyline_model::{Candidate, CandidateKind, NatProfile};
use partyline_wire::{
    probe::{ProbeError, ProbeKey, ReplayWindow, Request, Response, Tag, TransactionId},
    punch::{Body, Signal},
};
use tracing::{debug, trace};

use crate::{
    api::{Event, MAX_REMOTE_CANDIDATES, PeerParams},
    context::{Context, Device},
    path::{Path, PeerId, Via},
};

/// Why a check or response was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not authentic.
    Unauthenticated,
    /// It was received before.
    Replayed,
    /// It answers no request, or comes from elsewhere than was asked.
    Unsolicited,
}

impl From<ProbeError> for Refusal {
    fn from(_: ProbeError) -> Self {
        Self::Unauthenticated
    }
}

/// The two members' keys for connectivity checks, and the checks already received.
pub(crate) struct ProbeSession {
    key: ProbeKey,
    local_tag: Tag,
    remote_tag: Tag,
    window: ReplayWindow,
}

impl ProbeSession {
    fn new(params: &PeerParams) -> Self {
        let PeerParams { local_tag, remote_tag, .. } = *params;
        let key = ProbeKey::new(&params.probe_key);
        Self { key, local_tag, remote_tag, window: ReplayWindow::default() }
    }

    fn is_same(&self, params: &PeerParams) -> bool {
        let tags = (params.local_tag, params.remote_tag);
        self.key == ProbeKey::new(&params.probe_key) && self.tags() == tags
    }

    /// Returns our tag and the peer's.
    pub(crate) const fn tags(&self) -> (Tag, Tag) {
        (self.local_tag, self.remote_tag)
    }

    fn encode_request(&self, id: TransactionId, priority: u32, nominate: bool) -> Option<Vec<u8>> {
        let (recipient, sender) = (self.remote_tag, self.local_tag);
        Request { id, recipient, sender, priority, nominate }.encode(&self.key).ok()
    }

    /// Opens a check of the peer, unless it is forged or was received before.
    pub(crate) fn open_request(&mut self, bytes: &[u8]) -> Result<Request, Refusal> {
        let request = Request::open(bytes, &self.key)?;
        if self.window.accept(request.id.counter()) { Ok(request) } else { Err(Refusal::Replayed) }
    }

    /// Opens a response to a check of ours, unless it is forged.
    pub(crate) fn open_response(&self, bytes: &[u8]) -> Result<Response, Refusal> {
        Ok(Response::open(bytes, &self.key)?)
    }
}

/// A peer as it describes itself, and the means to send it checks and signals.
pub(crate) struct Remote {
    pub(crate) id: PeerId,
    /// Whether this side nominates.
    pub(crate) controlling: bool,
    pub(crate) nat: NatProfile,
    /// At most [`MAX_REMOTE_CANDIDATES`].
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) session: ProbeSession,
}

impl Remote {
    pub(crate) fn new(id: PeerId, params: PeerParams) -> Self {
        let session = ProbeSession::new(&params);
        let mut remote = Self {
            id,
            controlling: params.controlling,
            nat: NatProfile::default(),
            candidates: Vec::new(),
            session,
        };
        remote.update(params);
        remote
    }

    /// Returns true if the parameters belong to the same run of the same peer.
    pub(crate) fn is_same_run(&self, params: &PeerParams) -> bool {
        self.session.is_same(params)
    }

    /// Takes what the peer announces now.
    pub(crate) fn update(&mut self, params: PeerParams) {
        let (count, controlling) = (params.candidates.len(), params.controlling);
        debug!(count, controlling, nat = ?params.nat, "remote candidates set");
        if count > MAX_REMOTE_CANDIDATES {
            debug!(count, reason = "too many", "remote candidates ignored");
        }
        (self.controlling, self.nat, self.candidates) = (params.controlling, params.nat, params.candidates);
        self.candidates.truncate(MAX_REMOTE_CANDIDATES);
    }

    /// Returns the IPv4 addresses that the peer claims as its own: the only ones that punching sends packets to.
    pub(crate) fn claimed_addresses(&self) -> BTreeSet<IpAddr> {
        let announced = self.candidates.iter().map(|candidate| candidate.address.ip());
        announced.chain(self.nat.public.iter().copied()).filter(IpAddr::is_ipv4).collect()
    }

    /// Returns true if a path leads from one of our sockets straight to a relayed address of the peer.
    pub(crate) fn ends_at_relay(&self, path: Path) -> bool {
        let relayed = |c: &Candidate| c.kind == CandidateKind::Relayed && c.address == path.remote;
        matches!(path.via, Via::Socket(_)) && self.candidates.iter().any(relayed)
    }

    /// Returns true if a path leads from one of our sockets through another VPN, as far as either side knows.
    pub(crate) fn is_on_overlay(&self, device: &Device, path: Path) -> bool {
        let ip = path.remote.ip();
        let announced = |c: &Candidate| c.kind == CandidateKind::Overlay && c.address.ip() == ip;
        matches!(path.via, Via::Socket(_))
            && (device.is_behind_overlay(ip) || self.candidates.iter().any(announced))
    }

    /// Sends a check with this id along a path.
    pub(crate) fn send_check(
        &self,
        ctx: &mut Context<'_>,
        path: Path,
        id: TransactionId,
        priority: u32,
        nominate: bool,
    ) {
        if let Some(bytes) = self.session.encode_request(id, priority, nominate) {
            trace!(%path, nominate, "check sent");
            ctx.transactions.open(id, self.id);
            ctx.send(path, bytes);
        }
    }

    /// Answers a check that arrived by a path, which tells the peer that it may use the path.
    pub(crate) fn send_response(&self, ctx: &mut Context<'_>, path: Path, id: TransactionId) {
        let response = Response { id, mapped: path.remote };
        if let Ok(bytes) = response.encode(&self.session.key) {
            trace!(%path, "response sent");
            ctx.send(path, bytes);
        }
    }

    /// Sends a signal about a punch attempt.
    pub(crate) fn send_signal(&self, ctx: &mut Context<'_>, attempt: u32, body: Body) {
        trace!(attempt, ?body, "signal sent");
        let bytes = Signal { attempt, body }.encode();
        ctx.events.push_back(Event::Signal { peer: self.id, bytes });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use partyline_model::SocketId;

    use super::*;
    use crate::{api::Config, context::Shared};

    fn params(swap: bool) -> PeerParams {
        let (one, other) = (Tag([1; 8]), Tag([2; 8]));
        PeerParams {
            probe_key: [7; 32],
            local_tag: if swap { other } else { one },
            remote_tag: if swap { one } else { other },
            controlling: !swap,
            nat: NatProfile::default(),
            candidates: Vec::new(),
        }
    }

    /// A check that one member sent to the other.
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn check() -> Vec<u8> {
        let mut shared = Shared::new([1; 32], Config::default());
        let mut ctx = shared.context(Instant::now());
        let path = Path { via: Via::Socket(SocketId::MAIN), remote: ([198, 51, 100, 1], 1).into() };
        let id = ctx.transactions.next_id();
        Remote::new(PeerId(1), params(false)).send_check(&mut ctx, path, id, 1, false);
        assert_eq!(shared.transactions.peer_of(id), Some(PeerId(1)));
        shared.transmits.pop_front().unwrap().bytes
    }

    #[test]
    fn a_check_is_taken_once() {
        let mut remote = Remote::new(PeerId(1), params(true));
        let check = check();
        assert!(remote.session.open_request(&check).is_ok());
        assert_eq!(remote.session.open_request(&check), Err(Refusal::Replayed));
    }

    #[test]
    fn a_check_of_another_run_is_refused() {
        let other = PeerParams { probe_key: [8; 32], ..params(true) };
        let mut remote = Remote::new(PeerId(1), other.clone());
        assert!(remote.is_same_run(&other) && !remote.is_same_run(&params(true)));
        assert_eq!(remote.session.open_request(&check()), Err(Refusal::Unauthenticated));
    }

    #[test]
    fn only_the_first_candidates_count() {
        let candidate = Candidate { kind: CandidateKind::Host, address: ([198, 51, 100, 1], 1).into() };
        let many = PeerParams { candidates: vec![candidate; 100], ..params(false) };
        assert_eq!(Remote::new(PeerId(1), many).candidates.len(), MAX_REMOTE_CANDIDATES);
    }
}

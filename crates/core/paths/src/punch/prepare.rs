//! What a side needs before it can take part in a round, and where it will be seen.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Allocation, Candidate, CandidateKind, Mapping};
use partyline_wire::punch::{MAX_PACKETS, MAX_SOCKETS, PunchAction};

use super::{sample::Findings, sockets::Fresh};
use crate::strategy::{Side, is_outermost, seen};

/// Opens as many sockets as the other side must find one of.
pub(crate) const OPEN: PunchAction = PunchAction::Open { sockets: MAX_SOCKETS };
/// Ports foretold for one mapping, or for as many sockets in a row.
pub(crate) const WINDOW: usize = 8;
/// Sockets of a preserving NAT; more than one in case a port is taken.
const PRESERVED: usize = 4;
/// How many ports ahead a socket of a counting NAT will be seen, while the ones between are used up by probes.
pub(crate) const AHEAD: u16 = 400;
/// Sockets that then send one after the other, since others may have taken some of the ports.
pub(crate) const LATE: u16 = 6;
/// Most probes where each makes a mapping of its own in the router's table.
const MAPPING_PACKETS: u16 = 1024;

/// Tries ports of the other side, as many as our own router's table can bear.
pub(crate) fn spray(me: &Side) -> PunchAction {
    let counted = matches!(me.nat.allocation, Some(Allocation::Contiguous { .. }));
    let packets = match Seen::of(me) {
        Seen::Shared | Seen::Steady => MAX_PACKETS,
        Seen::Once if counted => AHEAD - 1 - LATE,
        _ if me.nat.mapping == Some(Mapping::AddressDependent) => MAX_PACKETS,
        _ => MAPPING_PACKETS,
    };
    PunchAction::Spray { packets }
}

/// How the other side sees our sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The shared socket at one known port.
    Shared,
    /// A fresh socket at one port that can be foretold.
    Steady,
    /// Each fresh socket at a port that can be foretold for its first destination.
    Once,
    /// At ports that nobody can foretell.
    Random,
}

impl Seen {
    pub(crate) fn of(me: &Side) -> Self {
        match (me.reachable, me.nat.mapping, me.nat.allocation) {
            (true, ..) | (_, Some(Mapping::EndpointIndependent), _) => Self::Shared,
            (_, _, Some(Allocation::Random)) => Self::Random,
            (_, Some(Mapping::AddressDependent), _) => Self::Steady,
            _ => Self::Once,
        }
    }
}

/// Sockets to open for a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// To ask a server from, one after the other.
    pub(crate) samples: usize,
    /// To send from.
    pub(crate) senders: usize,
}

pub(crate) fn needs(me: &Side, part: PunchAction) -> Needs {
    let samples = match me.nat.allocation {
        Some(Allocation::Contiguous { .. }) => 2,
        None => 3,
        Some(Allocation::Preserving | Allocation::Random) => 0,
    };
    let counted = matches!(me.nat.allocation, Some(Allocation::Contiguous { .. }));
    match (part, Seen::of(me)) {
        (PunchAction::Open { sockets }, _) => Needs { samples: 0, senders: sockets.into() },
        (_, Seen::Shared | Seen::Random) => Needs { samples: 0, senders: 0 },
        (PunchAction::Spray { .. }, Seen::Once) if counted => {
            Needs { samples, senders: usize::from(LATE) + 2 }
        }
        (_, Seen::Steady) | (PunchAction::Spray { .. }, Seen::Once) => Needs { samples, senders: 1 },
        (PunchAction::Predict, Seen::Once) if counted => Needs { samples, senders: WINDOW },
        (PunchAction::Predict, Seen::Once) => Needs { samples, senders: PRESERVED },
    }
}

/// Where the other side will see us, in the order in which we send.
pub(crate) fn endpoints(
    me: &Side,
    part: PunchAction,
    senders: &[Fresh],
    findings: &Findings,
    local: &[Candidate],
    lead: Duration,
    now: Instant,
) -> Vec<SocketAddr> {
    let side =
        Side { nat: partyline_wire::punch::NatPolicies { allocation: findings.allocation, ..me.nat }, ..*me };
    if matches!(part, PunchAction::Open { .. }) {
        return Vec::new();
    }
    let seen = Seen::of(&side);
    if seen == Seen::Shared {
        return main(local).into_iter().collect();
    }
    let Some(public) = findings.last.map(|last| last.ip()).or(me.public) else { return Vec::new() };
    match (seen, findings.allocation) {
        (Seen::Steady | Seen::Once, Some(Allocation::Preserving)) => {
            senders.iter().map(|socket| SocketAddr::new(public, socket.port)).collect()
        }
        (Seen::Steady | Seen::Once, Some(Allocation::Contiguous { delta })) => {
            let Some(last) = findings.last else { return Vec::new() };
            let age = findings.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)) + lead;
            let others = (findings.rate * age.as_secs_f64() * 0.75) as i32;
            let first = match (part, seen) {
                (PunchAction::Spray { .. }, Seen::Once) => i32::from(AHEAD),
                _ => 1 + others,
            };
            let ports = (first..).take(if first == i32::from(AHEAD) { 1 } else { WINDOW });
            ports
                .filter_map(|step| port_after(last.port(), delta, step))
                .map(|port| SocketAddr::new(public, port))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The port that a counter reaches, going round within the ports above the reserved ones.
pub(crate) fn port_after(port: u16, delta: i16, steps: i32) -> Option<u16> {
    const FIRST: i32 = 1024;
    let place = i32::from(port) - FIRST + i32::from(delta) * steps;
    u16::try_from(FIRST + place.rem_euclid(65_536 - FIRST)).ok()
}

/// The address at which a side's shared socket is most likely to be heard over IPv4.
pub(crate) fn main(candidates: &[Candidate]) -> Option<SocketAddr> {
    let of = |kind: CandidateKind| {
        let mut fitting = candidates.iter().filter(move |c| c.kind == kind && c.address.is_ipv4());
        fitting.find(|c| match kind {
            CandidateKind::Mapped => is_outermost(c, seen(candidates)),
            CandidateKind::Host => !crate::address::is_private(c.address.ip()),
            _ => true,
        })
    };
    let kinds = [CandidateKind::Mapped, CandidateKind::ServerReflexive, CandidateKind::Host];
    kinds.into_iter().find_map(of).map(|c| c.address)
}

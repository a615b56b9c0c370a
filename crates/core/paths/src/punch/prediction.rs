//! How well the other side can predict our ports, which sockets an attempt needs, and where they will appear.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Allocation, Candidate, CandidateKind, Mapping};
use partyline_wire::punch::{MAX_PACKETS, NatPolicies, PunchAction};

use super::sampling::SampledPorts;
use crate::{
    address::is_private,
    sockets::PunchSocket,
    strategy::{Side, is_outermost, reflexive_ip},
};

/// Sockets that are opened for a sprayer to find one of: as many as every router has room for.
const OPENED_SOCKETS: u16 = 128;
/// Ports predicted for one mapping, or for as many sockets in a row.
const PREDICTION_WINDOW: usize = 8;
/// Sockets behind a NAT that preserves ports; more than one in case a port is taken.
const PRESERVED_SOCKETS: usize = 4;
/// Probes behind a contiguous NAT, each of which uses up a port before the sockets appear that the other side expects.
const CONTIGUOUS_PROBES: u16 = 793;
/// Sockets that then send one after the other, since other computers may have taken some of the ports.
const LATE_SOCKETS: u16 = 6;
/// Bounds the probes that each make a mapping of their own in our router's table.
const MAX_MAPPING_PROBES: u16 = 2048;
/// Sockets for checks whether the router has room, for the side that opens sockets and for the sprayer.
const OPENER_CHECKS: usize = 6;
const SPRAYER_CHECKS: usize = 24;
/// Share of the steps that other computers are expected to take until we send: fewer, to stay within the window.
const FOREIGN_STEP_SHARE: f64 = 0.75;

/// How well our ports can be predicted by the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortPredictability {
    /// The main socket appears at one known port for every destination.
    PerEndpoint,
    /// A fresh socket appears at one predictable port for every port of a destination address.
    PerAddress,
    /// A fresh socket appears at a predictable port for its first destination only.
    PerDestination,
    /// Ports cannot be predicted.
    Unpredictable,
}

impl PortPredictability {
    pub(super) const fn of(side: &Side) -> Self {
        match (side.reachable, side.nat.mapping, side.nat.allocation) {
            (true, ..) | (_, Some(Mapping::EndpointIndependent), _) => Self::PerEndpoint,
            (_, _, Some(Allocation::Random)) => Self::Unpredictable,
            (_, Some(Mapping::AddressDependent), _) => Self::PerAddress,
            _ => Self::PerDestination,
        }
    }
}

/// Returns our action if we open sockets, where our router has room for so many flows.
pub(super) fn open_action(room: u32) -> PunchAction {
    PunchAction::Open { sockets: at_most(OPENED_SOCKETS, room) }
}

/// Returns our action if we are the sprayer: as many probes as our own router's table can bear, where that has room for so
/// many flows.
pub(super) fn spray_action(local: &Side, room: u32) -> PunchAction {
    let packets = match PortPredictability::of(local) {
        PortPredictability::PerEndpoint | PortPredictability::PerAddress => MAX_PACKETS,
        PortPredictability::PerDestination if is_contiguous(local) => CONTIGUOUS_PROBES,
        _ if local.nat.mapping == Some(Mapping::AddressDependent) => MAX_PACKETS,
        _ => MAX_MAPPING_PROBES,
    };
    PunchAction::Spray { packets: at_most(packets, room) }
}

fn at_most(count: u16, room: u32) -> u16 {
    u16::try_from(room).map_or(count, |room| count.min(room))
}

const fn is_contiguous(side: &Side) -> bool {
    matches!(side.nat.allocation, Some(Allocation::Contiguous { .. }))
}

/// The sockets to open for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketNeeds {
    /// To ask a STUN server from, one after the other.
    pub(super) samples: usize,
    /// To send probes from.
    pub(super) senders: usize,
    /// To check from, one after the other, whether the router has room for more flows.
    pub(super) checks: usize,
}

impl SocketNeeds {
    /// Returns what an action needs.
    pub(super) fn of(local: &Side, action: PunchAction) -> Self {
        use PortPredictability::{PerAddress, PerDestination, PerEndpoint, Unpredictable};
        let samples = match local.nat.allocation {
            Some(Allocation::Contiguous { .. }) => 2,
            None => 3,
            Some(Allocation::Preserving | Allocation::Random) => 0,
        };
        let checks = match action {
            PunchAction::Predict => 0,
            PunchAction::Open { .. } => OPENER_CHECKS,
            PunchAction::Spray { .. } => SPRAYER_CHECKS,
        };
        let contiguous = is_contiguous(local);
        let (samples, senders) = match (action, PortPredictability::of(local)) {
            (PunchAction::Open { sockets }, _) => (0, sockets.into()),
            (_, PerEndpoint | Unpredictable) => (0, 0),
            (PunchAction::Spray { .. }, PerDestination) if contiguous => {
                (samples, usize::from(LATE_SOCKETS) + 2)
            }
            (_, PerAddress) | (PunchAction::Spray { .. }, PerDestination) => (samples, 1),
            (PunchAction::Predict, PerDestination) if contiguous => (samples, PREDICTION_WINDOW),
            (PunchAction::Predict, PerDestination) => (samples, PRESERVED_SOCKETS),
        };
        Self { samples, senders, checks }
    }

    /// Returns what remains of the needs with these STUN servers: without any, nothing can be asked.
    pub(super) fn with(self, stun_servers: &[SocketAddr]) -> Self {
        if stun_servers.is_empty() { Self { samples: 0, checks: 0, ..self } } else { self }
    }
}

/// What a prediction is based on.
pub(super) struct Basis<'a> {
    pub(super) local: &'a Side,
    pub(super) action: PunchAction,
    /// The sockets that will send.
    pub(super) senders: &'a [PunchSocket],
    pub(super) sampled: &'a SampledPorts,
    /// Our own candidates.
    pub(super) candidates: &'a [Candidate],
    /// The time until the first probe is sent.
    pub(super) lead: Duration,
}

impl Basis<'_> {
    /// Predicts at which addresses the other side will see our probes, in the order in which they are sent. Empty if
    /// that cannot be predicted.
    pub(super) fn predict(&self, now: Instant) -> Vec<SocketAddr> {
        if matches!(self.action, PunchAction::Open { .. }) {
            return Vec::new();
        }
        let nat = NatPolicies { allocation: self.sampled.allocation, ..self.local.nat };
        let predictability = PortPredictability::of(&Side { nat, ..*self.local });
        match (predictability, self.sampled.allocation) {
            (PortPredictability::PerEndpoint, _) => main_endpoint(self.candidates).into_iter().collect(),
            (PortPredictability::Unpredictable, _) => Vec::new(),
            (_, Some(Allocation::Preserving)) => self.preserved(),
            (_, Some(Allocation::Contiguous { delta })) => self.contiguous(now, predictability, delta),
            _ => Vec::new(),
        }
    }

    fn preserved(&self) -> Vec<SocketAddr> {
        let public = self.sampled.last.map(|last| last.ip()).or(self.local.public);
        let at = |ip| self.senders.iter().map(move |socket| SocketAddr::new(ip, socket.port));
        public.map(at).into_iter().flatten().collect()
    }

    fn contiguous(&self, now: Instant, predictability: PortPredictability, delta: i16) -> Vec<SocketAddr> {
        let Some(last) = self.sampled.last else { return Vec::new() };
        let age = self.sampled.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)) + self.lead;
        let foreign = (self.sampled.foreign_rate * age.as_secs_f64() * FOREIGN_STEP_SHARE) as i32;
        let (first, count) = match (self.action, predictability) {
            (PunchAction::Spray { packets }, PortPredictability::PerDestination) => (ports_ahead(packets), 1),
            _ => (1 + foreign, PREDICTION_WINDOW),
        };
        let ports = (first..).take(count).filter_map(|steps| port_after(last.port(), delta, steps));
        ports.map(|port| SocketAddr::new(last.ip(), port)).collect()
    }
}

/// Returns how many ports ahead the sockets behind a contiguous NAT appear, once so many probes have used up the ones
/// between.
fn ports_ahead(packets: u16) -> i32 {
    i32::from(packets) + 1 + i32::from(LATE_SOCKETS)
}

/// Returns the port that a contiguous allocation reaches after so many steps, wrapping within the ports above the
/// well-known ones.
fn port_after(port: u16, delta: i16, steps: i32) -> Option<u16> {
    const FIRST: i32 = 1024;
    let place = i32::from(port) - FIRST + i32::from(delta) * steps;
    u16::try_from(FIRST + place.rem_euclid(65_536 - FIRST)).ok()
}

/// Returns the IPv4 address at which a side's main socket is most likely reached.
pub(super) fn main_endpoint(candidates: &[Candidate]) -> Option<SocketAddr> {
    let of = |kind: CandidateKind| {
        let mut fitting = candidates.iter().filter(move |c| c.kind == kind && c.address.is_ipv4());
        fitting.find(|c| match kind {
            CandidateKind::Mapped => is_outermost(c, reflexive_ip(candidates)),
            CandidateKind::Host => !is_private(c.address.ip()),
            _ => true,
        })
    };
    let kinds = [CandidateKind::Mapped, CandidateKind::ServerReflexive, CandidateKind::Host];
    kinds.into_iter().find_map(of).map(|c| c.address)
}

#[cfg(test)]
mod tests {
    use partyline_model::SocketId;

    use super::*;

    const CONTIGUOUS: Option<Allocation> = Some(Allocation::Contiguous { delta: 2 });

    fn side(mapping: Mapping, allocation: Option<Allocation>) -> Side {
        let nat = NatPolicies { mapping: Some(mapping), allocation, ..NatPolicies::default() };
        Side { nat, public: Some([198, 51, 100, 1].into()), ..Side::default() }
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn predict(
        local: &Side,
        action: PunchAction,
        last: Option<u16>,
        foreign_rate: f64,
        lead: Duration,
    ) -> Vec<u16> {
        let now = Instant::now();
        let sampled = SampledPorts {
            allocation: local.nat.allocation,
            last: last.map(|port| ([198, 51, 100, 1], port).into()),
            at: Some(now),
            foreign_rate,
        };
        let senders = [33_000, 33_001].map(|port| PunchSocket { id: SocketId(port), port });
        let reflexive = ([198, 51, 100, 1], 20_000).into();
        let candidates = [Candidate { kind: CandidateKind::ServerReflexive, address: reflexive }];
        let basis =
            Basis { local, action, senders: &senders, sampled: &sampled, candidates: &candidates, lead };
        basis.predict(now).iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn an_endpoint_independent_mapping_is_met_at_the_main_socket() {
        let local = side(Mapping::EndpointIndependent, CONTIGUOUS);
        assert_eq!(predict(&local, PunchAction::Predict, None, 0.0, Duration::ZERO), [20_000]);
        assert_eq!(
            SocketNeeds::of(&local, PunchAction::Predict),
            SocketNeeds { samples: 0, senders: 0, checks: 0 }
        );
    }

    #[test]
    fn preserved_ports_are_those_of_the_sockets() {
        let local = side(Mapping::AddressAndPortDependent, Some(Allocation::Preserving));
        assert_eq!(predict(&local, PunchAction::Predict, None, 0.0, Duration::ZERO), [33_000, 33_001]);
    }

    #[test]
    fn contiguous_ports_follow_the_last_sample_and_the_steps_of_others() {
        let local = side(Mapping::AddressAndPortDependent, CONTIGUOUS);
        let ports = |rate, lead| predict(&local, PunchAction::Predict, Some(5000), rate, lead);
        assert_eq!(ports(0.0, Duration::ZERO), [5002, 5004, 5006, 5008, 5010, 5012, 5014, 5016]);
        assert_eq!(ports(8.0, Duration::from_secs(1))[..2], [5014, 5016]);
    }

    #[test]
    fn a_sprayer_with_contiguous_ports_appears_behind_those_that_its_probes_use_up() {
        let local = side(Mapping::AddressAndPortDependent, CONTIGUOUS);
        for room in [u32::MAX, 100] {
            let PunchAction::Spray { packets } = spray_action(&local, room) else { panic!("not a spray") };
            let ports = predict(&local, PunchAction::Spray { packets }, Some(5000), 0.0, Duration::ZERO);
            assert_eq!(ports, [5000 + 2 * (packets + 1 + LATE_SOCKETS)]);
            assert!(u32::from(packets) <= room);
        }
    }

    #[test]
    fn nothing_is_predicted_of_random_ports_or_without_a_sample() {
        let random = side(Mapping::AddressAndPortDependent, Some(Allocation::Random));
        assert!(predict(&random, PunchAction::Predict, Some(5000), 0.0, Duration::ZERO).is_empty());
        let contiguous = side(Mapping::AddressAndPortDependent, CONTIGUOUS);
        assert!(predict(&contiguous, PunchAction::Predict, None, 0.0, Duration::ZERO).is_empty());
    }

    #[test]
    fn contiguous_ports_wrap_above_the_well_known_ones() {
        assert_eq!(port_after(65_535, 1, 1), Some(1024));
        assert_eq!(port_after(1024, -1, 1), Some(65_535));
    }

    #[test]
    fn the_main_endpoint_is_mapped_before_reflexive_before_a_public_host_address() {
        use CandidateKind::{Host, Mapped, ServerReflexive};
        let all =
            [(Host, [203, 0, 113, 9]), (ServerReflexive, [198, 51, 100, 1]), (Mapped, [198, 51, 100, 1])];
        let mut candidates: Vec<Candidate> =
            (1..).zip(all).map(|(port, (kind, ip))| Candidate { kind, address: (ip, port).into() }).collect();
        let port = |list: &[Candidate]| main_endpoint(list).map(|address| address.port());
        assert_eq!(port(&candidates), Some(3));
        candidates.pop();
        assert_eq!(port(&candidates), Some(2));
        let private = Candidate { kind: Host, address: ([192, 168, 1, 2], 1).into() };
        assert_eq!(main_endpoint(&[private]), None);
    }
}

//! Samples of the ports that our NAT assigns to fresh sockets, taken right before an attempt starts.
//!
//! The next port of a NAT with contiguous allocation is the last one plus its step. Other computers behind the same
//! router advance it meanwhile; how fast they do shows between two samples. Where the network check is off, the samples
//! also reveal the kind of allocation.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::Allocation;
use partyline_wire::probe::TransactionId;
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessageBuilder,
    attributes::stun::{Fingerprint, XorMappedAddress},
    methods::BINDING,
};

use tracing::{debug, trace};

use crate::{sockets::PunchSocket, transactions::Transactions};

/// Gap to the retransmission of a request.
const RETRANSMISSION_GAP: Duration = Duration::from_millis(250);
/// Transmissions of one request before sampling is given up.
const MAX_TRANSMISSIONS: u32 = 3;
/// The largest step of a contiguous allocation that is recognized.
const MAX_STEP: i32 = 64;
/// Bounds the steps that others are assumed to have taken between two samples.
const MAX_FOREIGN_STEPS: i32 = 256;

/// Asks STUN servers from one fresh socket after the other.
#[derive(Debug)]
pub(super) struct PortSampler {
    servers: Vec<SocketAddr>,
    /// Sockets still to ask from, the next one last.
    left: Vec<PunchSocket>,
    pending: Option<PendingRequest>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct PendingRequest {
    socket: PunchSocket,
    id: TransactionId,
    since: Instant,
    retransmit_at: Instant,
    transmissions: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    local_port: u16,
    mapped: SocketAddr,
    /// When the mapping was made: about half a round trip after the request.
    at: Instant,
}

/// A Binding request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleRequest {
    pub(super) socket: PunchSocket,
    pub(super) server: SocketAddr,
    pub(super) id: TransactionId,
}

/// What the samples show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SampledPorts {
    /// How ports are allocated, as measured or as known before.
    pub(super) allocation: Option<Allocation>,
    /// The newest mapped address.
    pub(super) last: Option<SocketAddr>,
    /// When its mapping was made.
    pub(super) at: Option<Instant>,
    /// Steps per second that other computers behind the NAT take.
    pub(super) foreign_rate: f64,
}

impl PortSampler {
    pub(super) fn new(servers: Vec<SocketAddr>, mut sockets: Vec<PunchSocket>) -> Self {
        sockets.reverse();
        Self { servers, left: sockets, pending: None, samples: Vec::new() }
    }

    /// Returns the request to send now, if there is one.
    pub(super) fn poll_request(
        &mut self,
        now: Instant,
        transactions: &mut Transactions,
    ) -> Option<SampleRequest> {
        let server = *self.servers.first()?;
        if let Some(pending) = &mut self.pending {
            if now < pending.retransmit_at {
                return None;
            }
            if pending.transmissions < MAX_TRANSMISSIONS {
                // Another server would see another mapping, so the same one is asked again.
                pending.transmissions += 1;
                pending.retransmit_at = now + RETRANSMISSION_GAP;
                return Some(SampleRequest { socket: pending.socket, server, id: pending.id });
            }
            debug!(%server, count = MAX_TRANSMISSIONS, reason = "no response", "port sampling given up");
            self.left.clear();
            self.pending = None;
        }
        let (socket, id) = (self.left.pop()?, transactions.next_id());
        let retransmit_at = now + RETRANSMISSION_GAP;
        self.pending = Some(PendingRequest { socket, id, since: now, retransmit_at, transmissions: 1 });
        Some(SampleRequest { socket, server, id })
    }

    /// Takes a response; returns false if it is not the one awaited.
    pub(super) fn on_response(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        let Some(pending) = self.pending.as_ref().filter(|pending| pending.id == id) else { return false };
        let Some(mapped) = mapped_address(bytes) else { return false };
        let at = pending.since + (now - pending.since) / 2;
        trace!(local_port = pending.socket.port, %mapped, "port sampled");
        self.samples.push(Sample { local_port: pending.socket.port, mapped, at });
        self.pending = None;
        true
    }

    /// Returns true if nothing more will be asked.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_none() && (self.left.is_empty() || self.servers.is_empty())
    }

    /// Returns when [`Self::poll_request`] has something to send, unless sampling is done.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.pending {
            Some(pending) => Some(pending.retransmit_at),
            None => (!self.is_done()).then_some(now),
        }
    }

    /// Evaluates the samples. An allocation that is known already is not measured again.
    pub(super) fn evaluate(&self, known: Option<Allocation>) -> SampledPorts {
        let last = self.samples.last();
        let allocation = known.or_else(|| self.allocation());
        let foreign_rate = match allocation {
            Some(Allocation::Contiguous { delta }) if delta != 0 => self.foreign_rate(delta.into()),
            _ => 0.0,
        };
        SampledPorts { allocation, last: last.map(|s| s.mapped), at: last.map(|s| s.at), foreign_rate }
    }

    /// Returns the distance of the ports of each two samples in a row, and the time between them.
    fn steps(&self) -> impl Iterator<Item = (i32, Duration)> {
        self.samples.windows(2).filter_map(|pair| match pair {
            [a, b] => Some((
                i32::from(b.mapped.port()) - i32::from(a.mapped.port()),
                b.at.saturating_duration_since(a.at),
            )),
            _ => None,
        })
    }

    fn allocation(&self) -> Option<Allocation> {
        if self.samples.is_empty() {
            return None;
        }
        if self.samples.iter().all(|sample| sample.mapped.port() == sample.local_port) {
            return Some(Allocation::Preserving);
        }
        let steps: Vec<i32> = self.steps().map(|(step, _)| step).collect();
        let least = steps.iter().copied().min_by_key(|step| step.abs())?;
        let fits = |step: &i32| step % least == 0 && step / least > 0 && step.abs() <= 8 * MAX_STEP;
        let contiguous = least != 0 && least.abs() <= MAX_STEP && steps.iter().all(fits);
        match i16::try_from(least) {
            Ok(delta) if contiguous => Some(Allocation::Contiguous { delta }),
            _ => Some(Allocation::Random),
        }
    }

    /// Returns how many steps per second were not ours.
    fn foreign_rate(&self, delta: i32) -> f64 {
        let (mut foreign, mut span) = (0, Duration::ZERO);
        for (step, took) in self.steps() {
            foreign += (step / delta - 1).clamp(0, MAX_FOREIGN_STEPS);
            span += took;
        }
        if span.is_zero() { 0.0 } else { f64::from(foreign) / span.as_secs_f64() }
    }
}

/// Encodes a Binding request (RFC 8489, section 3).
pub(super) fn binding_request(id: TransactionId) -> Vec<u8> {
    let message = StunMessageBuilder::new(BINDING, MessageClass::Request)
        .with_transaction_id(id.0.into())
        .with_attribute(Fingerprint::default())
        .build();
    let mut bytes = vec![0; 64];
    // Header and FINGERPRINT take 28 bytes, so that the buffer cannot be too short.
    let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

/// Returns the IPv4 address in XOR-MAPPED-ADDRESS.
fn mapped_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (message, _) = MessageDecoderBuilder::default().build().decode(bytes).ok()?;
    let mapped = *message.get::<XorMappedAddress>()?.as_xor_mapped_address().ok()?.socket_address();
    (mapped.port() != 0 && mapped.is_ipv4()).then_some(mapped)
}

#[cfg(test)]
mod tests {
    use partyline_model::SocketId;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A sampler that saw these local and mapped ports, 100 ms apart.
    fn sampled(ports: &[(u16, u16)]) -> PortSampler {
        let mut sampler = PortSampler::new(Vec::new(), Vec::new());
        let now = start();
        sampler.samples = (0..)
            .zip(ports)
            .map(|(at, (local_port, port))| Sample {
                local_port: *local_port,
                mapped: ([198, 51, 100, 1], *port).into(),
                at: now + Duration::from_millis(100) * at,
            })
            .collect();
        sampler
    }

    #[test]
    fn samples_reveal_the_allocation() {
        let allocation = |ports: &[(u16, u16)]| sampled(ports).evaluate(None).allocation;
        assert_eq!(allocation(&[(7, 7), (8, 8), (30, 30)]), Some(Allocation::Preserving));
        assert_eq!(allocation(&[(7, 5000), (8, 5003), (9, 5006)]), Some(Allocation::Contiguous { delta: 3 }));
        assert_eq!(
            allocation(&[(7, 5000), (8, 4998), (9, 4992)]),
            Some(Allocation::Contiguous { delta: -2 })
        );
        assert_eq!(allocation(&[(7, 5000), (8, 50_000), (9, 30_000)]), Some(Allocation::Random));
        assert_eq!(allocation(&[]), None);
    }

    #[test]
    fn steps_of_other_computers_are_counted() {
        let delta = Some(Allocation::Contiguous { delta: 2 });
        assert!(sampled(&[(1, 100), (2, 102)]).evaluate(delta).foreign_rate.abs() < 0.01);
        let rate = sampled(&[(1, 100), (2, 106)]).evaluate(delta).foreign_rate;
        assert!((rate - 20.0).abs() < 0.01, "{rate}");
    }

    fn two_sockets() -> (PortSampler, Transactions) {
        let sockets = [1, 2].map(|number| PunchSocket { id: SocketId(number), port: number });
        let sampler = PortSampler::new(vec![([203, 0, 113, 1], 3478).into()], sockets.to_vec());
        (sampler, Transactions::new(ChaCha20Rng::from_seed([1; 32])))
    }

    #[test]
    fn sampling_is_given_up_when_a_server_stays_silent() {
        let ((mut sampler, mut transactions), mut now) = (two_sockets(), start());
        let first = sampler.poll_request(now, &mut transactions).unwrap();
        assert_eq!(first.socket.id, SocketId(1));
        assert!(sampler.poll_request(now, &mut transactions).is_none());
        let mut sent = 1;
        while !sampler.is_done() {
            now = sampler.deadline(now).unwrap();
            let request = sampler.poll_request(now, &mut transactions);
            assert!(request.is_none_or(|request| request == first));
            sent += u32::from(request.is_some());
        }
        assert_eq!(sent, MAX_TRANSMISSIONS);
    }

    #[test]
    fn each_socket_is_asked_from_once_the_one_before_has_its_response() {
        let ((mut sampler, mut transactions), now) = (two_sockets(), start());
        for number in [1, 2] {
            let request = sampler.poll_request(now, &mut transactions).unwrap();
            assert_eq!(request.socket.id, SocketId(number));
            assert!(!sampler.on_response(now, request.id, b"nothing"));
            let message = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
                .with_transaction_id(request.id.0.into())
                .with_attribute(XorMappedAddress::from(SocketAddr::from(([198, 51, 100, 1], number))))
                .build();
            let mut bytes = [0; 64];
            let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).unwrap();
            assert!(sampler.on_response(now, request.id, &bytes[..len]));
        }
        assert!(sampler.is_done());
        assert_eq!(sampler.evaluate(None).allocation, Some(Allocation::Preserving));
    }

    #[test]
    fn requests_are_plain_binding_requests() {
        let bytes = binding_request(TransactionId::new(1, 1));
        assert_eq!((bytes.len(), &bytes[..2]), (28, &[0, 1][..]));
    }
}

//! Fresh samples: at which ports the NAT shows sockets that have sent nothing yet, right before a round starts.
//!
//! A counting NAT's next port is the last one plus its step; what others behind the same router take meanwhile moves it
//! on, and how fast they do shows between two samples. Where detection is off, the samples also tell the kind of allocation.

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

use super::sockets::Fresh;

/// Gap to the repetition of a question.
const AGAIN: Duration = Duration::from_millis(250);
/// Questions asked in vain before the samples are done without.
const TRIES: u32 = 3;
/// The largest step of a counting NAT.
const LARGEST_STEP: i32 = 64;

#[derive(Debug)]
pub(crate) struct Sampler {
    observers: Vec<SocketAddr>,
    /// Sockets still to ask from, the next one last.
    left: Vec<Fresh>,
    asking: Option<Asking>,
    seen: Vec<Sample>,
}

#[derive(Debug)]
struct Asking {
    socket: Fresh,
    id: TransactionId,
    since: Instant,
    again: Instant,
    tries: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    local_port: u16,
    mapped: SocketAddr,
    /// When the mapping was made, at the latest.
    at: Instant,
}

/// What the samples show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Findings {
    pub(crate) allocation: Option<Allocation>,
    /// The newest port.
    pub(crate) last: Option<SocketAddr>,
    pub(crate) at: Option<Instant>,
    /// Steps a second that others take.
    pub(crate) rate: f64,
}

impl Sampler {
    pub(crate) fn new(observers: Vec<SocketAddr>, mut sockets: Vec<Fresh>) -> Self {
        sockets.reverse();
        Self { observers, left: sockets, asking: None, seen: Vec::new() }
    }

    /// The question to send now, if any: from where, to where, under which id.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        id: TransactionId,
    ) -> Option<(Fresh, SocketAddr, TransactionId)> {
        if let Some(asking) = &mut self.asking {
            if now < asking.again {
                return None;
            }
            if asking.tries < TRIES {
                // Another server is asked from another socket only, since it would see another mapping.
                asking.tries += 1;
                asking.again = now + AGAIN;
                return Some((asking.socket, *self.observers.first()?, asking.id));
            }
            self.left.clear();
            self.asking = None;
        }
        let (socket, observer) = (self.left.pop()?, *self.observers.first()?);
        self.asking = Some(Asking { socket, id, since: now, again: now + AGAIN, tries: 1 });
        Some((socket, observer, id))
    }

    /// Takes an answer; false if it is not one.
    pub(crate) fn heard(&mut self, now: Instant, id: TransactionId, bytes: &[u8]) -> bool {
        let Some(asking) = self.asking.as_ref().filter(|asking| asking.id == id) else { return false };
        let Some(mapped) = mapped(bytes) else { return false };
        let at = asking.since + (now - asking.since) / 2;
        self.seen.push(Sample { local_port: asking.socket.port, mapped, at });
        self.asking = None;
        true
    }

    pub(crate) fn is_done(&self) -> bool {
        self.asking.is_none() && (self.left.is_empty() || self.observers.is_empty())
    }

    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.asking {
            Some(asking) => Some(asking.again),
            None => (!self.is_done()).then_some(now),
        }
    }

    /// What was seen, given what is known of the allocation already.
    pub(crate) fn findings(&self, known: Option<Allocation>) -> Findings {
        let last = self.seen.last();
        let allocation = known.or_else(|| self.allocation());
        let rate = match allocation {
            Some(Allocation::Contiguous { delta }) if delta != 0 => self.rate(delta.into()),
            _ => 0.0,
        };
        Findings { allocation, last: last.map(|s| s.mapped), at: last.map(|s| s.at), rate }
    }

    fn steps(&self) -> impl Iterator<Item = (i32, Duration)> {
        self.seen.windows(2).filter_map(|pair| match pair {
            [a, b] => Some((
                i32::from(b.mapped.port()) - i32::from(a.mapped.port()),
                b.at.saturating_duration_since(a.at),
            )),
            _ => None,
        })
    }

    fn allocation(&self) -> Option<Allocation> {
        if self.seen.is_empty() {
            return None;
        }
        if self.seen.iter().all(|sample| sample.mapped.port() == sample.local_port) {
            return Some(Allocation::Preserving);
        }
        let steps: Vec<i32> = self.steps().map(|(step, _)| step).collect();
        let least = steps.iter().copied().min_by_key(|step| step.abs())?;
        let counts = least != 0
            && least.abs() <= LARGEST_STEP
            && steps
                .iter()
                .all(|step| step % least == 0 && step / least > 0 && step.abs() <= 8 * LARGEST_STEP);
        match i16::try_from(least) {
            Ok(delta) if counts => Some(Allocation::Contiguous { delta }),
            _ => Some(Allocation::Random),
        }
    }

    /// How many steps a second were not ours.
    fn rate(&self, delta: i32) -> f64 {
        let (mut others, mut span) = (0, Duration::ZERO);
        for (step, took) in self.steps() {
            others += (step / delta - 1).clamp(0, 256);
            span += took;
        }
        if span.is_zero() { 0.0 } else { f64::from(others) / span.as_secs_f64() }
    }
}

/// A Binding request (RFC 8489).
pub(crate) fn question(id: TransactionId) -> Vec<u8> {
    let message = StunMessageBuilder::new(BINDING, MessageClass::Request)
        .with_transaction_id(id.0.into())
        .with_attribute(Fingerprint::default())
        .build();
    let mut bytes = vec![0; 64];
    // Header and FINGERPRINT are 28 bytes, so that the buffer cannot be too short.
    let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

/// A STUN Binding indication (RFC 8489, section 5), which nobody answers.
pub(crate) fn indication(counter: u64) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0];
    bytes.extend(counter.to_be_bytes());
    bytes
}

/// Where a server saw us.
fn mapped(bytes: &[u8]) -> Option<SocketAddr> {
    let (message, _) = MessageDecoderBuilder::default().build().decode(bytes).ok()?;
    let mapped = *message.get::<XorMappedAddress>()?.as_xor_mapped_address().ok()?.socket_address();
    (mapped.port() != 0 && mapped.is_ipv4()).then_some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SocketId;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn sampler(ports: &[(u16, u16)]) -> Sampler {
        let mut sampler = Sampler::new(Vec::new(), Vec::new());
        let now = Instant::now();
        sampler.seen = (0..)
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
    fn samples_tell_the_allocation() {
        let found = |ports: &[(u16, u16)]| sampler(ports).findings(None).allocation;
        assert_eq!(found(&[(7, 7), (8, 8), (30, 30)]), Some(Allocation::Preserving));
        assert_eq!(found(&[(7, 5000), (8, 5003), (9, 5006)]), Some(Allocation::Contiguous { delta: 3 }));
        assert_eq!(found(&[(7, 5000), (8, 4998), (9, 4992)]), Some(Allocation::Contiguous { delta: -2 }));
        assert_eq!(found(&[(7, 5000), (8, 50_000), (9, 30_000)]), Some(Allocation::Random));
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_steps_of_others_are_counted() {
        let delta = Some(Allocation::Contiguous { delta: 2 });
        assert!(sampler(&[(1, 100), (2, 102)]).findings(delta).rate.abs() < 0.01);
        let rate = sampler(&[(1, 100), (2, 106)]).findings(delta).rate;
        assert!((rate - 20.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn questions_are_answered_or_given_up() {
        let mut sampler = sampler(&[]);
        sampler.observers = vec![([203, 0, 113, 1], 3478).into()];
        sampler.left = vec![Fresh { id: SocketId(2), port: 2 }, Fresh { id: SocketId(1), port: 1 }];
        #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
        let mut now = Instant::now();
        let id = TransactionId::new(1, 1);
        assert_eq!(sampler.ask(now, id).unwrap().0.id, SocketId(1));
        assert!(sampler.ask(now, id).is_none());
        assert!(!sampler.heard(now, id, b"nothing"));
        let mut asked = 1;
        while !sampler.is_done() {
            now = sampler.deadline(now).unwrap();
            asked += u32::from(sampler.ask(now, id).is_some());
        }
        assert_eq!(asked, TRIES);
        assert_eq!(question(id).len(), 28);
    }
}

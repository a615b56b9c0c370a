//! The birthday paradox against random ports: one side opens many sockets, the other tries ports until it meets one.
//!
//! With 256 of 64,512 ports open, a probe meets one with a chance of 1 in 252; 1,024 probes meet at least one with
//! a chance of 98 %. The ports are tried in an order that visits each of them once.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand_core::RngCore;

use super::{round::Probes, sockets::Fresh};
use crate::{
    api::{Path, Via},
    peer::{Env, Peer},
};

/// Ports that routers use.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;
/// When the sockets are opened towards the other side once more, in case a packet was lost.
const AGAIN: Duration = Duration::from_secs(3);
/// How long after its last packet a side waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Packets a second.
const RATE: u32 = 200;

/// The side that is looked for.
#[derive(Debug)]
pub(crate) struct Opening {
    sockets: Vec<Fresh>,
    target: SocketAddr,
    next: usize,
    passes: u32,
    pass_began: Instant,
    until: Instant,
}

impl Opening {
    /// `packets` is what the other side will try at most.
    pub(crate) fn new(now: Instant, sockets: Vec<Fresh>, target: SocketAddr, packets: u16) -> Self {
        let span = Duration::from_secs(1) * u32::from(packets) / RATE;
        Self { sockets, target, next: 0, passes: 0, pass_began: now, until: now + span + PATIENCE * 2 }
    }

    pub(crate) const fn target(&self) -> SocketAddr {
        self.target
    }

    /// Opens all sockets towards another address.
    pub(crate) fn retarget(&mut self, now: Instant, target: SocketAddr) {
        (self.target, self.next, self.passes, self.pass_began) = (target, 0, 0, now);
    }

    pub(crate) fn holds(&self, path: Path) -> bool {
        self.sockets.iter().any(|socket| path.via == Via::Socket(socket.id))
    }

    pub(crate) fn drive(
        &mut self,
        peer: &mut Peer,
        env: &mut Env<'_>,
        probes: &mut Probes,
    ) -> Option<Instant> {
        if env.now >= self.until {
            return None;
        }
        if self.next >= self.sockets.len() && self.passes < 2 && env.now >= self.pass_began + AGAIN {
            (self.next, self.pass_began) = (0, env.now);
        }
        while let Some(socket) = self.sockets.get(self.next) {
            if let Err(later) = env.budget.take(env.now) {
                return Some(later.min(self.until));
            }
            probes.send(peer, env, Path { via: Via::Socket(socket.id), remote: self.target });
            self.next += 1;
            if self.next == self.sockets.len() {
                self.passes += 1;
            }
        }
        let again = (self.passes < 2).then(|| self.pass_began + AGAIN);
        Some(again.map_or(self.until, |at| at.min(self.until)))
    }
}

/// The order in which ports of a peer are tried: at random, each of them once before any is tried again. It goes on from
/// round to round, since a port that was tried has a mapping in our own router already, and would not move a counting
/// NAT on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortOrder {
    place: u32,
    stride: u32,
}

impl PortOrder {
    pub(crate) fn new(rng: &mut impl RngCore) -> Self {
        let mut stride = rng.next_u32() % PORTS;
        while !coprime(stride, PORTS) {
            stride = (stride + 1) % PORTS;
        }
        Self { place: rng.next_u32() % PORTS, stride }
    }

    fn next(&mut self) -> u16 {
        let port = FIRST_PORT + self.place;
        self.place = (self.place + self.stride) % PORTS;
        u16::try_from(port).unwrap_or(u16::MAX)
    }
}

/// The side that looks.
#[derive(Debug)]
pub(crate) struct Spraying {
    via: Via,
    ip: IpAddr,
    pub(crate) sent: u16,
    packets: u16,
    next: Instant,
    until: Option<Instant>,
    /// A port at which the other side heard us.
    pub(crate) found: Option<SocketAddr>,
}

impl Spraying {
    pub(crate) const fn new(now: Instant, via: Via, ip: IpAddr, packets: u16) -> Self {
        Self { via, ip, sent: 0, packets, next: now, until: None, found: None }
    }

    /// Stops trying.
    pub(crate) fn stop(&mut self) {
        self.packets = self.sent;
    }

    /// The port at which the other side heard us, once no more are tried.
    pub(crate) fn take_found(&mut self) -> Option<SocketAddr> {
        if self.sent < self.packets { None } else { self.found.take() }
    }

    pub(crate) fn drive(
        &mut self,
        peer: &mut Peer,
        env: &mut Env<'_>,
        probes: &mut Probes,
    ) -> Option<Instant> {
        while self.sent < self.packets {
            if self.next > env.now {
                return Some(self.next);
            }
            if let Err(later) = env.budget.take(env.now) {
                return Some(later);
            }
            let order = peer.ports.get_or_insert_with(|| PortOrder::new(env.rng));
            let remote = SocketAddr::new(self.ip, order.next());
            probes.send(peer, env, Path { via: self.via, remote });
            self.sent += 1;
            // A timer that came late does not slow the whole down.
            let gap = Duration::from_secs(1) / RATE;
            let late = env.now.saturating_duration_since(self.next).min(gap * 8);
            self.next = env.now + gap - late.min(gap);
        }
        let until = *self.until.get_or_insert(env.now + PATIENCE);
        (until > env.now).then_some(until)
    }
}

fn coprime(a: u32, b: u32) -> bool {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

//! The birthday paradox against random ports: one side opens many sockets, the other tries ports until it finds one.
//!
//! With 128 of 64,512 ports open, a probe finds one with a chance of 1 in 504: 350 probes find one with a chance of 50 %,
//! 2,048 with 98 %, and 4,096 with 99.97 %. Ports are tried in an order that visits each of them once.
//!
//! Each opened socket takes a place in its router's table, and in some routers each probe does, too. Both sides begin with
//! few and go on as [`super::flow_checks`] show that the router has room.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand_core::RngCore;
use tracing::{debug, trace};

use super::probes::SentProbes;
use crate::{
    context::Context,
    pacing::{Hold, SPRAY_RATE},
    path::{Path, Via},
    remote::Remote,
    sockets::PunchSocket,
};

/// The lowest port that routers assign.
const FIRST_PORT: u32 = 1024;
/// Ports that routers assign.
const PORT_COUNT: u32 = 65_536 - FIRST_PORT;
/// How often all sockets are opened towards the other side; more than once in case a packet is lost.
const OPENING_PASSES: u32 = 2;
/// Interval between the starts of two such passes.
const PASS_INTERVAL: Duration = Duration::from_secs(3);
/// How long after its last packet a side waits for a response, at least and at most.
const RESPONSE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1500));
/// A response is awaited for this many times the delay of a signal.
const DELAYS_PER_RESPONSE: u32 = 8;
/// How long a side waits for a check of its router, or for traffic that suffers, before it takes what it has.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// The slowest pace at which a sprayer is waited for.
const SLOWEST_GAP: Duration = Duration::from_nanos(2_000_000_000 / SPRAY_RATE as u64);

/// Returns how long a side waits for a response, where a signal takes so long.
fn response_timeout(signal_delay: Duration) -> Duration {
    (signal_delay * DELAYS_PER_RESPONSE).clamp(RESPONSE_TIMEOUT.0, RESPONSE_TIMEOUT.1)
}

/// The side that opens sockets and waits to be found.
#[derive(Debug)]
pub(super) struct SprayListener {
    sockets: Vec<PunchSocket>,
    target: SocketAddr,
    next: usize,
    passes: u32,
    pass_began: Instant,
    until: Instant,
}

impl SprayListener {
    /// Creates a listener that waits as long as the other side needs for `packets` probes.
    pub(super) fn new(now: Instant, sockets: Vec<PunchSocket>, target: SocketAddr, packets: u16) -> Self {
        let until = now + SLOWEST_GAP * u32::from(packets) + RESPONSE_TIMEOUT.1 * 2;
        Self { sockets, target, next: 0, passes: 0, pass_began: now, until }
    }

    /// Returns the address that the sockets are opened towards.
    pub(super) const fn target(&self) -> SocketAddr {
        self.target
    }

    /// Opens all sockets towards another address.
    pub(super) fn retarget(&mut self, now: Instant, target: SocketAddr) {
        debug!(%target, reason = "probe came from another port", "spray listener opens its sockets anew");
        (self.target, self.next, self.passes, self.pass_began) = (target, 0, 0, now);
    }

    /// Returns true if a path has one of the sockets as its near end.
    pub(super) fn owns(&self, path: Path) -> bool {
        self.sockets.iter().any(|socket| path.via == Via::Socket(socket.id))
    }

    /// Sends what is due and the budget allows. Returns when to continue, or `None` once the time is over. `can_check` is
    /// true if it may turn out that the router has room for more.
    pub(super) fn drive(
        &mut self,
        remote: &Remote,
        ctx: &mut Context<'_>,
        probes: &mut SentProbes,
        can_check: bool,
    ) -> Option<Instant> {
        if ctx.now >= self.until {
            return None;
        }
        let pass_done = self.next >= self.sockets.len();
        if pass_done && self.passes < OPENING_PASSES && ctx.now >= self.pass_began + PASS_INTERVAL {
            trace!(target = %self.target, passes = self.passes, "spray listener repeats its packets");
            (self.next, self.pass_began) = (0, ctx.now);
        }
        while let Some(socket) = self.sockets.get(self.next).copied() {
            match self.take_turn(ctx) {
                Ok(()) => {}
                Err(Hold::Until(later)) => return Some(later.min(self.until)),
                Err(Hold::Unchecked(later)) if can_check => return Some(later.min(self.until)),
                Err(Hold::Unchecked(_) | Hold::Full) => {
                    debug!(opened = self.next, reason = "no more room in the router", "spray listener stops");
                    self.sockets.truncate(self.next);
                    break;
                }
            }
            probes.send(remote, ctx, Path { via: Via::Socket(socket.id), remote: self.target });
            self.next += 1;
        }
        if !pass_done && self.next >= self.sockets.len() {
            self.passes += 1;
        }
        if self.sockets.is_empty() {
            return None;
        }
        let again = (self.passes < OPENING_PASSES).then(|| self.pass_began + PASS_INTERVAL);
        Some(again.map_or(self.until, |at| at.min(self.until)))
    }

    /// Takes the turn of the next packet. Only the first one of a socket to a target creates a flow.
    fn take_turn(&self, ctx: &mut Context<'_>) -> Result<(), Hold> {
        match self.passes {
            0 => ctx.pacing.sprays.take_flow(ctx.now),
            _ => ctx.pacing.sprays.take(ctx.now).map_err(Hold::Until),
        }
    }
}

/// The order in which the ports of a peer are tried: random, and each of them once before any is tried again.
///
/// It continues from attempt to attempt, since a port that was tried has a mapping in our own router already, and would
/// not advance a contiguous allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortOrder {
    place: u32,
    stride: u32,
}

impl PortOrder {
    pub(super) fn new(rng: &mut impl RngCore) -> Self {
        // A stride coprime to the number of ports visits all of them.
        let mut stride = rng.next_u32() % PORT_COUNT;
        while !is_coprime(stride, PORT_COUNT) {
            stride = (stride + 1) % PORT_COUNT;
        }
        Self { place: rng.next_u32() % PORT_COUNT, stride }
    }

    fn next(&mut self) -> u16 {
        let port = FIRST_PORT + self.place;
        self.place = (self.place + self.stride) % PORT_COUNT;
        u16::try_from(port).unwrap_or(u16::MAX)
    }
}

/// The side that tries random ports.
#[derive(Debug)]
pub(super) struct SpraySender {
    via: Via,
    ip: IpAddr,
    sent: u16,
    /// Bounds the packets sent.
    packets: u16,
    /// When it takes the packets sent so far for all.
    hold_until: Instant,
    response_timeout: Duration,
    until: Option<Instant>,
    /// A port at which the other side received a probe, to be probed from the predicted ports.
    found: Option<SocketAddr>,
}

impl SpraySender {
    pub(super) fn new(now: Instant, via: Via, ip: IpAddr, packets: u16, signal_delay: Duration) -> Self {
        let hold_until = now + SLOWEST_GAP * u32::from(packets) + MAX_HOLD;
        let response_timeout = response_timeout(signal_delay);
        Self { via, ip, sent: 0, packets, hold_until, response_timeout, until: None, found: None }
    }

    /// Notes that other flows of ours, now so many more, advance our NAT's ports as well as probes would.
    pub(super) fn on_other_flows(&mut self, count: u16) {
        self.packets = self.packets.saturating_sub(count).max(self.sent);
    }

    /// Returns the number of ports tried.
    pub(super) const fn sent(&self) -> u16 {
        self.sent
    }

    /// Notes a port at which the other side received a probe. No more are tried if `stop` is true; otherwise the
    /// remaining probes still have to advance our own NAT's ports.
    pub(super) fn on_found(&mut self, remote: SocketAddr, stop: bool) {
        self.found.get_or_insert(remote);
        if stop {
            self.packets = self.sent;
        }
    }

    /// Returns, once, the port at which the other side received a probe, as soon as no more are tried.
    pub(super) const fn take_found(&mut self) -> Option<SocketAddr> {
        if self.sent < self.packets { None } else { self.found.take() }
    }

    /// Sends what is due and the budget allows. Returns when to continue, or `None` once no response can arrive.
    /// `can_check` is true if it may turn out that the router has room for more.
    pub(super) fn drive(
        &mut self,
        remote: &Remote,
        ctx: &mut Context<'_>,
        probes: &mut SentProbes,
        order: &mut PortOrder,
        can_check: bool,
    ) -> Option<Instant> {
        while self.sent < self.packets {
            match ctx.pacing.sprays.take_flow(ctx.now) {
                Ok(()) => {}
                Err(Hold::Until(later)) if ctx.now < self.hold_until => return Some(later),
                Err(Hold::Unchecked(later)) if can_check && ctx.now < self.hold_until => return Some(later),
                Err(_) => {
                    debug!(tried = self.sent, reason = "no more room in the router", "spray stops");
                    self.packets = self.sent;
                    break;
                }
            }
            let target = SocketAddr::new(self.ip, order.next());
            probes.send(remote, ctx, Path { via: self.via, remote: target });
            self.sent += 1;
        }
        let until = *self.until.get_or_insert(ctx.now + self.response_timeout);
        (until > ctx.now).then_some(until)
    }
}

const fn is_coprime(a: u32, b: u32) -> bool {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use partyline_model::SocketId;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::{
        context::Shared,
        testing::{remote, shared, start},
    };

    /// The router has room for all that is sent here.
    fn setting() -> (Shared, SentProbes, Instant) {
        let (mut shared, begin) = (shared(), start());
        shared.pacing.sprays.table.on_room(begin, 1000);
        (shared, SentProbes::default(), begin)
    }

    #[test]
    fn each_port_is_tried_once_before_any_is_tried_again() {
        let mut order = PortOrder::new(&mut ChaCha20Rng::from_seed([9; 32]));
        let ports: BTreeSet<u16> = (0..PORT_COUNT).map(|_| order.next()).collect();
        assert_eq!(ports.len(), PORT_COUNT as usize);
        assert!(ports.first() >= Some(&1024));
    }

    #[test]
    fn a_spray_sends_its_packets_at_the_rate_and_then_waits_for_a_response() {
        let (mut shared, mut probes, begin) = setting();
        let mut order = PortOrder::new(&mut ChaCha20Rng::from_seed([9; 32]));
        let main = Via::Socket(SocketId::MAIN);
        let mut sender = SpraySender::new(begin, main, [198, 51, 100, 1].into(), 416, Duration::ZERO);
        let (mut now, mut last_sent) = (begin, begin);
        while let Some(next) =
            sender.drive(&remote(), &mut shared.context(now), &mut probes, &mut order, true)
        {
            if sender.sent() < 416 {
                last_sent = next;
            }
            now = next;
        }
        assert_eq!((sender.sent(), probes.count()), (416, 416));
        assert_eq!((last_sent - begin).as_millis(), 400);
        assert_eq!(now - last_sent, RESPONSE_TIMEOUT.0);
    }

    #[test]
    fn a_sender_that_was_found_stops_unless_its_ports_have_to_advance() {
        let target = ([198, 51, 100, 1], 5).into();
        let (_, _, now) = setting();
        let main = Via::Socket(SocketId::MAIN);
        let mut sender = SpraySender::new(now, main, [198, 51, 100, 1].into(), 400, Duration::ZERO);
        sender.on_found(target, false);
        assert_eq!(sender.take_found(), None);
        sender.on_found(target, true);
        assert_eq!((sender.take_found(), sender.take_found()), (Some(target), None));
    }

    fn listener(begin: Instant) -> SprayListener {
        let sockets = (1..=100).map(|number| PunchSocket { id: SocketId(number), port: number }).collect();
        SprayListener::new(begin, sockets, ([198, 51, 100, 1], 5).into(), 1000)
    }

    fn listen(
        listener: &mut SprayListener,
        shared: &mut Shared,
        probes: &mut SentProbes,
        begin: Instant,
    ) -> Instant {
        let mut now = begin;
        while let Some(next) = listener.drive(&remote(), &mut shared.context(now), probes, false) {
            now = next;
        }
        now
    }

    #[test]
    fn a_listener_opens_each_socket_twice() {
        let (mut shared, mut probes, begin) = setting();
        let mut listener = listener(begin);
        let end = listen(&mut listener, &mut shared, &mut probes, begin);
        assert_eq!(probes.count(), 200);
        assert_eq!(end - begin, SLOWEST_GAP * 1000 + RESPONSE_TIMEOUT.1 * 2);
        assert!(listener.owns(Path { via: Via::Socket(SocketId(3)), remote: listener.target() }));
    }

    #[test]
    fn a_listener_opens_as_many_sockets_as_the_router_is_known_to_bear() {
        let (mut shared, mut probes, begin) = (shared(), SentProbes::default(), start());
        let mut listener = listener(begin);
        listen(&mut listener, &mut shared, &mut probes, begin);
        assert_eq!((listener.sockets.len(), probes.count()), (64, 128));
    }

    #[test]
    fn no_more_sockets_are_opened_in_a_small_network_over_all_attempts() {
        let (mut shared, mut probes, begin) = (shared(), SentProbes::default(), start());
        shared.pacing.sprays.table.on_network(Some(150));
        shared.pacing.sprays.table.on_room(begin, 1000);
        let opened = [(); 2].map(|()| {
            let mut listener = listener(begin);
            listen(&mut listener, &mut shared, &mut probes, begin);
            listener.sockets.len()
        });
        assert_eq!(opened, [100, 28]);
    }
}

//! Two computers behind one NAT each, and the techniques with which they try to reach each other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Allocation, Mapping};
use partyline_nat::{
    Nat, Protocol, Rules,
    oracle::{MAX_PACKETS, Technique},
};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

pub const TECHNIQUES: [Technique; 6] = [
    Technique::Meet,
    Technique::Spray,
    Technique::SprayOpen,
    Technique::SprayThenMeet,
    Technique::LearnThenMeet,
    Technique::SprayTwice,
];

/// Sockets that one side opens for a spray.
const SPRAY_SOCKETS: u16 = 512;
/// Mappings between a prediction and the use of the predicted port.
const PREDICTED_AHEAD: u16 = 1500;
/// A port of the other side that nobody uses.
const UNUSED_PORT: u16 = 9;
/// The distance between ports that are tried. It has no divisor in common with the number of ports, so that none is
/// tried twice.
const STRIDE: u32 = 25_013;

/// A packet that reached an internal socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The socket's internal port.
    at: u16,
    /// The external port at which it arrived.
    to: u16,
    /// The external port from which it came.
    from: u16,
}

/// A predicted external port with its internal socket, and how many mappings come before it.
struct Known {
    inside: u16,
    outside: u16,
    ahead: u16,
}

pub struct NatPair {
    nats: [Nat; 2],
    now: Instant,
    rng: ChaCha12Rng,
    fresh: u16,
    sent: [usize; 2],
}

const fn public(side: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1 + side as u8))
}

const fn inside(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2)), port)
}

impl NatPair {
    pub fn new(one: Rules, other: Rules, seed: u64) -> Self {
        #[allow(clippy::disallowed_methods, reason = "some instant to count virtual time from")]
        let now = Instant::now();
        Self {
            nats: [Nat::new(seed * 2, public(0), one), Nat::new(seed * 2 + 1, public(1), other)],
            now,
            rng: ChaCha12Rng::seed_from_u64(seed),
            fresh: 20_000,
            sent: [0; 2],
        }
    }

    /// Runs a technique, in which the first side begins. Returns true if both sides received each other's packets on
    /// one pair of sockets.
    pub fn run(&mut self, technique: Technique) -> bool {
        match technique {
            Technique::Meet => self.meet(),
            Technique::Spray => self.spray().is_some(),
            Technique::SprayOpen => self.spray_open(),
            Technique::SprayThenMeet => self.spray_then_meet().is_some(),
            Technique::LearnThenMeet => self.learn_then_meet().is_some(),
            Technique::SprayTwice => self.spray_twice().is_some(),
        }
    }

    fn socket(&mut self) -> u16 {
        self.fresh += 1;
        self.fresh
    }

    fn any_port(&mut self) -> u16 {
        1024 + (self.rng.next_u32() % (65_536 - 1024)) as u16
    }

    /// Sends a packet from a socket of one side to an external port of the other.
    fn send(&mut self, side: usize, socket: u16, port: u16) -> Option<Arrival> {
        self.sent[side] += 1;
        let to = SocketAddr::new(public(1 - side), port);
        let from = self.nats[side].outbound(self.now, Protocol::Udp, inside(socket), to)?;
        let at = self.nats[1 - side].inbound(self.now, Protocol::Udp, to, from)?;
        Some(Arrival { at: at.port(), to: port, from: from.port() })
    }

    /// Returns the external port at which a server sees a socket.
    fn ask_server(&mut self, side: usize, socket: u16) -> u16 {
        let server = SocketAddr::from(([11, 0, 9, 9], 3478));
        let seen = self.nats[side].outbound(self.now, Protocol::Udp, inside(socket), server);
        seen.expect("a mapping").port()
    }

    /// Predicts an external port of one side, `ahead` mappings before it is used if the NAT counts.
    fn predict(&mut self, side: usize, ahead: u16) -> Option<Known> {
        let socket = self.socket();
        let rules = *self.nats[side].rules();
        let steps = |delta: i16| i32::from(delta) * (i32::from(ahead) + 1);
        let outside = match (rules.mapping, rules.allocation) {
            (Mapping::EndpointIndependent, _) => self.ask_server(side, socket),
            (_, Allocation::Preserving) => socket,
            (_, Allocation::Contiguous { delta }) => {
                let probe = self.socket();
                let last = i32::from(self.ask_server(side, probe));
                (1024 + (last - 1024 + steps(delta)).rem_euclid(65_536 - 1024)) as u16
            }
            (_, Allocation::Random) => return None,
        };
        let counted = matches!(rules.allocation, Allocation::Contiguous { .. });
        let counted = counted && rules.mapping != Mapping::EndpointIndependent;
        Some(Known { inside: socket, outside, ahead: if counted { ahead } else { 0 } })
    }

    fn meet(&mut self) -> bool {
        let (Some(one), Some(other)) = (self.predict(0, 0), self.predict(1, 0)) else { return false };
        self.send(0, one.inside, other.outside);
        self.exchange(one.inside, other.outside, other.inside, one.outside)
    }

    /// Sends packets between two known ports. Returns true if both sides receive one.
    fn exchange(&mut self, one: u16, to_other: u16, other: u16, to_one: u16) -> bool {
        self.send(0, one, to_other);
        let answer = self.send(1, other, to_one);
        let again = self.send(0, one, to_other);
        answer.is_some_and(|arrival| arrival.at == one) && again.is_some_and(|arrival| arrival.at == other)
    }

    /// Opens many sockets of one side towards a port of the other.
    fn open_many(&mut self, side: usize, to: u16) {
        for _ in 0..SPRAY_SOCKETS {
            let socket = self.socket();
            self.send(side, socket, to);
        }
    }

    /// Tries ports of the second side from one socket of the first until a packet arrives.
    fn try_ports(&mut self, socket: u16, most: u16) -> Option<Arrival> {
        self.try_until(socket, most, |_| true)
    }

    fn try_until(&mut self, socket: u16, most: u16, counts: impl Fn(&Arrival) -> bool) -> Option<Arrival> {
        let start = u32::from(self.any_port());
        (0..u32::from(most)).find_map(|step| {
            let port = 1024 + (start + step * STRIDE) % (65_536 - 1024);
            self.send(0, socket, port as u16).filter(&counts)
        })
    }

    fn spray(&mut self) -> Option<()> {
        let known = self.predict(0, 0)?;
        self.open_many(1, known.outside);
        let arrival = self.try_ports(known.inside, MAX_PACKETS as u16)?;
        self.exchange(known.inside, arrival.to, arrival.at, arrival.from).then_some(())
    }

    fn spray_open(&mut self) -> bool {
        self.open_many(1, UNUSED_PORT);
        let socket = self.socket();
        let Some(arrival) = self.try_ports(socket, MAX_PACKETS as u16) else { return false };
        self.exchange(socket, arrival.to, arrival.at, arrival.from)
    }

    fn spray_then_meet(&mut self) -> Option<()> {
        let known = self.predict(0, PREDICTED_AHEAD)?;
        self.open_many(1, known.outside);
        let socket = self.socket();
        let before = self.sent[0];
        let arrival = self.try_ports(socket, PREDICTED_AHEAD)?;
        for _ in self.sent[0] - before..known.ahead.into() {
            let unused = self.socket();
            self.send(0, unused, UNUSED_PORT);
        }
        self.exchange(known.inside, arrival.to, arrival.at, known.outside).then_some(())
    }

    fn learn_then_meet(&mut self) -> Option<()> {
        let first = self.predict(0, 0)?;
        self.send(0, first.inside, UNUSED_PORT);
        let other = self.socket();
        let arrival = self.send(1, other, first.outside)?;
        let next = self.predict(0, 0)?;
        self.exchange(next.inside, arrival.from, other, next.outside).then_some(())
    }

    fn spray_twice(&mut self) -> Option<()> {
        self.open_many(1, UNUSED_PORT);
        let socket = self.socket();
        let arrival = self.try_ports(socket, MAX_PACKETS as u16 / 2)?;
        // The sockets opened so far receive packets too, but their answers would be filtered.
        let since = self.fresh;
        self.open_many(1, arrival.from);
        let arrival = self.try_until(socket, MAX_PACKETS as u16 / 2, |arrival| arrival.at > since)?;
        self.exchange(socket, arrival.to, arrival.at, arrival.from).then_some(())
    }

    /// The second side lets the mapping on which it received a packet expire, and uses its port again for the answer.
    pub fn wait(&mut self) -> bool {
        let Some(known) = self.predict(1, 0) else { return false };
        self.send(1, known.inside, UNUSED_PORT);
        let socket = self.socket();
        let Some(arrival) = self.send(0, socket, known.outside) else { return false };
        let half = self.nats[0].rules().lifetime / 2 + Duration::from_secs(1);
        for _ in 0..2 {
            self.now += half;
            self.send(0, socket, known.outside);
        }
        self.exchange(socket, known.outside, known.inside, arrival.from)
    }

    /// Sends arbitrary packets with everything that both sides know, until both received one or the packets are used
    /// up.
    pub fn chance(&mut self) -> bool {
        // The ports of the other side that each side may try: those from which packets came, and predicted ones.
        let mut targets = [vec![UNUSED_PORT], vec![UNUSED_PORT]];
        let mut sockets = [Vec::new(), Vec::new()];
        let mut through = [BTreeSet::new(), BTreeSet::new()];
        while self.sent[0] < MAX_PACKETS {
            for side in [0, 1] {
                let socket = self.pick_socket(side, &mut sockets[side], &mut targets[1 - side]);
                let to = if self.rng.next_u32().is_multiple_of(2) {
                    let recent = targets[side].len().saturating_sub(8);
                    let span = targets[side].len() - recent;
                    targets[side][recent + self.rng.next_u32() as usize % span]
                } else {
                    self.any_port()
                };
                let Some(arrival) = self.send(side, socket, to) else { continue };
                targets[side].push(arrival.to);
                targets[1 - side].push(arrival.from);
                sockets[1 - side].push(arrival.at);
                through[side].insert((socket, arrival.at));
                if through[1 - side].contains(&(arrival.at, socket)) {
                    return true;
                }
            }
        }
        false
    }

    /// Returns a new socket, whose predicted port the other side learns, or one of the last ones.
    fn pick_socket(&mut self, side: usize, sockets: &mut Vec<u16>, predicted: &mut Vec<u16>) -> u16 {
        if sockets.is_empty() || self.rng.next_u32().is_multiple_of(4) {
            if let Some(known) = self.predict(side, 0) {
                predicted.push(known.outside);
                sockets.push(known.inside);
            } else {
                let socket = self.socket();
                sockets.push(socket);
            }
        }
        let recent = sockets.len().saturating_sub(4);
        sockets[recent + self.rng.next_u32() as usize % (sockets.len() - recent)]
    }
}

//! Two computers behind a NAT each, and everything that they could do to meet.

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

pub const WAYS: [Technique; 6] = [
    Technique::Meet,
    Technique::Spray,
    Technique::SprayOpen,
    Technique::SprayThenMeet,
    Technique::LearnThenMeet,
    Technique::SprayTwice,
];

/// Sockets that are opened to be found.
const MANY: u16 = 512;
/// Mappings ahead of its counter that a counting NAT is expected at.
const AHEAD: u16 = 1500;
const NOWHERE: u16 = 9;
/// Has no divisor in common with the number of ports, so that none is tried twice.
const STRIDE: u32 = 25_013;

/// What an inside socket heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The socket's port inside.
    at: u16,
    /// The external port that it came in at.
    to: u16,
    /// The external port that it came from.
    from: u16,
}

/// A port that is known before it is used: of which inside socket, and how many mappings ahead.
struct Known {
    inside: u16,
    outside: u16,
    ahead: u16,
}

pub struct Play {
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

impl Play {
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

    /// The first side goes first, where it matters. True if both heard each other on one pair of sockets.
    pub fn take(&mut self, way: Technique) -> bool {
        match way {
            Technique::Meet => self.meet(),
            Technique::Spray => self.spray().is_some(),
            Technique::SprayOpen => self.spray_open(),
            Technique::SprayThenMeet => self.spray_then_meet().is_some(),
            Technique::LearnThenMeet => self.hear_then_meet().is_some(),
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

    /// A packet from a socket of a side to an external port of the other.
    fn send(&mut self, side: usize, socket: u16, port: u16) -> Option<Heard> {
        self.sent[side] += 1;
        let to = SocketAddr::new(public(1 - side), port);
        let from = self.nats[side].outbound(self.now, Protocol::Udp, inside(socket), to)?;
        let at = self.nats[1 - side].inbound(self.now, Protocol::Udp, to, from)?;
        Some(Heard { at: at.port(), to: port, from: from.port() })
    }

    /// What a server outside sees a socket as.
    fn ask_server(&mut self, side: usize, socket: u16) -> u16 {
        let server = SocketAddr::from(([11, 0, 9, 9], 3478));
        let seen = self.nats[side].outbound(self.now, Protocol::Udp, inside(socket), server);
        seen.expect("a mapping").port()
    }

    /// A port of the side that is known, `ahead` mappings before it is used if it is counted.
    fn foretell(&mut self, side: usize, ahead: u16) -> Option<Known> {
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
        let (Some(one), Some(other)) = (self.foretell(0, 0), self.foretell(1, 0)) else { return false };
        self.send(0, one.inside, other.outside);
        self.exchange(one.inside, other.outside, other.inside, one.outside)
    }

    /// Whether both hear each other. Each sends to where it is told.
    fn exchange(&mut self, one: u16, to_other: u16, other: u16, to_one: u16) -> bool {
        self.send(0, one, to_other);
        let answer = self.send(1, other, to_one);
        let again = self.send(0, one, to_other);
        answer.is_some_and(|heard| heard.at == one) && again.is_some_and(|heard| heard.at == other)
    }

    /// The other side opens sockets to a port of the first.
    fn open_many(&mut self, side: usize, to: u16) {
        for _ in 0..MANY {
            let socket = self.socket();
            self.send(side, socket, to);
        }
    }

    /// The first side tries ports from one socket until the other hears it.
    fn try_ports(&mut self, socket: u16, most: u16) -> Option<Heard> {
        self.try_until(socket, most, |_| true)
    }

    fn try_until(&mut self, socket: u16, most: u16, counts: impl Fn(&Heard) -> bool) -> Option<Heard> {
        let start = u32::from(self.any_port());
        (0..u32::from(most)).find_map(|step| {
            let port = 1024 + (start + step * STRIDE) % (65_536 - 1024);
            self.send(0, socket, port as u16).filter(&counts)
        })
    }

    fn spray(&mut self) -> Option<()> {
        let known = self.foretell(0, 0)?;
        self.open_many(1, known.outside);
        let heard = self.try_ports(known.inside, MAX_PACKETS as u16)?;
        self.exchange(known.inside, heard.to, heard.at, heard.from).then_some(())
    }

    fn spray_open(&mut self) -> bool {
        self.open_many(1, NOWHERE);
        let socket = self.socket();
        let Some(heard) = self.try_ports(socket, MAX_PACKETS as u16) else { return false };
        self.exchange(socket, heard.to, heard.at, heard.from)
    }

    fn spray_then_meet(&mut self) -> Option<()> {
        let known = self.foretell(0, AHEAD)?;
        self.open_many(1, known.outside);
        let socket = self.socket();
        let before = self.sent[0];
        let heard = self.try_ports(socket, AHEAD)?;
        for _ in self.sent[0] - before..known.ahead.into() {
            let unused = self.socket();
            self.send(0, unused, NOWHERE);
        }
        self.exchange(known.inside, heard.to, heard.at, known.outside).then_some(())
    }

    fn hear_then_meet(&mut self) -> Option<()> {
        let first = self.foretell(0, 0)?;
        self.send(0, first.inside, NOWHERE);
        let other = self.socket();
        let heard = self.send(1, other, first.outside)?;
        let next = self.foretell(0, 0)?;
        self.exchange(next.inside, heard.from, other, next.outside).then_some(())
    }

    fn spray_twice(&mut self) -> Option<()> {
        self.open_many(1, NOWHERE);
        let socket = self.socket();
        let heard = self.try_ports(socket, MAX_PACKETS as u16 / 2)?;
        // The sockets opened so far hear too, but their answers would not be let in.
        let since = self.fresh;
        self.open_many(1, heard.from);
        let heard = self.try_until(socket, MAX_PACKETS as u16 / 2, |heard| heard.at > since)?;
        self.exchange(socket, heard.to, heard.at, heard.from).then_some(())
    }

    /// The second side lets the mapping that it heard the first at expire, and uses its port again for an answer.
    pub fn wait(&mut self) -> bool {
        let Some(known) = self.foretell(1, 0) else { return false };
        self.send(1, known.inside, NOWHERE);
        let socket = self.socket();
        let Some(heard) = self.send(0, socket, known.outside) else { return false };
        let half = self.nats[0].rules().lifetime / 2 + Duration::from_secs(1);
        for _ in 0..2 {
            self.now += half;
            self.send(0, socket, known.outside);
        }
        self.exchange(socket, known.outside, known.inside, heard.from)
    }

    /// Sends arbitrary packets with all that both sides know, until they have heard each other or used them up.
    pub fn chance(&mut self) -> bool {
        // What each side may try of the other: ports it heard from or was told of, and ports that are foretold.
        let mut targets = [vec![NOWHERE], vec![NOWHERE]];
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
                let Some(heard) = self.send(side, socket, to) else { continue };
                targets[side].push(heard.to);
                targets[1 - side].push(heard.from);
                sockets[1 - side].push(heard.at);
                through[side].insert((socket, heard.at));
                if through[1 - side].contains(&(heard.at, socket)) {
                    return true;
                }
            }
        }
        false
    }

    /// A fresh socket, whose port the other side is told where it is known, or one of the last ones.
    fn pick_socket(&mut self, side: usize, sockets: &mut Vec<u16>, told: &mut Vec<u16>) -> u16 {
        if sockets.is_empty() || self.rng.next_u32().is_multiple_of(4) {
            if let Some(known) = self.foretell(side, 0) {
                told.push(known.outside);
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

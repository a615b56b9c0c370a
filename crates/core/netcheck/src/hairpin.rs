//! Whether inside computers meet at the outside address (RFC 4787, section 6).
//!
//! Two of our own sockets send to each other's outside addresses, side by side, so that each opens the NAT for the
//! other. One packet that arrives proves that the NAT turns them around. That none does counts only where the NAT had
//! to let them in: where mappings are the same for every destination.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{Mapping, SocketId};

use crate::{
    client::{Client, Query},
    stun::Change,
    survey::{Purpose, Survey},
};

const PACE: Duration = Duration::from_millis(40);
const ROUNDS: u32 = 6;
/// How long the last packets may take.
const SETTLE: Duration = Duration::from_millis(300);

/// Two sockets with their outside addresses, sending to each other.
#[derive(Debug)]
pub(crate) struct Hairpin {
    ends: [(SocketId, SocketAddr); 2],
    rounds: u32,
    next: Instant,
    arrived: bool,
}

impl Hairpin {
    pub(crate) fn new(now: Instant, one: (SocketId, SocketAddr), other: (SocketId, SocketAddr)) -> Self {
        Self { ends: [one, other], rounds: 0, next: now, arrived: false }
    }

    /// A packet of ours came back in.
    pub(crate) fn arrived(&mut self) {
        self.arrived = true;
    }

    /// Sends what is due. Returns whether packets are turned around, once that is settled.
    pub(crate) fn step(&mut self, now: Instant, client: &mut Client<Purpose>) -> Option<bool> {
        if self.arrived {
            return Some(true);
        }
        if now < self.next {
            return None;
        }
        if self.rounds >= ROUNDS {
            return Some(false);
        }
        let [(one, seen_one), (other, seen_other)] = self.ends;
        for (socket, destination) in [(one, seen_other), (other, seen_one)] {
            let (change, purpose, patience) = (Change::Nothing, Purpose::Hairpin, Duration::ZERO);
            client.ask(now, Query { socket, destination, change, expected: destination, purpose, patience });
        }
        self.rounds += 1;
        self.next = now + if self.rounds < ROUNDS { PACE } else { SETTLE };
        None
    }
}

/// How far the test is.
#[derive(Debug)]
pub(crate) enum HairpinTest {
    Waiting,
    Sending(Hairpin),
    Done,
}

impl HairpinTest {
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    pub(crate) const fn is_under_way(&self) -> bool {
        matches!(self, Self::Sending(_))
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Sending(hairpin) => Some(hairpin.next),
            Self::Waiting | Self::Done => None,
        }
    }
}

impl Survey {
    /// True if there may be more to do. Waits until it disturbs no other test with new mappings.
    pub(crate) fn step_hairpin(&mut self, now: Instant, client: &mut Client<Purpose>) -> bool {
        match &mut self.hairpin {
            HairpinTest::Waiting if self.ports.is_done() => {
                self.hairpin = self.new_hairpin(now).map_or(HairpinTest::Done, HairpinTest::Sending);
            }
            HairpinTest::Sending(hairpin) => {
                let Some(turned) = hairpin.step(now, client) else { return false };
                self.conclude_hairpin(turned);
                self.hairpin = HairpinTest::Done;
            }
            HairpinTest::Waiting | HairpinTest::Done => return false,
        }
        true
    }

    /// A packet of ours to our own outside address came back in.
    pub(crate) fn turned_around(&mut self) {
        if let HairpinTest::Sending(hairpin) = &mut self.hairpin {
            hairpin.arrived();
        }
    }

    /// A test with two sockets, if there are two and a NAT is between them and the servers: without one it would be
    /// this computer itself that brings the packets back.
    fn new_hairpin(&self, now: Instant) -> Option<Hairpin> {
        let outside = |socket: SocketId| Some((socket, self.seen_of(socket).first()?.reflexive));
        let (one, other) = (outside(self.roles.mapping)?, outside(*self.roles.fresh.last()?)?);
        let turnable =
            one.1.ip() == other.1.ip() && one.1.is_ipv4() && !self.terms.local.contains(&one.1.ip());
        turnable.then(|| Hairpin::new(now, one, other))
    }

    /// That nothing came back counts only where it had to be let in and needed no new mapping, for which the table may
    /// have had no room.
    fn conclude_hairpin(&mut self, turned: bool) {
        let opened = self.found.mapping == Some(Mapping::EndpointIndependent);
        self.found.hairpin = (turned || opened).then_some(turned);
    }
}

//! Whether inside computers meet at the outside address (RFC 4787, section 6).
//!
//! Two of our own sockets send to each other's outside addresses, side by side, so that each opens the NAT for the
//! other. One packet that arrives proves that the NAT turns them around. That none does counts only where the NAT had
//! to let them in: where mappings are the same for every destination.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    Socket,
    client::{Client, Query},
    stun::Change,
    survey::Purpose,
};

const PACE: Duration = Duration::from_millis(60);
const ROUNDS: u32 = 6;
/// How long the last packets may take.
const SETTLE: Duration = Duration::from_millis(300);

/// Two sockets with their outside addresses, sending to each other.
#[derive(Debug)]
pub(crate) struct Hairpin {
    ends: [(Socket, SocketAddr); 2],
    rounds: u32,
    next: Instant,
    arrived: bool,
}

impl Hairpin {
    pub(crate) fn new(now: Instant, one: (Socket, SocketAddr), other: (Socket, SocketAddr)) -> Self {
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

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }
}

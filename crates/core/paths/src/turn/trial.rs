//! Whether a relay can be used: one allocation, given back as soon as it stands.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::{Allocation, Change, Ending, Input};
use crate::api::{AllocationId, Local, RelayServer, RelayTransport, SocketId, StreamId, Transmit};

/// Never reached: the allocation is given back before.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocationOutcome {
    /// The relay gave an allocation; the round trip of the request that got it.
    Allocated(Duration),
    /// The relay did not answer.
    NoResponse,
    /// The relay said no, with this error code of RFC 8656; zero if its challenge made no sense.
    Refused(u16),
}

/// One relay being tried over a socket or stream of the caller's.
pub struct AllocationTest {
    allocation: Allocation,
    out: VecDeque<Transmit>,
    asked: Instant,
    end: Option<AllocationOutcome>,
}

impl AllocationTest {
    /// Asks for an allocation; over a stream once that is open.
    #[must_use]
    pub fn new(now: Instant, server: RelayServer, seed: [u8; 32]) -> Self {
        let local = match server.transport {
            RelayTransport::Udp => Local::Socket(SocketId(0)),
            RelayTransport::Tcp | RelayTransport::Tls => Local::Stream(StreamId(0)),
        };
        let rng = ChaCha20Rng::from_seed(seed);
        let mut allocation = Allocation::new(AllocationId(0), server, local, rng, KEEPALIVE);
        let mut out = VecDeque::new();
        allocation.start(now, &mut out);
        Self { allocation, out, asked: now, end: None }
    }

    /// Takes a message from the relay.
    pub fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        let asked = std::mem::replace(&mut self.asked, now);
        match self.allocation.handle_message(now, bytes, &mut self.out) {
            Input::Answer(Some(Change::Live)) => {
                self.end = Some(AllocationOutcome::Allocated(now - asked));
                self.allocation.release(now, &mut self.out);
            }
            Input::Answer(Some(Change::Over(ending))) => self.end = Some(ended(ending)),
            Input::Answer(_) => {}
            Input::Foreign | Input::Data { .. } => self.asked = asked,
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(Change::Over(ending)) = self.allocation.handle_timeout(now, &mut self.out) {
            self.end = Some(ended(ending));
        }
        if !self.out.is_empty() {
            self.asked = now;
        }
    }

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front().map(|transmit| transmit.bytes)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocation.deadline()
    }

    /// How it ended, once it has. Then there may still be something to send.
    #[must_use]
    pub const fn outcome(&self) -> Option<AllocationOutcome> {
        self.end
    }
}

const fn ended(ending: Ending) -> AllocationOutcome {
    match ending {
        Ending::NoAnswer | Ending::Closed | Ending::Forgotten => AllocationOutcome::NoResponse,
        Ending::Refused(code) => AllocationOutcome::Refused(code),
    }
}

//! A one-time test whether a relay server grants allocations.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use partyline_model::{SocketId, StreamId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::{
    api::{RelayServer, RelayTransport, Transmit},
    path::{AllocationId, Local},
    turn::allocation::{Allocation, AllocationChange, AllocationEnd, ServerMessage},
};

/// Required by [`Allocation`], but never reached: the allocation is released as soon as it is granted.
const UNUSED_KEEPALIVE: Duration = Duration::from_secs(60);

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocationOutcome {
    /// The server granted an allocation; the round trip time of the request that got it.
    Allocated(Duration),
    /// The server did not respond.
    NoResponse,
    /// The server refused with this error code (RFC 8656, section 19); zero if its challenge made no sense.
    Refused(u16),
}

/// A test of one relay server over a socket or stream of the caller's. The allocation is released at once.
pub struct AllocationTest {
    allocation: Allocation,
    out: VecDeque<Transmit>,
    asked: Instant,
    outcome: Option<AllocationOutcome>,
}

impl AllocationTest {
    /// Requests an allocation. For a stream transport, call this once the stream is open. The seed must not repeat.
    #[must_use]
    pub fn new(now: Instant, server: RelayServer, seed: [u8; 32]) -> Self {
        let local = match server.transport {
            RelayTransport::Udp => Local::Socket(SocketId::MAIN),
            RelayTransport::Tcp | RelayTransport::Tls => Local::Stream(StreamId(0)),
        };
        let rng = ChaCha20Rng::from_seed(seed);
        let mut allocation = Allocation::new(AllocationId(0), server, local, rng, UNUSED_KEEPALIVE, None);
        let mut out = VecDeque::new();
        allocation.start(now, &mut out);
        Self { allocation, out, asked: now, outcome: None }
    }

    /// Takes a message from the server.
    pub fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        let asked = std::mem::replace(&mut self.asked, now);
        match self.allocation.handle_message(now, bytes, &mut self.out) {
            ServerMessage::Response(Some(AllocationChange::Granted)) => {
                self.outcome = Some(AllocationOutcome::Allocated(now - asked));
                self.allocation.release(now, &mut self.out);
            }
            ServerMessage::Response(Some(AllocationChange::Ended(end))) => self.outcome = Some(outcome(end)),
            ServerMessage::Response(_) => {}
            ServerMessage::Foreign | ServerMessage::Data { .. } => self.asked = asked,
        }
    }

    /// Retransmits or gives up, when [`Self::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let change = self.allocation.handle_timeout(now, &mut self.out);
        if let Some(AllocationChange::Ended(end)) = change {
            self.outcome = Some(outcome(end));
        }
        if !self.out.is_empty() {
            self.asked = now;
        }
    }

    /// Returns the next message to send to the server.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front().map(|transmit| transmit.bytes)
    }

    /// Returns when [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocation.deadline()
    }

    /// Returns how the test ended, once it has. There may still be something to send then.
    #[must_use]
    pub const fn outcome(&self) -> Option<AllocationOutcome> {
        self.outcome
    }
}

const fn outcome(end: AllocationEnd) -> AllocationOutcome {
    match end {
        AllocationEnd::NoResponse | AllocationEnd::StreamClosed | AllocationEnd::Lost => {
            AllocationOutcome::NoResponse
        }
        AllocationEnd::Refused(code) => AllocationOutcome::Refused(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn a_silent_server_is_given_up_after_eight_seconds() {
        let begin = Instant::now();
        let server = RelayServer {
            name: "relay".into(),
            transport: RelayTransport::Udp,
            address: "203.0.113.1:3478".parse().unwrap(),
            host: "relay.test".into(),
            username: "user".into(),
            password: "secret".into(),
        };
        let mut test = AllocationTest::new(begin, server, [3; 32]);
        let (mut now, mut sent) = (begin, 0);
        while test.outcome().is_none() {
            sent += std::iter::from_fn(|| test.poll_transmit()).count();
            now = test.poll_timeout().unwrap();
            test.handle_timeout(now);
        }
        assert_eq!(test.outcome(), Some(AllocationOutcome::NoResponse));
        assert_eq!((sent, (now - begin).as_millis()), (17, 8250));
    }
}

//! Requests of one allocation that await a response, and their retransmission (RFC 8489, section 6.2).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_timing::Backoff;

/// Gap before the first retransmission over UDP; each further one doubles.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(250);
/// Transmissions of a ChannelBind request over UDP before it counts as unanswered, within about 8 s.
const MAX_BIND_TRANSMISSIONS: u32 = 5;
/// Bounds the gaps between transmissions of requests about the allocation itself. There is one such request at a time,
/// and when the network is back, a game waits for its response.
const MAX_ALLOCATION_GAP: Duration = Duration::from_millis(500);
/// Transmissions of such a request that fit into the same 8 s.
const MAX_ALLOCATION_TRANSMISSIONS: u32 = 17;
/// How long a request over a stream, which retransmits by itself, may stay unanswered.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Allocate,
    Refresh,
    /// A Refresh with lifetime zero: gives up an allocation, ours or an older one of the same five-tuple that the
    /// server remembers.
    Release,
    ChannelBind(SocketAddr),
}

impl RequestKind {
    /// Returns the number of transmissions over UDP and the gaps between them.
    const fn schedule(self) -> (u32, Backoff) {
        let (count, longest) = match self {
            Self::ChannelBind(_) => (MAX_BIND_TRANSMISSIONS, Duration::MAX),
            Self::Allocate | Self::Refresh | Self::Release => {
                (MAX_ALLOCATION_TRANSMISSIONS, MAX_ALLOCATION_GAP)
            }
        };
        (count, Backoff::new(FIRST_RETRANSMISSION, longest))
    }
}

/// A request that awaits its response.
#[derive(Debug)]
pub(super) struct Request {
    id: [u8; 12],
    pub(super) kind: RequestKind,
    pub(super) bytes: Vec<u8>,
    transmissions: u32,
    /// How often it was challenged already.
    pub(super) challenges: u8,
    next: Instant,
}

/// The requests of one allocation that await a response.
#[derive(Debug)]
pub(super) struct PendingRequests {
    list: Vec<Request>,
    /// Whether they are sent over UDP, where this side retransmits.
    udp: bool,
}

impl PendingRequests {
    pub(super) const fn new(udp: bool) -> Self {
        Self { list: Vec::new(), udp }
    }

    /// Adds a request that is being sent.
    pub(super) fn add(
        &mut self,
        now: Instant,
        id: [u8; 12],
        kind: RequestKind,
        bytes: Vec<u8>,
        challenges: u8,
    ) {
        let wait = if self.udp { FIRST_RETRANSMISSION } else { STREAM_TIMEOUT };
        self.list.push(Request { id, kind, bytes, transmissions: 1, challenges, next: now + wait });
    }

    /// Returns true if no request awaits its response.
    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns true if such a request awaits its response.
    pub(super) fn contains(&self, kind: RequestKind) -> bool {
        self.list.iter().any(|request| request.kind == kind)
    }

    /// Stops waiting for responses to requests of this kind.
    pub(super) fn cancel(&mut self, kind: RequestKind) {
        self.list.retain(|request| request.kind != kind);
    }

    /// Returns true if a message has the transaction id of a pending request.
    pub(super) fn is_asked(&self, message: &[u8]) -> bool {
        self.position(message).is_some()
    }

    /// Removes and returns the request that a message answers.
    pub(super) fn take(&mut self, message: &[u8]) -> Option<Request> {
        self.position(message).map(|at| self.list.swap_remove(at))
    }

    fn position(&self, message: &[u8]) -> Option<usize> {
        self.list.iter().position(|request| message.get(8..20) == Some(&request.id))
    }

    /// Returns when the next retransmission or timeout is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(|request| request.next).min()
    }

    /// Calls `send` with every request that is to be retransmitted, and removes and returns those that timed out.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(&Request, u32),
    ) -> Vec<Request> {
        let udp = self.udp;
        let timed_out = |request: &mut Request| {
            if request.next > now {
                return false;
            }
            let (count, gaps) = request.kind.schedule();
            if !udp || request.transmissions >= count {
                return true;
            }
            request.transmissions += 1;
            request.next = now + gaps.delay_after(request.transmissions);
            send(request, request.transmissions);
            false
        };
        self.list.extract_if(.., timed_out).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Runs until a request times out; returns when it was retransmitted and when it timed out, in milliseconds.
    fn run(udp: bool, kind: RequestKind) -> (Vec<u128>, u128) {
        let begin = start();
        let mut pending = PendingRequests::new(udp);
        pending.add(begin, [7; 12], kind, vec![1], 0);
        let mut sent = Vec::new();
        loop {
            let now = pending.deadline().unwrap();
            let over = pending.handle_timeout(now, |_, _| sent.push((now - begin).as_millis()));
            if !over.is_empty() {
                return (sent, (now - begin).as_millis());
            }
        }
    }

    #[test]
    fn channel_binds_are_sent_five_times_with_doubling_gaps() {
        let bind = RequestKind::ChannelBind(([192, 0, 2, 1], 1).into());
        assert_eq!(run(true, bind), (vec![250, 750, 1750, 3750], 7750));
    }

    #[test]
    fn requests_about_the_allocation_are_repeated_every_half_second() {
        let (sent, over) = run(true, RequestKind::Allocate);
        assert_eq!(sent[..4], [250, 750, 1250, 1750]);
        assert_eq!((sent.len(), over), (16, 8250));
    }

    #[test]
    fn nothing_is_retransmitted_over_a_stream() {
        assert_eq!(run(false, RequestKind::Refresh), (vec![], 8000));
    }

    #[test]
    fn a_response_ends_its_own_request_only() {
        let now = start();
        let mut pending = PendingRequests::new(true);
        pending.add(now, [1; 12], RequestKind::Refresh, Vec::new(), 0);
        let mut message = [0; 20];
        message[8..].fill(2);
        assert!(!pending.is_asked(&message) && pending.take(&message).is_none());
        message[8..].fill(1);
        assert!(pending.contains(RequestKind::Refresh));
        assert_eq!(pending.take(&message).map(|request| request.kind), Some(RequestKind::Refresh));
        assert_eq!((pending.deadline(), pending.is_asked(&message[..8])), (None, false));
    }
}

//! Where the tunnel writes what has to leave: datagrams for members, and packets back to the network devices.
//!
//! The caller owns one per loop and empties it after every batch. Its memory is allocated once and grows only up to
//! [`LIMIT`]; encryption writes straight into it. Datagrams of one size for one member lie back to back, so a
//! [`Burst`] can be handed to the kernel as one send with segmentation offload.

use partyline_model::{DeviceId, PartyId};

/// Bytes in front of each datagram for members reached through a relay: the ChannelData header (RFC 8656).
pub const RELAY_HEADROOM: usize = 4;

/// Bytes an outbox holds at most: a full-size broadcast to a party of 254.
const LIMIT: usize = 512 * 1024;
/// Linux takes at most 64 segments in one send, and at most what fits an IP packet.
const BURST_SEGMENTS: usize = 64;
const BURST_BYTES: usize = 65_000;

/// Encrypted datagrams and returned packets, until the caller has sent them.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    used: usize,
    bursts: Vec<Run>,
    returned_bytes: Vec<u8>,
    returned: Vec<(PartyId, usize)>,
}

/// Datagrams for one member, back to back in `bytes`: each `segment` long, the last perhaps shorter.
#[derive(Debug)]
pub struct Burst<'a> {
    /// The party.
    pub party: PartyId,
    /// The member.
    pub peer: DeviceId,
    /// Bytes in front of each datagram that the caller fills in: 0, or [`RELAY_HEADROOM`] where it asked for them.
    pub headroom: usize,
    /// Length of each datagram, headroom included.
    pub segment: usize,
    /// The datagrams.
    pub bytes: &'a mut [u8],
}

impl Burst<'_> {
    /// The datagrams one by one, each with its headroom in front.
    pub fn segments(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_mut(self.segment)
    }
}

/// To whom a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub party: PartyId,
    pub peer: DeviceId,
    pub headroom: usize,
}

#[derive(Debug)]
struct Run {
    to: Recipient,
    segment: usize,
    len: usize,
    open: bool,
}

impl Run {
    fn takes(&self, to: &Recipient, len: usize) -> bool {
        self.open
            && len <= self.segment
            && self.len + len <= BURST_BYTES
            && self.len / self.segment < BURST_SEGMENTS
            && self.to == *to
    }
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to send and nothing to return.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bursts.is_empty() && self.returned.is_empty()
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.bursts.clear();
        self.returned_bytes.clear();
        self.returned.clear();
    }

    /// The datagrams to send, in order.
    pub fn bursts(&mut self) -> impl Iterator<Item = Burst<'_>> {
        let mut rest = &mut self.bytes[..self.used];
        self.bursts.iter().map(move |run| {
            let (bytes, tail) = std::mem::take(&mut rest).split_at_mut(run.len);
            rest = tail;
            let Recipient { party, peer, headroom } = run.to;
            Burst { party, peer, headroom, segment: run.segment, bytes }
        })
    }

    /// Returns the IP packets for the parties' own network devices: ICMP Packet Too Big messages.
    pub fn deliveries(&self) -> impl Iterator<Item = (PartyId, &[u8])> {
        let mut rest = self.returned_bytes.as_slice();
        self.returned.iter().map(move |(party, len)| {
            let (packet, tail) = rest.split_at(*len);
            rest = tail;
            (*party, packet)
        })
    }

    /// Lets `fill` write a datagram of at most `capacity` bytes. Nothing is added if it returns `None`.
    /// False if the outbox is full.
    pub(crate) fn write(
        &mut self,
        to: Recipient,
        capacity: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let end = self.used + to.headroom + capacity;
        if end > LIMIT {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two().min(LIMIT), 0);
        }
        if let Some(len) = fill(&mut self.bytes[self.used + to.headroom..end]) {
            self.push(to, to.headroom + len);
        }
        true
    }

    fn push(&mut self, to: Recipient, len: usize) {
        self.used += len;
        match self.bursts.last_mut() {
            Some(run) if run.takes(&to, len) => {
                run.open = len == run.segment;
                run.len += len;
            }
            _ => self.bursts.push(Run { to, segment: len, len, open: true }),
        }
    }

    /// Adds a packet for the party's own network device. False if the outbox is full.
    pub(crate) fn give_back(&mut self, party: PartyId, packet: &[u8]) -> bool {
        if self.returned_bytes.len() + packet.len() > LIMIT {
            return false;
        }
        self.returned_bytes.extend_from_slice(packet);
        self.returned.push((party, packet.len()));
        true
    }
}

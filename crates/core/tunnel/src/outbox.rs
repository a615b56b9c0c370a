//! Where the tunnel writes what leaves: datagrams for members, and ICMP messages for the parties' own network devices.
//!
//! The caller owns one outbox per loop and empties it after every batch. Its memory is allocated once and grows up to
//! [`MAX_BYTES`]; encryption writes straight into it. Datagrams of one size for one member lie back to back, so that a
//! [`Burst`] can be handed to the kernel as one send with segmentation offload (UDP GSO).

use partyline_model::{DeviceId, PartyId};

/// Bytes in front of each datagram for members reached through a relay: the ChannelData header (RFC 8656, section 12.4).
pub const RELAY_HEADROOM: usize = 4;

/// Bytes that an outbox holds of either kind: a full-size broadcast to a party of 254.
const MAX_BYTES: usize = 512 * 1024;
/// Datagrams of one burst. Linux accepts at most 64 segments per send (UDP_MAX_SEGMENTS before 6.9).
const MAX_BURST_SEGMENTS: usize = 64;
/// Bytes of one burst: with IP and UDP headers they have to fit the 16-bit length of an IP packet.
const MAX_BURST_BYTES: usize = 65_000;

/// Encrypted datagrams and packets for the network devices, until the caller has sent them.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    used: usize,
    bursts: Vec<BurstLayout>,
    delivery_bytes: Vec<u8>,
    deliveries: Vec<(PartyId, usize)>,
}

/// Datagrams for one member, back to back in `bytes`: each `segment` long, the last possibly shorter.
#[derive(Debug)]
pub struct Burst<'a> {
    /// The party.
    pub party: PartyId,
    /// The member.
    pub peer: DeviceId,
    /// Bytes in front of each datagram that the caller fills in: 0, or [`RELAY_HEADROOM`] if the path asked for them.
    pub headroom: usize,
    /// Length of each datagram in bytes, headroom included.
    pub segment: usize,
    /// The datagrams.
    pub bytes: &'a mut [u8],
}

impl Burst<'_> {
    /// Returns the datagrams one by one, each with its headroom in front.
    pub fn segments(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_mut(self.segment)
    }
}

/// The member that a datagram is for, and the headroom that the path to it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub party: PartyId,
    pub peer: DeviceId,
    pub headroom: usize,
}

#[derive(Debug)]
struct BurstLayout {
    recipient: Recipient,
    segment: usize,
    len: usize,
    /// False once a shorter datagram was added, which has to be the last.
    open: bool,
}

impl BurstLayout {
    fn can_take(&self, recipient: &Recipient, len: usize) -> bool {
        self.open
            && len <= self.segment
            && self.len + len <= MAX_BURST_BYTES
            && self.len / self.segment < MAX_BURST_SEGMENTS
            && self.recipient == *recipient
    }
}

impl Outbox {
    /// Returns an empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true if there is nothing to send and nothing to deliver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bursts.is_empty() && self.deliveries.is_empty()
    }

    /// Removes everything and keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.bursts.clear();
        self.delivery_bytes.clear();
        self.deliveries.clear();
    }

    /// Returns the datagrams to send, in order.
    pub fn bursts(&mut self) -> impl Iterator<Item = Burst<'_>> {
        let mut rest = &mut self.bytes[..self.used];
        self.bursts.iter().map(move |layout| {
            let (bytes, tail) = std::mem::take(&mut rest).split_at_mut(layout.len);
            rest = tail;
            let Recipient { party, peer, headroom } = layout.recipient;
            Burst { party, peer, headroom, segment: layout.segment, bytes }
        })
    }

    /// Returns the packets to deliver to the parties' own network devices: ICMP Packet Too Big messages.
    pub fn deliveries(&self) -> impl Iterator<Item = (PartyId, &[u8])> {
        let mut rest = self.delivery_bytes.as_slice();
        self.deliveries.iter().map(move |(party, len)| {
            let (packet, tail) = rest.split_at(*len);
            rest = tail;
            (*party, packet)
        })
    }

    /// Lets `fill` write a datagram of at most `capacity` bytes and return its length, or `None` to write nothing.
    /// Returns false, without calling `fill`, if the outbox is full.
    pub(crate) fn write(
        &mut self,
        recipient: Recipient,
        capacity: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let end = self.used + recipient.headroom + capacity;
        if end > MAX_BYTES {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two().min(MAX_BYTES), 0);
        }
        if let Some(len) = fill(&mut self.bytes[self.used + recipient.headroom..end]) {
            self.push(recipient, recipient.headroom + len);
        }
        true
    }

    fn push(&mut self, recipient: Recipient, len: usize) {
        self.used += len;
        match self.bursts.last_mut() {
            Some(layout) if layout.can_take(&recipient, len) => {
                layout.open = len == layout.segment;
                layout.len += len;
            }
            _ => self.bursts.push(BurstLayout { recipient, segment: len, len, open: true }),
        }
    }

    /// Adds a packet for the party's own network device. Returns false if the outbox is full.
    pub(crate) fn push_delivery(&mut self, party: PartyId, packet: &[u8]) -> bool {
        if self.delivery_bytes.len() + packet.len() > MAX_BYTES {
            return false;
        }
        self.delivery_bytes.extend_from_slice(packet);
        self.deliveries.push((party, packet.len()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);

    fn recipient(peer: u8, headroom: usize) -> Recipient {
        Recipient { party: PARTY, peer: DeviceId([peer; 32]), headroom }
    }

    fn write(outbox: &mut Outbox, recipient: Recipient, len: usize) -> bool {
        outbox.write(recipient, len + 32, |dst| {
            dst[..len].fill(len as u8);
            Some(len)
        })
    }

    fn layouts(outbox: &mut Outbox) -> Vec<(usize, usize)> {
        outbox.bursts().map(|burst| (burst.segment, burst.bytes.len())).collect()
    }

    #[test]
    fn datagrams_of_one_size_share_a_burst_that_a_shorter_one_ends() {
        let mut outbox = Outbox::new();
        for len in [100, 100, 60, 60, 100] {
            assert!(write(&mut outbox, recipient(1, 4), len));
        }
        assert_eq!(layouts(&mut outbox), [(104, 104 + 104 + 64), (64, 64), (104, 104)]);
        let mut first = outbox.bursts().next().unwrap();
        assert!(
            first
                .segments()
                .all(|datagram| datagram[4..].iter().all(|byte| *byte as usize == datagram.len() - 4))
        );
    }

    #[test]
    fn another_member_or_headroom_starts_another_burst() {
        let mut outbox = Outbox::new();
        for recipient in [recipient(1, 0), recipient(2, 0), recipient(2, 4)] {
            write(&mut outbox, recipient, 50);
        }
        assert_eq!(outbox.bursts().count(), 3);
    }

    #[test]
    fn burst_never_exceeds_what_the_kernel_accepts() {
        let mut outbox = Outbox::new();
        (0..150).for_each(|_| assert!(write(&mut outbox, recipient(1, 0), 36)));
        (0..100).for_each(|_| assert!(write(&mut outbox, recipient(1, 0), 1400)));
        for (segment, len) in layouts(&mut outbox) {
            assert!(len <= MAX_BURST_BYTES && len.div_ceil(segment) <= MAX_BURST_SEGMENTS);
        }
    }

    #[test]
    fn full_outbox_refuses_datagrams_and_deliveries() {
        let mut outbox = Outbox::new();
        let written = (0..1000).filter(|_| write(&mut outbox, recipient(1, 0), 1400)).count();
        assert!((1..=MAX_BYTES / 1400).contains(&written));
        let delivered = (0..1000).filter(|_| outbox.push_delivery(PARTY, &[0; 1400])).count();
        assert_eq!(delivered, MAX_BYTES / 1400);
        assert_eq!(outbox.deliveries().count(), delivered);
        outbox.clear();
        assert!(outbox.is_empty() && write(&mut outbox, recipient(1, 0), 1400));
    }

    #[test]
    fn unfilled_datagram_leaves_no_trace() {
        let mut outbox = Outbox::new();
        assert!(outbox.write(recipient(1, 4), 100, |_| None));
        assert!(outbox.is_empty());
    }
}

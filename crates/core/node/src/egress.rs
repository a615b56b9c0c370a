//! The exits of packets: datagrams and stream messages leave by [`Egress::transmit`], received IP packets by
//! [`Egress::deliver`]. Everything else leaves as a [`crate::Output`].

use std::net::SocketAddr;

use partyline_model::PartyId;
use partyline_paths::{SocketId, StreamId};

/// The least length in bytes of the scratch buffer of [`crate::Node::handle_datagram`]: room for the longest packet of a
/// network device, 1,500 bytes at most, with WireGuard's padding and the headers of a message that a member relays.
pub const PACKET_ROOM: usize = 2_048;

/// What a message leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Local {
    /// A UDP socket: [`SocketId::MAIN`], or one that [`crate::Output::OpenSockets`] asked for.
    Socket(SocketId),
    /// A stream to a relay that [`crate::Output::StreamOpen`] asked for. One message, complete with its framing.
    Stream(StreamId),
}

/// Messages to one destination, to be sent in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The socket or stream to send from.
    pub local: Local,
    /// The destination address; its family chooses the socket. On a stream, the relay's address.
    pub destination: SocketAddr,
    /// The length in bytes of each datagram in `bytes` but the last, which may be shorter; at least 1.
    pub segment: usize,
    /// The datagrams, back to back.
    pub bytes: &'a [u8],
}

impl<'a> Transmit<'a> {
    /// A single message.
    pub(crate) fn one(local: Local, destination: SocketAddr, bytes: &'a [u8]) -> Self {
        Self { local, destination, segment: bytes.len().max(1), bytes }
    }
}

/// An IP packet for a party's network device on this computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The party whose device takes the packet.
    pub party: PartyId,
    /// The whole IPv4 or IPv6 packet.
    pub packet: &'a [u8],
}

/// Where everything leaves that the node sends or receives. Both methods must copy or send at once: the bytes are the
/// node's or the caller's buffers and are reused afterwards. What cannot be sent is dropped, as a full network would.
pub trait Egress {
    /// Sends messages from a socket or stream.
    fn transmit(&mut self, transmit: Transmit<'_>);
    /// Hands an IP packet to a party's network device.
    fn deliver(&mut self, deliver: Deliver<'_>);
}

/// What the node sends or delivers while no [`Egress`] is at hand; it leaves with the next [`crate::Node::flush`].
#[derive(Debug, Default)]
pub(crate) struct EgressQueue {
    queued: Vec<Queued>,
    bytes: Vec<u8>,
    deliveries: Vec<(PartyId, Vec<u8>)>,
}

#[derive(Debug)]
struct Queued {
    local: Local,
    destination: SocketAddr,
    segment: usize,
    len: usize,
}

impl EgressQueue {
    /// Queues a copy of one message.
    pub(crate) fn push(&mut self, local: Local, destination: SocketAddr, bytes: &[u8]) {
        self.transmit(Transmit::one(local, destination, bytes));
    }

    /// Sends everything that was queued, in order; keeps the memory.
    pub(crate) fn flush(&mut self, egress: &mut impl Egress) {
        let mut rest = self.bytes.as_slice();
        for Queued { local, destination, segment, len } in self.queued.drain(..) {
            let (bytes, tail) = rest.split_at(len);
            rest = tail;
            egress.transmit(Transmit { local, destination, segment, bytes });
        }
        self.bytes.clear();
        for (party, packet) in self.deliveries.drain(..) {
            egress.deliver(Deliver { party, packet: &packet });
        }
    }
}

impl Egress for EgressQueue {
    fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
        self.queued.push(Queued { local, destination, segment, len: bytes.len() });
        self.bytes.extend_from_slice(bytes);
    }

    fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
        self.deliveries.push((party, packet.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = (Local, SocketAddr, usize, Vec<u8>);

    #[derive(Default)]
    struct Record(Vec<Sent>, Vec<(PartyId, Vec<u8>)>);

    impl Egress for Record {
        fn transmit(&mut self, Transmit { local, destination, segment, bytes }: Transmit<'_>) {
            self.0.push((local, destination, segment, bytes.to_vec()));
        }

        fn deliver(&mut self, Deliver { party, packet }: Deliver<'_>) {
            self.1.push((party, packet.to_vec()));
        }
    }

    #[test]
    fn queued_transmits_and_deliveries_leave_once_and_in_order() {
        let (mut queue, mut record) = (EgressQueue::default(), Record::default());
        let (main, stream) = (Local::Socket(SocketId::MAIN), Local::Stream(StreamId(3)));
        let to = SocketAddr::from(([192, 0, 2, 1], 9));
        queue.push(main, to, b"first");
        queue.push(stream, to, b"");
        queue.transmit(Transmit { local: main, destination: to, segment: 2, bytes: b"aabbc" });
        queue.deliver(Deliver { party: PartyId([1; 32]), packet: b"packet" });
        queue.flush(&mut record);
        queue.flush(&mut record);
        let expected =
            [(main, to, 5, b"first".to_vec()), (stream, to, 1, Vec::new()), (main, to, 2, b"aabbc".to_vec())];
        assert_eq!(record.0, expected);
        assert_eq!(record.1, [(PartyId([1; 32]), b"packet".to_vec())]);
    }
}

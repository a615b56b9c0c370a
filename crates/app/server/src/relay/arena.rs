//! Memory for packets between receiving and sending: slots of equal size, each with room for the header that is added
//! when it leaves, filled and sent in batches.

use std::{io::IoSliceMut, net::SocketAddr, ops::Range};

use mio::net::UdpSocket;
use partyline_relay::{HEADROOM, Packet, TAILROOM};

use crate::platform::Batches;

/// Maximum length of a relayed datagram in bytes; longer ones are dropped and counted.
pub const MAX_DATAGRAM: usize = 4096;
/// Maximum number of packets received from a socket at once.
pub const BATCH: usize = 64;
/// Bytes per slot.
const SLOT: usize = (HEADROOM + MAX_DATAGRAM + TAILROOM).next_multiple_of(64);
/// Number of slots.
const SLOTS: usize = 4 * BATCH;

/// A packet in the arena.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    slot: usize,
    length: usize,
    /// The sender.
    pub from: SocketAddr,
}

/// The slots, and how many of them are in use since the last [`Arena::clear`].
pub struct Arena {
    bytes: Vec<u8>,
    used: usize,
    batches: Batches,
}

impl Arena {
    pub fn new() -> Self {
        Self { bytes: vec![0; SLOT * SLOTS], used: 0, batches: Batches::new(BATCH, SLOTS) }
    }

    /// Returns true if a whole batch fits.
    pub fn has_room(&self) -> bool {
        self.used + BATCH <= SLOTS
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Receives up to `max` packets, at most a batch, into free slots. Returns the number of packets received; fewer than
    /// requested means that the socket is empty. Datagrams that were too long are counted in `truncated` and left out.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        v6: bool,
        max: usize,
        out: &mut Vec<Received>,
        truncated: &mut u64,
    ) -> usize {
        let slots = self.bytes[self.used * SLOT..].chunks_exact_mut(SLOT).take(max.min(BATCH));
        // One byte more than allowed, to detect datagrams that are too long.
        let mut rooms: Vec<_> =
            slots.map(|slot| [IoSliceMut::new(&mut slot[HEADROOM..][..=MAX_DATAGRAM])]).collect();
        let first = self.used;
        let count = self.batches.receive(socket, v6, &mut rooms, |arrival| match arrival.from {
            Some(from) if arrival.length <= MAX_DATAGRAM => {
                out.push(Received { slot: first + arrival.index, length: arrival.length, from });
            }
            _ => *truncated += 1,
        });
        self.used += count;
        count
    }

    /// Copies a frame from a stream into a slot; `None` if it is too long. Requires that [`Self::has_room`].
    pub fn place(&mut self, frame: &[u8], from: SocketAddr) -> Option<Received> {
        let (slot, length) = (self.used, frame.len());
        let room = self.bytes.get_mut(slot * SLOT..)?.get_mut(HEADROOM..HEADROOM + MAX_DATAGRAM)?;
        room.get_mut(..length)?.copy_from_slice(frame);
        self.used += 1;
        Some(Received { slot, length, from })
    }

    /// Returns the packet with the room around it.
    pub fn packet(&mut self, received: &Received) -> Option<Packet<'_>> {
        let slot = self.bytes.get_mut(received.slot * SLOT..)?.get_mut(..SLOT)?;
        Packet::new(slot, HEADROOM..HEADROOM + received.length)
    }

    /// Converts a range of a packet's slot into a range of the arena.
    pub fn part(&self, received: &Received, range: Range<usize>) -> Range<usize> {
        received.slot * SLOT + range.start..received.slot * SLOT + range.end
    }

    /// Returns the bytes of a range of the arena.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Sends parts of the arena from one socket; returns the number of packets the socket did not accept.
    pub fn send(&mut self, socket: &UdpSocket, parts: &[(SocketAddr, Range<usize>)]) -> u64 {
        self.batches.send(socket, parts.iter().map(|(to, range)| (*to, &self.bytes[range.clone()])))
    }
}

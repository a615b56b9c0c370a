//! Where packets live between receiving and sending: equal slots in one piece of memory, each with room for the
//! header of the way out, filled and emptied in batches.

use std::{io::IoSliceMut, net::SocketAddr, ops::Range};

use mio::net::UdpSocket;
use partyline_relay::{HEADROOM, Packet, TAILROOM};

use crate::platform::Batches;

/// The largest datagram that is relayed; longer ones are dropped and counted.
pub const MAX_DATAGRAM: usize = 4096;
/// Packets taken from a socket at once.
pub const BATCH: usize = 64;
const SLOT: usize = (HEADROOM + MAX_DATAGRAM + TAILROOM).next_multiple_of(64);
const SLOTS: usize = 4 * BATCH;

/// A packet in the arena.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    slot: usize,
    length: usize,
    /// Who sent it.
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

    /// Whether a whole batch fits.
    pub fn has_room(&self) -> bool {
        self.used + BATCH <= SLOTS
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Receives up to a batch into free slots. Returns how many the socket gave; fewer than asked for means that it is
    /// empty. Datagrams that were too long are counted in `truncated` and left out.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        v6: bool,
        most: usize,
        out: &mut Vec<Received>,
        truncated: &mut u64,
    ) -> usize {
        let slots = self.bytes[self.used * SLOT..].chunks_exact_mut(SLOT).take(most.min(BATCH));
        // One byte more than may come, to see whether it does.
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

    /// Puts a frame from a stream into a slot; `None` if it is too long. Ask [`Self::has_room`] first.
    pub fn place(&mut self, frame: &[u8], from: SocketAddr) -> Option<Received> {
        let (slot, length) = (self.used, frame.len());
        let room = self.bytes.get_mut(slot * SLOT..)?.get_mut(HEADROOM..HEADROOM + MAX_DATAGRAM)?;
        room.get_mut(..length)?.copy_from_slice(frame);
        self.used += 1;
        Some(Received { slot, length, from })
    }

    /// The packet for reading and framing.
    pub fn packet(&mut self, received: &Received) -> Option<Packet<'_>> {
        let slot = self.bytes.get_mut(received.slot * SLOT..)?.get_mut(..SLOT)?;
        Packet::new(slot, HEADROOM..HEADROOM + received.length)
    }

    /// A part of a packet's slot, as a range of the arena.
    pub fn part(&self, received: &Received, range: Range<usize>) -> Range<usize> {
        received.slot * SLOT + range.start..received.slot * SLOT + range.end
    }

    /// The bytes of a range of the arena.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Sends parts of the arena from one socket; returns how many the socket did not take.
    pub fn send(&mut self, socket: &UdpSocket, parts: &[(SocketAddr, Range<usize>)]) -> u64 {
        self.batches.send(socket, parts.iter().map(|(to, range)| (*to, &self.bytes[range.clone()])))
    }
}

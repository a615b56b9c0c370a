//! Buffers for the packets of one read from, or one write to, a device. Allocated once and reused.

/// The most packets of one read; a full 64 KiB segment of small packets has this many.
const MAX_READ_PACKETS: usize = 128;
/// The most packets of one write. Each buffer may have to hold a whole coalesced flow.
const MAX_WRITE_PACKETS: usize = 64;
/// The longest coalesced packet with the headers before it, in bytes.
const MAX_COALESCED: usize = 64 * 1024 + 2 * WRITE_OFFSET;
/// Bytes before each packet written, for the virtio header.
pub(super) const WRITE_OFFSET: usize = 16;

/// The packets of one read from a device.
pub struct TunReads {
    /// The buffer of the system call: a virtio header and up to 64 KiB.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) segment: Vec<u8>,
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) sizes: Vec<usize>,
    pub(super) count: usize,
}

impl TunReads {
    /// Returns buffers for packets of at most `mtu` bytes.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        Self {
            segment: vec![0; MAX_COALESCED],
            packets: vec![vec![0; usize::from(mtu).next_multiple_of(64)]; MAX_READ_PACKETS],
            sizes: vec![0; MAX_READ_PACKETS],
            count: 0,
        }
    }

    /// Iterates over the packets of the last read.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.packets.iter_mut().zip(&self.sizes).take(self.count).map(|(packet, size)| &mut packet[..*size])
    }
}

/// The packets of one write to a device.
pub struct TunWrites {
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) count: usize,
}

impl TunWrites {
    /// Returns an empty batch. Memory that no packet has touched stays unmapped.
    #[must_use]
    pub fn new() -> Self {
        Self {
            packets: (0..MAX_WRITE_PACKETS).map(|_| Vec::with_capacity(MAX_COALESCED)).collect(),
            count: 0,
        }
    }

    /// Returns true if there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns true if another packet has to wait for the next write.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == MAX_WRITE_PACKETS
    }

    /// Returns a buffer of `len` bytes for the next packet, to decrypt into. Nothing is added before [`Self::commit`].
    /// Returns `None` if the batch is full or `len` is above 64 KiB.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let packet = self.packets.get_mut(self.count).filter(|_| len <= MAX_COALESCED - 2 * WRITE_OFFSET)?;
        packet.resize(WRITE_OFFSET + len, 0);
        Some(&mut packet[WRITE_OFFSET..])
    }

    /// Adds the first `len` bytes of the buffer that [`Self::room`] returned last. A length of 0 adds nothing.
    pub fn commit(&mut self, len: usize) {
        if let Some(packet) = self.packets.get_mut(self.count) {
            packet.truncate(WRITE_OFFSET + len);
            self.count += usize::from(len > 0);
        }
    }

    /// Adds a copy of a packet. Returns false if there is no room.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        let Some(room) = self.room(packet.len()) else { return false };
        room.copy_from_slice(packet);
        self.commit(packet.len());
        true
    }

    #[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }
}

impl Default for TunWrites {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_decrypted_in_place_and_committed() {
        let mut writes = TunWrites::new();
        writes.room(100).unwrap()[..3].copy_from_slice(&[1, 2, 3]);
        writes.commit(3);
        assert!(writes.push(&[4; 10]));
        assert_eq!(&writes.packets[0][WRITE_OFFSET..], [1, 2, 3]);
        assert_eq!(&writes.packets[1][WRITE_OFFSET..], [4; 10]);
        writes.room(100).unwrap();
        writes.commit(0);
        assert_eq!(writes.count, 2, "an empty packet is none");
    }

    #[test]
    fn full_batch_and_overlong_packets_are_refused() {
        let mut writes = TunWrites::new();
        while writes.push(&[1]) {}
        assert!(writes.is_full());
        writes.clear();
        assert!(writes.room(70_000).is_none());
        assert!(writes.room(65_535).is_some());
    }
}

//! Room for the packets of one read from, or one write to, a device. Allocated once, reused for ever.

/// Packets of one call; a full 64 KiB segment of small packets has this many.
const PACKETS: usize = 128;
/// Packets collected for one write. Each buffer may have to hold a whole coalesced flow.
const WRITES: usize = 64;
/// The longest coalesced packet with what goes before it.
const COALESCED: usize = 64 * 1024 + 2 * WRITE_OFFSET;
/// Room before each packet written, for the virtio header.
pub(super) const WRITE_OFFSET: usize = 16;

/// Packets read from a device.
pub struct TunReads {
    /// What the system call fills: a virtio header and up to 64 KiB.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) segment: Vec<u8>,
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) sizes: Vec<usize>,
    pub(super) count: usize,
}

impl TunReads {
    /// Room for packets of at most `mtu` bytes.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        Self {
            segment: vec![0; COALESCED],
            packets: vec![vec![0; usize::from(mtu).next_multiple_of(64)]; PACKETS],
            sizes: vec![0; PACKETS],
            count: 0,
        }
    }

    /// The packets of the last read.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.packets.iter_mut().zip(&self.sizes).take(self.count).map(|(packet, size)| &mut packet[..*size])
    }
}

/// Packets to write to a device.
pub struct TunWrites {
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) count: usize,
}

impl TunWrites {
    /// Room for a write. Memory that no packet has touched costs nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { packets: (0..WRITES).map(|_| Vec::with_capacity(COALESCED)).collect(), count: 0 }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another packet has to wait for the next write.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == WRITES
    }

    /// Room of at least `len` bytes for the next packet, to decrypt into. Nothing is added before [`Self::commit`].
    /// `None` if the batch is full or `len` above 64 KiB.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let packet = self.packets.get_mut(self.count).filter(|_| len <= COALESCED - 2 * WRITE_OFFSET)?;
        packet.resize(WRITE_OFFSET + len, 0);
        Some(&mut packet[WRITE_OFFSET..])
    }

    /// Adds the first `len` bytes of what [`Self::room`] gave last.
    pub fn commit(&mut self, len: usize) {
        if let Some(packet) = self.packets.get_mut(self.count) {
            packet.truncate(WRITE_OFFSET + len);
            self.count += usize::from(len > 0);
        }
    }

    /// Adds a copy of a packet. False if there is no room.
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
    fn a_full_batch_takes_no_more() {
        let mut writes = TunWrites::new();
        while writes.push(&[1]) {}
        assert!(writes.is_full());
        writes.clear();
        assert!(writes.room(70_000).is_none());
        assert!(writes.room(65_535).is_some());
    }
}

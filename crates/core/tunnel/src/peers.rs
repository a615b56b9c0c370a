//! The members of all parties, in slots that their WireGuard receiver indices point to.

use crate::{drops::DropCounters, handshakes::HandshakeCounters, peer::Peer};

/// A slot map of members. A slot's number is the low 16 bits of the member's receiver index.
#[derive(Default)]
pub(crate) struct PeerTable {
    slots: Vec<Option<Peer>>,
    /// What removed members had counted, so that totals never decrease.
    removed_drops: DropCounters,
    removed_handshakes: HandshakeCounters,
}

impl PeerTable {
    /// Adds the member that `build` makes from its receiver index of 24 bits, and returns its slot. The random part of
    /// the index keeps datagrams for a former holder of the slot from being tried with the wrong keys. Returns `None` if all
    /// slots are taken.
    pub(crate) fn insert(&mut self, random: u8, build: impl FnOnce(u32) -> Peer) -> Option<usize> {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let low = u16::try_from(slot).ok()?;
        let peer = build(u32::from(random) << 16 | u32::from(low));
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(peer);
        Some(slot)
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Option<Peer> {
        let peer = self.slots.get_mut(slot)?.take()?;
        self.removed_drops.add(peer.drops());
        self.removed_handshakes.add(&peer.handshakes());
        Some(peer)
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Peer> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Peer> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Returns the member that the receiver index of a datagram belongs to, with its slot. The low 8 bits number the
    /// member's sessions and are boringtun's.
    pub(crate) fn by_receiver_index(&mut self, receiver: u32) -> Option<(usize, &mut Peer)> {
        let index = receiver >> 8;
        let slot = index as usize & 0xffff;
        let peer = self.slots.get_mut(slot)?.as_mut().filter(|peer| peer.index() == index)?;
        Some((slot, peer))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten()
    }

    /// Returns the drops of all members, including removed ones.
    pub(crate) fn drops(&self) -> DropCounters {
        let mut sum = self.removed_drops;
        self.iter().for_each(|peer| sum.add(peer.drops()));
        sum
    }

    /// Returns the handshakes of all members, including removed ones.
    pub(crate) fn handshakes(&self) -> HandshakeCounters {
        let mut sum = self.removed_handshakes;
        self.iter().for_each(|peer| sum.add(&peer.handshakes()));
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use boringtun::noise::rate_limiter::RateLimiter;
    use x25519_dalek::PublicKey;

    use super::*;
    use crate::{
        session::Session,
        testing::{PARTY, device_id, peer_config, secrets, start},
    };

    fn peer(index: u32) -> Peer {
        let (now, secrets) = (start(), secrets(2));
        let key = PublicKey::from(&secrets[1]);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&secrets[0]), u64::MAX));
        let session = Session::new((now, now), &secrets[0], key, index, limiter);
        Peer::new((PARTY, device_id(1)), peer_config(1, &secrets[1]), index, session, 1400)
    }

    #[test]
    fn receiver_index_of_a_removed_member_finds_nobody() {
        let mut table = PeerTable::default();
        assert_eq!(table.insert(7, peer), Some(0));
        assert_eq!(table.insert(7, peer), Some(1));
        let receiver = (7 << 16) << 8;
        assert_eq!(table.by_receiver_index(receiver | 3).map(|(slot, _)| slot), Some(0));
        assert!(table.by_receiver_index(receiver | 2 << 8).is_none());
        assert!(table.remove(0).is_some());
        assert!(table.by_receiver_index(receiver).is_none());
        // The slot is used again, with another random part.
        assert_eq!(table.insert(8, peer), Some(0));
        assert!(table.by_receiver_index(receiver).is_none());
        assert_eq!(table.iter().count(), 2);
    }
}

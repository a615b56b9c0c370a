//! Transaction ids of checks, and which peer each pending one concerns.

use std::collections::BTreeMap;

use partyline_wire::probe::TransactionId;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;

use crate::path::PeerId;

/// Assigns transaction ids and remembers the pending ones.
///
/// An id is a 64-bit counter, which only grows, as the replay protection of the receiver requires, and 32 random bits,
/// which an attacker who does not see our packets cannot guess.
#[derive(Debug)]
pub(crate) struct Transactions {
    counter: u64,
    rng: ChaCha20Rng,
    pending: BTreeMap<TransactionId, PeerId>,
}

impl Transactions {
    pub(crate) const fn new(rng: ChaCha20Rng) -> Self {
        Self { counter: 0, rng, pending: BTreeMap::new() }
    }

    /// Returns a new transaction id.
    pub(crate) fn next_id(&mut self) -> TransactionId {
        let id = TransactionId::new(self.counter, self.rng.next_u32());
        self.counter += 1;
        id
    }

    /// Returns the next value of the counter.
    pub(crate) const fn next_counter(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Remembers that a response with this id concerns `peer`.
    pub(crate) fn open(&mut self, id: TransactionId, peer: PeerId) {
        self.pending.insert(id, peer);
    }

    /// Returns the peer that a pending id concerns.
    pub(crate) fn peer_of(&self, id: TransactionId) -> Option<PeerId> {
        self.pending.get(&id).copied()
    }

    /// Forgets an id: it was answered, or never will be.
    pub(crate) fn close(&mut self, id: TransactionId) {
        self.pending.remove(&id);
    }

    /// Returns the number of pending ids.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns a random number from 0 to 1, for jitter.
    pub(crate) fn random_share(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / f64::from(u32::MAX)
    }

    pub(crate) const fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.rng
    }
}

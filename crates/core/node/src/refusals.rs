//! Sealed messages that were dropped, counted by reason.

use std::collections::BTreeMap;

use partyline_party::Refusal;

/// The counters.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Refusal, u64>);

impl Refusals {
    /// Counts one.
    pub fn count(&mut self, refusal: &Refusal) {
        *self.0.entry(refusal.clone()).or_default() += 1;
    }

    /// How many were dropped, by reason; those that mean nothing (own and repeated messages) are left out.
    pub fn telling(&self) -> impl Iterator<Item = (&Refusal, u64)> {
        let harmless =
            |refusal: &Refusal| matches!(refusal, Refusal::Own | Refusal::Replayed | Refusal::NotForMe);
        self.0.iter().filter(move |(refusal, _)| !harmless(refusal)).map(|(refusal, count)| (refusal, *count))
    }
}

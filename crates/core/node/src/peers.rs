//! Numbers for members, as the path machine wants them: one for each device in each party.

use std::collections::BTreeMap;

use partyline_model::{DeviceId, PartyId};
use partyline_paths::PeerId;

/// Both directions of the numbering. Numbers are never used again.
#[derive(Debug, Default)]
pub struct Peers {
    ids: BTreeMap<(PartyId, DeviceId), PeerId>,
    members: BTreeMap<PeerId, (PartyId, DeviceId)>,
    next: u32,
}

impl Peers {
    /// A member's number, if it has one.
    pub fn id(&self, party: PartyId, device: DeviceId) -> Option<PeerId> {
        self.ids.get(&(party, device)).copied()
    }

    /// A member's number; a new one if it has none.
    pub fn id_or_insert(&mut self, party: PartyId, device: DeviceId) -> PeerId {
        if let Some(id) = self.id(party, device) {
            return id;
        }
        let id = PeerId(self.next);
        self.next = self.next.wrapping_add(1);
        self.ids.insert((party, device), id);
        self.members.insert(id, (party, device));
        id
    }

    /// How many members have a number.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whose number it is.
    pub fn member(&self, id: PeerId) -> Option<(PartyId, DeviceId)> {
        self.members.get(&id).copied()
    }

    /// Forgets a member; returns the number it had.
    pub fn remove(&mut self, party: PartyId, device: DeviceId) -> Option<PeerId> {
        let id = self.ids.remove(&(party, device))?;
        self.members.remove(&id);
        Some(id)
    }
}

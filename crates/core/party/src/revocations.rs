//! What loses its rights.

use partyline_model::{DeviceId, InviteId};
use partyline_wire::membership::{Amendment, Terms};
use serde::{Deserialize, Serialize};

/// Devices and invites without rights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocations {
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) invites: Vec<InviteId>,
}

impl Revocations {
    /// None.
    pub(crate) const NONE: Self = Self { devices: Vec::new(), invites: Vec::new() };

    /// Returns what an amendment revokes.
    pub(crate) fn of(amendment: &Amendment) -> Self {
        Self { devices: amendment.revoked_devices.clone(), invites: amendment.revoked_invites.clone() }
    }

    /// Adds others.
    pub(crate) fn add(&mut self, more: &Self) {
        extend_unique(&mut self.devices, &more.devices);
        extend_unique(&mut self.invites, &more.invites);
    }

    /// Removes the devices from the terms, as the owner does.
    pub(crate) fn apply_to(&self, terms: &mut Terms) {
        terms.co_owners.retain(|device| !self.devices.contains(device));
        extend_unique(&mut terms.revoked_devices, &self.devices);
        extend_unique(&mut terms.revoked_invites, &self.invites);
    }
}

pub(crate) fn extend_unique<T: PartialEq + Copy>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(*item);
        }
    }
}

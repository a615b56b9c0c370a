//! What a device keeps across restarts: who it is, and its parties. JSON with a version, so that a later one can read it.

use std::collections::BTreeMap;

use partyline_model::{Now, PartyId, Settings};
use partyline_party::{DeviceKey, Membership, MembershipState, Secret};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};

use crate::{
    Node,
    known::KnownNetworks,
    local::LocalParty,
    settings::{self, Chosen},
};

const VERSION: u32 = 1;

/// Why saved state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It was written by a newer version.
    #[error("it was written by a newer Partyline (version {0} of its format)")]
    Newer(u32),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// The whole of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedState {
    version: u32,
    device: Secret,
    parties: Vec<SavedParty>,
    /// What the user has set; states of earlier versions have none.
    #[serde(default)]
    settings: Chosen,
    /// Networks measured before. They can be measured again, so what cannot be read is forgotten.
    #[serde(default)]
    networks: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct SavedParty {
    on: bool,
    membership: MembershipState,
}

/// What saved state becomes.
pub(crate) struct Restored {
    pub device: DeviceKey,
    pub parties: BTreeMap<PartyId, LocalParty>,
    pub settings: Settings,
    pub networks: KnownNetworks,
}

impl SavedState {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| StateError::Damaged(error.to_string());
        match serde_json::from_slice::<Version>(bytes).map_err(damaged)?.version {
            VERSION => serde_json::from_slice(bytes).map_err(damaged),
            newer => Err(StateError::Newer(newer)),
        }
    }

    pub(crate) fn restore(
        self,
        now: Now,
        rng: &mut ChaCha20Rng,
        defaults: &Settings,
    ) -> Result<Restored, StateError> {
        let settings = settings::restore(defaults, self.settings)
            .ok_or_else(|| StateError::Damaged("its settings cannot be read".to_owned()))?;
        let device = DeviceKey::from_seed(&self.device);
        let mut parties = BTreeMap::new();
        for SavedParty { on, membership } in self.parties {
            let membership = Membership::restore(now.unix, rng, &device, membership)
                .map_err(|error| StateError::Damaged(error.to_string()))?;
            parties.insert(membership.id(), LocalParty::new(now.instant, membership, on));
        }
        let networks = serde_json::from_value(self.networks).unwrap_or_default();
        Ok(Restored { device, parties, settings, networks })
    }
}

impl Node {
    /// What to write when [`crate::Output::Save`] asks for it. It holds secrets.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let parties = self
            .parties
            .values()
            .map(|party| SavedParty { on: party.on, membership: party.membership.state() })
            .collect();
        let settings = settings::chosen(&self.config.settings, &self.settings);
        let networks = serde_json::to_value(&self.known).unwrap_or_default();
        let state = SavedState { version: VERSION, device: self.device.seed(), parties, settings, networks };
        // Fails only for maps whose keys are no strings, which these are.
        serde_json::to_vec_pretty(&state).unwrap_or_default()
    }
}

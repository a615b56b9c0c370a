//! What a device keeps across restarts: its key, its parties, the settings and known networks, as JSON with a version.
//!
//! The first member of the JSON object is a checksum: SHA-256, in hexadecimal, of all bytes that follow its comma. It tells
//! a file that a disk, a crash or an editor changed from one that was written whole.

use std::net::SocketAddr;

use partyline_model::{FormerPartyView, IncomingPolicy, Now, PartyId, Settings};
use partyline_party::{DeviceKey, Membership, MembershipState, Secret};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::{
    connectivity::KnownNetworks,
    settings::{self, ChangedSettings},
    signaling::LocalParty,
    trusted_servers::TrustedServers,
};

const VERSION: u32 = 1;

/// The reason why saved state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A newer version wrote it.
    #[error("it was written by a newer Partyline (version {0} of its format)")]
    Newer(u32),
    /// It is no state, or was changed.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// The saved state. It holds secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedState {
    version: u32,
    device: Secret,
    /// The end of the reserved sequence numbers of this device's messages.
    sequence: u64,
    parties: Vec<SavedParty>,
    /// Settings that differ from the defaults.
    #[serde(default)]
    settings: ChangedSettings,
    /// Networks measured before. They can be measured again, so unreadable ones are dropped.
    #[serde(default)]
    networks: serde_json::Value,
    /// Parties that this computer was in under an earlier identity.
    #[serde(default)]
    former: Vec<FormerPartyView>,
    /// Servers that the user named or confirmed.
    #[serde(default)]
    trusted_servers: TrustedServers,
    /// Nodes of the DHT that have answered.
    #[serde(default)]
    dht_nodes: Vec<SocketAddr>,
}

/// A party as it is saved.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedParty {
    on: bool,
    membership: MembershipState,
    #[serde(default)]
    incoming: IncomingPolicy,
    /// Addresses that came with the invite.
    #[serde(default)]
    addresses: Vec<SocketAddr>,
}

impl SavedParty {
    /// Collects what has to be kept of a party.
    pub(crate) fn new(party: &LocalParty) -> Self {
        Self {
            on: party.is_wanted(),
            membership: party.membership().state(),
            incoming: party.incoming().clone(),
            addresses: party.known_addresses().to_vec(),
        }
    }
}

/// What the node is restored from.
pub(crate) struct Restored {
    pub device: DeviceKey,
    /// The memberships, each with whether its party is to be on.
    pub memberships: Vec<(Membership, bool)>,
    /// What members may reach on this computer.
    pub incoming: Vec<(PartyId, IncomingPolicy)>,
    /// Addresses that came with invites.
    pub addresses: Vec<(PartyId, Vec<SocketAddr>)>,
    pub settings: Settings,
    pub networks: KnownNetworks,
    pub former: Vec<FormerPartyView>,
    pub trusted: TrustedServers,
    pub dht_nodes: Vec<SocketAddr>,
}

impl SavedState {
    /// Reads state that this version can read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| StateError::Damaged(error.to_string());
        if !is_whole(bytes) {
            return Err(StateError::Damaged("its checksum is wrong".to_owned()));
        }
        match serde_json::from_slice::<Version>(bytes).map_err(damaged)?.version {
            VERSION => serde_json::from_slice(bytes).map_err(damaged),
            newer if newer > VERSION => Err(StateError::Newer(newer)),
            unknown => Err(StateError::Damaged(format!("its format has the unknown version {unknown}"))),
        }
    }

    /// Restores what was saved, as a new run.
    pub(crate) fn restore(
        self,
        now: Now,
        rng: &mut ChaCha20Rng,
        defaults: &Settings,
    ) -> Result<Restored, StateError> {
        let settings = settings::restore(defaults, self.settings)
            .ok_or_else(|| StateError::Damaged("its settings cannot be read".to_owned()))?;
        let device = DeviceKey::restore(now.unix, &self.device, self.sequence);
        let (mut memberships, mut policies, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for SavedParty { on, membership, incoming, addresses } in self.parties {
            let membership = Membership::restore(now.unix, rng, &device, membership)
                .map_err(|error| StateError::Damaged(error.to_string()))?;
            policies.push((membership.id(), incoming));
            known.push((membership.id(), addresses));
            memberships.push((membership, on));
        }
        let networks = serde_json::from_value(self.networks).unwrap_or_else(|error| {
            debug!(%error, "known networks cannot be read and will be measured again");
            KnownNetworks::default()
        });
        let Self { former, trusted_servers: trusted, dht_nodes, .. } = self;
        let (incoming, addresses) = (policies, known);
        Ok(Restored {
            device,
            memberships,
            incoming,
            addresses,
            settings,
            networks,
            former,
            trusted,
            dht_nodes,
        })
    }

    /// Collects what has to be kept.
    pub(crate) fn new(
        device: &DeviceKey,
        parties: impl Iterator<Item = SavedParty>,
        settings: ChangedSettings,
        networks: &KnownNetworks,
        former: &[FormerPartyView],
        trusted: &TrustedServers,
        dht_nodes: Vec<SocketAddr>,
    ) -> Self {
        Self {
            version: VERSION,
            device: device.seed(),
            sequence: device.reserve(),
            parties: parties.collect(),
            settings,
            networks: serde_json::to_value(networks).unwrap_or_default(),
            former: former.to_vec(),
            trusted_servers: trusted.clone(),
            dht_nodes,
        }
    }

    /// Writes the state.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Fails only for maps whose keys are no strings, which these are.
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        let members = json.strip_prefix(b"{").unwrap_or(&json);
        [CHECKSUM_OPENING, checksum(members).as_bytes(), CHECKSUM_CLOSING, members].concat()
    }
}

/// What encloses the checksum at the beginning of a file.
const CHECKSUM_OPENING: &[u8] = b"{\n  \"checksum\": \"";
const CHECKSUM_CLOSING: &[u8] = b"\",";

fn checksum(members: &[u8]) -> String {
    format!("{:x}", Sha256::digest(members))
}

/// Returns true if the checksum that a file begins with is that of the rest.
fn is_whole(file: &[u8]) -> bool {
    let parts = || {
        let rest = file.strip_prefix(CHECKSUM_OPENING)?;
        let (stored, rest) = rest.split_at_checked(Sha256::output_size() * 2)?;
        Some((stored, rest.strip_prefix(CHECKSUM_CLOSING)?))
    };
    parts().is_some_and(|(stored, members)| checksum(members).as_bytes() == stored)
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng as _;

    use super::*;

    fn with_checksum(members: &str) -> Vec<u8> {
        let sum = checksum(members.as_bytes());
        [CHECKSUM_OPENING, sum.as_bytes(), CHECKSUM_CLOSING, members.as_bytes()].concat()
    }

    #[test]
    fn state_of_a_newer_version_is_told_from_damage() {
        let decode = |members: &str| SavedState::decode(&with_checksum(members)).err();
        assert_eq!(decode(r#" "version": 99, "device": {} }"#), Some(StateError::Newer(99)));
        assert!(matches!(decode(r#" "version": 1 }"#), Some(StateError::Damaged(_))));
        assert!(matches!(decode(r#" "version": 0 }"#), Some(StateError::Damaged(_))), "older than the first");
        assert!(matches!(SavedState::decode(b"{}"), Err(StateError::Damaged(_))));
    }

    #[test]
    fn changed_and_cut_files_are_damaged() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (device, networks) = (DeviceKey::generate(&mut rng), KnownNetworks::default());
        let (settings, trusted) = (ChangedSettings::default(), TrustedServers::default());
        let state =
            SavedState::new(&device, std::iter::empty(), settings, &networks, &[], &trusted, Vec::new());
        let file = state.encode();
        assert!(serde_json::from_slice::<serde_json::Value>(&file).is_ok(), "still JSON");
        assert!(SavedState::decode(&file).is_ok());
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(matches!(SavedState::decode(&changed), Err(StateError::Damaged(_))), "byte {place}");
            assert!(
                matches!(SavedState::decode(&file[..place]), Err(StateError::Damaged(_))),
                "cut at {place}"
            );
        }
    }
}

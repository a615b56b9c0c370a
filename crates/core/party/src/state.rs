//! What a membership keeps across restarts.

use std::fmt;

use partyline_model::PartyId;
use serde::{Deserialize, Serialize};

use crate::{
    admin::Admin, charter::CharterState, identity::Identity, invites::Invites, roster::Roster,
    secrets::StoredSecrets,
};

/// A membership at rest. It contains this device's secrets and those of no other, so that only the service may be able to
/// read the place where it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub struct MembershipState {
    pub(crate) identity: Identity,
    pub(crate) charter: CharterState,
    pub(crate) admin: Admin,
    pub(crate) invites: Invites,
    pub(crate) secrets: StoredSecrets,
    /// Host number that this device claims.
    pub(crate) host: Option<u16>,
    pub(crate) roster: Roster,
}

impl MembershipState {
    /// Returns the party.
    #[must_use]
    pub fn party(&self) -> PartyId {
        *self.identity.party()
    }
}

impl fmt::Debug for MembershipState {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipState").field("party", &self.party()).finish_non_exhaustive()
    }
}

//! What a membership keeps across restarts.

use std::{fmt, time::Duration};

use partyline_model::{DeviceId, InviteId, PartyId, Role, Timestamp};
use partyline_wire::membership::{Certificate, Charter, Confirmation, Expiry};
use serde::{Deserialize, Serialize};

use crate::{keys::Secret, roster::Roster, rules::CLOCK_TOLERANCE};

/// How many old party secrets are remembered at least, and for how long.
pub(crate) const OLD_SECRETS: usize = 8;
pub(crate) const OLD_SECRET_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Most old party secrets, those that open invites still lead to included.
pub(crate) const MAX_OLD_SECRETS: usize = 15;

/// A membership at rest: serialize it wherever only the service can read. It holds this device's secrets and no
/// other's.
#[derive(Clone, Serialize, Deserialize)]
pub struct MembershipState {
    pub(crate) party: PartyId,
    /// Name and servers as the invite had them, until the charter is known.
    pub(crate) invited_name: String,
    pub(crate) invited_servers: Vec<String>,
    /// Seed of the authority key, on the owner's device.
    pub(crate) authority: Option<Secret>,
    pub(crate) tunnel: Secret,
    pub(crate) certificate: Certificate,
    /// What the user is called now, where that is not what the certificate says.
    pub(crate) name: Option<String>,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) charter: Option<Charter>,
    pub(crate) secret: Secret,
    /// Newest first.
    pub(crate) old_secrets: Vec<OldSecret>,
    pub(crate) issued: Vec<Issued>,
    /// What this device, as a co-owner, revoked and the owner's terms do not hold yet.
    pub(crate) wanted: Revocations,
    pub(crate) host: Option<u16>,
    pub(crate) sequence: u64,
    pub(crate) roster: Roster,
}

/// A party secret that was replaced.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OldSecret {
    pub(crate) secret: Secret,
    pub(crate) until: Timestamp,
}

/// An invite made here. Its key is in the link alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) id: InviteId,
    pub(crate) not_after: Expiry,
    pub(crate) role: Role,
    /// Commitment to the party secret in the link.
    pub(crate) commitment: [u8; 32],
}

impl Issued {
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        self.not_after.time().is_none_or(|end| now <= end.plus(CLOCK_TOLERANCE))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocations {
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) invites: Vec<InviteId>,
}

impl MembershipState {
    /// Which party.
    #[must_use]
    pub const fn party(&self) -> PartyId {
        self.party
    }
}

impl fmt::Debug for MembershipState {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipState").field("party", &self.party).finish_non_exhaustive()
    }
}

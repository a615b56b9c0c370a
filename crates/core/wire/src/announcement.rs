//! What a member tells all others of itself.
//!
//! On the current topic it says how the member can be reached in this run of its engine; on old topics it holds
//! nothing but who the member is and which charter and secret it knows, so that those who are behind can ask.

use partyline_model::{Candidate, NatProfile, SessionNonce};
use serde::{Deserialize, Serialize};

use crate::{
    exact::{Malformed, at_most},
    membership::{Certificate, Confirmation, Stamp},
    name::check_display_name,
};

/// Most candidates a member may announce.
pub const MAX_CANDIDATES: usize = 24;
/// Most candidates in a LAN beacon, so that it fits one datagram.
pub const MAX_BEACON_CANDIDATES: usize = 12;
/// Most public addresses in a NAT profile.
pub const MAX_PUBLIC: usize = 8;

/// Who a member is, what it knows, how it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Who.
    pub certificate: Certificate,
    /// The authority's confirmation of the certificate, once given.
    pub confirmation: Option<Confirmation>,
    /// The charter it goes by; `None` if it knows none yet.
    pub charter: Option<Stamp>,
    /// The first bytes of the commitment to the party secret it holds.
    pub secret: [u8; 8],
    /// How it can be reached; absent on old topics.
    pub presence: Option<Presence>,
}

/// How a member can be reached in this run of its engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Names the run.
    pub session: SessionNonce,
    /// The host number it claims in the party's range; `None` while it does not know the range.
    pub host: Option<u16>,
    /// What its user is called now, where that is not what the certificate says.
    pub name: Option<String>,
    /// Addresses and NAT.
    pub reach: Reachability,
}

/// What a member's network gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reachability {
    /// Addresses, best first, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// What its NAT does.
    pub nat: NatProfile,
}

impl Announcement {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let Some(Presence { reach, name, .. }) = &self.presence else { return Ok(()) };
        name.as_deref().map_or(Ok(()), check_display_name)?;
        at_most(&reach.candidates, MAX_CANDIDATES, "candidates")?;
        at_most(&reach.nat.public, MAX_PUBLIC, "public addresses")
    }
}

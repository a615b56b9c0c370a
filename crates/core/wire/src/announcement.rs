//! What a member announces about itself to all others.
//!
//! On the current topic an announcement says how the member can be reached in this run of its engine. On old topics
//! it only identifies the member and the charter and secret that it knows, so that members that are behind can ask
//! for them.

use ipnet::Ipv4Net;
use partyline_model::{Candidate, NatProfile, SessionNonce};
use serde::{Deserialize, Serialize};

use crate::{
    exact::{Malformed, at_most, decode, encode},
    membership::{Certificate, Confirmation, Expiry, Stamp},
    name::check_display_name,
    rendezvous::MAX_MESSAGE,
};

/// The maximum number of candidates in an announcement.
pub const MAX_CANDIDATES: usize = 24;
/// The maximum number of candidates in a LAN beacon, which must fit in one datagram.
pub const MAX_BEACON_CANDIDATES: usize = 12;
/// The maximum number of public addresses in a NAT profile.
pub const MAX_PUBLIC: usize = 8;

/// The maximum number of networks that another range of the party should avoid.
pub const MAX_AVOIDED: usize = 8;

/// A member's identity, its knowledge of the party, and how it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The member's certificate.
    pub certificate: Certificate,
    /// The authority's confirmation of the certificate, once there is one.
    pub confirmation: Option<Confirmation>,
    /// The charter that the member knows; `None` if it knows none yet.
    pub charter: Option<Stamp>,
    /// The first bytes of the commitment to the party secret that the member has.
    pub secret: [u8; 8],
    /// How the member can be reached; absent on old topics.
    pub presence: Option<Presence>,
}

/// How a member can be reached in this run of its engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Identifies the run.
    pub session: SessionNonce,
    /// The host number that the member claims in the party's range; `None` while it does not know the range.
    pub host: Option<u16>,
    /// The user's display name, if it differs from the one in the certificate.
    pub name: Option<String>,
    /// The member's addresses and NAT behavior.
    pub reach: Reachability,
    /// Networks of the member that another range of the party should avoid, at most [`MAX_AVOIDED`], while it asks for
    /// one. The first is the one that clashes.
    pub avoided_networks: Vec<Ipv4Net>,
    /// True if a copy of the member's keys was met on another computer lately.
    pub copied: bool,
    /// Until when joiners may come by an invite that the member made; `None` while it has no open one.
    pub inviting_until: Option<Expiry>,
}

/// A member's addresses and NAT behavior.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reachability {
    /// The candidates, best first, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// The NAT behavior.
    pub nat: NatProfile,
}

impl Announcement {
    /// Encodes the announcement.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes an announcement.
    ///
    /// # Errors
    /// The bytes are not in the expected form, or exceed a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let announcement: Self = decode(bytes, MAX_MESSAGE)?;
        announcement.check()?;
        Ok(announcement)
    }

    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let Some(Presence { reach, name, avoided_networks, .. }) = &self.presence else { return Ok(()) };
        name.as_deref().map_or(Ok(()), check_display_name)?;
        at_most(&reach.candidates, MAX_CANDIDATES, "candidates")?;
        at_most(avoided_networks, MAX_AVOIDED, "avoided networks")?;
        at_most(&reach.nat.public, MAX_PUBLIC, "public addresses")
    }
}

//! Grants, certificates, confirmations and charters.
//!
//! A *grant* lets the holder of an invite key make members; the authority signs it, or a co-owner does. A
//! *certificate* makes one device a member; the invite key and the device key sign it. A *confirmation* is the
//! authority's signature over a certificate, which then no longer depends on its invite. The *charter* is what the
//! authority says to all: its terms in one signed document of which the highest version counts, and at most one
//! amendment by a co-owner, which can only add removals and replace the party secret.
//!
//! This module knows their form and limits; checking signatures is the work of `partyline-party`.

use ipnet::Ipv4Net;
use partyline_model::{DeviceId, InviteId, PartyId, Role, Timestamp, TunnelPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    exact::{Document, Exact, Malformed, Signature, at_most},
    name::{check_display_name, check_party_name},
};

/// Most rendezvous servers of a party.
pub const MAX_SERVERS: usize = 4;
/// Most bytes of a server's URL.
pub const MAX_SERVER_BYTES: usize = 128;
/// Most co-owners.
pub const MAX_CO_OWNERS: usize = 16;
/// Most removed devices, and most revoked invites, in a charter's terms.
pub const MAX_REVOKED: usize = 176;
/// Most removed devices, and most revoked invites, in an amendment.
pub const MAX_AMENDED: usize = 24;
/// Longest prefix of a party's address range: 14 members.
pub const MAX_PREFIX: u8 = 28;
/// Shortest prefix of a party's address range.
pub const MIN_PREFIX: u8 = 16;

/// When something ends: whole seconds since 1970, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expiry(u32);

impl Expiry {
    /// Never.
    pub const NEVER: Self = Self(0);

    /// The first whole second at or after `time`; never if that is past the year 2106.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self(u32::try_from(time.0.div_ceil(1000).max(1)).unwrap_or(0))
    }

    /// From its number on the wire; zero is never.
    #[must_use]
    pub const fn from_wire(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Its number on the wire; zero is never.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// The moment, or `None` for never.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        (self.0 != 0).then(|| Timestamp(u64::from(self.0) * 1000))
    }
}

/// Who signed a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Issuer {
    /// The party's authority key.
    Authority,
    /// A co-owner's device key; counts only while the charter names that co-owner.
    CoOwner(DeviceId),
}

/// The right to make members with an invite key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who gave it.
    pub issuer: Issuer,
    /// The invite key's public half.
    pub invite: InviteId,
    /// When it ends.
    pub not_after: Expiry,
    /// What it makes of the joiner.
    pub role: Role,
    /// The issuer's signature over [`Grant::subject`].
    pub signature: Signature,
}

impl Grant {
    /// What the issuer signs: a fixed layout, so that it needs no copy of its bytes.
    #[must_use]
    pub fn subject(&self, party: &PartyId) -> Vec<u8> {
        let (tag, issuer): (u8, &[u8]) = match &self.issuer {
            Issuer::Authority => (0, &[]),
            Issuer::CoOwner(device) => (1, device.as_bytes()),
        };
        let role = match self.role {
            Role::Owner => 0,
            Role::CoOwner => 1,
            Role::Member => 2,
        };
        let not_after = self.not_after.to_wire().to_be_bytes();
        [b"partyline grant\0", &party.0[..], &self.invite.0, &not_after, &[role, tag], issuer].concat()
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Of which party.
    pub party: PartyId,
    /// Which device.
    pub device: DeviceId,
    /// Its WireGuard key.
    pub tunnel: TunnelPublicKey,
    /// The name its user chose.
    pub name: String,
    /// When it joined, by its own clock.
    pub joined_at: Timestamp,
    /// By what right.
    pub grant: Grant,
}

impl Document for Claims {
    const DOMAIN: &'static str = "partyline certificate";
    const LIMIT: usize = 512;

    fn check(&self) -> Result<(), Malformed> {
        Ok(check_display_name(&self.name)?)
    }
}

/// Makes a device a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What it says.
    pub claims: Exact<Claims>,
    /// The invite key's signature over the claims.
    pub by_invite: Signature,
    /// The device key's signature over the claims.
    pub by_device: Signature,
}

impl Certificate {
    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        self.claims.value()
    }

    /// SHA-256 of what was signed; the certificate's identity.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.claims.subject()).into()
    }
}

/// The authority's signature over a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Confirmation(pub Signature);

impl Confirmation {
    /// What the authority signs.
    #[must_use]
    pub fn subject(certificate: &Certificate) -> Vec<u8> {
        [&b"partyline confirmation\0"[..], &certificate.digest()].concat()
    }
}

/// What the authority says to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Of which party.
    pub party: PartyId,
    /// Grows with every change.
    pub version: u64,
    /// The party's name.
    pub name: String,
    /// Its address range.
    pub range: Ipv4Net,
    /// Its rendezvous servers.
    pub servers: Vec<String>,
    /// The device that holds the authority key.
    pub owner: DeviceId,
    /// Who may invite and remove besides.
    pub co_owners: Vec<DeviceId>,
    /// Devices that are members no longer.
    pub revoked_devices: Vec<DeviceId>,
    /// Invites that make members no longer.
    pub revoked_invites: Vec<InviteId>,
    /// Commitment to the party secret in force.
    pub commitment: [u8; 32],
}

impl Document for Terms {
    const DOMAIN: &'static str = "partyline charter";
    const LIMIT: usize = 13 * 1024;

    fn check(&self) -> Result<(), Malformed> {
        check_party_name(&self.name)?;
        check_range(self.range)?;
        check_servers(&self.servers)?;
        at_most(&self.co_owners, MAX_CO_OWNERS, "co-owners")?;
        at_most(&self.revoked_devices, MAX_REVOKED, "removed devices")?;
        at_most(&self.revoked_invites, MAX_REVOKED, "revoked invites")
    }
}

/// What a co-owner adds to the terms until the owner's device takes it over into the next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// SHA-256 of the terms it amends.
    pub terms: [u8; 32],
    /// Grows with every amendment of the same terms, from 1.
    pub number: u32,
    /// The co-owner.
    pub author: DeviceId,
    /// Further devices that are members no longer.
    pub revoked_devices: Vec<DeviceId>,
    /// Further invites that make members no longer.
    pub revoked_invites: Vec<InviteId>,
    /// Commitment to the party secret in force.
    pub commitment: [u8; 32],
}

impl Document for Amendment {
    const DOMAIN: &'static str = "partyline amendment";
    const LIMIT: usize = 1800;

    fn check(&self) -> Result<(), Malformed> {
        if self.number == 0 {
            return Err(Malformed::Range { what: "number" });
        }
        at_most(&self.revoked_devices, MAX_AMENDED, "removed devices")?;
        at_most(&self.revoked_invites, MAX_AMENDED, "revoked invites")
    }
}

/// An amendment with its author's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAmendment {
    /// What it says.
    pub amendment: Exact<Amendment>,
    /// The author's device key's signature.
    pub signature: Signature,
}

/// Terms, and perhaps an amendment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// What the authority says.
    pub terms: Exact<Terms>,
    /// The authority's signature over the terms.
    pub signature: Signature,
    /// What a co-owner added.
    pub amendment: Option<SignedAmendment>,
}

impl Charter {
    /// Its place among all charters of the party.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let amendment = self.amendment.as_ref().map(|signed| &signed.amendment);
        let mut hash = Sha256::new_with_prefix(self.terms_digest());
        hash.update(amendment.map_or(&[][..], Exact::bytes));
        let mut digest = [0; 8];
        digest.copy_from_slice(&hash.finalize()[..8]);
        Stamp {
            version: self.terms.value().version,
            amendment: amendment.map_or(0, |amendment| amendment.value().number),
            digest,
        }
    }

    /// SHA-256 of the terms, to which an amendment refers.
    #[must_use]
    pub fn terms_digest(&self) -> [u8; 32] {
        Sha256::digest(self.terms.subject()).into()
    }
}

/// A charter's place among all charters of the party; the greatest wins. The digest decides between two that were
/// made at the same time, so that everybody decides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Version of the terms.
    pub version: u64,
    /// Number of the amendment; 0 without one.
    pub amendment: u32,
    /// The first bytes of the whole charter's hash.
    pub digest: [u8; 8],
}

/// Refuses ranges that games do not take for a LAN (RFC 1918), or that are too small or too large.
///
/// # Errors
/// When the range is not private or its prefix outside 16 to 28.
pub fn check_range(range: Ipv4Net) -> Result<(), Malformed> {
    let fits = range.addr() == range.network()
        && range.network().is_private()
        && range.broadcast().is_private()
        && (MIN_PREFIX..=MAX_PREFIX).contains(&range.prefix_len());
    if fits { Ok(()) } else { Err(Malformed::Range { what: "address range" }) }
}

/// Refuses lists of servers that are too long or hold what is no WebSocket URL.
///
/// # Errors
/// Says which limit is broken.
pub fn check_servers(servers: &[String]) -> Result<(), Malformed> {
    at_most(servers, MAX_SERVERS, "servers")?;
    let good = |url: &String| {
        let rest = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://")).unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty() && url.len() <= MAX_SERVER_BYTES && url.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if servers.iter().all(good) { Ok(()) } else { Err(Malformed::Range { what: "server address" }) }
}

#[cfg(test)]
pub(crate) mod tests;

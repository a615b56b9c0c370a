//! Grants, certificates, confirmations and charters.
//!
//! - A *grant* lets the holder of an invite key make members. The authority or a co-owner signs it.
//! - A *certificate* makes one device a member. The invite key and the device key sign it.
//! - A *confirmation* is the authority's signature over a certificate, which then no longer depends on its invite.
//! - The *charter* holds the authority's terms in one signed document, of which the highest version counts, and at
//!   most one amendment by a co-owner, which can only add removals and replace the party secret.
//!
//! This module defines their format and limits; `partyline-party` verifies the signatures.

use std::num::NonZeroU8;

use ipnet::Ipv4Net;
use partyline_model::{DeviceId, InviteId, PartyId, Role, Timestamp, TunnelPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    exact::{Document, Exact, Malformed, Signature, at_most},
    name::{check_display_name, check_party_name},
};

/// The maximum number of rendezvous servers of a party.
pub const MAX_SERVERS: usize = 4;
/// The maximum length of a server's URL in bytes.
pub const MAX_SERVER_BYTES: usize = 128;
/// The maximum number of co-owners of a party.
pub const MAX_CO_OWNERS: usize = 16;
/// The maximum number of removed devices, and likewise revoked invites, in a charter's terms.
pub const MAX_REVOKED: usize = 176;
/// The maximum number of removed devices, and likewise revoked invites, in an amendment.
pub const MAX_AMENDED: usize = 24;
/// The longest prefix of a party's address range, which leaves room for 14 members.
pub const MAX_PREFIX: u8 = 28;
/// The shortest prefix of a party's address range.
pub const MIN_PREFIX: u8 = 16;

/// When something expires, in whole seconds since 1970, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expiry(u32);

impl Expiry {
    /// It never expires.
    pub const NEVER: Self = Self(0);

    /// Returns the first whole second at or after `time`, or never if that is after the year 2106.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self(u32::try_from(time.0.div_ceil(1000).max(1)).unwrap_or(0))
    }

    /// Decodes the number on the wire; zero is never.
    #[must_use]
    pub const fn from_wire(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Returns the number on the wire; zero is never.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// Returns the time, or `None` for never.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        (self.0 != 0).then(|| Timestamp(u64::from(self.0) * 1000))
    }
}

/// The signer of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Issuer {
    /// The party's authority key.
    Authority,
    /// A co-owner's device key. It is valid only while the charter names that co-owner.
    CoOwner(DeviceId),
}

/// The right to make members with an invite key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The signer.
    pub issuer: Issuer,
    /// The public half of the invite key.
    pub invite: InviteId,
    /// When it expires.
    pub not_after: Expiry,
    /// The number of devices that may join by it; `None` for any number.
    pub uses: Option<NonZeroU8>,
    /// The role that the joiner gets.
    pub role: Role,
    /// The issuer's signature over [`Grant::subject`].
    pub signature: Signature,
}

impl Grant {
    /// Returns what the issuer signs. The layout is fixed, so that a grant need not keep its exact bytes.
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
        let (not_after, uses) = (self.not_after.to_wire().to_be_bytes(), self.uses.map_or(0, NonZeroU8::get));
        [b"partyline grant\0", &party.0[..], &self.invite.0, &not_after, &[uses, role, tag], issuer].concat()
    }
}

/// The contents of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The party.
    pub party: PartyId,
    /// The device that becomes a member.
    pub device: DeviceId,
    /// The device's WireGuard key in this party.
    pub tunnel: TunnelPublicKey,
    /// The display name that its user chose.
    pub name: String,
    /// When the device joined, by its own clock.
    pub joined_at: Timestamp,
    /// The grant that allows it.
    pub grant: Grant,
}

impl Document for Claims {
    const DOMAIN: &'static str = "partyline certificate";
    const LIMIT: usize = 512;

    fn check(&self) -> Result<(), Malformed> {
        Ok(check_display_name(&self.name)?)
    }
}

/// Makes a device a member of a party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The contents.
    pub claims: Exact<Claims>,
    /// The invite key's signature over the claims.
    pub by_invite: Signature,
    /// The device key's signature over the claims.
    pub by_device: Signature,
    /// The tunnel key's signature over the claims (XEdDSA).
    pub by_tunnel: Signature,
}

impl Certificate {
    /// Returns the contents.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        self.claims.value()
    }

    /// Returns the SHA-256 of what was signed, which identifies the certificate.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.claims.subject()).into()
    }
}

/// The authority's signature over a certificate and the host number that it fixes for the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The host number in the party's range that is the member's; 0 if none was free.
    pub host: u16,
    /// The version of the terms when the authority signed: of two confirmations of a certificate, and of two certificates
    /// with the same number, the later counts.
    pub version: u64,
    /// The signature over [`Confirmation::subject`].
    pub signature: Signature,
}

impl Confirmation {
    /// Returns what the authority signs. The layout is fixed, so that a confirmation need not keep its exact bytes.
    #[must_use]
    pub fn subject(certificate: &Certificate, host: u16, version: u64) -> Vec<u8> {
        let (host, version) = (host.to_be_bytes(), version.to_be_bytes());
        [&b"partyline confirmation\0"[..], &certificate.digest(), &host, &version].concat()
    }
}

/// The authority's terms for all members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The party.
    pub party: PartyId,
    /// A number that grows with every change.
    pub version: u64,
    /// The party's name.
    pub name: String,
    /// The party's address range.
    pub range: Ipv4Net,
    /// The party's rendezvous servers.
    pub servers: Vec<String>,
    /// The device that holds the authority key.
    pub owner: DeviceId,
    /// The devices that may invite and remove members on the owner's behalf.
    pub co_owners: Vec<DeviceId>,
    /// Removed devices.
    pub revoked_devices: Vec<DeviceId>,
    /// Revoked invites.
    pub revoked_invites: Vec<InviteId>,
    /// The first bytes of the commitment to the oldest party secret in whose lobby joiners are let in; `None` for no limit.
    /// Links that lead to an older lobby have ended.
    pub lobbies_since: Option<[u8; 8]>,
    /// True if a certificate counts only once the authority has confirmed it: the owner approves every joiner.
    pub approval: bool,
    /// The commitment to the current party secret.
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

/// What a co-owner adds to the terms, until the owner's device takes it over into the next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// The SHA-256 of the terms that it amends.
    pub terms: [u8; 32],
    /// A number that grows with every amendment of the same terms, from 1.
    pub number: u32,
    /// The co-owner.
    pub author: DeviceId,
    /// Further removed devices.
    pub revoked_devices: Vec<DeviceId>,
    /// Further revoked invites.
    pub revoked_invites: Vec<InviteId>,
    /// The commitment to the current party secret.
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
    /// The contents.
    pub amendment: Exact<Amendment>,
    /// The signature of the author's device key.
    pub signature: Signature,
}

/// The terms and at most one amendment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// The authority's terms.
    pub terms: Exact<Terms>,
    /// The authority's signature over the terms.
    pub signature: Signature,
    /// A co-owner's amendment.
    pub amendment: Option<SignedAmendment>,
}

impl Charter {
    /// Returns the charter's place among all charters of the party.
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

    /// Returns the SHA-256 of the terms, to which an amendment refers.
    #[must_use]
    pub fn terms_digest(&self) -> [u8; 32] {
        Sha256::digest(self.terms.subject()).into()
    }
}

/// A charter's place among all charters of the party. The greatest wins. The digest decides between two that were made
/// concurrently, so that all members decide alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The version of the terms.
    pub version: u64,
    /// The number of the amendment; 0 without one.
    pub amendment: u32,
    /// The first bytes of the hash of the whole charter.
    pub digest: [u8; 8],
}

/// Rejects ranges that games do not take for a LAN (RFC 1918), and those that are too small or too large.
///
/// # Errors
/// The range is not private, or its prefix is outside [`MIN_PREFIX`] to [`MAX_PREFIX`].
pub fn check_range(range: Ipv4Net) -> Result<(), Malformed> {
    let fits = range.addr() == range.network()
        && range.network().is_private()
        && range.broadcast().is_private()
        && (MIN_PREFIX..=MAX_PREFIX).contains(&range.prefix_len());
    if fits { Ok(()) } else { Err(Malformed::Range { what: "address range" }) }
}

/// Rejects lists of servers that are too long or contain something other than WebSocket URLs.
///
/// # Errors
/// The limit that is exceeded.
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

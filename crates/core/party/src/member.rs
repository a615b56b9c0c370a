//! What other crates see of a member.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use partyline_model::{
    Candidate, DeviceId, InviteId, NatProfile, PartyId, Role, SessionNonce, Timestamp, TunnelPublicKey,
};

use crate::{address, roster::Record, rules::Rules};

/// What is known of another member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member<'a> {
    party: PartyId,
    /// The member's device.
    pub device: DeviceId,
    /// Its WireGuard key.
    pub tunnel_key: TunnelPublicKey,
    /// The name of its user: the one announced last, or else that of the certificate.
    pub name: &'a str,
    /// What it may do.
    pub role: Role,
    /// True if the owner's device confirmed it.
    pub confirmed: bool,
    /// The invite that it joined by.
    pub invite: InviteId,
    /// When it joined, by its own clock.
    pub joined_at: Timestamp,
    /// Its address in the party's range, if it holds the host number it claims.
    pub address_v4: Option<Ipv4Addr>,
    /// The run of its engine; `None` until it announced itself on the current topic.
    pub session: Option<SessionNonce>,
    /// The addresses at which it may be reached, best first.
    pub candidates: &'a [Candidate],
    /// What it measured of its NAT.
    pub nat: Option<&'a NatProfile>,
    /// Networks that another range should avoid, while it asks for one; the one that clashes first.
    pub avoided_networks: &'a [Ipv4Net],
    /// True if a copy of its keys was met lately.
    pub copied: bool,
    /// When its last announcement was received, by this device's clock.
    pub last_received: Timestamp,
}

impl<'a> Member<'a> {
    /// `held` is the host number that the member claims and holds.
    pub(crate) fn new(
        party: PartyId,
        (device, record): (DeviceId, &'a Record),
        rules: Rules<'_>,
        range: Option<Ipv4Net>,
        held: Option<u16>,
    ) -> Self {
        let reach = record.presence().map(|presence| &presence.reach);
        Self {
            party,
            device,
            tunnel_key: *record.tunnel_key(),
            name: record.name(),
            role: rules.role_of(record.certificate()),
            confirmed: record.is_confirmed(),
            invite: record.certificate().claims().grant.invite,
            joined_at: record.certificate().claims().joined_at,
            address_v4: held.and_then(|host| address::v4(range?, host)),
            session: record.presence().map(|presence| presence.session),
            candidates: reach.map_or(&[], |reach| &reach.candidates),
            nat: reach.map(|reach| &reach.nat),
            avoided_networks: record.presence().map_or(&[], |presence| &presence.avoided_networks),
            copied: record.presence().is_some_and(|presence| presence.copied),
            last_received: record.last_received(),
        }
    }

    /// Returns its IPv6 address.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address::v6(&self.party, &self.device)
    }
}

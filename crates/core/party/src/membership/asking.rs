//! What can be asked of a membership.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use partyline_model::{
    DeviceId, Handle, InviteId, PartyId, Role, SessionNonce, Timestamp, Topic, TunnelPublicKey,
};
use partyline_wire::beacon::Beacon;
use x25519_dalek::StaticSecret;

use super::{Membership, TopicAccess, TopicPurpose};
use crate::{
    address,
    claim::{Claims, OwnClaim},
    clock::ClockSkew,
    member::Member,
    rules::{Dismissal, Standing},
    secrets::Place,
};

impl Membership {
    /// Returns the party.
    #[must_use]
    pub fn id(&self) -> PartyId {
        *self.identity.party()
    }

    /// Returns this device.
    #[must_use]
    pub fn me(&self) -> DeviceId {
        *self.identity.device()
    }

    /// Returns the party's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.charter.name()
    }

    /// Returns when this device joined, by its own clock.
    #[must_use]
    pub fn joined_at(&self) -> Timestamp {
        self.identity.certificate().claims().joined_at
    }

    /// Returns the invite that this device joined by; the owner's device has one of its own.
    #[must_use]
    pub fn invite(&self) -> InviteId {
        self.identity.certificate().claims().grant.invite
    }

    /// Returns the name of this device's user.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.identity.display_name()
    }

    /// Returns this device's role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.charter.rules().role_of(self.identity.certificate())
    }

    /// Returns the state of this device's membership.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns the URLs of the party's rendezvous servers.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        self.charter.servers()
    }

    /// Returns the party's address range, once the charter is known.
    #[must_use]
    pub fn range(&self) -> Option<Ipv4Net> {
        self.charter.range()
    }

    /// Returns this device's WireGuard key in this party.
    #[must_use]
    pub fn tunnel_secret(&self) -> StaticSecret {
        StaticSecret::from(*self.identity.tunnel_secret().expose())
    }

    /// Returns the public half of [`Self::tunnel_secret`].
    #[must_use]
    pub fn tunnel_public(&self) -> TunnelPublicKey {
        self.identity.tunnel_public()
    }

    /// Returns the nonce of this run.
    #[must_use]
    pub const fn session(&self) -> SessionNonce {
        self.contest.claim().run
    }

    /// Returns this device's address in the party's range, once it claims one.
    #[must_use]
    pub fn address_v4(&self) -> Option<Ipv4Addr> {
        address::v4(self.range()?, self.claim.host?)
    }

    /// Returns this device's IPv6 address.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address::v6(self.identity.party(), self.identity.device())
    }

    /// Returns the current topic.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        *self.secrets.current_place().room().topic()
    }

    /// Returns true for a joiner that nobody has let in yet.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.secrets.current().is_none()
    }

    /// Returns the topics on which to meet other members, the current one first; none once this device was removed.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicAccess> {
        if matches!(self.standing, Standing::Dismissed(Dismissal::Removed | Dismissal::InviteRevoked)) {
            return Vec::new();
        }
        let access = |(index, place): (usize, Place<'_>)| TopicAccess {
            topic: *place.room().topic(),
            handle: place.room().handle_of(self.identity.device()),
            purpose: match place {
                _ if index == 0 => TopicPurpose::Current,
                Place::Party(_) | Place::Waiting(_) => TopicPurpose::Former,
                Place::Lobby(_) => TopicPurpose::Lobby,
            },
        };
        self.secrets.places().enumerate().map(access).collect()
    }

    /// Signs a server's challenge with the topic's key, which proves the right to enter. `None` on unknown topics.
    #[must_use]
    pub fn prove_topic_access(&self, topic: &Topic, message: &[u8]) -> Option<[u8; 64]> {
        self.secrets.place(topic).map(|place| place.room().prove(message).0)
    }

    /// Returns a device's handle on a topic; `None` on unknown topics.
    #[must_use]
    pub fn handle_of(&self, topic: &Topic, device: &DeviceId) -> Option<Handle> {
        self.secrets.place(topic).map(|place| place.room().handle_of(device))
    }

    /// Returns the topic that a LAN beacon belongs to, if this device knows it.
    #[must_use]
    pub fn topic_of_beacon(&self, beacon: &Beacon<'_>) -> Option<Topic> {
        self.secrets.places().map(|place| *place.room().topic()).find(|topic| beacon.is_on(topic))
    }

    /// Returns the other members in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let (holders, rules, range) = (self.claims().holders(), self.charter.rules(), self.range());
        self.roster.members().map(move |(device, record)| {
            let holds = |host: &u16| holders.get(host).is_some_and(|(.., holder)| holder == device);
            Member::new(self.id(), (*device, record), rules, range, record.host().filter(holds))
        })
    }

    /// Returns the devices of the other members in order of their ids.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.roster.devices()
    }

    /// Returns one other member.
    #[must_use]
    pub fn member(&self, device: &DeviceId) -> Option<Member<'_>> {
        let record = self.roster.member(device)?;
        let held = self.claims().held_by(device, record);
        Some(Member::new(self.id(), (*device, record), self.charter.rules(), self.range(), held))
    }

    /// Returns the key for connectivity checks with a member in the present run of both sides.
    #[must_use]
    pub fn probe_key(&self, peer: &DeviceId) -> Option<[u8; 32]> {
        let record = self.roster.member(peer)?;
        let (mine, theirs) = (&self.session(), &record.presence()?.session);
        let (low, high) = if self.me() < *peer { (mine, theirs) } else { (theirs, mine) };
        let pair = self.identity.pair_secret(peer, record.tunnel_key())?;
        Some(*pair.probe_key(self.identity.party(), low, high).expose())
    }

    /// Returns the open invites made on this device: id, end (`None` for never) and role of the joiner.
    pub fn invites(&self, now: Timestamp) -> impl Iterator<Item = (InviteId, Option<Timestamp>, Role)> {
        self.invites.open(now).map(|issued| (issued.id, issued.not_after.time(), issued.role))
    }

    /// Returns the difference if this computer's clock seems wrong, in which case open invites may seem ended.
    #[must_use]
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.clock.skew()
    }

    /// Returns true if this device has the party secret that the charter commits to.
    pub(super) fn has_secret_in_force(&self) -> bool {
        self.secrets
            .current()
            .is_some_and(|epoch| self.charter.rules().commitment() == Some(epoch.commitment()))
    }

    pub(super) fn claims(&self) -> Claims<'_> {
        let own = OwnClaim { confirmation: self.identity.confirmation().copied(), ..self.claim };
        Claims { own, roster: &self.roster }
    }
}

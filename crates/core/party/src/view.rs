//! What can be asked of a membership.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;
use partyline_model::{DeviceId, Handle, PartyId, Role, SessionNonce, Timestamp, Topic, TunnelPublicKey};
use partyline_wire::beacon::TopicTag;
use x25519_dalek::StaticSecret;

use crate::{
    Dismissal, Member, Membership, MembershipState, Standing, TopicAccess, address,
    clock::ClockSkew,
    keys::{Epoch, Pair},
    roster::Record,
    rules::Rules,
};

impl Membership {
    /// What to store.
    #[must_use]
    pub const fn state(&self) -> &MembershipState {
        &self.state
    }

    /// Which party.
    #[must_use]
    pub const fn id(&self) -> PartyId {
        self.state.party
    }

    /// This device.
    #[must_use]
    pub fn me(&self) -> DeviceId {
        self.state.certificate.claims().device
    }

    /// The party's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.rules().terms().map_or(&self.state.invited_name, |terms| &terms.name)
    }

    /// When this device joined, by its own clock.
    #[must_use]
    pub fn joined_at(&self) -> Timestamp {
        self.state.certificate.claims().joined_at
    }

    /// The name this device's user goes by.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.state.name.as_ref().unwrap_or(&self.state.certificate.claims().name)
    }

    /// This device's role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.rules().role_of(&self.state.certificate)
    }

    /// How this device's membership stands.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// The party's rendezvous servers.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        self.rules().terms().map_or(&self.state.invited_servers, |terms| &terms.servers)
    }

    /// The party's address range, once the charter is known.
    #[must_use]
    pub fn range(&self) -> Option<Ipv4Net> {
        self.rules().terms().map(|terms| terms.range)
    }

    /// This device's WireGuard key in this party.
    #[must_use]
    pub fn tunnel_secret(&self) -> StaticSecret {
        StaticSecret::from(*self.state.tunnel.expose())
    }

    /// Its public half.
    #[must_use]
    pub fn tunnel_public(&self) -> TunnelPublicKey {
        self.state.certificate.claims().tunnel
    }

    /// Names this run.
    #[must_use]
    pub const fn session(&self) -> SessionNonce {
        self.session
    }

    /// This device's address in the party's range, once known.
    #[must_use]
    pub fn address_v4(&self) -> Option<Ipv4Addr> {
        address::v4(self.range()?, self.state.host?)
    }

    /// This device's IPv6 address.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        address::v6(&self.state.party, &self.me())
    }

    /// The current topic.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        self.epoch.topic
    }

    /// Where to meet the others: the current topic first. Empty once this device was removed.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicAccess> {
        if matches!(self.standing, Standing::Dismissed(Dismissal::Removed | Dismissal::InviteRevoked)) {
            return Vec::new();
        }
        let access = |(index, epoch): (usize, &Epoch)| TopicAccess {
            topic: epoch.topic,
            handle: epoch.handle_of(&self.me()),
            current: index == 0,
        };
        self.epochs().enumerate().map(access).collect()
    }

    /// Signs `message` with the topic's key, for a server that asks for the right to enter.
    #[must_use]
    pub fn prove_topic_access(&self, topic: &Topic, message: &[u8]) -> Option<[u8; 64]> {
        self.epoch_of(topic).map(|epoch| epoch.prove(message).0)
    }

    /// A device's handle on a topic.
    #[must_use]
    pub fn handle_of(&self, topic: &Topic, device: &DeviceId) -> Option<Handle> {
        self.epoch_of(topic).map(|epoch| epoch.handle_of(device))
    }

    /// The topic that a beacon's tag means.
    #[must_use]
    pub fn topic_by_tag(&self, tag: TopicTag) -> Option<Topic> {
        self.epochs().map(|epoch| epoch.topic).find(|topic| TopicTag::from(topic) == tag)
    }

    /// The other members, in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let holders = self.holders();
        self.counted().map(move |(device, record)| {
            let holds = |host: &u16| holders.get(host).is_some_and(|(_, holder)| holder == device);
            self.describe(device, record, record.host().filter(holds))
        })
    }

    /// Their devices, in the same order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.counted().map(|(device, _)| *device)
    }

    /// One other member.
    #[must_use]
    pub fn member(&self, device: &DeviceId) -> Option<Member<'_>> {
        let record = self.state.roster.get(device).filter(|_| self.listed.contains(device))?;
        Some(self.describe(device, record, record.host().filter(|host| self.holds(device, record, *host))))
    }

    /// The key for connectivity checks with a member in both sides' present runs.
    #[must_use]
    pub fn probe_key(&self, peer: &DeviceId) -> Option<[u8; 32]> {
        let member = self.member(peer)?;
        let (mine, theirs) = (&self.session, &member.session?);
        let (low, high) = if self.me() < *peer { (mine, theirs) } else { (theirs, mine) };
        Some(*self.pair(peer, &member.tunnel_key)?.probe_key(&self.state.party, low, high).expose())
    }

    /// Tells this computer's clock from a server's.
    pub fn on_server_time(&mut self, now: Timestamp, theirs: Timestamp) {
        self.clock.note_server(now, theirs);
    }

    /// Whether this computer's clock seems wrong; if so, invites may seem ended that are not.
    #[must_use]
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.clock.skew()
    }

    pub(crate) const fn rules(&self) -> Rules<'_> {
        Rules(self.state.charter.as_ref())
    }

    /// Whether the secret held is the one the charter commits to.
    pub(crate) fn has_secret_in_force(&self) -> bool {
        self.rules().commitment() == Some(&self.epoch.commitment)
    }

    pub(crate) fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        std::iter::once(&self.epoch).chain(&self.old)
    }

    pub(crate) fn epoch_of(&self, topic: &Topic) -> Option<&Epoch> {
        self.epochs().find(|epoch| epoch.topic == *topic)
    }

    pub(crate) fn counted(&self) -> impl Iterator<Item = (&DeviceId, &Record)> {
        self.state.roster.iter().filter(|(device, _)| self.listed.contains(device))
    }

    pub(crate) fn pair(&self, peer: &DeviceId, tunnel: &TunnelPublicKey) -> Option<Pair> {
        Pair::agree(&self.state.party, (&self.me(), &self.state.tunnel), (peer, tunnel))
    }

    /// Who holds each claimed host number: of those who claim it, the one with the lowest certificate digest.
    pub(crate) fn holders(&self) -> BTreeMap<u16, ([u8; 32], DeviceId)> {
        let mine = self.state.host.map(|host| (host, (self.state.certificate.digest(), self.me())));
        let theirs =
            self.counted().filter_map(|(device, record)| Some((record.host()?, (record.digest, *device))));
        let mut holders = BTreeMap::new();
        for (host, claim) in theirs.chain(mine) {
            holders
                .entry(host)
                .and_modify(|holder: &mut ([u8; 32], DeviceId)| *holder = claim.min(*holder))
                .or_insert(claim);
        }
        holders
    }

    /// Whether this device holds a host number that it claims: what [`Self::holders`] says, for one alone.
    fn holds(&self, device: &DeviceId, record: &Record, host: u16) -> bool {
        let claim = (record.digest, *device);
        let ours = self.state.host == Some(host) && (self.state.certificate.digest(), self.me()) < claim;
        !ours && !self.is_outdone(host, || claim)
    }

    /// The same for this device and the number that it claims.
    pub(crate) fn is_mine(&self, host: u16) -> bool {
        !self.is_outdone(host, || (self.state.certificate.digest(), self.me()))
    }

    /// Whether another member claims the number and goes before the one with this claim.
    fn is_outdone(&self, host: u16, claim: impl Fn() -> ([u8; 32], DeviceId)) -> bool {
        let mut rivals = self.state.roster.iter().filter(|(_, rival)| rival.host() == Some(host));
        rivals.any(|(other, rival)| (rival.digest, *other) < claim() && self.listed.contains(other))
    }

    fn describe<'a>(&self, device: &DeviceId, record: &'a Record, host: Option<u16>) -> Member<'a> {
        let reach = record.presence.as_ref().map(|presence| &presence.reach);
        Member {
            party: self.state.party,
            device: *device,
            tunnel_key: *record.tunnel(),
            name: record.name(),
            role: self.rules().role_of(&record.certificate),
            confirmed: record.is_confirmed(),
            address_v4: host.and_then(|host| address::v4(self.range()?, host)),
            session: record.presence.as_ref().map(|presence| presence.session),
            candidates: reach.map_or(&[], |reach| &reach.candidates),
            nat: reach.map(|reach| &reach.nat),
            last_received: record.last_received,
        }
    }
}

//! Signaling: how the members of a party tell each other who they are and where they can be reached.
//!
//! [`Signaling`] owns this device's parties and the channels by which their sealed messages travel
//! ([`channel`]). It takes what arrives on a channel to the party it belongs to, acts on what changed there, and sends
//! what the party has to say over every channel that reaches the receiver. What concerns paths and tunnels leaves as
//! an [`Event`].

mod beacon;
mod channel;
mod channel_kind;
mod channels;
mod contact_lists;
mod counters;
mod direct;
mod event;
mod leave;
mod link;
mod most_useful;
mod party;
mod range;
mod reach;
mod recent_leaves;
mod resend;
mod run;
mod search;
mod servers;
mod tunnels;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use ipnet::{IpNet, Ipv4Net};
use partyline_model::{
    AppError, Candidate, DeviceId, Discovery, ErrorCode, FormerPartyView, Handle, IncomingPolicy, InviteId,
    InvitePreview, InviteTerms, KickScope, NatProfile, Now, PartyId, SessionNonce, Topic,
};
use partyline_party::{
    Departure, DeviceKey, Dismissal, Effect, Membership, NewParty, Outcome, Outgoing, PartyError,
    Reachability, Received, Refusal, RunStanding,
};
use partyline_wire::{
    beacon as beacon_format,
    invite::{Invite, MAX_NODES},
    rendezvous::{RefusalCode, ServerFrame, TopicMember},
};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore as _;
use tracing::{debug, info, trace, warn};

use self::{
    beacon::Beacon,
    channel::{Channel as _, Context},
    channel_kind::ChannelKind,
    channels::Channels,
    contact_lists::ContactLists,
    direct::{Arrival, Direct},
    leave::PendingLeaves,
    most_useful::most_useful,
    range::{Networks, choose_range},
    reach::public_addresses,
    servers::{Servers, is_retried},
    tunnels::{News, Tunnels},
};
pub use self::{
    counters::{ChannelCounters, SignalingCounters},
    resend::ResendCounters,
};
pub(crate) use self::{
    event::{Event, PeerInfo},
    party::LocalParty,
};
use crate::{
    io::{DeviceInput, Output, ServerId, ServerInput},
    join_refusal::JoinRefusal,
    problem::{party_error, unknown_party},
    spans::{party_span, peer_span},
    trusted_servers::TrustedServers,
};

/// How many members without a connection are looked for at a time.
const MAX_SEARCHED: usize = 16;
/// How many of a party's members, on average, repeat a leave to a member that comes back.
const LEAVE_REPEATERS: usize = 4;

/// This device's parties and the channels between their members.
pub(crate) struct Signaling {
    parties: BTreeMap<PartyId, LocalParty>,
    channels: Channels,
    contact_lists: ContactLists,
    leaves: PendingLeaves,
    /// How this device can be reached, as it is announced.
    reach: Reachability,
    /// Networks that this computer is in or has routes to.
    networks: Networks,
    mtu: u16,
    counters: SignalingCounters,
    /// Parties that this computer was in under an earlier identity.
    former: Vec<FormerPartyView>,
    rng: ChaCha20Rng,
    events: VecDeque<Event>,
}

/// What to make a party from.
pub(crate) struct NewPartyRequest {
    /// The party's name.
    pub name: String,
    /// The name that other members see.
    pub display_name: String,
    /// Rendezvous servers; may be empty.
    pub servers: Vec<String>,
    /// The address range; `None` chooses one that collides with no known network.
    pub range: Option<Ipv4Net>,
}

/// Everything that signaling consists of, borrowed apart.
struct Parts<'a> {
    channels: &'a mut Channels,
    contact_lists: &'a mut ContactLists,
    cx: Context<'a>,
    parties: &'a mut BTreeMap<PartyId, LocalParty>,
    leaves: &'a mut PendingLeaves,
    mtu: u16,
    networks: &'a Networks,
}

/// The channel by which a sealed message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// With the handle under which the server lists the sender.
    Server(Handle),
    Beacon(SocketAddr),
    Member(DeviceId),
    /// With the address that it came from.
    Direct(SocketAddr),
}

impl Source {
    const fn kind(self) -> ChannelKind {
        match self {
            Self::Server(_) => ChannelKind::Server,
            Self::Beacon(_) => ChannelKind::Beacon,
            Self::Member(_) => ChannelKind::Tunnel,
            Self::Direct(_) => ChannelKind::Direct,
        }
    }
}

impl Signaling {
    /// Returns signaling for these memberships, each with whether its party is to be on. The randomness must be secret
    /// and fresh.
    pub(crate) fn new(
        now: Now,
        mut rng: ChaCha20Rng,
        mtu: u16,
        memberships: Vec<(Membership, bool)>,
        trusted: TrustedServers,
    ) -> Self {
        let mut dht = [0; 32];
        rng.fill_bytes(&mut dht);
        let mut signaling = Self {
            parties: BTreeMap::new(),
            channels: Channels {
                servers: Servers::new(now.instant, trusted),
                tunnels: Tunnels::default(),
                beacon: Beacon::default(),
                direct: Direct::default(),
            },
            contact_lists: ContactLists::new(dht),
            leaves: PendingLeaves::default(),
            reach: Reachability::default(),
            networks: Networks::default(),
            mtu,
            counters: SignalingCounters::default(),
            former: Vec::new(),
            rng,
            events: VecDeque::new(),
        };
        let on: Vec<PartyId> =
            memberships.iter().filter(|(_, on)| *on).map(|(membership, _)| membership.id()).collect();
        let parties = memberships.into_iter().map(|(membership, _)| LocalParty::new(now.instant, membership));
        signaling.parties = parties.map(|party| (party.id(), party)).collect();
        signaling.parties.values_mut().for_each(|party| party.start_run(now.instant, false));
        on.into_iter().for_each(|party| signaling.switch_on(now, party));
        signaling
    }

    /// Remembers parties that this computer was in under an earlier identity.
    pub(crate) fn with_former(mut self, former: Vec<FormerPartyView>) -> Self {
        self.former = former;
        self
    }

    /// Returns the next thing for another part of the node.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let parties = self.parties.values().filter_map(LocalParty::poll_timeout);
        let Channels { servers, beacon, direct, .. } = &self.channels;
        let channels = [
            servers.poll_timeout(),
            beacon.poll_timeout(),
            direct.poll_timeout(),
            self.contact_lists.poll_timeout(),
            self.leaves.poll_timeout(),
        ];
        parties.chain(channels.into_iter().flatten()).min()
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        let Parts { channels, mut cx, .. } = self.parts(now);
        channels.servers.handle_timeout(&mut cx);
        if channels.servers.poll_visits(now.instant) {
            self.sync_topics(now);
        }
        self.send_leaves(now);
        self.drive_parties(now);
        self.drive_direct(now);
        let Parts { channels, contact_lists, mut cx, parties, .. } = self.parts(now);
        contact_lists.drive(&mut cx, parties, (&channels.tunnels, &mut channels.direct));
        if self.leaves.expire(now.instant) {
            self.sync_servers(now);
        }
    }

    // What arrives.

    /// Takes what happened to the connection with a rendezvous server.
    pub(crate) fn handle_server(&mut self, now: Now, id: ServerId, input: ServerInput) {
        let Parts { channels, mut cx, leaves, .. } = self.parts(now);
        if let (ServerInput::Closed(_), Some(url)) = (&input, channels.servers.url(id)) {
            leaves.on_disconnected(url);
        }
        if let Some(frame) = channels.servers.handle_input(&mut cx, id, input) {
            self.handle_frame(now, id, frame);
        }
    }

    /// Takes the addresses of a host, which may be a rendezvous server's.
    pub(crate) fn handle_resolved(&mut self, now: Now, host: &str, port: u16, addresses: &[SocketAddr]) {
        let Parts { channels, contact_lists, mut cx, .. } = self.parts(now);
        channels.servers.handle_resolved(&mut cx, &(host.to_owned(), port), addresses);
        contact_lists.handle_resolved(now.instant, host, port, addresses);
    }

    fn handle_frame(&mut self, now: Now, id: ServerId, frame: ServerFrame) {
        match frame {
            ServerFrame::Welcome { time, .. } => {
                let url = self.channels.servers.url(id).unwrap_or_default();
                let on_it =
                    |party: &&mut LocalParty| party.membership.servers().iter().any(|named| named == url);
                for party in self.parties.values_mut().filter(on_it) {
                    party.membership.on_server_time(now.unix, time);
                }
                self.sync_topics(now);
                self.send_leaves(now);
            }
            ServerFrame::Roster { topic, members, more } => {
                members.into_iter().for_each(|member| self.on_present(now, topic, &member));
                if !more {
                    self.on_entered(now, topic);
                    self.send_leaves(now);
                }
            }
            ServerFrame::Present { topic, handle, record } => {
                self.on_present(now, topic, &TopicMember { handle, record });
            }
            ServerFrame::Message { topic, from, message } => {
                self.receive_on(now, &topic, from, &message);
            }
            ServerFrame::TimeReply { echo, .. } => {
                let url = self.channels.servers.url(id).unwrap_or_default();
                let resending = self.channels.servers.is_resending(id);
                if self.leaves.on_time_reply(now.instant, url, echo, resending) {
                    self.sync_servers(now);
                }
            }
            ServerFrame::RelayGrant(grant) => {
                let scope = self.channels.servers.scope(id);
                self.events.push_back(Event::RelaysGranted { server: id, grant, scope });
            }
            ServerFrame::Refused { topic: Some(topic), code, .. } if is_retried(code) => {
                trace!(topic = %topic.short(), reason = ?code, "announcement refused");
                if let Some(party) = self.party_on(&topic).and_then(|id| self.parties.get_mut(&id)) {
                    party.announce_later(now.instant);
                }
            }
            // The place was taken by another run, or a visitor was not let in: this device looks again.
            ServerFrame::Refused {
                topic: Some(topic),
                code: RefusalCode::Replaced | RefusalCode::TopicFull,
                ..
            } => {
                if let Some(party) = self.party_on(&topic).and_then(|id| self.parties.get_mut(&id)) {
                    party.run_mut().fresh = false;
                }
                self.sync_topics(now);
            }
            ServerFrame::Refused { .. } | ServerFrame::Gone { .. } => {}
        }
    }

    /// A server has sent the whole roster of a topic: this device was let in, under its own handle or as a visitor that
    /// may now take its place.
    fn on_entered(&mut self, now: Now, topic: Topic) {
        if self.channels.servers.has_entered(&topic)
            && let Some(party) = self.party_on(&topic).and_then(|id| self.parties.get_mut(&id))
            && party.membership.topic() == topic
        {
            party.membership.establish_run(now.unix);
        }
        self.sync_topics(now);
    }

    /// Takes a server's record of a member. A member that is back may have missed who left meanwhile; one that waits in a
    /// lobby for joiners says nothing.
    fn on_present(&mut self, now: Now, topic: Topic, member: &TopicMember) {
        if member.record.is_empty() {
            return;
        }
        if let Some((party, device)) = self.receive_on(now, &topic, member.handle, &member.record) {
            self.repeat_leaves(now, party, device);
        }
    }

    /// Takes a server's sealed message; returns the member it is from, if it is new.
    fn receive_on(
        &mut self,
        now: Now,
        topic: &Topic,
        from: Handle,
        sealed: &[u8],
    ) -> Option<(PartyId, DeviceId)> {
        let Some(party) = self.party_on(topic) else {
            let refusal = Refusal::UnknownTopic;
            self.counters.server.dropped.count(&refusal);
            debug!(channel = "server", reason = refusal.label(), "message dropped");
            return None;
        };
        Some((party, self.receive(now, party, topic, Source::Server(from), sealed)?))
    }

    fn party_on(&self, topic: &Topic) -> Option<PartyId> {
        self.parties.values().find(|party| party.is_on() && party.visits(topic)).map(LocalParty::id)
    }

    /// Uses a server at private addresses, too, since the user named or confirmed it.
    pub(crate) fn trust_server(&mut self, now: Now, url: &str) {
        let Parts { channels, mut cx, .. } = self.parts(now);
        channels.servers.trust(&mut cx, url);
    }

    /// Returns the servers that the user named or confirmed.
    pub(crate) const fn trusted_servers(&self) -> &TrustedServers {
        self.channels.servers.trusted()
    }

    /// Switches the LAN beacon on or off.
    pub(crate) fn set_beacon(&mut self, now: Instant, on: bool) {
        self.channels.beacon.set_on(now, on);
    }

    /// Takes a LAN beacon; which party it belongs to shows in its tag.
    pub(crate) fn handle_beacon(&mut self, now: Now, source: SocketAddr, datagram: &[u8]) {
        if !self.channels.beacon.is_on() {
            trace!(%source, reason = "switched off", "beacon dropped");
            return;
        }
        let Some(beacon) = beacon_format::decode(datagram) else {
            trace!(%source, reason = "malformed", "beacon dropped");
            return;
        };
        let mut parties = self.parties.values();
        let found = parties.find_map(|party| Some((party.id(), party.membership.topic_of(&beacon)?)));
        let Some((party, topic)) = found else {
            // Normal: the beacons of other parties on the same network arrive here, too.
            trace!(%source, reason = "of no party here", "beacon dropped");
            return;
        };
        let Some(from) = self.receive(now, party, &topic, Source::Beacon(source), beacon.sealed()) else {
            return;
        };
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&party) else { return };
        // The message may have been the member's leave.
        if party.membership.member(&from).is_none() {
            return;
        }
        party.on_received(now.instant, from);
        if party.on_beacon(from, source) {
            debug!(party = %party.id().short(), peer = %from.short(), %source, "neighbor found");
            party.sync_member(from, cx.events);
            channels.beacon.announce_to(&mut cx, party, Some(source));
        }
    }

    /// Uses the DHT or not, with these routers, and nodes that answered in an earlier run.
    pub(crate) fn configure_dht(&mut self, now: Instant, on: bool, routers: &[String]) {
        self.contact_lists.configure(now, on, routers);
    }

    /// Takes nodes of the DHT that answered in an earlier run.
    pub(crate) fn add_dht_nodes(&mut self, now: Instant, nodes: Vec<SocketAddr>) {
        self.contact_lists.add_nodes(now, nodes);
    }

    /// Takes the address families on which this computer can send.
    pub(crate) fn set_families(&mut self, now: Instant, v4: bool, v6: bool) {
        self.contact_lists.set_families(now, v4, v6);
    }

    /// Takes a datagram from a node of the DHT.
    pub(crate) fn handle_dht(&mut self, now: Now, source: SocketAddr, datagram: &[u8]) {
        let Parts { channels, contact_lists, mut cx, parties, .. } = self.parts(now);
        contact_lists.handle_datagram(&mut cx, parties, &mut channels.direct, (source, datagram));
    }

    /// Returns nodes of the DHT that have answered, to be kept for the next start.
    pub(crate) fn dht_nodes(&self) -> Vec<SocketAddr> {
        self.contact_lists.good_nodes()
    }

    /// Returns the counters of the DHT client.
    pub(crate) const fn dht_counters(&self) -> &partyline_dht::Counters {
        self.contact_lists.counters()
    }

    /// Returns how friends are found in a party that is on and has no server.
    pub(crate) fn discovery(&self, party: PartyId) -> Option<Discovery> {
        let _on = self.parties.get(&party).filter(|party| party.is_on() && party.is_serverless())?;
        Some(self.contact_lists.discovery(party))
    }

    /// Takes a datagram of direct signaling.
    pub(crate) fn handle_direct(&mut self, now: Now, source: SocketAddr, datagram: &[u8]) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        match channels.direct.handle_datagram(&mut cx, parties, source, datagram) {
            Arrival::Nothing => {}
            Arrival::Met { party, address } => {
                if let Some(party) = parties.get_mut(&party) {
                    channels.direct.announce_to(&mut cx, party, address);
                }
            }
            Arrival::Message { party, bytes } => self.receive_direct(now, party, source, &bytes),
        }
    }

    /// Takes a tagged message from an address at which somebody answers.
    fn receive_direct(&mut self, now: Now, id: PartyId, source: SocketAddr, bytes: &[u8]) {
        let Some(party) = self.parties.get(&id) else { return };
        let Some((topic, sealed)) = direct::open_tagged(party, bytes) else {
            self.counters.direct.dropped.count(&Refusal::UnknownTopic);
            return;
        };
        let was_waiting = party.membership.is_waiting();
        let Some(from) = self.receive(now, id, &topic, Source::Direct(source), sealed) else { return };
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&id) else { return };
        let news = channels.direct.on_message((id, source), from, topic);
        if was_waiting && !party.membership.is_waiting() {
            // The member that has handed over the party's secret is on its topic.
            channels.direct.share((id, source), party.membership.topic());
        }
        if news || channels.direct.poll_answer(now.instant, (id, source)) {
            channels.direct.announce_to(&mut cx, party, source);
        }
    }

    /// Asks the addresses that are known of members without a connection.
    fn drive_direct(&mut self, now: Now) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        for party in parties.values_mut().filter(|party| party.is_on()) {
            if party.poll_search(now.instant, cx.rng) {
                search(channels, &mut cx, party);
            }
        }
        let repeated = channels.direct.handle_timeout(&mut cx, parties);
        for (party, address) in repeated {
            if let Some(party) = parties.get_mut(&party) {
                channels.direct.announce_to(&mut cx, party, address);
            }
        }
    }

    /// Takes a sealed message that a member sent through its tunnel, its own or another member's.
    pub(crate) fn handle_sealed(
        &mut self,
        now: Now,
        party: PartyId,
        from: DeviceId,
        topic: &Topic,
        sealed: &[u8],
    ) {
        self.receive(now, party, topic, Source::Member(from), sealed);
    }

    /// Notes that a member's engine sent something through its tunnel.
    pub(crate) fn on_received(&mut self, now: Instant, party: PartyId, from: DeviceId) {
        if let Some(party) = self.parties.get_mut(&party) {
            party.on_received(now, from);
        }
    }

    /// Notes that the session with a member came up, and exchanges what both know.
    pub(crate) fn on_session_up(&mut self, now: Now, id: PartyId, member: DeviceId) {
        let Parts { channels, contact_lists, mut cx, parties, .. } = self.parts(now);
        let _span = peer_span(id, member).entered();
        contact_lists.sync_soon(now.instant);
        channels.tunnels.on_session_up(id, member);
        let Some(party) = parties.get_mut(&id) else { return };
        party.on_received(now.instant, member);
        party.membership.establish_run(now.unix);
        channels.introduce(&mut cx, party, member);
        self.repeat_leaves(now, id, member);
    }

    /// Notes that the session with a member is gone.
    pub(crate) fn on_session_down(&mut self, now: Instant, party: PartyId, member: DeviceId) {
        self.channels.tunnels.on_session_down(party, member);
        self.contact_lists.sync_soon(now);
        if let Some(party) = self.parties.get_mut(&party) {
            party.search_soon(now);
        }
    }

    /// Carries a signal between path machines to a member, over every channel.
    pub(crate) fn send_signal(&mut self, now: Now, id: PartyId, to: DeviceId, bytes: Vec<u8>) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let speaks = |party: &&mut LocalParty| party.is_on() && party.may_speak(now.instant);
        let Some(party) = parties.get_mut(&id).filter(speaks) else { return };
        let outcome = party.membership.signal(now.unix, cx.rng, &to, bytes);
        match cx.take_message(outcome) {
            Some(message) => channels.send(&mut cx, party, &message, None),
            None => debug!(peer = %to.short(), reason = "unknown member or too long", "signal dropped"),
        }
    }

    // What this computer's network does.

    /// Takes the candidates to announce.
    pub(crate) fn set_candidates(&mut self, now: Instant, candidates: Vec<Candidate>) {
        let candidates = most_useful(&candidates);
        debug!(count = candidates.len(), "candidates changed");
        self.reach.candidates = candidates;
        self.contact_lists.sync_soon(now);
        self.announce_all(now);
    }

    /// Takes what the NAT does, to announce it.
    pub(crate) fn set_nat(&mut self, now: Instant, nat: NatProfile) {
        self.reach.nat = nat;
        self.announce_all(now);
    }

    fn announce_all(&mut self, now: Instant) {
        self.parties.values_mut().for_each(|party| party.announce_soon(now));
        self.events.push_back(Event::Changed);
    }

    /// Takes the networks this computer is in and those it has routes to, and looks for them among the parties' ranges.
    pub(crate) fn set_networks(&mut self, now: Instant, on_link: &[IpNet], routed: &[IpNet]) {
        debug!(?on_link, ?routed, "networks of this computer");
        self.networks = Networks::new(on_link, routed);
        self.parties.values_mut().for_each(|party| party.check_range(now, &self.networks));
        self.channels.beacon.expedite_all(now);
    }

    /// The computer has other addresses: the links to members are void, and the members are looked for again.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        self.channels.direct.forget_all();
        self.contact_lists.network_changed(now);
        self.parties.values_mut().for_each(|party| party.search_soon(now));
    }

    /// Checks every connection with a server, and retries those that wait: the network is another one, the router has
    /// moved, or the computer slept.
    pub(crate) fn check_servers(&mut self, now: Now) {
        let Parts { channels, mut cx, .. } = self.parts(now);
        channels.servers.check(&mut cx);
    }

    /// Asks the servers whether they are still there, since packets to a member were lost.
    pub(crate) fn doubt_servers(&mut self, now: Now) {
        let Parts { channels, mut cx, .. } = self.parts(now);
        channels.servers.doubt(&mut cx);
    }

    /// The address that connections were made from is gone: closes them all.
    pub(crate) fn address_lost(&mut self, now: Now) {
        let Parts { channels, mut cx, .. } = self.parts(now);
        channels.servers.abandon(&mut cx);
    }

    /// The computer slept: checks every connection and sends beacons at once.
    pub(crate) fn handle_wake(&mut self, now: Now) {
        self.check_servers(now);
        self.channels.beacon.expedite_all(now.instant);
        self.parties.values_mut().for_each(|party| party.search_soon(now.instant));
    }

    /// Takes the outcome of making a party's network device.
    pub(crate) fn handle_device(&mut self, party: PartyId, input: DeviceInput) {
        let _span = party_span(party).entered();
        if let Some(party) = self.parties.get_mut(&party).filter(|party| party.is_on()) {
            party.handle_device(input);
            self.events.push_back(Event::Changed);
        }
    }

    // What the user asks for.

    /// Makes a party and switches it on; returns a link that invites to it.
    pub(crate) fn create(
        &mut self,
        now: Now,
        device: &DeviceKey,
        request: NewPartyRequest,
    ) -> Result<(PartyId, String), AppError> {
        let NewPartyRequest { name, display_name, servers, range } = request;
        let taken = self.parties.values().filter_map(|party| party.membership.range());
        let range = range.unwrap_or_else(|| choose_range(&self.networks, taken, &mut self.rng));
        let new = NewParty { name, display_name, servers, range };
        let mut membership =
            Membership::create(now.unix, &mut self.rng, device, new).map_err(|error| party_error(&error))?;
        // The invite is stored along with the party.
        let (invite, _) = membership
            .create_invite(now.unix, &mut self.rng, InviteTerms::FRIENDS)
            .map_err(|error| party_error(&error))?;
        let link = self.invite_link(invite);
        let party = self.admit(now, membership, Vec::new());
        Ok((party, link))
    }

    /// Says what the invite in a text offers, without using it.
    pub(crate) fn preview(&self, link: &str) -> Result<InvitePreview, AppError> {
        let invite = Invite::find(link)?;
        Ok(InvitePreview {
            party: invite.party,
            member: self.parties.contains_key(&invite.party),
            expires: invite.not_after.time(),
            role: invite.role,
            name: invite.name,
            inviter: invite.inviter,
            members: invite.members,
            servers: invite.servers,
        })
    }

    /// Joins a party by an invite link and switches it on.
    pub(crate) fn join(
        &mut self,
        now: Now,
        device: &DeviceKey,
        link: &str,
        display_name: String,
    ) -> Result<PartyId, JoinRefusal> {
        let invite = Invite::find(link).map_err(AppError::from)?;
        let known = self.parties.get(&invite.party);
        if let Some(party) = known.filter(|party| !party.may_join_by(&invite)) {
            return Err(already_member(party.membership.name()).into());
        }
        let former = self.former.iter().find(|former| former.id == invite.party);
        let known_as = former.map(|former| former.display_name.clone()).filter(|_| display_name.is_empty());
        let display_name = known_as.unwrap_or(display_name);
        let addresses = invite.addresses.clone();
        self.contact_lists.add_nodes(now.instant, invite.nodes.iter().copied());
        let membership = Membership::join(now.unix, &mut self.rng, device, &invite, display_name)
            .map_err(|error| JoinRefusal::new(error, invite))?;
        let joined = membership.id();
        self.former.retain(|former| former.id != joined);
        Ok(self.admit(now, membership, addresses))
    }

    fn admit(&mut self, now: Now, membership: Membership, addresses: Vec<SocketAddr>) -> PartyId {
        let id = membership.id();
        self.leaves.cancel(id);
        // A leave that was still on its way has kept the topic entered.
        self.channels.servers.forget_topic(&membership.topic());
        let mut party = LocalParty::new(now.instant, membership);
        party.start_run(now.instant, true);
        party.know_addresses(addresses);
        self.parties.insert(id, party);
        self.events.push_back(Event::Output(Output::Save));
        self.switch_on(now, id);
        id
    }

    /// Takes back a party that was just made or joined, because it could not be stored.
    pub(crate) fn abandon(&mut self, now: Now, party: PartyId) {
        debug!(party = %party.short(), reason = "could not be stored", "party dropped");
        self.switch_off(now, party);
        self.parties.remove(&party);
        self.sync_servers(now);
    }

    /// Makes an invite; returns its link.
    pub(crate) fn create_invite(
        &mut self,
        now: Now,
        id: PartyId,
        terms: InviteTerms,
    ) -> Result<String, AppError> {
        let party = self.parties.get_mut(&id).ok_or_else(unknown_party)?;
        let (invite, outcome) = party
            .membership
            .create_invite(now.unix, &mut self.rng, terms)
            .map_err(|error| party_error(&error))?;
        self.apply(now, id, outcome);
        self.contact_lists.expect(now.instant, id);
        Ok(self.invite_link(invite))
    }

    /// Returns the form of a link that opens in a browser where the party has a server. Where it has none, the link has the
    /// addresses at which this device may be found.
    fn invite_link(&self, mut invite: Invite) -> String {
        if invite.servers.is_empty() {
            invite.addresses = public_addresses(&self.reach.candidates);
            invite.nodes = self.contact_lists.good_nodes();
            invite.nodes.truncate(MAX_NODES);
        }
        invite.web_link().unwrap_or_else(|| invite.app_link())
    }

    /// Takes an invite back.
    pub(crate) fn revoke_invite(
        &mut self,
        now: Now,
        party: PartyId,
        invite: InviteId,
    ) -> Result<(), AppError> {
        self.administer(now, party, |membership, rng| membership.revoke_invite(now.unix, rng, invite))
    }

    /// Removes a member for good, and what else the scope names.
    pub(crate) fn remove_member(
        &mut self,
        now: Now,
        party: PartyId,
        member: DeviceId,
        scope: KickScope,
    ) -> Result<(), AppError> {
        self.administer(now, party, |membership, rng| membership.remove_member(now.unix, rng, member, scope))
    }

    /// Sets whether the owner approves every joiner.
    pub(crate) fn set_approval(&mut self, now: Now, party: PartyId, on: bool) -> Result<(), AppError> {
        self.administer(now, party, |membership, rng| membership.set_approval(now.unix, rng, on))
    }

    /// Lets a device in that asks for the owner's approval, or declines it.
    pub(crate) fn answer_join(
        &mut self,
        now: Now,
        party: PartyId,
        device: DeviceId,
        approve: bool,
    ) -> Result<(), AppError> {
        self.administer(now, party, |membership, rng| {
            if approve {
                membership.approve(now.unix, rng, device)
            } else {
                membership.decline(now.unix, rng, device)
            }
        })
    }

    /// Moves the party to another address range; `None` chooses one that clashes with no network of this computer and
    /// of the members that asked for another range.
    pub(crate) fn set_range(
        &mut self,
        now: Now,
        party: PartyId,
        range: Option<Ipv4Net>,
    ) -> Result<(), AppError> {
        let used = self.parties.values().filter_map(|party| party.membership.range());
        let members = self.parties.get(&party).into_iter().flat_map(|party| party.membership.members());
        let avoided = members.flat_map(|member| member.avoided_networks.iter().copied());
        let taken: Vec<Ipv4Net> = used.chain(avoided).collect();
        let range = range.unwrap_or_else(|| choose_range(&self.networks, taken.into_iter(), &mut self.rng));
        self.administer(now, party, |membership, rng| membership.set_range(now.unix, rng, range))
    }

    /// Asks the party's owner for another address range, because this one clashes with a network of this computer.
    pub(crate) fn request_range(&mut self, now: Instant, party: PartyId) -> Result<(), AppError> {
        let party = self.parties.get_mut(&party).ok_or_else(unknown_party)?;
        party.request_range(now, &self.networks)?;
        self.events.push_back(Event::Changed);
        Ok(())
    }

    /// Takes the addresses that came with invites, as they were saved.
    pub(crate) fn with_addresses(mut self, now: Instant, addresses: Vec<(PartyId, Vec<SocketAddr>)>) -> Self {
        for (id, addresses) in addresses {
            if let Some(party) = self.parties.get_mut(&id) {
                party.know_addresses(addresses);
                party.search_soon(now);
            }
        }
        self
    }

    /// Takes the policies that were saved.
    pub(crate) fn with_incoming(mut self, policies: Vec<(PartyId, IncomingPolicy)>) -> Self {
        for (id, policy) in policies {
            if let Some(party) = self.parties.get_mut(&id) {
                *party.incoming_mut() = policy;
            }
        }
        self
    }

    /// Changes what members of a party may reach on this computer, and returns it.
    pub(crate) fn change_incoming(
        &mut self,
        id: PartyId,
        change: impl FnOnce(&mut IncomingPolicy) -> Result<(), AppError>,
    ) -> Result<&IncomingPolicy, AppError> {
        let party = self.parties.get_mut(&id).ok_or_else(unknown_party)?;
        change(party.incoming_mut())?;
        self.events.extend([Event::Output(Output::Save), Event::Changed]);
        Ok(party.incoming())
    }

    fn administer(
        &mut self,
        now: Now,
        id: PartyId,
        act: impl FnOnce(&mut Membership, &mut ChaCha20Rng) -> Result<Outcome, PartyError>,
    ) -> Result<(), AppError> {
        let party = self.parties.get_mut(&id).ok_or_else(unknown_party)?;
        let outcome = act(&mut party.membership, &mut self.rng).map_err(|error| party_error(&error))?;
        self.apply(now, id, outcome);
        Ok(())
    }

    /// Leaves a party for good. Servers get the leave message as soon as they can be reached.
    pub(crate) fn leave(&mut self, now: Now, id: PartyId) -> Result<(), AppError> {
        let Parts { channels, mut cx, parties, leaves, .. } = self.parts(now);
        let mut party = parties.remove(&id).ok_or_else(unknown_party)?;
        info!(party = %id.short(), "leaving party");
        for message in party.membership.leave(now.unix, cx.rng).messages {
            channels.send(&mut cx, &party, &message, Some(ChannelKind::Server));
        }
        party.take_down(cx.events);
        channels.beacon.stop(id);
        channels.direct.forget(id);
        leaves.start(now.instant, party.membership);
        self.sync_servers(now);
        self.send_leaves(now);
        if self.leaves.expire(now.instant) {
            self.sync_servers(now);
        }
        self.events.push_back(Event::Output(Output::Save));
        Ok(())
    }

    /// Leaves all parties to the computer that has the same keys, without a word to their members, and remembers them.
    /// Returns the new identity.
    pub(crate) fn new_identity(&mut self, now: Now) -> DeviceKey {
        for id in self.parties.keys().copied().collect::<Vec<_>>() {
            self.switch_off(now, id);
            let Some(party) = self.parties.remove(&id) else { continue };
            let (name, display_name) = (party.membership.name(), party.membership.display_name());
            self.former.retain(|former| former.id != id);
            let (name, display_name) = (name.to_owned(), display_name.to_owned());
            self.former.push(FormerPartyView { id, name, display_name });
        }
        self.sync_servers(now);
        self.events.push_back(Event::Output(Output::Save));
        let device = DeviceKey::generate(&mut self.rng);
        info!(device = %device.id().short(), former = self.former.len(), "new identity");
        device
    }

    /// Returns the parties that this computer was in under an earlier identity.
    pub(crate) fn former_parties(&self) -> &[FormerPartyView] {
        &self.former
    }

    /// Forgets a party of an earlier identity.
    pub(crate) fn forget_former(&mut self, party: PartyId) -> Result<(), AppError> {
        let before = self.former.len();
        self.former.retain(|former| former.id != party);
        if self.former.len() == before {
            return Err(unknown_party());
        }
        self.events.push_back(Event::Output(Output::Save));
        Ok(())
    }

    /// Switches a party on or off.
    pub(crate) fn set_on(&mut self, now: Now, id: PartyId, on: bool) -> Result<(), AppError> {
        let party = self.parties.get(&id).ok_or_else(unknown_party)?;
        if on && party.is_suspended() {
            self.resume(now);
        }
        let party = self.parties.get(&id).ok_or_else(unknown_party)?;
        if party.is_wanted() != on {
            if on {
                self.switch_on(now, id)
            } else {
                self.switch_off(now, id)
            }
            self.events.push_back(Event::Output(Output::Save));
        }
        Ok(())
    }

    /// Applies another MTU of the network devices, in bytes.
    pub(crate) fn set_mtu(&mut self, now: Instant, mtu: u16) {
        debug!(before = self.mtu, mtu, "MTU of the network devices");
        self.mtu = mtu;
        let Self { parties, networks, events, .. } = self;
        parties.values_mut().for_each(|party| party.sync_device(now, mtu, networks, events));
    }

    /// Changes the name that this device announces in every party. An empty one keeps what each party knows.
    pub(crate) fn set_display_name(&mut self, now: Now, name: &str) {
        if name.is_empty() {
            return;
        }
        for id in self.parties.keys().copied().collect::<Vec<_>>() {
            let renamed = self.parties.get_mut(&id).map(|party| party.membership.set_display_name(name));
            if let Some(Ok(outcome)) = renamed
                && !outcome.effects.is_empty()
            {
                self.apply(now, id, outcome);
                if self.parties.get(&id).is_some_and(LocalParty::is_on) {
                    self.channels.beacon.expedite(now.instant, id);
                }
            }
        }
    }

    /// Removes devices and closes connections; the parties stay on for the next start.
    pub(crate) fn stop(&mut self, now: Now) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        for party in parties.values().filter(|party| party.is_on()) {
            cx.output(Output::DeviceDown { party: party.id() });
        }
        channels.servers.close_all(&mut cx);
    }

    // What can be asked.

    /// Returns all parties.
    pub(crate) fn parties(&self) -> impl Iterator<Item = &LocalParty> {
        self.parties.values()
    }

    /// Returns one party.
    pub(crate) fn party(&self, id: PartyId) -> Option<&LocalParty> {
        self.parties.get(&id)
    }

    /// Returns true if the device is another member of the party.
    pub(crate) fn is_member(&self, party: PartyId, device: &DeviceId) -> bool {
        self.parties.get(&party).is_some_and(|party| party.membership.member(device).is_some())
    }

    /// Returns the members of a party with whom a session is up.
    pub(crate) fn connected(&self, party: PartyId) -> impl Iterator<Item = DeviceId> + '_ {
        self.channels.tunnels.connected(party)
    }

    /// Returns the id of a server, if a party uses it.
    pub(crate) fn server_id(&self, url: &str) -> Option<ServerId> {
        self.channels.servers.id(url)
    }

    /// Returns whether a server is connected, and what is wrong with it.
    pub(crate) fn server_status(&self, url: &str) -> (bool, Option<AppError>) {
        self.channels.servers.status(url)
    }

    /// Returns the addresses of a server, as far as they are known.
    pub(crate) fn server_addresses(&self, url: &str) -> Vec<IpAddr> {
        self.channels.servers.addresses(url)
    }

    /// Returns true if a server lists the member, or a message from it arrived lately by another way.
    pub(crate) fn is_online(&self, now: Instant, party: PartyId, member: &DeviceId) -> bool {
        let Some(party) = self.parties.get(&party).filter(|party| party.is_on()) else { return false };
        let listed = || {
            let access = party.current_topic();
            access.is_some_and(|access| {
                let servers: &dyn channel::Channel = &self.channels.servers;
                servers.reaches(party, &access.topic, &[*member])
            })
        };
        party.received_lately(now, member) || listed()
    }

    /// Returns the counters of sealed messages.
    pub(crate) const fn counters(&self) -> &SignalingCounters {
        &self.counters
    }

    /// Returns the counters of messages that servers refused.
    pub(crate) const fn resend_counters(&self) -> &ResendCounters {
        self.channels.servers.resend_counters()
    }

    // How it works.

    /// Borrows everything at once: the channels, what they need, and the parties they serve.
    fn parts(&mut self, now: Now) -> Parts<'_> {
        let Self {
            parties,
            channels,
            contact_lists,
            leaves,
            reach,
            networks,
            mtu,
            counters,
            rng,
            events,
            ..
        } = self;
        let cx = Context { now, rng, reach, events, counters };
        Parts { channels, contact_lists, cx, parties, leaves, mtu: *mtu, networks }
    }

    /// Takes a sealed message to its party; returns the member it is from, unless it is dropped.
    fn receive(
        &mut self,
        now: Now,
        id: PartyId,
        topic: &Topic,
        source: Source,
        sealed: &[u8],
    ) -> Option<DeviceId> {
        let _span = party_span(id).entered();
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&id).filter(|party| party.is_on()) else {
            trace!(channel = source.kind().name(), reason = "party is off", "message dropped");
            return None;
        };
        let Received { sender, broadcast, outcome } = open(&mut cx, party, topic, source, sealed)?;
        if let [Effect::RunMet { run, standing }] = outcome.effects[..] {
            self.on_run_met(now, id, (source, *topic), (run, standing));
            return None;
        }
        let _span = peer_span(id, sender).entered();
        // What proves itself is taken from anybody on the topic; kept and passed on is what members say of themselves.
        let is_member = party.membership.member(&sender).is_some();
        if is_member && !matches!(source, Source::Server(_)) {
            party.on_received(now.instant, sender);
        }
        let left = |effect: &Effect| matches!(effect, Effect::MemberGone(_, Departure::Left));
        if outcome.effects.iter().any(left) {
            party.recent_leaves.remember(now.instant, sender, *topic, sealed);
        }
        if is_member && broadcast && party.current_topic().is_some_and(|access| access.topic == *topic) {
            party.remember_announcement(sender, *topic, sealed);
            let through = match source {
                Source::Server(_) => None,
                Source::Beacon(_) | Source::Direct(_) => Some(sender),
                Source::Member(member) => Some(member),
            };
            let announcement = Outgoing { topic: *topic, to: None, handle: None, message: sealed.to_vec() };
            let news = if party.is_new_run(&sender) { News::Run } else { News::Reachability };
            channels.gossip(&mut cx, party, (&announcement, sender, news), through);
        }
        self.apply(now, id, outcome);
        Some(sender)
    }

    /// Acts on what changed in a membership.
    fn apply(&mut self, now: Now, id: PartyId, outcome: Outcome) {
        let Outcome { effects, messages, persist, addresses_changed } = outcome;
        effects.into_iter().for_each(|effect| self.act(now, id, effect));
        let Parts { channels, mut cx, parties, mtu, networks, .. } = self.parts(now);
        if let Some(party) = parties.get_mut(&id) {
            if addresses_changed {
                party.sync_addresses(cx.events);
            }
            // What this run is asked before it may speak, it is asked again once it has announced itself.
            if party.may_speak(now.instant) {
                messages.iter().for_each(|message| channels.send(&mut cx, party, message, None));
            }
            party.sync_device(now.instant, mtu, networks, cx.events);
            party.plan_review(now);
        }
        if persist {
            cx.output(Output::Save);
        }
        cx.events.push_back(Event::Changed);
    }

    fn act(&mut self, now: Now, id: PartyId, effect: Effect) {
        let Self { parties, events, .. } = self;
        let Some(party) = parties.get_mut(&id) else { return };
        match effect {
            Effect::MemberChanged(device) => party.sync_member(device, events),
            Effect::MemberGone(device, departure) => {
                debug!(peer = %device.short(), reason = ?departure, "member gone");
                party.remove_contact(device, events);
            }
            Effect::CharterChanged | Effect::Rekeyed => {
                debug!(?effect, "party changed");
                party.announce_soon(now.instant);
                self.sync_servers(now);
            }
            Effect::AddressChanged | Effect::Announce | Effect::Confirmed => {
                debug!(?effect, "announcing again");
                party.announce_soon(now.instant);
            }
            Effect::Dismissed(dismissal) => self.on_dismissed(now, id, dismissal),
            Effect::JoinRequestsChanged => events.push_back(Event::Changed),
            Effect::Signal { from, bytes } => {
                events.push_back(Event::SignalReceived { party: id, from, bytes });
            }
            // Handled where it is known how the message came.
            Effect::RunMet { .. } => {}
        }
    }

    /// Acts on a message of another run with this device's keys. The answer goes back the way the message came.
    fn on_run_met(
        &mut self,
        now: Now,
        id: PartyId,
        (source, topic): (Source, Topic),
        (run, standing): (SessionNonce, RunStanding),
    ) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&id) else { return };
        if standing == RunStanding::GoesOn || party.run_mut().poll_answer(now.instant) {
            let outcome = party.membership.answer_run(now.unix, cx.rng, topic, run);
            if let Some(mut answer) = cx.take_message(outcome) {
                match source {
                    Source::Server(from) => {
                        answer.handle = Some(from);
                        channels.servers.send(&mut cx, party, &answer, &|_, _, _| false);
                    }
                    Source::Beacon(from) => channels.beacon.say_to_runs(&mut cx, &answer, Some(from)),
                    Source::Direct(_) => channels.direct.send(&mut cx, party, &answer, &|_, _, _| false),
                    // A member has passed on what it was told; there is no way back.
                    Source::Member(_) => {}
                }
            }
        }
        match standing {
            RunStanding::Unknown => {}
            RunStanding::GivesWay => {
                if !party.run_mut().has_met_copy(now.instant) {
                    warn!("another computer has a copy of this device's keys, and stands back");
                }
                party.run_mut().on_copy_met(now.instant);
                party.membership.set_copied(true);
                // The others may have taken the copy for this device, which they hear of in every announcement.
                party.announce_soon(now.instant);
                cx.events.push_back(Event::Changed);
            }
            RunStanding::GoesOn => self.stand_back(now),
        }
    }

    /// Another device goes on with this one's keys: everything that this one does in any party would disturb it.
    fn stand_back(&mut self, now: Now) {
        warn!("another computer has this device's keys and was there first; standing back");
        let Self { parties, channels, events, .. } = self;
        for party in parties.values_mut().filter(|party| !party.is_suspended()) {
            channels.beacon.stop(party.id());
            channels.direct.forget(party.id());
            party.suspend(events);
        }
        self.sync_servers(now);
        self.events.push_back(Event::Changed);
    }

    /// Tries again to take this device's place in its parties, after it stood back.
    fn resume(&mut self, now: Now) {
        let standing_back = self.parties.values().filter(|party| party.is_suspended());
        for id in standing_back.map(LocalParty::id).collect::<Vec<_>>() {
            let Self { parties, channels, rng, .. } = &mut *self;
            let Some(party) = parties.get_mut(&id) else { continue };
            party.membership.take_over(now.unix, rng);
            channels.servers.forget_topic(&party.membership.topic());
            party.start_run(now.instant, false);
            if party.is_wanted() {
                self.switch_on(now, id);
            }
        }
    }

    /// Ends what this device was dismissed from. A lapsed membership goes on listening, since a confirmation or the
    /// right time may revive it; others are over.
    fn on_dismissed(&mut self, now: Now, id: PartyId, dismissal: Dismissal) {
        info!(party = %id.short(), reason = %dismissal, "this device is no longer a member");
        if dismissal.is_final() {
            self.switch_off(now, id);
        }
        let Self { parties, events, .. } = self;
        let Some(party) = parties.get_mut(&id) else { return };
        if !dismissal.is_final() {
            party.take_down(events);
        }
        events.push_back(Event::Output(Output::Save));
    }

    fn switch_on(&mut self, now: Now, id: PartyId) {
        let _span = party_span(id).entered();
        let Parts { channels, contact_lists, cx, parties, mtu, networks, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&id) else { return };
        info!("party on");
        party.switch_on(now.instant);
        contact_lists.expect(now.instant, id);
        party.sync_device(now.instant, mtu, networks, cx.events);
        channels.beacon.expedite(now.instant, id);
        self.sync_servers(now);
        self.events.push_back(Event::Changed);
    }

    fn switch_off(&mut self, now: Now, id: PartyId) {
        let _span = party_span(id).entered();
        let Self { parties, channels, events, .. } = self;
        let Some(party) = parties.get_mut(&id) else { return };
        info!("party off");
        party.switch_off();
        party.take_down(events);
        channels.beacon.stop(id);
        channels.direct.forget(id);
        self.sync_servers(now);
    }

    /// Makes server links match what parties and pending leaves need.
    fn sync_servers(&mut self, now: Now) {
        let Parts { channels, mut cx, parties, leaves, .. } = self.parts(now);
        let on = parties.values().filter(|party| party.is_on());
        let wanted: Vec<String> =
            on.flat_map(|party| party.membership.servers()).chain(leaves.servers()).cloned().collect();
        channels.servers.sync(&mut cx, &wanted);
        self.sync_topics(now);
    }

    /// Enters the topics that parties visit, leaves the others, and announces what changed.
    fn sync_topics(&mut self, now: Now) {
        let Parts { channels, mut cx, parties, leaves, .. } = self.parts(now);
        let on = parties.values().filter(|party| party.is_on());
        let visited = on.flat_map(|party| party.membership.topics()).map(|access| access.topic);
        let wanted: Vec<Topic> = visited.chain(leaves.topics()).collect();
        channels.servers.exit_unwanted(&mut cx, &wanted);
        for party in parties.values_mut().filter(|party| party.is_on()) {
            channels.announce_to_servers(&mut cx, party);
        }
    }

    fn send_leaves(&mut self, now: Now) {
        let Parts { channels, mut cx, leaves, .. } = self.parts(now);
        channels.servers.send_leaves(&mut cx, leaves);
    }

    /// Repeats recent leave messages to a member that is back. In a large party some members do so for all.
    fn repeat_leaves(&mut self, now: Now, id: PartyId, to: DeviceId) {
        let Parts { channels, mut cx, parties, .. } = self.parts(now);
        let Some(party) = parties.get_mut(&id) else { return };
        let leaves: Vec<(Topic, Vec<u8>)> = party.recent_leaves.fresh(now.instant, to).collect();
        let members = party.membership.devices().count().max(1);
        if leaves.is_empty() || cx.rng.next_u32() as usize % members >= LEAVE_REPEATERS {
            return;
        }
        debug!(peer = %to.short(), count = leaves.len(), reason = "it may have missed them", "repeating leaves");
        for (topic, message) in leaves {
            let handle = party.membership.handle_of(&topic, &to);
            channels.send(&mut cx, party, &Outgoing { topic, to: Some(to), handle, message }, None);
        }
    }

    /// Does what is due in the parties: announcements, beacons, and dropping memberships that lapse.
    fn drive_parties(&mut self, now: Now) {
        for id in self.parties.keys().copied().collect::<Vec<_>>() {
            let _span = party_span(id).entered();
            let due = self.parties.get_mut(&id).filter(|party| party.is_review_due(now.instant));
            if let Some(party) = due {
                let outcome = party.membership.handle_timeout(now.unix);
                self.apply(now, id, outcome);
            }
            let Parts { channels, mut cx, parties, .. } = self.parts(now);
            let Some(party) = parties.get_mut(&id) else { continue };
            drive_run(channels, &mut cx, party);
            if party.poll_announce(now.instant) {
                debug!(revision = party.revision(), "announcing");
                channels.announce(&mut cx, party);
            }
            // An announcement in the same turn has sent a beacon already; the one that is due then repeats it, as a beacon
            // is not acknowledged.
            if channels.beacon.is_due(now.instant, id) {
                channels.beacon.schedule(now.instant, id, is_complete(channels, now.instant, party));
                // The join request or its answer may have been lost, or refused by a busy server.
                if party.membership.is_waiting() {
                    party.announce_soon(now.instant);
                }
                channels.beacon.announce_to(&mut cx, party, None);
            }
        }
    }
}

/// Asks the public addresses that members announced last, and those that came with the invite.
fn search(channels: &mut Channels, cx: &mut Context<'_>, party: &LocalParty) {
    let (id, topic) = (party.id(), party.membership.topic());
    let connected = |device: &DeviceId| channels.tunnels.is_connected(id, device);
    let lost = party.membership.members().filter(|member| !connected(&member.device));
    let announced = lost.take(MAX_SEARCHED).flat_map(|member| public_addresses(member.candidates));
    let anybody = channels.tunnels.connected(id).next().is_some();
    let invited = party.known_addresses().iter().copied().filter(|_| !anybody);
    let addresses: Vec<SocketAddr> = invited.chain(announced).collect();
    addresses.into_iter().for_each(|address| channels.direct.ask(cx, id, topic, address));
}

/// Does what is due about other runs with this device's keys.
fn drive_run(channels: &Channels, cx: &mut Context<'_>, party: &mut LocalParty) {
    let now = cx.now;
    if !party.is_on() {
        return;
    }
    if party.run_mut().poll_question(now.instant) {
        let outcome = party.membership.ask_runs(now.unix, cx.rng);
        if let Some(question) = cx.take_message(outcome) {
            channels.beacon.say_to_runs(cx, &question, None);
        }
    }
    if party.run_mut().poll_established(now.instant) {
        party.membership.establish_run(now.unix);
    }
    if party.run_mut().poll_copy_forgotten(now.instant) && party.membership.set_copied(false) {
        party.announce_soon(now.instant);
        cx.events.push_back(Event::Changed);
    }
}

/// Opens a sealed message, and counts it by its channel.
fn open(
    cx: &mut Context<'_>,
    party: &mut LocalParty,
    topic: &Topic,
    source: Source,
    sealed: &[u8],
) -> Option<Received> {
    let channel = source.kind().name();
    let counters = cx.counters.of(source.kind());
    match party.membership.receive(cx.now.unix, cx.rng, topic, sealed) {
        Ok(received) => {
            counters.received += 1;
            let Received { sender, broadcast, outcome } = &received;
            trace!(channel, peer = %sender.short(), broadcast, effects = ?outcome.effects, "received");
            Some(received)
        }
        Err(refusal) => {
            counters.dropped.count(&refusal);
            trace!(channel, reason = refusal.label(), "message dropped");
            None
        }
    }
}

/// Returns true if messages of some member were received recently, and every such member is connected.
fn is_complete(channels: &Channels, now: Instant, party: &LocalParty) -> bool {
    let members = party.membership.devices();
    let mut heard = members.filter(|device| party.received_lately(now, device)).peekable();
    heard.peek().is_some() && heard.all(|device| channels.tunnels.is_connected(party.id(), &device))
}

fn already_member(party: &str) -> AppError {
    AppError::new(
        ErrorCode::AlreadyMember,
        format!("This computer is in {party} already."),
        "Switch it on with `partyline up`.",
    )
}

#[cfg(test)]
mod tests;

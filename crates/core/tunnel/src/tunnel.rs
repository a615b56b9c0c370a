//! The tunnel of one device: parties, members, and the way of packets and datagrams between them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use boringtun::noise::{Packet, Tunn};
use partyline_model::{DeviceId, IncomingPolicy, PartyId};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use tracing::{debug, trace};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    config::{PartyConfig, PathConfig, PeerConfig},
    control::{ControlTooLong, is_control},
    drops::{DropCounters, DropReason},
    event::{Event, Received},
    handshake_limiter::{HandshakeLimiter, Verdict},
    handshakes::HandshakeCounters,
    ip::IpHeader,
    limits::{INITIATION_RATE, MAX_DATAGRAM_LEN, MIN_SCRATCH_LEN, RESPONSE_RATE, WIREGUARD_OVERHEAD},
    outbox::Outbox,
    party::Party,
    peer::{Peer, SessionStats},
    peers::PeerTable,
    routing::Scope,
    session::Session,
    source::Source,
    storm::Storm,
};

/// Events kept for a caller that does not poll; the oldest make room.
const MAX_EVENTS: usize = 1024;

/// The tunnel of one device. See the crate's documentation.
///
/// After [`Self::set_path`], [`Self::rekey`] and every datagram, call [`Self::handle_timeout`] as soon as
/// [`Self::poll_timeout`] says, and send what is in the [`Outbox`].
pub struct Tunnel {
    parties: BTreeMap<PartyId, Party>,
    peers: PeerTable,
    rng: ChaCha12Rng,
    initiations: HandshakeLimiter,
    responses: HandshakeLimiter,
    /// Drops that belong to no member.
    drops: DropCounters,
    rate_limited: u64,
    events: VecDeque<Event>,
    wake: Option<Instant>,
    epoch: Instant,
}

impl Tunnel {
    /// Creates a tunnel without parties. The seed must be secret and fresh.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32]) -> Self {
        Self {
            parties: BTreeMap::new(),
            peers: PeerTable::default(),
            rng: ChaCha12Rng::from_seed(seed),
            initiations: HandshakeLimiter::new(INITIATION_RATE),
            responses: HandshakeLimiter::new(RESPONSE_RATE),
            drops: DropCounters::default(),
            rate_limited: 0,
            events: VecDeque::new(),
            wake: None,
            epoch: now,
        }
    }

    /// Adds a party, or changes our addresses in it. Its sessions persist unless our key changed.
    pub fn set_party(&mut self, id: PartyId, secret: StaticSecret, config: PartyConfig) {
        let same_key = self.parties.get_mut(&id).filter(|party| party.public == PublicKey::from(&secret));
        if let Some(party) = same_key {
            if party.config != config {
                debug!(party = %id.short(), mtu = config.mtu, "party changed");
                party.config = config;
            }
            return;
        }
        self.remove_party(id);
        debug!(party = %id.short(), mtu = config.mtu, "party added");
        self.parties.insert(id, Party::new(secret, config));
    }

    /// Sets what the members of a party may reach on this computer; without it, everything except system services. Ignored
    /// if the party is unknown.
    pub fn set_incoming_policy(&mut self, id: PartyId, policy: &IncomingPolicy) {
        let Some(party) = self.parties.get_mut(&id) else { return };
        let (allowed, blocked) = (policy.allowed.len(), policy.blocked.len());
        debug!(party = %id.short(), level = ?policy.level, allowed, blocked, "incoming packets filtered");
        party.incoming.set_policy(policy);
    }

    /// Removes a party with all its members, sessions and keys.
    pub fn remove_party(&mut self, id: PartyId) {
        let Some(party) = self.parties.remove(&id) else { return };
        for (_, slot) in party.routes.iter() {
            self.peers.remove(slot);
        }
        debug!(party = %id.short(), count = party.routes.iter().count(), "party removed");
    }

    /// Adds a member, or changes its addresses. Its session persists unless its key changed. Of two members that claim one
    /// address, the one set last receives its packets. Ignored if the party is unknown.
    pub fn set_peer(&mut self, now: Instant, party: PartyId, id: DeviceId, config: PeerConfig) {
        let known = self.find(party, id).and_then(|slot| Some((slot, *self.peers.get(slot)?.config())));
        match known {
            Some((_, before)) if before == config => {}
            Some((slot, before)) if before.key == config.key => self.readdress(slot, party, id, config),
            Some(_) => {
                self.remove_peer(party, id);
                self.insert_peer(now, party, id, config);
            }
            None => self.insert_peer(now, party, id, config),
        }
    }

    fn readdress(&mut self, slot: usize, party: PartyId, id: DeviceId, config: PeerConfig) {
        let (Some(ours), Some(peer)) = (self.parties.get_mut(&party), self.peers.get_mut(slot)) else {
            return;
        };
        ours.routes.remove(id, &peer.replace_config(config));
        ours.routes.insert(id, slot, &config);
        debug!(party = %party.short(), peer = %id.short(), v4 = ?config.v4, v6 = %config.v6, "addresses of the peer changed");
    }

    fn insert_peer(&mut self, now: Instant, party: PartyId, id: DeviceId, config: PeerConfig) {
        let Some(ours) = self.parties.get_mut(&party) else { return };
        let (epoch, key) = (self.epoch, PublicKey::from(config.key.0));
        let slot = self.peers.insert(self.rng.next_u32() as u8, |index| {
            let session = Session::new((now, epoch), &ours.secret, key, index, ours.mac_check.clone());
            Peer::new((party, id), config, index, session, ours.config.mtu)
        });
        let Some(slot) = slot else {
            return debug!(party = %party.short(), peer = %id.short(), reason = "no free slot", "peer refused");
        };
        ours.routes.insert(id, slot, &config);
        debug!(party = %party.short(), peer = %id.short(), v4 = ?config.v4, v6 = %config.v6, "peer added");
    }

    /// Removes a member, its session and its keys.
    pub fn remove_peer(&mut self, party: PartyId, id: DeviceId) {
        let Some(peer) = self.find(party, id).and_then(|slot| self.peers.remove(slot)) else { return };
        if let Some(ours) = self.parties.get_mut(&party) {
            ours.routes.remove(id, peer.config());
        }
        debug!(party = %party.short(), peer = %id.short(), ready = peer.session().is_ready(), "peer removed");
    }

    /// Sets what the path to a member carries, or that there is none. With a path a session is established and kept;
    /// without one, packets wait for up to 3 s and are then dropped.
    pub fn set_path(&mut self, now: Instant, party: PartyId, id: DeviceId, path: Option<PathConfig>) {
        let Some(mtu) = self.parties.get(&party).map(|party| party.config.mtu) else { return };
        if let Some(peer) = self.find(party, id).and_then(|slot| self.peers.get_mut(slot)) {
            peer.set_path(now, path, mtu);
            self.wake = Some(now);
        }
    }

    /// Initiates a handshake with a member that has lost its keys, for example because its engine was restarted.
    pub fn rekey(&mut self, now: Instant, party: PartyId, id: DeviceId) {
        if let Some(peer) = self.find(party, id).and_then(|slot| self.peers.get_mut(slot)) {
            peer.rekey(now);
            self.wake = Some(now);
        }
    }

    /// Returns the moment to call [`Self::handle_timeout`], if any.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    /// Handles timers that are due: initiations, renewals of keys, keepalives, and packets that waited too long.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        for peer in self.peers.iter_mut() {
            peer.handle_timeout(now, &mut self.rng, outbox);
            push_event(&mut self.events, peer);
        }
        self.wake = self.peers.iter().filter_map(Peer::poll_timeout).min();
    }

    /// Returns the next change of a session, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the state of the session with a member, or `None` if it is not one.
    #[must_use]
    pub fn session(&self, party: PartyId, id: DeviceId) -> Option<SessionStats> {
        Some(self.peers.get(self.find(party, id)?)?.stats())
    }

    /// Returns the members of a party with a ready session, in the order of their ids.
    pub fn ready_peers(&self, party: PartyId) -> impl Iterator<Item = DeviceId> {
        let members = self.parties.get(&party).into_iter().flat_map(|party| party.routes.iter());
        let is_ready = |slot| self.peers.get(slot).is_some_and(|peer| peer.session().is_ready());
        members.filter(move |(_, slot)| is_ready(*slot)).map(|(id, _)| id)
    }

    /// Returns all drops by reason. Visits every member.
    #[must_use]
    pub fn drops(&self) -> DropCounters {
        let mut sum = self.peers.drops();
        sum.add(&self.drops);
        sum
    }

    /// Returns the drops of each present member by reason, in all parties together.
    #[must_use]
    pub fn peer_drops(&self) -> BTreeMap<DeviceId, DropCounters> {
        let mut drops: BTreeMap<DeviceId, DropCounters> = BTreeMap::new();
        self.peers.iter().for_each(|peer| drops.entry(peer.id()).or_default().add(peer.drops()));
        drops
    }

    /// Returns what was dropped of this device's own broadcasts in a party because there were too many.
    #[must_use]
    pub fn own_storm(&self, party: PartyId) -> Storm {
        self.parties.get(&party).map(|party| party.storm).unwrap_or_default()
    }

    /// Returns all handshakes by outcome. Visits every member.
    #[must_use]
    pub fn handshakes(&self) -> HandshakeCounters {
        HandshakeCounters { rate_limited: self.rate_limited, ..self.peers.handshakes() }
    }

    /// Handles an IP packet from a party's network device. Datagrams for the members are written to `outbox`, as are
    /// Packet Too Big messages for the device. The MSS of a SYN is clamped in place.
    pub fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8], outbox: &mut Outbox) {
        if let Err(reason) = self.route(now, party, packet, outbox) {
            self.drops.count(reason);
            trace!(party = %party.short(), bytes = packet.len(), reason = reason.label(), "packet from the device dropped");
        }
    }

    fn route(
        &mut self,
        now: Instant,
        id: PartyId,
        packet: &mut [u8],
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let party = self.parties.get_mut(&id).ok_or(DropReason::UnknownParty)?;
        let header = IpHeader::parse(packet).ok_or(DropReason::Malformed)?;
        let packet = &mut packet[..header.len];
        if packet.len() > MAX_DATAGRAM_LEN - WIREGUARD_OVERHEAD {
            return Err(DropReason::TooLong);
        }
        // Whatever the scope: a multicast to this port would reach the engine of every member.
        if is_control(packet, &header) {
            return Err(DropReason::ReservedPort);
        }
        let scope = party.check_outgoing(now, &header)?;
        party.incoming.on_outgoing(now, packet, &header, scope);
        if scope == Scope::Broadcast {
            for (_, slot) in party.routes.iter() {
                if let Some(peer) = self.peers.get_mut(slot) {
                    peer.send_broadcast(now, packet, &header, outbox);
                }
            }
            return Ok(());
        }
        let slot = party.routes.by_address(header.destination).ok_or(DropReason::NoRoute)?;
        let peer = self.peers.get_mut(slot).ok_or(DropReason::NoRoute)?;
        peer.send_packet(now, packet, &header, outbox);
        if !peer.session().can_send() {
            self.after(slot);
        }
        Ok(())
    }

    /// Sends a message of at most [`crate::MAX_CONTROL_MESSAGE_LEN`] bytes on the control channel. Like a datagram it can be
    /// lost; without a session it waits for one for up to 3 s. Ignored if there is no such member.
    ///
    /// # Errors
    /// If the message is too long.
    pub fn send_control(
        &mut self,
        now: Instant,
        party: PartyId,
        id: DeviceId,
        message: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), ControlTooLong> {
        let from = self.parties.get(&party).map(|party| party.config.v6.addr());
        let (Some(from), Some(slot)) = (from, self.find(party, id)) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(slot) else { return Ok(()) };
        peer.send_control(now, from, message, outbox)?;
        self.after(slot);
        Ok(())
    }

    /// Handles a WireGuard datagram for any of the parties. `source` matters only for handshakes: for the limits per source
    /// and the proof of address under load. The contents are written to `scratch`, which must be as long as the datagram and
    /// at least [`MIN_SCRATCH_LEN`]. Packets that waited for a session are written to `outbox`.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        source: impl Into<Source>,
        datagram: &[u8],
        scratch: &'a mut [u8],
        outbox: &mut Outbox,
    ) -> Received<'a> {
        let source = source.into();
        // boringtun panics if there is less room than the datagram has, before it knows who sent it.
        if datagram.len() > MAX_DATAGRAM_LEN || scratch.len() < datagram.len().max(MIN_SCRATCH_LEN) {
            return self.drop_datagram(source, DropReason::TooLong);
        }
        let Ok(message) = Tunn::parse_incoming_packet(datagram) else {
            return self.drop_datagram(source, DropReason::Malformed);
        };
        let receiver = match &message {
            Packet::HandshakeInit(_) => {
                return self.handle_initiation(now, source, (datagram, &message), scratch, outbox);
            }
            Packet::HandshakeResponse(response) => response.receiver_idx,
            Packet::PacketCookieReply(cookie) => cookie.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        let Some((slot, peer)) = self.peers.by_receiver_index(receiver) else {
            return self.drop_datagram(source, DropReason::UnknownReceiverIndex);
        };
        match message {
            Packet::PacketData(_) => {}
            Packet::HandshakeResponse(_) => {
                return self.handle_response(now, source, slot, datagram, scratch, outbox);
            }
            _ => {
                let received = peer.handle_handshake(now, source.address(), datagram, scratch, outbox);
                self.after(slot);
                return received;
            }
        }
        let Some(party) = self.parties.get(&peer.party()) else {
            return self.drop_datagram(source, DropReason::UnknownParty);
        };
        let was_ready = peer.session().is_ready();
        let received = peer.handle_data(now, party, datagram, scratch, outbox);
        if !was_ready {
            self.after(slot);
        }
        received
    }

    /// A handshake initiation names no receiver index: its first MAC selects the party, the key inside it the member.
    fn handle_initiation<'a>(
        &mut self,
        now: Instant,
        source: Source,
        (datagram, message): (&[u8], &Packet),
        scratch: &'a mut [u8],
        outbox: &mut Outbox,
    ) -> Received<'a> {
        let Some(party) = self.parties.values().find(|party| party.is_addressed_by(datagram)) else {
            return self.drop_datagram(source, DropReason::UnknownPeer);
        };
        match self.initiations.check(now, source, party, datagram, scratch) {
            Verdict::Admitted => {}
            Verdict::Challenge(len) => return self.challenge(source, &mut scratch[..len]),
            Verdict::Dropped(reason) => return self.drop_datagram(source, reason),
        }
        let slot = match party.initiator(message) {
            Ok(slot) => slot,
            Err(reason) => {
                debug!(source = %source.address(), reason = reason.label(), "handshake of an unknown peer rejected");
                return self.drop_datagram(source, reason);
            }
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return self.drop_datagram(source, DropReason::UnknownPeer);
        };
        let received = peer.handle_handshake(now, source.address(), datagram, scratch, outbox);
        self.after(slot);
        received
    }

    /// The receiver index of a handshake response selects the member. It can be copied from an initiation that was
    /// overheard, so that responses are limited as well.
    fn handle_response<'a>(
        &mut self,
        now: Instant,
        source: Source,
        slot: usize,
        datagram: &[u8],
        scratch: &'a mut [u8],
        outbox: &mut Outbox,
    ) -> Received<'a> {
        let Some(peer) = self.peers.get_mut(slot) else {
            return self.drop_datagram(source, DropReason::UnknownReceiverIndex);
        };
        let Some(party) = self.parties.get(&peer.party()) else {
            return self.drop_datagram(source, DropReason::UnknownParty);
        };
        // What has a wrong MAC costs nothing further, and must not use up the limits.
        if party.is_addressed_by(datagram) {
            match self.responses.check(now, source, party, datagram, scratch) {
                Verdict::Admitted => {}
                Verdict::Challenge(len) => return self.challenge(source, &mut scratch[..len]),
                Verdict::Dropped(reason) => return self.drop_datagram(source, reason),
            }
        }
        let received = peer.handle_handshake(now, source.address(), datagram, scratch, outbox);
        self.after(slot);
        received
    }

    fn challenge<'a>(&mut self, source: Source, reply: &'a mut [u8]) -> Received<'a> {
        self.rate_limited += 1;
        self.drops.count(DropReason::HandshakeRateLimited);
        trace!(source = %source.address(), reason = "too many handshake messages", "cookie sent");
        Received::HandshakeReply { peer: None, datagram: reply }
    }

    fn drop_datagram(&mut self, source: Source, reason: DropReason) -> Received<'static> {
        self.drops.count(reason);
        trace!(source = %source.address(), reason = reason.label(), "datagram dropped");
        Received::Dropped(reason)
    }

    /// Reports a change of a member's session, and sees to it that its timers are handled.
    fn after(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        push_event(&mut self.events, peer);
        self.wake = self.wake.into_iter().chain(peer.poll_timeout()).min();
    }

    fn find(&self, party: PartyId, id: DeviceId) -> Option<usize> {
        self.parties.get(&party)?.routes.by_id(id)
    }
}

fn push_event(events: &mut VecDeque<Event>, peer: &mut Peer) {
    let Some(event) = peer.poll_event() else { return };
    if events.len() == MAX_EVENTS {
        events.pop_front();
        debug!(count = MAX_EVENTS, reason = "events were not polled", "oldest session event dropped");
    }
    events.push_back(event);
}

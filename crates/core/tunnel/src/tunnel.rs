//! The machine itself: parties, members, paths and time. Packets are in [`crate::outbound`] and [`crate::inbound`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use partyline_model::{DeviceId, PartyId};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    DropCounters, DropReason, Outbox, PartyConfig, PathConfig, PeerConfig, SessionStats, bucket::Bucket,
    party::Party, peer::Peer, session::Session,
};

/// Handshake initiations a second that are worth an X25519 operation to find out who sent them.
const HANDSHAKE_RATE: u32 = 100;
const HANDSHAKE_BURST: u32 = 200;
/// Events kept for a caller that does not ask; older ones go first.
const EVENTS: usize = 1024;

/// What a datagram from the socket contained. Slices point into the scratch buffer that the caller passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// An IP packet for the party's network device.
    Packet {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
        /// The packet.
        packet: &'a mut [u8],
    },
    /// A complete message of the control channel.
    Control {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
        /// The message.
        message: Vec<u8>,
    },
    /// A handshake message that has to be answered by the path on which it came.
    HandshakeReply {
        /// The member, or `None` while an initiator has yet to prove its address.
        peer: Option<(PartyId, DeviceId)>,
        /// The answer.
        datagram: &'a mut [u8],
    },
    /// An authentic datagram without content: a keepalive, a cookie reply, or a part of a control message.
    Authenticated {
        /// The party.
        party: PartyId,
        /// The member that sent it.
        peer: DeviceId,
    },
    /// The datagram was dropped and counted.
    Dropped(DropReason),
}

/// A change in the state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Keys were agreed on: packets can be sent and received.
    SessionReady {
        /// The party.
        party: PartyId,
        /// The member.
        peer: DeviceId,
    },
    /// The keys expired without new ones having been agreed on.
    SessionLost {
        /// The party.
        party: PartyId,
        /// The member.
        peer: DeviceId,
    },
}

/// The tunnel of a device. See the crate's documentation.
pub struct Tunnel {
    pub(crate) parties: BTreeMap<PartyId, Party>,
    /// Members of all parties. A slot's number is the low 16 bits of the member's receiver index.
    pub(crate) slots: Vec<Option<Peer>>,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) handshakes: Bucket,
    pub(crate) drops: DropCounters,
    events: VecDeque<Event>,
    wake: Option<Instant>,
    epoch: Instant,
}

impl Tunnel {
    /// A tunnel without parties. The seed must be secret and fresh.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32]) -> Self {
        Self {
            parties: BTreeMap::new(),
            slots: Vec::new(),
            rng: ChaCha12Rng::from_seed(seed),
            handshakes: Bucket::new(now, HANDSHAKE_RATE, HANDSHAKE_BURST),
            drops: DropCounters::default(),
            events: VecDeque::new(),
            wake: None,
            epoch: now,
        }
    }

    /// Adds a party, or changes the addresses of one; its sessions live on unless the key changed.
    pub fn set_party(&mut self, now: Instant, id: PartyId, secret: StaticSecret, net: PartyConfig) {
        match self.parties.get_mut(&id) {
            Some(party) if party.public == PublicKey::from(&secret) => party.net = net,
            _ => {
                self.remove_party(id);
                self.parties.insert(id, Party::new(now, secret, net));
            }
        }
    }

    /// Forgets a party with all its sessions and keys.
    pub fn remove_party(&mut self, id: PartyId) {
        if let Some(party) = self.parties.remove(&id) {
            party.peers.into_values().for_each(|slot| self.slots[slot] = None);
        }
    }

    /// Adds a member, or changes its addresses; its session lives on unless the key changed. Of two members that claim
    /// an address the one set last gets its packets. Ignored if the party is unknown.
    pub fn set_peer(&mut self, now: Instant, party: PartyId, id: DeviceId, config: PeerConfig) {
        let Some(slot) = self.find(party, id) else { return self.insert_peer(now, party, id, config) };
        let same_key = self.slots[slot].as_ref().is_some_and(|peer| peer.config.key == config.key);
        if !same_key {
            self.remove_peer(party, id);
            return self.insert_peer(now, party, id, config);
        }
        if let (Some(party), Some(peer)) = (self.parties.get_mut(&party), &mut self.slots[slot])
            && peer.config != config
        {
            party.remove_peer(id, &std::mem::replace(&mut peer.config, config));
            party.insert_peer(id, slot, &config);
        }
    }

    fn insert_peer(&mut self, now: Instant, id: PartyId, device: DeviceId, config: PeerConfig) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let (Some(party), Ok(low)) = (self.parties.get_mut(&id), u16::try_from(slot)) else { return };
        // The random part keeps datagrams for a former holder of the slot from being tried with the wrong keys.
        let index = u32::from(self.rng.next_u32() as u8) << 16 | u32::from(low);
        let key = PublicKey::from(config.key.0);
        let session = Session::new((now, self.epoch), &party.secret, key, index, party.limiter.clone());
        party.insert_peer(device, slot, &config);
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Peer::new(now, (id, device), config, index, session, party.net.mtu));
    }

    /// Forgets a member, its session and its keys.
    pub fn remove_peer(&mut self, party: PartyId, id: DeviceId) {
        let Some(peer) = self.find(party, id).and_then(|slot| self.slots[slot].take()) else { return };
        if let Some(party) = self.parties.get_mut(&party) {
            party.remove_peer(id, &peer.config);
        }
    }

    /// Says how datagrams can reach a member now, if at all. With a path, sessions are made and kept; without, packets
    /// wait a moment and are then dropped. Call [`Self::handle_timeout`] afterwards.
    pub fn set_path(&mut self, now: Instant, party: PartyId, id: DeviceId, path: Option<PathConfig>) {
        let Some(mtu) = self.parties.get(&party).map(|party| party.net.mtu) else { return };
        if let Some(peer) = self.peer_mut(party, id) {
            peer.set_path(now, path, mtu);
            self.wake = Some(now);
        }
    }

    /// Shakes hands anew with a member that has lost its keys, for example because its engine was restarted. Call
    /// [`Self::handle_timeout`] afterwards.
    pub fn rekey(&mut self, now: Instant, party: PartyId, id: DeviceId) {
        if let Some(peer) = self.peer_mut(party, id) {
            peer.session.refresh(now);
            self.wake = Some(now);
        }
    }

    /// The moment to call [`Self::handle_timeout`], if any.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    /// Lets time pass: handshakes, renewals and keepalives go to `out`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        let Self { slots, rng, drops, events, .. } = self;
        for peer in slots.iter_mut().flatten() {
            peer.handle_timeout(now, rng, drops, out);
            note_change(peer, events);
        }
        self.wake = slots.iter().flatten().filter_map(|peer| peer.session.deadline()).min();
    }

    /// What happened to sessions, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The session with a member, if it is one.
    #[must_use]
    pub fn session(&self, party: PartyId, id: DeviceId) -> Option<SessionStats> {
        let peer = self.slots[self.find(party, id)?].as_ref()?;
        Some(peer.view())
    }

    /// The members of a party to whom data can flow, in order of their ids.
    pub fn ready_peers(&self, party: PartyId) -> impl Iterator<Item = DeviceId> {
        let peers = self.parties.get(&party).into_iter().flat_map(|party| &party.peers);
        let ready = |slot: usize| self.slots[slot].as_ref().is_some_and(|peer| peer.session.is_ready());
        peers.filter(move |(_, slot)| ready(**slot)).map(|(id, _)| *id)
    }

    /// Everything that was dropped, whoever sent it.
    #[must_use]
    pub const fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Tells of a change in a member's session, and sees to it that its timers are served.
    pub(crate) fn after(&mut self, slot: usize) {
        let Some(peer) = &mut self.slots[slot] else { return };
        note_change(peer, &mut self.events);
        self.wake = self.wake.into_iter().chain(peer.session.deadline()).min();
    }

    pub(crate) fn find(&self, party: PartyId, id: DeviceId) -> Option<usize> {
        self.parties.get(&party)?.peers.get(&id).copied()
    }

    fn peer_mut(&mut self, party: PartyId, id: DeviceId) -> Option<&mut Peer> {
        let slot = self.find(party, id)?;
        self.slots[slot].as_mut()
    }
}

fn note_change(peer: &mut Peer, events: &mut VecDeque<Event>) {
    let ready = peer.session.is_ready();
    if ready == peer.was_ready {
        return;
    }
    peer.was_ready = ready;
    if events.len() == EVENTS {
        events.pop_front();
    }
    let (party, peer) = peer.who;
    events.push_back(if ready {
        Event::SessionReady { party, peer }
    } else {
        Event::SessionLost { party, peer }
    });
}

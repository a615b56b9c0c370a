//! Sealed messages, whichever channel carries them: rendezvous servers, the LAN beacon, members already connected.
//!
//! All channels are used side by side. The first to deliver wins; what comes again is dropped by its sequence number.
//! Nothing above this file knows which one spoke.

use std::time::Instant;

use partyline_model::{AppError, DeviceId, ErrorCode, Now, PartyId, Topic};
use partyline_party::{Departure, Dismissal, Effect, Outcome, Outgoing, Received};
use partyline_paths::PeerId;
use partyline_wire::{beacon, rendezvous::ClientFrame};

use crate::{
    Node,
    control::ControlMessage,
    io::Output,
    local::{BEACON_BUSY, BEACON_IDLE},
};

/// By what a sealed message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A rendezvous server.
    Server,
    /// A LAN beacon.
    Lan,
    /// A member, through the tunnel.
    Member(DeviceId),
}

impl Node {
    /// Takes a sealed message that came for a topic of a party.
    pub(crate) fn receive_sealed(
        &mut self,
        now: Now,
        party: PartyId,
        topic: &Topic,
        channel: Channel,
        sealed: &[u8],
    ) -> Option<DeviceId> {
        let local = self.parties.get_mut(&party).filter(|local| local.on)?;
        let Received { sender: from, outcome } =
            match local.membership.receive(now.unix, &mut self.rng, topic, sealed) {
                Ok(received) => received,
                Err(refusal) => {
                    self.refusals.count(&refusal);
                    return None;
                }
            };
        if outcome.effects.iter().any(|effect| matches!(effect, Effect::MemberGone(_, Departure::Left))) {
            local.goodbyes.note(now.instant, *topic, sealed);
        }
        // Signals are for us alone, and old in a moment.
        let lasting = !outcome.effects.iter().any(|effect| matches!(effect, Effect::Signal { .. }));
        if lasting {
            self.note_letter(now, party, from, (topic, sealed), channel);
        }
        self.apply(now, party, outcome);
        Some(from)
    }

    /// Acts on what a membership says changed.
    pub(crate) fn apply(&mut self, now: Now, party: PartyId, outcome: Outcome) {
        for effect in outcome.effects {
            self.act(now, party, effect);
        }
        if outcome.addresses_changed {
            self.sync_addresses(now.instant, party);
        }
        for message in outcome.messages {
            self.deliver(now, party, &message);
        }
        self.sync_device(now, party);
        if let Some(local) = self.parties.get_mut(&party) {
            local.plan(now);
        }
        self.save_if(outcome.persist);
        self.touch();
    }

    /// Asks for the state to be written if a membership does.
    pub(crate) fn save_if(&mut self, persist: bool) {
        if persist {
            self.outputs.push_back(Output::Save);
        }
    }

    fn act(&mut self, now: Now, party: PartyId, effect: Effect) {
        match effect {
            Effect::MemberChanged(device) => self.sync_member(now.instant, party, device),
            Effect::MemberGone(device, _) => {
                self.drop_peer(now.instant, party, device);
            }
            Effect::CharterChanged | Effect::Rekeyed => {
                self.announce(now.instant, party);
                self.sync_device(now, party);
                self.sync_links(now);
                self.sync_rooms(now);
            }
            Effect::AddressChanged => {
                self.sync_device(now, party);
                self.announce(now.instant, party);
            }
            Effect::Announce | Effect::Confirmed => self.announce(now.instant, party),
            Effect::Dismissed(dismissal) => self.dismissed(now, party, dismissal),
            Effect::Signal { from, bytes } => {
                if let Some(peer) = self.peers.id(party, from) {
                    self.paths.handle_signal(now.instant, peer, &bytes);
                }
            }
        }
    }

    /// Carries a signal of the path machine to a member, by every channel.
    pub(crate) fn signal(&mut self, now: Now, peer: PeerId, bytes: Vec<u8>) {
        let Some((party, device)) = self.peers.member(peer) else { return };
        let Some(local) = self.parties.get_mut(&party).filter(|local| local.on) else { return };
        let outcome = local.membership.signal(now.unix, &mut self.rng, &device, bytes);
        outcome.messages.iter().for_each(|message| self.deliver(now, party, message));
        self.save_if(outcome.persist);
    }

    /// A lapsed membership goes on listening, since a confirmation or the right time may revive it; others are over.
    fn dismissed(&mut self, now: Now, party: PartyId, dismissal: Dismissal) {
        if dismissal == Dismissal::InviteExpired {
            self.take_down(now, party);
        } else {
            self.switch_off(now, party);
        }
        let Some(local) = self.parties.get_mut(&party) else { return };
        local.problem = Some(dismissal_error(dismissal, local.membership.name()));
        self.outputs.push_back(Output::Save);
    }

    /// Sends a sealed message over every channel that may reach whom it is for.
    pub(crate) fn deliver(&mut self, now: Now, party: PartyId, message: &Outgoing) {
        self.deliver_by_servers(message);
        self.deliver_without(now, party, message);
    }

    /// The same without servers.
    pub(crate) fn deliver_without(&mut self, now: Now, party: PartyId, message: &Outgoing) {
        let control = ControlMessage::Sealed { topic: message.topic, sealed: message.message.clone() };
        match message.to {
            Some(to) => self.send_control(now.instant, party, to, &control),
            None => {
                for member in self.connected(party) {
                    self.send_control(now.instant, party, member, &control);
                }
            }
        }
        self.deliver_by_beacon(party, message);
    }

    /// On the LAN: to everybody what is for everybody, to a neighbour what is for it. Who is known to be elsewhere, and
    /// within reach of another channel, needs no beacon.
    fn deliver_by_beacon(&mut self, party: PartyId, message: &Outgoing) {
        let Some(local) = self.parties.get(&party).filter(|local| local.on) else { return };
        let neighbour = message.to.and_then(|to| local.contacts.get(&to)?.lan);
        let elsewhere = message.to.is_some_and(|to| {
            let ready = self.tunnel.session(party, to).is_some_and(|session| session.ready);
            ready || self.share_a_server(party, &message.topic, &[to])
        });
        if neighbour.is_none() && elsewhere {
            return;
        }
        if let Some(bytes) = beacon::encode(&message.topic, &message.message) {
            self.outputs.push_back(Output::Beacon { to: neighbour, bytes });
        }
    }

    fn deliver_by_servers(&mut self, message: &Outgoing) {
        let mut frames = Vec::new();
        for (id, link) in &self.links {
            let Some(room) = link.rooms.get(&message.topic) else { continue };
            let one = message.handle.into_iter();
            let all = room.present.iter().copied().filter(|_| message.to.is_none());
            for to in one.chain(all) {
                self.next_message = self.next_message.wrapping_add(1);
                let (topic, message, number) = (message.topic, message.message.clone(), self.next_message);
                let frame = ClientFrame::Send { topic, to, id: number, message };
                self.mail.sent(*id, number, frame.clone());
                frames.push((*id, frame));
            }
        }
        frames.into_iter().for_each(|(id, frame)| self.send_frame(id, &frame));
    }

    /// Members with whom a session stands.
    #[must_use]
    pub fn connected(&self, party: PartyId) -> Vec<DeviceId> {
        self.tunnel.ready_peers(party).collect()
    }

    /// The own announcement changed in every party.
    pub(crate) fn announce_all(&mut self, now: Instant) {
        self.parties.values_mut().for_each(|party| party.announce_soon(now));
        self.touch();
    }

    fn announce(&mut self, now: Instant, party: PartyId) {
        if let Some(local) = self.parties.get_mut(&party) {
            local.announce_soon(now);
        }
    }

    /// What falls due in the parties: announcements, beacons, memberships that lapse.
    pub(crate) fn tend_parties(&mut self, now: Now) {
        let parties: Vec<PartyId> = self.parties.keys().copied().collect();
        for party in parties {
            let Some(local) = self.parties.get_mut(&party) else { continue };
            if local.judgement_due(now.instant) {
                let outcome = local.membership.handle_timeout(now.unix);
                self.apply(now, party, outcome);
            }
            if self.parties.get_mut(&party).is_some_and(|local| local.announce_due(now.instant)) {
                self.sync_rooms(now);
                self.tell_connected(now, party);
                self.send_beacon(now, party, None);
            }
            self.beacon_if_due(now, party);
        }
    }

    fn beacon_if_due(&mut self, now: Now, party: PartyId) {
        if !self.parties.get(&party).is_some_and(|local| local.beacon_due(now.instant)) {
            return;
        }
        let interval = if self.is_complete(now.instant, party) { BEACON_IDLE } else { BEACON_BUSY };
        if let Some(local) = self.parties.get_mut(&party) {
            local.beacon_at(now.instant + interval);
            // The answer that tells the charter may have been lost on its way, or refused by a server in haste.
            if local.membership.range().is_none() {
                local.announce_soon(now.instant);
            }
        }
        self.send_beacon(now, party, None);
    }

    /// Whether everybody heard lately is connected, and there is somebody.
    fn is_complete(&self, now: Instant, party: PartyId) -> bool {
        let Some(local) = self.parties.get(&party) else { return false };
        let mut heard =
            local.membership.devices().filter(|device| local.heard_lately(now, device)).peekable();
        heard.peek().is_some()
            && heard.all(|device| self.tunnel.session(party, device).is_some_and(|session| session.ready))
    }

    pub(crate) fn send_beacon(&mut self, now: Now, party: PartyId, to: Option<std::net::SocketAddr>) {
        let Some(local) = self.parties.get_mut(&party) else { return };
        let Some(topic) = local.membership.topics().into_iter().find(|access| access.current) else { return };
        let outcome = local.membership.beacon(now.unix, &mut self.rng, &topic.topic, &self.reach);
        for message in outcome.messages {
            if let Some(bytes) = beacon::encode(&message.topic, &message.message) {
                self.outputs.push_back(Output::Beacon { to, bytes });
            }
        }
        self.save_if(outcome.persist);
    }

    /// Takes a LAN beacon; whose it is shows when it is opened.
    pub fn handle_beacon(&mut self, now: Now, source: std::net::SocketAddr, datagram: &[u8]) {
        let Some((tag, sealed)) = beacon::decode(datagram) else { return };
        let found = self
            .parties
            .iter()
            .find_map(|(id, local)| local.membership.topic_by_tag(tag).map(|topic| (*id, topic)));
        let Some((party, topic)) = found else { return };
        let Some(from) = self.receive_sealed(now, party, &topic, Channel::Lan, sealed) else { return };
        let Some(local) = self.parties.get_mut(&party) else { return };
        let contact = local.hear(now.instant, from);
        let moved = contact.lan.map(|known| known.ip()) != Some(source.ip());
        contact.lan = Some(source);
        if moved {
            self.sync_member(now.instant, party, from);
            self.send_beacon(now, party, Some(source));
        }
    }
}

fn dismissal_error(dismissal: Dismissal, party: &str) -> AppError {
    let (code, hint) = match dismissal {
        Dismissal::Removed => (ErrorCode::Removed, "Ask the owner for a new invite if this was a mistake."),
        Dismissal::InviteRevoked => (ErrorCode::InviteRevoked, "Ask the owner for a new invite."),
        Dismissal::InviteExpired => {
            (ErrorCode::InviteExpired, "Ask for a new invite, or wait until the owner's computer is online.")
        }
        Dismissal::NotACoOwner => (ErrorCode::InviteForged, "Ask the owner for an invite."),
    };
    AppError::new(code, format!("This computer is no longer in {party}: {dismissal}."), hint)
}

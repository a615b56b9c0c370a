//! From a network device to the members.

use std::{net::IpAddr, time::Instant};

use partyline_model::{DeviceId, PartyId};

use crate::{
    CONTROL_PORT, ControlTooLong, DropReason, MAX_DATAGRAM_LEN, OVERHEAD, Outbox, Tunnel, control,
    packet::{Header, IGMP, UDP},
    party::Reach,
};

impl Tunnel {
    /// Takes one IP packet from a party's network device. Datagrams for the members go to `out`, as do Packet Too Big
    /// messages for the device. The packet may be changed: its maximum segment size is clamped in place.
    pub fn handle_packet(&mut self, now: Instant, party: PartyId, packet: &mut [u8], out: &mut Outbox) {
        if let Err(reason) = self.route(now, party, packet, out) {
            self.drops.count(reason);
        }
    }

    fn route(
        &mut self,
        now: Instant,
        id: PartyId,
        packet: &mut [u8],
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let party = self.parties.get_mut(&id).ok_or(DropReason::UnknownParty)?;
        let header = Header::parse(packet).ok_or(DropReason::Malformed)?;
        let packet = &mut packet[..header.len];
        if packet.len() > MAX_DATAGRAM_LEN - OVERHEAD {
            return Err(DropReason::TooLong);
        }
        if !party.owns(header.source) {
            return Err(DropReason::WrongSource);
        }
        match party.reach(header.destination) {
            Reach::Housekeeping => Err(DropReason::Housekeeping),
            Reach::Everyone if header.protocol == IGMP => Err(DropReason::Housekeeping),
            Reach::Everyone if !party.storm.take(now) => Err(DropReason::Storm),
            Reach::Everyone => {
                self.fan_out(now, id, packet, &header, out);
                Ok(())
            }
            Reach::One if is_control(packet, &header) => Err(DropReason::ControlPort),
            Reach::One => {
                let slot = *party.routes.get(&header.destination).ok_or(DropReason::NoRoute)?;
                self.send_to(now, slot, packet, &header, out)
            }
        }
    }

    fn send_to(
        &mut self,
        now: Instant,
        slot: usize,
        packet: &mut [u8],
        header: &Header,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let peer = self.slots[slot].as_mut().ok_or(DropReason::NoRoute)?;
        let result = peer.send(now, packet, header, &mut self.drops, out);
        if !peer.session.can_send() {
            self.after(slot);
        }
        result
    }

    /// One copy for each member there is a path to. Members without one are not worth waiting for: whoever discovers by
    /// broadcast repeats it.
    fn fan_out(&mut self, now: Instant, id: PartyId, packet: &mut [u8], header: &Header, out: &mut Outbox) {
        let Self { parties, slots, drops, .. } = self;
        let members = parties.get(&id).into_iter().flat_map(|party| party.peers.values());
        for slot in members {
            let Some(peer) = &mut slots[*slot] else { continue };
            let result = if peer.session.has_path() {
                peer.send(now, packet, header, drops, out)
            } else {
                peer.drop(DropReason::NoPath)
            };
            if let Err(reason) = result {
                drops.count(reason);
            }
        }
    }

    /// Sends a message of at most [`crate::MAX_CONTROL_MESSAGE_LEN`] bytes to a member's engine, through the tunnel. It can be
    /// lost like any datagram; without a session it waits for one a moment. Ignored if there is no such member.
    ///
    /// # Errors
    /// If the message is too long.
    pub fn send_control(
        &mut self,
        now: Instant,
        party: PartyId,
        peer: DeviceId,
        message: &[u8],
        out: &mut Outbox,
    ) -> Result<(), ControlTooLong> {
        let from = self.parties.get(&party).map(|party| party.net.v6.addr());
        let slot = self.find(party, peer);
        let (Some(from), Some(slot)) = (from, slot) else { return Ok(()) };
        let Some(peer) = &mut self.slots[slot] else { return Ok(()) };
        peer.next_control = peer.next_control.wrapping_add(1);
        for packet in control::packets(from, peer.config.v6, peer.next_control, message)? {
            if let Err(reason) = peer.deliver(now, &packet, &mut self.drops, out) {
                self.drops.count(reason);
            }
        }
        self.after(slot);
        Ok(())
    }
}

/// Whether a packet is on the engine's own channel.
pub(crate) fn is_control(packet: &[u8], header: &Header) -> bool {
    matches!(header.destination, IpAddr::V6(_))
        && header.protocol == UDP
        && header.destination_port(packet) == Some(CONTROL_PORT)
}

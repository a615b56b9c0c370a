//! From the socket to a network device, or to the engine.

use std::{net::IpAddr, time::Instant};

use boringtun::noise::{Packet, Tunn};
use partyline_model::{DeviceId, PartyId};

use crate::{
    DATAGRAM_LIMIT, DropReason, Inbound, Outbox, Tunnel,
    outbound::is_control,
    packet::Header,
    party::{Party, Reach},
    peer::Peer,
    session::{HANDSHAKE_LEN, Opened},
};

/// The least room [`Tunnel::inbound`] needs for what it writes.
pub const PACKET_MINIMUM: usize = HANDSHAKE_LEN;

impl Tunnel {
    /// Takes a datagram that looks like WireGuard, for whichever party. `from` is the address it came from, used only
    /// to demand a proof of address under load. What it contains is written to `packet`, which must be as long as the
    /// datagram and [`PACKET_MINIMUM`]; packets that waited for a session go to `out`.
    pub fn inbound(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        packet: &mut [u8],
        out: &mut Outbox,
    ) -> Inbound {
        self.receive(now, from, datagram, packet, out).unwrap_or_else(|reason| {
            self.drops.count(reason);
            Inbound::Dropped(reason)
        })
    }

    fn receive(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        packet: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Inbound, DropReason> {
        // boringtun panics if there is less room than the datagram has, before it knows who sent it.
        if datagram.len() > DATAGRAM_LIMIT || packet.len() < datagram.len().max(PACKET_MINIMUM) {
            return Err(DropReason::TooLong);
        }
        let message = Tunn::parse_incoming_packet(datagram).map_err(|_| DropReason::Malformed)?;
        match &message {
            Packet::HandshakeInit(_) => self.initiation(now, from, datagram, &message, packet),
            Packet::HandshakeResponse(response) => {
                self.handshake(now, response.receiver_idx, datagram, packet, out)
            }
            Packet::PacketCookieReply(cookie) => {
                self.handshake(now, cookie.receiver_idx, datagram, packet, out)
            }
            Packet::PacketData(data) => self.data(now, data.receiver_idx, datagram, packet, out),
        }
    }

    fn initiation(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        message: &Packet,
        reply: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        let party = self.parties.values().find(|party| party.is_addressed_by(datagram));
        let party = party.ok_or(DropReason::UnknownPeer)?;
        if !self.handshakes.take(now) {
            match party.demand_cookie(from, datagram, reply) {
                Ok(()) => {}
                Err(Some(len)) => {
                    self.drops.count(DropReason::Flood);
                    return Ok(Inbound::Reply { with: None, len });
                }
                Err(None) => return Err(DropReason::Flood),
            }
        }
        let slot = party.initiator(message)?;
        let peer = self.slots[slot].as_mut().ok_or(DropReason::UnknownPeer)?;
        let with = peer.who;
        let opened = peer.session.shake(now, datagram, reply).or_else(|reason| peer.drop(reason))?;
        self.after(slot);
        Ok(answer(with, &opened))
    }

    /// A handshake response or a cookie, in answer to our own initiation.
    fn handshake(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        reply: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Inbound, DropReason> {
        let (slot, peer) = by_index(&mut self.slots, receiver)?;
        let with = peer.who;
        let opened = peer.session.shake(now, datagram, reply).or_else(|reason| peer.drop(reason))?;
        peer.flush(&mut self.drops, out);
        self.after(slot);
        Ok(answer(with, &opened))
    }

    fn data(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        packet: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Inbound, DropReason> {
        let (slot, peer) = by_index(&mut self.slots, receiver)?;
        let was_ready = peer.session.is_ready();
        let opened = peer.session.open(now, datagram, packet).or_else(|reason| peer.drop(reason))?;
        if !was_ready {
            peer.flush(&mut self.drops, out);
        }
        let (party, id) = peer.who;
        let inbound = match (opened, self.parties.get(&party)) {
            (Opened::Packet(len), Some(ours)) => {
                accept(now, ours, peer, &mut packet[..len]).or_else(|reason| peer.drop(reason))
            }
            (opened, _) => Ok(answer((party, id), &opened)),
        };
        if !was_ready {
            self.after(slot);
        }
        inbound
    }
}

fn by_index(slots: &mut [Option<Peer>], receiver: u32) -> Result<(usize, &mut Peer), DropReason> {
    let index = receiver >> 8;
    let slot = index as usize & 0xffff;
    let peer = slots.get_mut(slot).and_then(Option::as_mut).filter(|peer| peer.index == index);
    peer.map(|peer| (slot, peer)).ok_or(DropReason::UnknownIndex)
}

fn answer(with: (PartyId, DeviceId), opened: &Opened) -> Inbound {
    match *opened {
        Opened::Reply(len) => Inbound::Reply { with: Some(with), len },
        _ => Inbound::Nothing { party: with.0, peer: with.1 },
    }
}

/// Decides about an authentic packet: its source must be the member's, its destination ours or everyone's.
fn accept(now: Instant, ours: &Party, peer: &mut Peer, packet: &mut [u8]) -> Result<Inbound, DropReason> {
    let header = Header::parse(packet).ok_or(DropReason::Malformed)?;
    if !peer.config.owns(header.source) {
        return Err(DropReason::Spoofed);
    }
    if !ours.owns(header.destination) {
        match ours.reach(header.destination) {
            Reach::One => return Err(DropReason::NotForUs),
            Reach::Housekeeping => return Err(DropReason::Housekeeping),
            Reach::Everyone if !peer.storm.take(now) => return Err(DropReason::Storm),
            Reach::Everyone => {}
        }
    }
    peer.received(&mut packet[..header.len], &header);
    let (party, id) = peer.who;
    if !is_control(packet, &header) {
        return Ok(Inbound::Packet { party, peer: id, len: header.len });
    }
    let message = peer.control.take(now, &packet[header.payload..header.len])?;
    Ok(message.map_or(Inbound::Nothing { party, peer: id }, |bytes| Inbound::Control {
        party,
        peer: id,
        bytes,
    }))
}

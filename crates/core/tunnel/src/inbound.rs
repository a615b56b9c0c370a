//! From the socket to a network device, or to the engine.

use std::{net::IpAddr, time::Instant};

use boringtun::noise::{Packet, Tunn};
use partyline_model::{DeviceId, PartyId};

use crate::{
    DropReason, MAX_DATAGRAM_LEN, Outbox, Received, Tunnel,
    outbound::is_control,
    packet::Header,
    party::{Party, Reach},
    peer::Peer,
    session::{HANDSHAKE_LEN, Opened},
};

/// The least room [`Tunnel::inbound`] needs for what it writes.
pub const MIN_SCRATCH_LEN: usize = HANDSHAKE_LEN;

impl Tunnel {
    /// Takes a datagram that looks like WireGuard, for whichever party. `from` is the address it came from, used only
    /// to demand a proof of address under load. What it contains is written to `scratch`, which must be as long as the
    /// datagram and [`MIN_SCRATCH_LEN`]; packets that waited for a session go to `out`.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        scratch: &'a mut [u8],
        out: &mut Outbox,
    ) -> Received<'a> {
        self.receive(now, from, datagram, scratch, out).unwrap_or_else(|reason| {
            self.drops.count(reason);
            Received::Dropped(reason)
        })
    }

    fn receive<'a>(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        packet: &'a mut [u8],
        out: &mut Outbox,
    ) -> Result<Received<'a>, DropReason> {
        // boringtun panics if there is less room than the datagram has, before it knows who sent it.
        if datagram.len() > MAX_DATAGRAM_LEN || packet.len() < datagram.len().max(MIN_SCRATCH_LEN) {
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

    fn initiation<'a>(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        message: &Packet,
        reply: &'a mut [u8],
    ) -> Result<Received<'a>, DropReason> {
        let party = self.parties.values().find(|party| party.is_addressed_by(datagram));
        let party = party.ok_or(DropReason::UnknownPeer)?;
        if !self.handshakes.take(now) {
            match party.demand_cookie(from, datagram, reply) {
                Ok(()) => {}
                Err(Some(len)) => {
                    self.drops.count(DropReason::Flood);
                    return Ok(Received::HandshakeReply { peer: None, datagram: &mut reply[..len] });
                }
                Err(None) => return Err(DropReason::Flood),
            }
        }
        let slot = party.initiator(message)?;
        let peer = self.slots[slot].as_mut().ok_or(DropReason::UnknownPeer)?;
        let with = peer.who;
        let opened = peer.session.shake(now, datagram, reply).or_else(|reason| peer.drop(reason))?;
        self.after(slot);
        Ok(answer(with, &opened, reply))
    }

    /// A handshake response or a cookie, in answer to our own initiation.
    fn handshake<'a>(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        reply: &'a mut [u8],
        out: &mut Outbox,
    ) -> Result<Received<'a>, DropReason> {
        let (slot, peer) = by_index(&mut self.slots, receiver)?;
        let with = peer.who;
        let opened = peer.session.shake(now, datagram, reply).or_else(|reason| peer.drop(reason))?;
        peer.flush(&mut self.drops, out);
        self.after(slot);
        Ok(answer(with, &opened, reply))
    }

    fn data<'a>(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        packet: &'a mut [u8],
        out: &mut Outbox,
    ) -> Result<Received<'a>, DropReason> {
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
            (opened, _) => Ok(answer((party, id), &opened, packet)),
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

fn answer<'a>(with: (PartyId, DeviceId), opened: &Opened, reply: &'a mut [u8]) -> Received<'a> {
    match *opened {
        Opened::Reply(len) => Received::HandshakeReply { peer: Some(with), datagram: &mut reply[..len] },
        _ => Received::Authenticated { party: with.0, peer: with.1 },
    }
}

/// Decides about an authentic packet: its source must be the member's, its destination ours or everyone's.
fn accept<'a>(
    now: Instant,
    ours: &Party,
    peer: &mut Peer,
    packet: &'a mut [u8],
) -> Result<Received<'a>, DropReason> {
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
        return Ok(Received::Packet { party, peer: id, packet: &mut packet[..header.len] });
    }
    let message = peer.control.take(now, &packet[header.payload..header.len])?;
    Ok(message.map_or(Received::Authenticated { party, peer: id }, |message| Received::Control {
        party,
        peer: id,
        message,
    }))
}

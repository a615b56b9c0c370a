//! One member of one party: its session, the shape of the path to it, and what it may still send.

use std::time::Instant;

use partyline_model::{DeviceId, PartyId};
use rand_core::RngCore;

use crate::{
    DropCounters, DropReason, OVERHEAD, Outbox, PeerConfig, SessionStats,
    bucket::Bucket,
    control::Reassembly,
    fragment, mss,
    outbox::Recipient,
    packet::Header,
    party::storm_bucket,
    session::{HANDSHAKE_LEN, Session},
    too_big,
};

/// IPv4 asks every host to take packets of 576 bytes; no path worth using carries less.
const MTU_MINIMUM: u16 = 576;

/// What the path to a member carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathConfig {
    /// Bytes to leave free in front of each datagram: 0, or [`crate::RELAY_HEADROOM`] where it goes through a relay.
    pub headroom: usize,
    /// Largest packet inside the tunnel, in bytes; the path's datagram size less [`OVERHEAD`]. `None` if no smaller
    /// than the device's.
    pub mtu: Option<u16>,
}

pub(crate) struct Peer {
    pub who: (PartyId, DeviceId),
    pub config: PeerConfig,
    /// Receiver index in 24 bits: 8 random ones, then the slot.
    pub index: u32,
    pub session: Session,
    /// Whether the session was ready when it was last looked at for events.
    pub was_ready: bool,
    /// Budget of the member's broadcasts.
    pub storm: Bucket,
    pub control: Reassembly,
    pub next_control: u32,
    mtu: usize,
    headroom: usize,
    counters: SessionStats,
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        who: (PartyId, DeviceId),
        config: PeerConfig,
        index: u32,
        session: Session,
        mtu: u16,
    ) -> Self {
        Self {
            who,
            config,
            index,
            session,
            was_ready: false,
            storm: storm_bucket(now),
            control: Reassembly::default(),
            next_control: 0,
            mtu: mtu.into(),
            headroom: 0,
            counters: SessionStats::default(),
        }
    }

    pub(crate) fn view(&self) -> SessionStats {
        SessionStats {
            ready: self.session.is_ready(),
            last_handshake: self.session.last_handshake(),
            ..self.counters
        }
    }

    pub(crate) fn set_path(&mut self, now: Instant, path: Option<PathConfig>, device_mtu: u16) {
        if let Some(path) = path {
            self.headroom = path.headroom;
            self.mtu = path.mtu.map_or(device_mtu, |mtu| mtu.clamp(MTU_MINIMUM, device_mtu)).into();
        }
        self.session.set_path(now, path.is_some());
    }

    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        rng: &mut impl RngCore,
        drops: &mut DropCounters,
        out: &mut Outbox,
    ) {
        let expired = self.session.give_up(now);
        self.drop_many(expired, drops);
        let session = &mut self.session;
        out.write(recipient(self.who, self.headroom), HANDSHAKE_LEN, |dst| {
            session.handle_timeout(now, rng, dst)
        });
        self.flush(drops, out);
    }

    /// Sends what waited for the session.
    pub(crate) fn flush(&mut self, drops: &mut DropCounters, out: &mut Outbox) {
        while let Some(packet) = self.session.next_waiting() {
            if let Err(reason) = self.seal(&packet, out) {
                drops.count(reason);
            }
        }
    }

    /// Sends an IP packet, or says why not. Its maximum segment size is clamped, its size brought down.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &Header,
        drops: &mut DropCounters,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        mss::clamp(packet, header, self.mtu);
        if packet.len() <= self.mtu {
            return self.deliver(now, packet, drops, out);
        }
        if fragment::allowed(packet, header) {
            return fragment::split(packet, header, self.mtu)
                .try_for_each(|part| self.deliver(now, &part, drops, out));
        }
        if let Some(reply) = too_big::reply(packet, header, self.mtu) {
            out.give_back(self.who.0, &reply);
        }
        self.drop(DropReason::TooBig)
    }

    /// Encrypts a packet that fits, or lets it wait for the session.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        packet: &[u8],
        drops: &mut DropCounters,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        if self.session.can_send() {
            return self.seal(packet, out);
        }
        let gone = self.session.wait(now, packet);
        self.drop_many(gone, drops);
        Ok(())
    }

    fn seal(&mut self, packet: &[u8], out: &mut Outbox) -> Result<(), DropReason> {
        let session = &mut self.session;
        let capacity = (packet.len() + OVERHEAD).max(HANDSHAKE_LEN);
        if !out.write(recipient(self.who, self.headroom), capacity, |dst| session.seal(packet, dst)) {
            return self.drop(DropReason::OutboxFull);
        }
        self.counters.sent_packets += 1;
        self.counters.sent_bytes += packet.len() as u64;
        Ok(())
    }

    /// Counts a packet that came, and makes sure the connections it opens fit the way back.
    pub(crate) fn received(&mut self, packet: &mut [u8], header: &Header) {
        mss::clamp(packet, header, self.mtu);
        self.counters.received_packets += 1;
        self.counters.received_bytes += packet.len() as u64;
    }

    /// Counts a drop on this member's account; the caller counts it for the tunnel.
    pub(crate) fn drop<T>(&mut self, reason: DropReason) -> Result<T, DropReason> {
        self.counters.drops.count(reason);
        Err(reason)
    }

    fn drop_many(&mut self, number: usize, drops: &mut DropCounters) {
        for _ in 0..number {
            self.counters.drops.count(DropReason::Waiting);
            drops.count(DropReason::Waiting);
        }
    }
}

fn recipient((party, peer): (PartyId, DeviceId), headroom: usize) -> Recipient {
    Recipient { party, peer, headroom }
}

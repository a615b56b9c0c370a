//! Keeping an allocation: Refresh, CreatePermission and ChannelBind (RFC 8656, sections 8, 10 and 12).

use std::net::{IpAddr, SocketAddr};

use partyline_model::Now;
use stun_rs::{
    attributes::turn::LifeTime,
    methods::{CREATE_PERMMISSION, REFRESH},
};

use crate::{
    Event, Relay,
    allocation::{Denied, RelaySocket},
    credentials::Identity,
    request::{Reply, Request, is_v6},
};

/// RFC 8656 ends channel numbers at 0x4FFF; its forerunner RFC 5766, whose clients are many, at 0x7FFF. Nothing else on a
/// TURN server's port begins with those bytes.
const CHANNELS_FROM: u16 = 0x4000;
const CHANNELS_TO: u16 = 0x7FFF;

impl Relay {
    /// The reply to any request but Allocate that has valid credentials.
    pub(crate) fn manage(
        &mut self,
        now: Now,
        request: &Request<'_>,
        identity: &Identity,
        standing: Option<usize>,
    ) -> Option<Reply> {
        let (method, id) = (request.method(), request.id());
        let allocation = standing.and_then(|at| Some((at, self.allocations.get(at)?)));
        let at = match allocation {
            Some((_, allocation)) if allocation.pending.is_some() => return None,
            Some((_, allocation)) if *allocation.username != *identity.username => {
                return Some(Reply::error(method, id, 441));
            }
            Some((at, _)) => at,
            None => return Some(Reply::error(method, id, 437)),
        };
        let unknown = request.not_understood(&[]);
        if !unknown.is_empty() {
            return Some(Reply::unknown_attributes(method, id, &unknown));
        }
        let done = match method {
            REFRESH => self.refresh(now, at, request),
            CREATE_PERMMISSION => self.create_permission(now, at, request),
            _ => self.bind_channel(now, at, request),
        };
        Some(match done {
            Ok(Some(lifetime_s)) => Reply::success(method, id).with(LifeTime::new(lifetime_s)),
            Ok(None) => Reply::success(method, id),
            Err(code) => Reply::error(method, id, code),
        })
    }

    fn refresh(&mut self, now: Now, at: usize, request: &Request<'_>) -> Result<Option<u32>, u16> {
        let family = request.find(|attribute| {
            attribute.as_requested_address_family().ok().map(|asked| is_v6(asked.family()))
        });
        let ends = request.find(|attribute| attribute.as_life_time().ok().map(LifeTime::as_u32)) == Some(0);
        if let Some(v6) = family {
            let relayed = self.allocations[at].relayed;
            if relayed[usize::from(v6)].is_none() {
                return Err(443);
            }
            if ends && relayed[usize::from(!v6)].is_some() {
                self.close(at, v6);
                return Ok(Some(0));
            }
        }
        if ends {
            self.remove(at);
            return Ok(Some(0));
        }
        let lifetime_s = self.lifetime_s(request);
        self.postpone(at, self.ns(now) + lifetime_s * 1_000_000_000);
        Ok(Some(u32::try_from(lifetime_s).unwrap_or(u32::MAX)))
    }

    /// Gives up one of two relayed addresses.
    fn close(&mut self, at: usize, v6: bool) {
        if let Some(address) = self.allocations[at].relayed[usize::from(v6)].take() {
            self.relayed.remove(&address);
            self.events.push_back(Event::CloseSocket { socket: RelaySocket::new(at, v6) });
        }
    }

    fn postpone(&mut self, at: usize, end: u64) {
        let before = std::mem::replace(&mut self.allocations[at].expires_ns, end);
        self.ends.remove(&(before, at));
        self.ends.insert((end, at));
    }

    fn create_permission(&mut self, now: Now, at: usize, request: &Request<'_>) -> Result<Option<u32>, u16> {
        let peers =
            request.all(|attribute| attribute.as_xor_peer_address().ok().map(|peer| *peer.socket_address()));
        if peers.is_empty() {
            return Err(400);
        }
        for peer in &peers {
            self.check_peer(at, *peer)?;
        }
        let (now_ns, most) = (self.ns(now), self.settings.quotas.peers_per_allocation);
        let allocation = &mut self.allocations[at];
        if !allocation.has_room_for(&peers, most, now_ns) {
            return Err(508);
        }
        peers.iter().for_each(|peer| allocation.permit(peer.ip(), now_ns));
        Ok(None)
    }

    fn bind_channel(&mut self, now: Now, at: usize, request: &Request<'_>) -> Result<Option<u32>, u16> {
        let number =
            request.find(|attribute| attribute.as_channel_number().ok().map(|channel| channel.number()));
        let peer =
            request.find(|attribute| attribute.as_xor_peer_address().ok().map(|peer| *peer.socket_address()));
        let (Some(number @ CHANNELS_FROM..=CHANNELS_TO), Some(peer)) = (number, peer) else {
            return Err(400);
        };
        self.check_peer(at, peer)?;
        let (now_ns, most) = (self.ns(now), self.settings.quotas.peers_per_allocation);
        match self.allocations[at].bind(number, peer, most, now_ns) {
            Ok(()) => Ok(None),
            Err(Denied::Contradiction) => Err(400),
            Err(Denied::Full) => Err(508),
        }
    }

    /// 443 if the allocation has no address of the peer's family, 403 if the operator does not want the peer.
    fn check_peer(&self, at: usize, peer: SocketAddr) -> Result<(), u16> {
        if self.allocations[at].relayed_for(peer.ip()).is_none() {
            return Err(443);
        }
        let wanted = self.is_relay_address(peer.ip()) || self.settings.peers.permits(peer.ip());
        if wanted { Ok(()) } else { Err(403) }
    }

    /// Whether relayed addresses of this server are on an address.
    pub(crate) fn is_relay_address(&self, address: IpAddr) -> bool {
        self.addresses[usize::from(address.is_ipv6())].is_some_and(|relay| relay.public == address)
    }
}

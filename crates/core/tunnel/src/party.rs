//! One party: our key and addresses in it, its routing table, and the checks that handshakes for it have to pass.

use std::{net::IpAddr, sync::Arc, time::Instant};

use boringtun::noise::{Packet, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter};
use partyline_timing::TokenBucket;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    config::PartyConfig,
    drops::DropReason,
    incoming::IncomingFilter,
    ip::{IGMP, IpHeader},
    limits::BROADCAST_RATE,
    routing::{RoutingTable, Scope},
    storm::Storm,
};

/// What the cookie check says about a handshake message under load (WireGuard whitepaper, section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CookieCheck {
    /// The second MAC proves the sender's address.
    Passed,
    /// The sender has to prove its address first; the cookie reply has this length.
    Challenge(usize),
    /// The message is invalid.
    Failed,
}

pub(crate) struct Party {
    pub secret: StaticSecret,
    pub public: PublicKey,
    pub config: PartyConfig,
    pub routes: RoutingTable,
    pub incoming: IncomingFilter,
    /// Limits our own broadcasts.
    broadcasts: TokenBucket,
    /// What was dropped of them.
    pub storm: Storm,
    /// Checks the first MAC only; shared with the sessions.
    pub mac_check: Arc<RateLimiter>,
    /// Checks the second MAC too, which proves the sender's address.
    cookie_check: RateLimiter,
}

impl Party {
    pub(crate) fn new(secret: StaticSecret, config: PartyConfig) -> Self {
        let public = PublicKey::from(&secret);
        Self {
            public,
            config,
            routes: RoutingTable::default(),
            incoming: IncomingFilter::default(),
            broadcasts: TokenBucket::new(BROADCAST_RATE),
            storm: Storm::default(),
            mac_check: Arc::new(RateLimiter::new(&public, u64::MAX)),
            cookie_check: RateLimiter::new(&public, 0),
            secret,
        }
    }

    /// Decides whether a packet from the network device may be sent, and to whom.
    pub(crate) fn check_outgoing(&mut self, now: Instant, header: &IpHeader) -> Result<Scope, DropReason> {
        if !self.config.owns(header.source) {
            return Err(DropReason::ForeignSource);
        }
        match Scope::of(header.destination, &self.config) {
            Scope::Routers => Err(DropReason::RouterMulticast),
            Scope::Broadcast if header.protocol == IGMP => Err(DropReason::RouterMulticast),
            Scope::Broadcast if !self.broadcasts.take(now, 1) => {
                self.storm.on_drop(now);
                Err(DropReason::BroadcastRateLimited)
            }
            scope => Ok(scope),
        }
    }

    /// Returns true if a handshake message is meant for this party.
    pub(crate) fn is_addressed_by(&self, message: &[u8]) -> bool {
        self.mac_check.verify_packet(None, message, &mut []).is_ok()
    }

    /// Checks whether the sender of a handshake message has proven its address; if not, writes the cookie reply with
    /// which it can.
    pub(crate) fn check_cookie(&self, source: IpAddr, message: &[u8], reply: &mut [u8]) -> CookieCheck {
        match self.cookie_check.verify_packet(Some(source), message, reply) {
            Ok(_) => CookieCheck::Passed,
            Err(TunnResult::WriteToNetwork(cookie)) => CookieCheck::Challenge(cookie.len()),
            Err(_) => CookieCheck::Failed,
        }
    }

    /// Returns the slot of the member whose static key a handshake initiation carries. Costs one X25519 operation.
    pub(crate) fn initiator(&self, initiation: &Packet) -> Result<usize, DropReason> {
        let Packet::HandshakeInit(initiation) = initiation else { return Err(DropReason::Malformed) };
        let half = parse_handshake_anon(&self.secret, &self.public, initiation)
            .map_err(|_| DropReason::Unauthenticated)?;
        self.routes.by_key(&half.peer_static_public).ok_or(DropReason::UnknownPeer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{party_config, secrets, start, udp, v4};

    fn party() -> Party {
        Party::new(secrets(1)[0].clone(), party_config(0))
    }

    fn check(party: &mut Party, now: Instant, packet: &[u8]) -> Result<Scope, DropReason> {
        party.check_outgoing(now, &IpHeader::parse(packet).unwrap())
    }

    #[test]
    fn only_our_own_addresses_may_send() {
        let (now, mut party) = (start(), party());
        assert_eq!(check(&mut party, now, &udp(v4(0), v4(1), 7, 4)), Ok(Scope::Unicast));
        assert_eq!(check(&mut party, now, &udp(v4(1), v4(0), 7, 4)), Err(DropReason::ForeignSource));
    }

    #[test]
    fn broadcasts_are_limited_and_unicast_is_not() {
        let (now, mut party) = (start(), party());
        let broadcast = udp(v4(0), [255; 4], 7, 4);
        let passed = (0..600).filter(|_| check(&mut party, now, &broadcast).is_ok()).count();
        assert_eq!(passed, 500);
        assert_eq!(check(&mut party, now, &broadcast), Err(DropReason::BroadcastRateLimited));
        assert_eq!(party.storm, Storm { dropped: 101, last: Some(now) });
        assert_eq!(check(&mut party, now, &udp(v4(0), v4(1), 7, 4)), Ok(Scope::Unicast));
        assert_eq!(check(&mut party, now + Duration::from_millis(4), &broadcast), Ok(Scope::Broadcast));
    }

    #[test]
    fn igmp_reports_stay_on_the_device() {
        let (now, mut party) = (start(), party());
        let mut report = udp(v4(0), [239, 1, 2, 3], 7, 8);
        report[9] = IGMP;
        assert_eq!(check(&mut party, now, &report), Err(DropReason::RouterMulticast));
    }
}

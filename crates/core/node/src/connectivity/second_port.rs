//! A second UDP port, leased to a member that measures which packets its NAT lets in (RFC 5780, section 4.4).
//!
//! A member asks for a second port ([`ControlMessage::RequestSecondPort`]) and is told where a server sees this
//! device's main socket and the one opened for the occasion. Then it asks for packets from both, round by round
//! ([`ControlMessage::SendProbeRound`]); its own network check says what their arrival and absence prove. A port is
//! leased to one member at a time, for seconds, for a limited number of rounds of four small packets, and only to
//! addresses that the member has announced as its own.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{DeviceId, PartyId, SocketId};
use partyline_netcheck::{binding_request, mapped_address};
use tracing::debug;

use crate::control::ControlMessage;

/// The socket of the second port.
pub(super) const SECOND_PORT: SocketId = SocketId::second_port(0);
/// How long a lease lasts.
const LEASE_DURATION: Duration = Duration::from_secs(12);
/// How many rounds one lease is good for.
const MAX_ROUNDS: u8 = 100;
/// Binding requests to the server, against loss.
const REQUEST_COPIES: usize = 2;

/// The port leased to another member, and the member that leases one to us.
#[derive(Debug, Default)]
pub(super) struct SecondPorts {
    lease: Option<PortLease>,
    lender: Option<Lender>,
}

/// The member that was asked for a second port.
#[derive(Debug)]
struct Lender {
    party: PartyId,
    member: DeviceId,
    /// True once it has granted the port.
    granted: bool,
}

#[derive(Debug)]
struct PortLease {
    party: PartyId,
    member: DeviceId,
    until: Instant,
    /// The server that is asked where the second port is seen.
    server: SocketAddr,
    token: [u8; 12],
    granted: bool,
    rounds: u8,
}

impl SecondPorts {
    /// Notes which member was asked for a second port, if any.
    pub(super) fn set_lender(&mut self, lender: Option<(PartyId, DeviceId)>) {
        self.lender = lender.map(|(party, member)| Lender { party, member, granted: false });
    }

    /// Returns the member that has granted a second port.
    pub(super) fn lender(&self) -> Option<(PartyId, DeviceId)> {
        let granted = self.lender.as_ref().filter(|lender| lender.granted);
        granted.map(|lender| (lender.party, lender.member))
    }

    /// Returns true if a member's grant may be used: it was asked, and this is its first answer.
    pub(super) fn admit_grant(&mut self, party: PartyId, member: DeviceId) -> bool {
        let asked = self.lender.as_mut().filter(|lender| (lender.party, lender.member) == (party, member));
        let admitted = asked.is_some_and(|lender| !std::mem::replace(&mut lender.granted, true));
        if !admitted {
            debug!(peer = %member.short(), reason = "not asked, or granted already", "second port ignored");
        }
        admitted
    }

    /// Takes a member's request. Returns true if a socket has to be opened for it: there is a server that can say where
    /// the socket is seen, and no lease.
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        party: PartyId,
        member: DeviceId,
        server: Option<SocketAddr>,
        token: [u8; 12],
    ) -> bool {
        let Some(server) = server.filter(|_| self.lease.is_none()) else {
            debug!(peer = %member.short(), reason = "no server, or leased already", "second port refused");
            return false;
        };
        let until = now + LEASE_DURATION;
        debug!(peer = %member.short(), "second port leased");
        self.lease = Some(PortLease { party, member, until, server, token, granted: false, rounds: 0 });
        true
    }

    /// Takes whether the socket could be opened. Returns the Binding requests to send from it, and the server they go to.
    pub(super) fn on_opened(&mut self, opened: bool) -> impl Iterator<Item = (SocketAddr, Vec<u8>)> {
        if !opened && let Some(lease) = self.lease.take() {
            debug!(peer = %lease.member.short(), reason = "socket could not be opened", "lease of the second port ends");
        }
        let requests = self.lease.iter().map(|lease| (lease.server, binding_request(lease.token)));
        requests.flat_map(|request| std::iter::repeat_n(request, REQUEST_COPIES))
    }

    /// Takes a datagram that arrived on the second port. Returns the grant to send to the member, once the server has
    /// said where the port is seen. `first` is where servers see the main socket.
    pub(super) fn on_datagram(
        &mut self,
        source: SocketAddr,
        bytes: &[u8],
        first: Option<SocketAddr>,
    ) -> Option<(PartyId, DeviceId, ControlMessage)> {
        let lease = self.lease.as_mut().filter(|lease| lease.server == source && !lease.granted)?;
        let (first, second) = (first?, mapped_address(source, lease.token, bytes)?);
        lease.granted = true;
        Some((lease.party, lease.member, ControlMessage::GrantSecondPort { first, second }))
    }

    /// Returns true if a member may have another round of packets, and counts it.
    pub(super) fn admit_round(&mut self, now: Instant, party: PartyId, member: DeviceId) -> bool {
        let lease = self.lease.as_mut().filter(|lease| (lease.party, lease.member) == (party, member));
        let Some(lease) = lease.filter(|lease| lease.until > now && lease.rounds < MAX_ROUNDS) else {
            debug!(peer = %member.short(), reason = "no lease, or used up", "probe round refused");
            return false;
        };
        lease.rounds += 1;
        true
    }

    /// Returns the moment at which the lease ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.lease.as_ref().map(|lease| lease.until)
    }

    /// Ends the lease when its time is over; returns true if the socket has to be closed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.lease.take_if(|lease| lease.until <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTY: PartyId = PartyId([1; 32]);
    const ANA: DeviceId = DeviceId([2; 32]);
    const BEN: DeviceId = DeviceId([3; 32]);

    fn server() -> SocketAddr {
        ([192, 0, 2, 1], 3478).into()
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    fn leased() -> (Instant, SecondPorts) {
        let (now, mut ports) = (Instant::now(), SecondPorts::default());
        assert!(!ports.on_request(now, PARTY, ANA, None, [0; 12]), "no server");
        assert!(ports.on_request(now, PARTY, ANA, Some(server()), [7; 12]));
        (now, ports)
    }

    #[test]
    fn port_is_leased_to_one_member_at_a_time() {
        let (now, mut ports) = leased();
        assert!(!ports.on_request(now, PARTY, BEN, Some(server()), [8; 12]));
        assert!(!ports.expire(now) && ports.expire(now + LEASE_DURATION));
        assert!(ports.on_request(now + LEASE_DURATION, PARTY, BEN, Some(server()), [8; 12]));
    }

    #[test]
    fn rounds_are_for_the_holder_of_the_lease_and_limited() {
        let (now, mut ports) = leased();
        assert!(!ports.admit_round(now, PARTY, BEN));
        assert!(!ports.admit_round(now + LEASE_DURATION, PARTY, ANA));
        assert!((0..MAX_ROUNDS).all(|_| ports.admit_round(now, PARTY, ANA)));
        assert!(!ports.admit_round(now, PARTY, ANA));
    }

    #[test]
    fn server_is_asked_twice_and_answers_of_others_are_ignored() {
        let (_, mut ports) = leased();
        let asked: Vec<_> = ports.on_opened(true).map(|(to, _)| to).collect();
        assert_eq!(asked, [server(), server()]);
        let first = Some(([192, 0, 2, 9], 1).into());
        assert_eq!(ports.on_datagram(([192, 0, 2, 2], 3478).into(), &[], first), None);
        assert_eq!(ports.on_datagram(server(), b"no answer", first), None);
    }

    #[test]
    fn lease_ends_when_the_socket_cannot_be_opened() {
        let (now, mut ports) = leased();
        assert_eq!(ports.on_opened(false).count(), 0);
        assert_eq!(ports.poll_timeout(), None);
        assert!(ports.on_request(now, PARTY, BEN, Some(server()), [8; 12]), "free for another member");
    }

    #[test]
    fn grant_counts_once_and_only_from_the_member_that_was_asked() {
        let mut ports = SecondPorts::default();
        assert!(!ports.admit_grant(PARTY, ANA), "nobody was asked");
        ports.set_lender(Some((PARTY, ANA)));
        assert!(!ports.admit_grant(PARTY, BEN) && !ports.admit_grant(PartyId([9; 32]), ANA));
        assert_eq!(ports.lender(), None, "not granted yet");
        assert!(ports.admit_grant(PARTY, ANA) && !ports.admit_grant(PARTY, ANA));
        assert_eq!(ports.lender(), Some((PARTY, ANA)));
    }
}

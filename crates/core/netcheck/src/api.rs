//! Inputs and outputs of [`crate::Netcheck`].

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{CheckStep, Confidence, NatProfile, SocketId};
use partyline_wire::credentials::Credentials;

use crate::stun;

/// How the network is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// True to measure the NAT's policies. Otherwise only the public address is learned and the policies stay unknown.
    pub enabled: bool,
    /// The time between two keepalive requests from the main socket, which also notice a change of its mapping. Each
    /// interval is varied by up to a tenth, so that many members do not send at once.
    pub keepalive_interval: Duration,
    /// The time after which an unanswered request counts as timed out; a keepalive request gets four times as long. A
    /// later response from a server still counts.
    pub response_timeout: Duration,
    /// The number of fresh sockets that [`Event::OpenProbeSockets`] asks for, at most 8. With none the measurement is
    /// made from the main socket, where the tunnel's own packets disturb it.
    pub probe_sockets: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            keepalive_interval: Duration::from_secs(22),
            response_timeout: Duration::from_millis(2500),
            probe_sockets: 0,
        }
    }
}

/// A STUN server at one address. A server with an IPv4 and an IPv6 address is two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer {
    /// The server's name in reports. Servers with the same name are taken for the same machine.
    pub name: String,
    /// The server's transport address.
    pub address: SocketAddr,
    /// The credentials for a server that requires authentication.
    pub credentials: Option<StunCredentials>,
}

impl StunServer {
    /// Returns a server that requires no authentication, as most do.
    #[must_use]
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        Self { name: name.into(), address, credentials: None }
    }
}

/// A user name and password for a STUN server.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct StunCredentials {
    pub username: String,
    pub password: String,
    pub mechanism: CredentialMechanism,
}

/// The authentication mechanisms of RFC 8489, section 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialMechanism {
    /// Requests are signed once the server has sent its realm and nonce (section 9.2).
    LongTerm,
    /// Requests are signed from the first one on (section 9.1).
    ShortTerm,
}

impl StunCredentials {
    /// Returns the signing state, or `None` if the password has characters that short-term credentials cannot have.
    pub(crate) fn signing(&self) -> Option<Credentials> {
        match self.mechanism {
            CredentialMechanism::LongTerm => Some(Credentials::new(&self.username, &self.password)),
            CredentialMechanism::ShortTerm => Credentials::short_term(&self.username, &self.password),
        }
    }
}

impl std::fmt::Debug for StunCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StunCredentials").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Transmit {
    pub socket: SocketId,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

/// The router's own statement about a mapping of the main socket: the response to PCP's PEER (RFC 6887, section 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerMapping {
    /// The remote peer of the mapping, a STUN server.
    pub remote: SocketAddr,
    /// The external address at which the remote peer sees the main socket.
    pub external: SocketAddr,
    /// How long the router keeps the mapping while it is idle.
    pub lifetime: Duration,
}

/// A request to another member for one packet to the reflexive address of a probe socket, whose arrival proves
/// endpoint-independent filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilteringProbeRequest {
    /// The reflexive address of the probe socket.
    pub to: SocketAddr,
    /// A random token, by which the packet is recognized.
    pub token: [u8; 12],
}

impl FilteringProbeRequest {
    /// Returns the packet to send: a Binding indication (RFC 8489), to which nothing responds.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        stun::indication(self.token)
    }
}

/// The reflexive addresses of two sockets of another member, which can send from both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// The port that this computer's NAT is opened for.
    pub first: SocketAddr,
    /// The other port, at the same address.
    pub second: SocketAddr,
}

/// A request to the member that offered a [`PortPair`] for one packet from each of its ports to each of two probe
/// sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeRound {
    /// The reflexive addresses of the two probe sockets.
    pub to: [SocketAddr; 2],
    /// A random token, by which the packets are recognized.
    pub token: [u8; 12],
}

impl ProbeRound {
    /// Returns the packet to send, a Binding indication like [`FilteringProbeRequest::packet`].
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        stun::indication(self.token)
    }
}

/// Something that was learned or is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The reflexive addresses of the main socket changed: all of them, best first, at most 8.
    Reflexive(Vec<SocketAddr>),
    /// The profile changed.
    Profile(NatProfile),
    /// UDP was found to be blocked (true) or to be open (false).
    UdpBlocked(bool),
    /// These sockets are to be opened; answered by [`crate::Netcheck::probe_sockets_opened`].
    OpenProbeSockets {
        /// The new sockets. Sockets of an earlier measurement were closed by [`Event::CloseProbeSockets`] before.
        ids: Vec<SocketId>,
    },
    /// These sockets are no longer needed.
    CloseProbeSockets {
        /// All sockets that were asked for and not closed since.
        ids: Vec<SocketId>,
    },
    /// Members are to be asked for a packet, and one of them for a [`PortPair`] ([`crate::Netcheck::set_port_pair`]).
    RequestFilteringProbe(FilteringProbeRequest),
    /// The member whose [`PortPair`] is in use is to send a round of packets.
    RequestProbeRound(ProbeRound),
    /// A server did not respond over UDP. Whether it does over TCP ([`crate::Netcheck::set_tcp_reachable`]) tells
    /// whether UDP is blocked.
    ServerTimedOut(SocketAddr),
}

/// The state of the measurement, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// All servers, best first.
    pub servers: Vec<ServerReport>,
    /// True if the policies are measured at all.
    pub enabled: bool,
    /// True if the measurement of the policies is over. That of the mapping lifetime may still go on.
    pub finished: bool,
    /// When the measurement of the policies ended.
    pub finished_at: Option<Instant>,
    /// How long the measurement of the policies took.
    pub duration: Option<Duration>,
    /// The number of datagrams sent for the measurement of the policies so far.
    pub packets: u32,
    /// The state of each test.
    pub steps: Vec<CheckStep>,
    /// How much of the profile is known.
    pub confidence: Confidence,
    /// Why policies are unknown, in words for a person.
    pub gaps: Vec<&'static str>,
}

/// The state of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// The server's name.
    pub name: String,
    /// The server's transport address; after a redirection, that of the server it named.
    pub address: SocketAddr,
    /// The round-trip time of the last response to a request that was sent once.
    pub rtt: Option<Duration>,
    /// The main socket's reflexive address as seen by this server.
    pub reflexive: Option<SocketAddr>,
    /// The server's alternate address and port (OTHER-ADDRESS, RFC 5780), if it has them.
    pub other_address: Option<SocketAddr>,
    /// True if the server did not respond to the last request, or refused it.
    pub timed_out: bool,
}

/// Returns the Binding request by which a member that offers a [`PortPair`] learns the reflexive address of a socket.
#[must_use]
pub fn binding_request(token: [u8; 12]) -> Vec<u8> {
    stun::request(token, stun::ResponseRouting::Default, None)
}

/// Returns the reflexive address from the response to a [`binding_request`], or `None` for any other datagram.
#[must_use]
pub fn mapped_address(server: SocketAddr, token: [u8; 12], bytes: &[u8]) -> Option<SocketAddr> {
    let response = stun::response_id(bytes)
        .filter(|id| *id == token)
        .and_then(|_| stun::parse_response(bytes, server, None).ok());
    response.map(|response| response.reflexive)
}

//! What goes into and comes out of [`crate::Netcheck`].

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use partyline_model::{CheckStep, Confidence, NatProfile, SocketId};
use partyline_wire::credentials::Credentials;

use crate::stun;

/// How a check is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Whether policies are measured. Switched off, only the public address is learned and the profile stays unknown.
    pub enabled: bool,
    /// How often the mapping is kept alive and the public address looked at again. The moment is moved by up to a
    /// tenth, so that many members do not ask at once.
    pub keepalive_interval: Duration,
    /// How long a server may stay silent before it is given up until the next refresh; one that has answered before
    /// gets four times as long. A late answer counts all the same.
    pub response_timeout: Duration,
    /// How many sockets that have sent nothing yet [`Event::OpenProbeSockets`] asks for. Without any
    /// the measurement is made from the tunnel's socket, where the tunnel's own packets disturb it.
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
    /// Its name, for reports.
    pub name: String,
    /// Where it answers.
    pub address: SocketAddr,
    /// What to say if it wants to know who asks.
    pub credentials: Option<StunCredentials>,
}

impl StunServer {
    /// A server that asks nobody who they are, as most do.
    #[must_use]
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        Self { name: name.into(), address, credentials: None }
    }
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StunCredentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// How they are used.
    pub mechanism: CredentialMechanism,
}

/// The two ways of saying who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialMechanism {
    /// Once the server has asked for it, with its realm and nonce (RFC 8489, section 9.2).
    LongTerm,
    /// From the first question on (RFC 8489, section 9.1).
    ShortTerm,
}

impl StunCredentials {
    /// `None` if the password has characters that short-term credentials cannot have.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        match self.mechanism {
            CredentialMechanism::LongTerm => Some(Credentials::new(&self.username, &self.password)),
            CredentialMechanism::ShortTerm => Credentials::short_term(&self.username, &self.password),
        }
    }
}

impl std::fmt::Debug for StunCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StunCredentials").finish_non_exhaustive()
    }
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From which socket.
    pub socket: SocketId,
    /// Where to.
    pub destination: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// What the router has promised for a flow of the tunnel's socket (PCP's PEER, RFC 6887 section 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerMapping {
    /// The server that the flow goes to.
    pub remote: SocketAddr,
    /// Where the server sees the socket, as the router says.
    pub external: SocketAddr,
    /// How long an idle mapping lives, as the router says.
    pub lifetime: Duration,
}

/// What an observer is asked to do: to send a packet that only it and we know to where one of our lent sockets is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilteringProbeRequest {
    /// Where a server sees the socket.
    pub to: SocketAddr,
    /// What nobody can guess.
    pub token: [u8; 12],
}

impl FilteringProbeRequest {
    /// The packet: a Binding indication (RFC 8489), which asks for no answer.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        stun::indication(self.token)
    }
}

/// Two UDP ports of one address that a member lends: where servers see two sockets of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// The port that our NAT is opened for.
    pub first: SocketAddr,
    /// The other.
    pub second: SocketAddr,
}

/// What a member who lends two ports is asked to do: to send one packet from each to each of two of our sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeRound {
    /// Where a server sees them.
    pub to: [SocketAddr; 2],
    /// What nobody can guess.
    pub token: [u8; 12],
}

impl ProbeRound {
    /// The packet, as that of [`FilteringProbeRequest::packet`].
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        stun::indication(self.token)
    }
}

/// Something learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The addresses at which servers see the tunnel's socket: all of them, best first, at most 8. Told with the first
    /// answer and with every change.
    Reflexive(Vec<SocketAddr>),
    /// The profile changed.
    Profile(NatProfile),
    /// UDP was found to be blocked, or to be open again.
    UdpBlocked(bool),
    /// These sockets are to be opened, in place of those opened before; answered by
    /// [`crate::Netcheck::probe_sockets_opened`].
    OpenProbeSockets {
        /// The new sockets.
        ids: Vec<SocketId>,
    },
    /// These sockets are not needed any more.
    CloseProbeSockets {
        /// All sockets that were asked for.
        ids: Vec<SocketId>,
    },
    /// Somebody elsewhere may show that the NAT lets everybody in, by what it sends for us; or lend two ports, to show
    /// whom it lets in ([`crate::Netcheck::set_port_pair`]).
    RequestFilteringProbe(FilteringProbeRequest),
    /// The member whose ports [`crate::Netcheck::set_port_pair`] took is to send.
    RequestProbeRound(ProbeRound),
    /// A server does not answer. Whether it does over TCP ([`crate::Netcheck::set_tcp_reachable`]) would tell why.
    ServerTimedOut(SocketAddr),
}

/// What was asked and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Every server.
    pub servers: Vec<ServerReport>,
    /// Whether policies are measured at all.
    pub enabled: bool,
    /// Whether the policies' measurement is over.
    pub finished: bool,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// How long it took from the first question on, once it ended.
    pub duration: Option<Duration>,
    /// Datagrams sent for it so far.
    pub packets: u32,
    /// How far it is with what.
    pub steps: Vec<CheckStep>,
    /// How much is measured.
    pub confidence: Confidence,
    /// What could not be measured and why, in words for a person.
    pub gaps: Vec<&'static str>,
    /// Datagrams that looked like answers to us and were dropped.
    pub dropped: DropCounters,
}

/// One server's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// The round trip of its last answer to a first transmission.
    pub rtt: Option<Duration>,
    /// The address at which it saw the tunnel's socket.
    pub reflexive: Option<SocketAddr>,
    /// Its second address (RFC 5780), if it says it has one.
    pub other_address: Option<SocketAddr>,
    /// Whether it failed to answer when it was last asked.
    pub timed_out: bool,
}

/// Datagrams dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DropCounters {
    /// Not well-formed STUN, or a FINGERPRINT that is not the message's.
    pub malformed: u32,
    /// To a transaction of ours that is over: the answers to retransmissions.
    pub late: u32,
    /// From an address that the transaction does not allow.
    pub wrong_source: u32,
    /// An error, a redirection, or an answer without a usable address.
    pub unusable: u32,
}

//! What the tests of one measurement share: which socket does what, which servers there are, and what was observed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use partyline_model::{Allocation, Filtering, Mapping, SocketId};

use crate::client::Delivery;

/// What a test concluded: a policy, or why that stays unknown.
pub(crate) type Finding<T> = Result<T, Unknown>;

/// Why a policy stays unknown, in words for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unknown(pub(crate) &'static str);

/// The settings of one measurement.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiscoveryConfig {
    pub(crate) response_timeout: Duration,
    /// This computer's own addresses.
    pub(crate) local: Vec<IpAddr>,
    /// The main socket's port, if known.
    pub(crate) main_port: Option<u16>,
    /// True if the main socket had sent nothing on this network before the measurement.
    pub(crate) main_is_fresh: bool,
    /// True if the router opened a port for the main socket, whose mappings then show nothing of other sockets'.
    pub(crate) main_is_mapped: bool,
    /// True if there are members that could send packets.
    pub(crate) observers_available: bool,
}

impl DiscoveryConfig {
    pub(crate) const fn retransmit(&self) -> Delivery {
        Delivery::Retransmit { timeout: self.response_timeout }
    }
}

/// Which socket a test uses.
#[derive(Debug, Clone)]
pub(crate) struct SocketRoles {
    /// Sends to all addresses of a server.
    pub(crate) mapping: SocketId,
    /// Must send to a server's first address only, since whatever was sent to is let in.
    pub(crate) filtering: SocketId,
    /// Have sent nothing yet.
    pub(crate) fresh: Vec<SocketId>,
    /// The ports that sockets are bound to, where known.
    pub(crate) ports: BTreeMap<SocketId, u16>,
}

impl SocketRoles {
    /// Assigns probe sockets; without any, the main socket has all roles.
    pub(crate) fn new(probes: &[(SocketId, u16)]) -> Self {
        let socket = |index: usize| probes.get(index).map(|(socket, _)| *socket);
        let mapping = socket(0).unwrap_or(SocketId::MAIN);
        Self {
            mapping,
            filtering: socket(1).unwrap_or(mapping),
            fresh: probes.iter().skip(2).map(|(socket, _)| *socket).collect(),
            ports: probes.iter().copied().collect(),
        }
    }

    /// Returns true if the mapping and filtering tests share a socket and must wait for each other.
    pub(crate) fn is_shared(&self) -> bool {
        self.mapping == self.filtering
    }
}

/// A server with two addresses (RFC 5780, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) server: SocketAddr,
    pub(crate) other: SocketAddr,
    pub(crate) rtt: Duration,
    /// True if the socket of the filtering test has sent nothing to its other address and port on this network.
    pub(crate) untouched: bool,
}

impl Reference {
    /// Returns the server's first address with its other port.
    pub(crate) const fn other_port(&self) -> SocketAddr {
        SocketAddr::new(self.server.ip(), self.other.port())
    }

    /// Returns the server's other address with its first port.
    pub(crate) const fn other_ip(&self) -> SocketAddr {
        SocketAddr::new(self.other.ip(), self.server.port())
    }

    /// Returns true if sending to `destination` opens a filter for one of the server's other addresses.
    pub(crate) fn is_touched_by(&self, destination: SocketAddr) -> bool {
        destination.ip() == self.other.ip() || destination == self.other_port()
    }
}

/// How far the servers have been contacted from the main socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ContactProgress {
    /// True if no first response is awaited any more.
    pub(crate) settled: bool,
    /// True if no further server will be contacted.
    pub(crate) all_contacted: bool,
}

/// The reflexive address of one socket as seen by one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) destination: SocketAddr,
    pub(crate) reflexive: SocketAddr,
    /// The mapping was made between the first transmission and the response.
    pub(crate) sent_at: Instant,
    pub(crate) received_at: Instant,
}

/// All observations of one measurement.
#[derive(Debug, Default)]
pub(crate) struct Observations(BTreeMap<SocketId, BTreeMap<SocketAddr, Observation>>);

impl Observations {
    /// Adds an observation. Returns false if the same server saw another mapping of the socket before.
    pub(crate) fn insert(&mut self, socket: SocketId, observation: Observation) -> bool {
        let seen = self.0.entry(socket).or_default();
        let first = *seen.entry(observation.destination).or_insert(observation);
        let consistent = first.reflexive == observation.reflexive;
        if !consistent {
            seen.insert(observation.destination, observation);
        }
        consistent
    }

    /// Returns the observations of a socket in the order of the requests.
    pub(crate) fn of(&self, socket: SocketId) -> Vec<Observation> {
        let mut seen: Vec<_> =
            self.0.get(&socket).into_iter().flat_map(|seen| seen.values().copied()).collect();
        seen.sort_by_key(|observation| observation.sent_at);
        seen
    }

    pub(crate) fn first_of(&self, socket: SocketId) -> Option<Observation> {
        self.of(socket).first().copied()
    }
}

/// The policies found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Policies {
    pub(crate) mapping: Option<Mapping>,
    pub(crate) filtering: Option<Filtering>,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) hairpin: Option<bool>,
}

/// What every test of a measurement may read.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: DiscoveryConfig,
    pub(crate) roles: SocketRoles,
    /// Servers that responded to the main socket.
    pub(crate) contacts: Vec<SocketAddr>,
    pub(crate) references: Vec<Reference>,
    /// The one among them that responded from its other address, or may have.
    pub(crate) fit_reference: Option<Reference>,
    pub(crate) progress: ContactProgress,
    pub(crate) observations: Observations,
    /// True if one server saw two mappings of the mapping test's socket: the observations do not belong together.
    pub(crate) inconsistent: bool,
    pub(crate) policies: Policies,
}

impl Context {
    pub(crate) fn new(config: DiscoveryConfig) -> Self {
        let mut roles = SocketRoles::new(&[]);
        roles.ports.extend(config.main_port.map(|port| (SocketId::MAIN, port)));
        Self {
            config,
            roles,
            contacts: Vec::new(),
            references: Vec::new(),
            fit_reference: None,
            progress: ContactProgress::default(),
            observations: Observations::default(),
            inconsistent: false,
            policies: Policies::default(),
        }
    }

    /// Returns the server whose addresses are compared: one that is fit for the filtering test, where that is known.
    pub(crate) fn reference(&self) -> Option<Reference> {
        self.fit_reference.or_else(|| self.references.first().copied())
    }
}

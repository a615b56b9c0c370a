//! The inputs and outputs of [`crate::PortMapper`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Counters, Protocol};

/// The address and port to open in the IPv6 firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Endpoint {
    /// This computer's global address.
    pub address: Ipv6Addr,
    /// The UDP port that is reachable over IPv6.
    pub port: u16,
    /// The router; usually a link-local address. Without it PCP is not tried.
    pub gateway: Option<Ipv6Addr>,
    /// The interface's index.
    pub interface: u32,
}

/// Persists the records of everything that would have to be deleted after a crash.
pub type RecordSink = Arc<dyn Fn(&[MappingRecord]) + Send + Sync>;

/// Which port to map, and on which router.
#[derive(Clone)]
pub struct Options {
    /// The UDP port to map; must not be 0. The same external port is suggested to the router.
    pub internal_port: u16,
    /// This computer's address on the router's network.
    pub local_ip: Ipv4Addr,
    /// The router. Without it only UPnP, which searches, is tried.
    pub gateway: Option<Ipv4Addr>,
    /// This computer's addresses on further networks, where UPnP searches for routers too.
    pub other_ips: Vec<Ipv4Addr>,
    /// The IPv6 endpoint, if there is a global address.
    pub v6: Option<Ipv6Endpoint>,
    /// The protocols to try, side by side.
    pub methods: Vec<Protocol>,
    /// The requested lease; it is renewed at half of what was granted.
    pub lifetime: Duration,
    /// The time between checks whether the router still has a mapping: a router that restarts loses it, and rarely
    /// announces that.
    pub check_interval: Duration,
    /// A seed for the jitter of retries.
    pub seed: u64,
    /// What an earlier run had mapped when it ended without deleting it.
    pub previous_records: Vec<MappingRecord>,
    /// Called with all records whenever they change, before the router is asked. Runs off the event loop; the request
    /// waits for it.
    pub record_sink: Option<RecordSink>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("internal_port", &self.internal_port)
            .field("local_ip", &self.local_ip)
            .field("gateway", &self.gateway)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Returns options with all protocols, leases of 20 minutes and a check every minute.
    #[must_use]
    pub fn new(internal_port: u16, local_ip: Ipv4Addr, gateway: Option<Ipv4Addr>, seed: u64) -> Self {
        Self {
            internal_port,
            local_ip,
            gateway,
            other_ips: Vec::new(),
            v6: None,
            methods: Protocol::ALL.to_vec(),
            lifetime: Duration::from_secs(1200),
            check_interval: Duration::from_secs(60),
            seed,
            previous_records: Vec::new(),
            record_sink: None,
        }
    }

    /// Returns the requested lease in whole seconds, at least 1.
    pub(crate) fn lease(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX).max(1)
    }

    /// Returns the router that identifies the network in a protocol's records.
    pub(crate) fn network(&self, method: Protocol) -> Option<IpAddr> {
        if method.is_ipv6() {
            return self.v6.and_then(|v6| v6.gateway).map(Into::into);
        }
        self.gateway.map(Into::into)
    }
}

/// What has to be remembered of a mapping so that it can be deleted after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingRecord {
    /// The protocol that granted the mapping.
    pub method: Protocol,
    /// The default router of the network the mapping was made in; on other networks it cannot be deleted.
    pub network: Option<IpAddr>,
    /// The internal address and port.
    pub internal: SocketAddr,
    /// The external port, or the pinhole's id; 0 where the protocol does not need it to delete.
    pub number: u16,
    /// The nonce of PCP (RFC 6887 section 11.1), which authorises deletion.
    #[serde(default)]
    pub nonce: [u32; 3],
}

/// A port that the router has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The protocol that granted the mapping.
    pub method: Protocol,
    /// The external address and port, as the router reports them.
    pub external: SocketAddr,
    /// The granted lease; `None` if permanent.
    pub lifetime: Option<Duration>,
    /// True if the external address is private or shared (RFC 6598), so that another NAT lies above the router.
    pub double_nat: bool,
}

/// A flow of the socket that the router has promised to keep (PCP's PEER, RFC 6887 section 12), where it maps no port
/// for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The remote end of the flow.
    pub remote: SocketAddr,
    /// The external address and port from which the remote sees the socket, as the router reports them.
    pub external: SocketAddr,
    /// The lease from the last request on; at most what was requested.
    pub lifetime: Duration,
}

/// The state of a protocol's circuit breaker and mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// The first request has not been answered yet.
    Pending,
    /// The protocol holds a mapping.
    Mapped,
    /// The protocol has failed once or twice in a row and is retried after about a second.
    Retrying,
    /// The protocol has failed three times or more in a row: it is only tried now and then.
    CircuitOpen,
}

/// The state of one protocol, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodState {
    /// The protocol.
    pub method: Protocol,
    /// The state of its circuit breaker and mapping.
    pub health: Health,
    /// Failures in a row.
    pub failures: u32,
    /// The reason of the last failure; `None` while the port is mapped.
    pub problem: Option<String>,
    /// The delay between that failure and the next request.
    pub retry_after: Option<Duration>,
    /// The flows that the router keeps while it maps no port.
    pub flows: Vec<Flow>,
    /// What happened since the mapper started.
    pub counters: Counters,
}

impl MethodState {
    /// Returns the state of a protocol that has not been answered yet.
    #[must_use]
    pub fn pending(method: Protocol) -> Self {
        Self {
            method,
            health: Health::Pending,
            failures: 0,
            problem: None,
            retry_after: None,
            flows: Vec::new(),
            counters: Counters::default(),
        }
    }
}

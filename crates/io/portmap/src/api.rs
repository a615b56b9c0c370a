//! What goes into and comes out of [`crate::PortMapper`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A way to ask a router for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887) for an IPv4 mapping.
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device, version 1 or 2.
    Upnp,
    /// Port Control Protocol over IPv6, for a hole in the router's IPv6 firewall.
    PcpV6,
    /// UPnP's `WANIPv6FirewallControl:1`, for a hole in the router's IPv6 firewall.
    Pinhole,
}

impl Protocol {
    /// Every method.
    pub const ALL: [Self; 5] = [Self::Pcp, Self::NatPmp, Self::Upnp, Self::PcpV6, Self::Pinhole];

    /// Whether it opens the IPv6 firewall instead of mapping an IPv4 port.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::PcpV6 | Self::Pinhole)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
            Self::PcpV6 => "PCP for IPv6",
            Self::Pinhole => "UPnP pinhole",
        })
    }
}

/// The IPv6 side of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Endpoint {
    /// This computer's global address.
    pub address: Ipv6Addr,
    /// The UDP port to be reached at over IPv6.
    pub port: u16,
    /// The router; usually a link-local address. Without it PCP is not tried.
    pub gateway: Option<Ipv6Addr>,
    /// The interface's index.
    pub interface: u32,
}

/// Writes down what would have to be deleted after a crash.
pub type RecordSink = Arc<dyn Fn(&[MappingRecord]) + Send + Sync>;

/// What to map, and where.
#[derive(Clone)]
pub struct Options {
    /// The UDP port to be reached at; must not be 0. The same number is asked for outside.
    pub internal_port: u16,
    /// This computer's address on the router's network.
    pub local_ip: Ipv4Addr,
    /// The router. Without it only UPnP, which searches, is tried.
    pub gateway: Option<Ipv4Addr>,
    /// This computer's addresses on further networks, where UPnP searches for routers too.
    pub other_ips: Vec<Ipv4Addr>,
    /// The IPv6 side, if there is one.
    pub v6: Option<Ipv6Endpoint>,
    /// The methods to try, side by side.
    pub methods: Vec<Protocol>,
    /// How long a mapping is asked for; it is renewed at half of what was granted.
    pub lifetime: Duration,
    /// How often to look whether the router still has the mapping: a router that restarts forgets, and rarely tells.
    pub check_interval: Duration,
    /// A seed for the jitter of retries.
    pub seed: u64,
    /// What an earlier run had mapped when it ended without deleting it.
    pub previous_records: Vec<MappingRecord>,
    /// Called with everything that would have to be deleted after a crash, whenever that changes, before the router
    /// is asked. Off the event loop; the request waits for it.
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
    /// All methods, leases of 20 minutes, a look every minute.
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

    /// The lease in whole seconds.
    pub(crate) fn lease(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX).max(1)
    }
}

/// A mapping as it must be remembered to be deleted after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingRecord {
    /// Who granted it.
    pub method: Protocol,
    /// The default router of the network it was made in; elsewhere it cannot be deleted.
    pub network: Option<IpAddr>,
    /// Where it leads.
    pub internal: SocketAddr,
    /// The port outside, or the pinhole's id.
    pub number: u16,
    /// PCP's nonce, which proves the mapping ours.
    #[serde(default)]
    pub nonce: [u32; 3],
}

/// A port that the router has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Who granted it.
    pub method: Protocol,
    /// Where the port can be reached, as the router says.
    pub external: SocketAddr,
    /// How long it was granted for; `None` if for ever.
    pub lifetime: Option<Duration>,
    /// The router's external address is private or shared (RFC 6598): another NAT lies above it.
    pub double_nat: bool,
}

/// A flow of the socket that the router has promised to keep (PCP's PEER), where it opens no port for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Whom the socket talks to.
    pub remote: SocketAddr,
    /// Where the remote sees the socket, as the router says.
    pub external: SocketAddr,
    /// For how long from when it was last asked; never longer than was asked for.
    pub lifetime: Duration,
}

/// How far a method is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It has not been answered yet.
    Pending,
    /// It holds a mapping.
    Mapped,
    /// It has failed once or twice and is tried again at once.
    Retrying,
    /// It has failed three times or more in a row: it is only tried now and then.
    CircuitOpen,
}

/// How one method fares, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodState {
    /// Which.
    pub method: Protocol,
    /// How far it is.
    pub health: Health,
    /// Failures in a row.
    pub failures: u32,
    /// Why it failed last; `None` while it works.
    pub problem: Option<String>,
    /// How long after that failure it is tried again.
    pub retry_after: Option<Duration>,
    /// What it promises for single flows while it opens no port.
    pub flows: Vec<Flow>,
}

//! The behavior of one NAT.

use std::time::Duration;

use partyline_model::{Allocation, Filtering, Mapping};

/// What a port-preserving NAT does if the internal port is taken, mostly since two internal hosts use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortCollision {
    /// It takes the next higher free port.
    Next,
    /// It takes any free port.
    Random,
}

/// What takes up a place in a NAT's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableUnit {
    /// Each mapping, however many destinations it is used for.
    Mapping,
    /// Each pair of an internal socket and a destination, as in the connection tracking of Linux.
    Flow,
}

/// The behavior of a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// The mapping behavior.
    pub mapping: Mapping,
    /// The filtering behavior.
    pub filtering: Filtering,
    /// The port assignment. A random port is never the internal port, since that could not be told apart from
    /// preserving it.
    pub allocation: Allocation,
    /// What happens if the internal port cannot be preserved.
    pub collision: PortCollision,
    /// The first and the last external port.
    pub ports: (u16, u16),
    /// The capacity of each protocol's table. Packets that need more are dropped.
    pub table: usize,
    /// What the capacity counts.
    pub table_unit: TableUnit,
    /// How long an idle mapping lives.
    pub lifetime: Duration,
    /// True if inbound packets refresh a mapping too, as on Linux. Outbound packets always do (RFC 4787, section 4.3).
    pub inbound_refreshes: bool,
    /// True if filtering applies to all mappings of an internal socket together: a destination of any of them may
    /// answer to all of them.
    pub filters_by_socket: bool,
    /// True if internal hosts can reach each other at the external address.
    pub hairpin: bool,
    /// New mappings per second of other hosts on average, which advance a contiguous port assignment.
    pub background_rate: u16,
}

impl Rules {
    /// Returns a NAT of one type with ports from 1024, 4096 mappings with a lifetime of two minutes, no hairpinning,
    /// and no other traffic.
    #[must_use]
    pub const fn new(mapping: Mapping, filtering: Filtering, allocation: Allocation) -> Self {
        Self {
            mapping,
            filtering,
            allocation,
            collision: PortCollision::Next,
            ports: (1024, u16::MAX),
            table: 4096,
            table_unit: TableUnit::Mapping,
            lifetime: Duration::from_secs(120),
            inbound_refreshes: false,
            filters_by_socket: false,
            hairpin: false,
            background_rate: 0,
        }
    }

    /// Returns the 27 types, with contiguous port assignment in steps of `delta`.
    pub fn all_types(delta: i16) -> impl Iterator<Item = Self> {
        use {Filtering as F, Mapping as M};
        let mappings = [M::EndpointIndependent, M::AddressDependent, M::AddressAndPortDependent];
        let filterings = [F::EndpointIndependent, F::AddressDependent, F::AddressAndPortDependent];
        let allocations = [Allocation::Preserving, Allocation::Contiguous { delta }, Allocation::Random];
        let pairs = mappings.into_iter().flat_map(move |m| filterings.map(|f| (m, f)));
        pairs.flat_map(move |(m, f)| allocations.map(|a| Self::new(m, f, a)))
    }

    /// Returns the type as mapping, filtering and port assignment, for example `EI/PD/PP`.
    #[must_use]
    pub fn short(&self) -> String {
        let mapping = match self.mapping {
            Mapping::EndpointIndependent => "EI",
            Mapping::AddressDependent => "HD",
            Mapping::AddressAndPortDependent => "PD",
        };
        let filtering = match self.filtering {
            Filtering::EndpointIndependent => "EI",
            Filtering::AddressDependent => "HD",
            Filtering::AddressAndPortDependent => "PD",
        };
        let allocation = match self.allocation {
            Allocation::Preserving => "PP",
            Allocation::Contiguous { .. } => "PC",
            Allocation::Random => "RD",
        };
        format!("{mapping}/{filtering}/{allocation}")
    }

    pub(crate) const fn has_port(&self, port: u16) -> bool {
        self.ports.0 <= port && port <= self.ports.1
    }
}

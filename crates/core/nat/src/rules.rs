//! What one NAT does.

use std::time::Duration;

use partyline_model::{Allocation, Filtering, Mapping};

/// What a preserving NAT does when the inside port is taken, most often because two inside computers use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortCollision {
    /// Takes the next higher free port.
    Next,
    /// Takes any free port.
    Random,
}

/// A NAT's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Which destinations share an external port.
    pub mapping: Mapping,
    /// Whose packets a mapping lets in.
    pub filtering: Filtering,
    /// How the port of a new mapping is chosen. A random port is never the inside port, since nobody could tell that
    /// from preserving it.
    pub allocation: Allocation,
    /// What happens where the inside port cannot be preserved.
    pub collision: PortCollision,
    /// The external ports that are used, first and last.
    pub ports: (u16, u16),
    /// Mappings that each protocol's table has room for; packets that need more are dropped.
    pub table: usize,
    /// How long an idle mapping lives.
    pub lifetime: Duration,
    /// Whether packets from outside keep a mapping alive too, as Linux has it. Those from inside always do.
    pub inbound_refreshes: bool,
    /// Whether a destination that any mapping of an inside socket was used for may answer to all of them.
    pub filters_by_socket: bool,
    /// Whether inside computers meet at the outside address.
    pub hairpin: bool,
    /// New mappings per second that others make on average; they move a counting allocator on.
    pub background_rate: u16,
}

impl Rules {
    /// A well-mannered NAT of a type: ports from 1024, 4096 mappings that live for two minutes, no hairpinning, alone.
    #[must_use]
    pub const fn new(mapping: Mapping, filtering: Filtering, allocation: Allocation) -> Self {
        Self {
            mapping,
            filtering,
            allocation,
            collision: PortCollision::Next,
            ports: (1024, u16::MAX),
            table: 4096,
            lifetime: Duration::from_secs(120),
            inbound_refreshes: false,
            filters_by_socket: false,
            hairpin: false,
            background_rate: 0,
        }
    }

    /// The 27 types, with counters that take steps of `delta`.
    pub fn all_types(delta: i16) -> impl Iterator<Item = Self> {
        use {Filtering as F, Mapping as M};
        let mappings = [M::EndpointIndependent, M::AddressDependent, M::AddressAndPortDependent];
        let filterings = [F::EndpointIndependent, F::AddressDependent, F::AddressAndPortDependent];
        let allocations = [Allocation::Preserving, Allocation::Contiguous { delta }, Allocation::Random];
        let pairs = mappings.into_iter().flat_map(move |m| filterings.map(|f| (m, f)));
        pairs.flat_map(move |(m, f)| allocations.map(|a| Self::new(m, f, a)))
    }

    /// The type in short, as `EI/PD/PP`: mapping, filtering, allocation.
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

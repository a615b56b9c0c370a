//! What the caller decides.

use std::net::SocketAddr;

use partyline_timing::Rate;

/// How the client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// True for labs and tests: nodes may have private addresses and well-known ports, and any number of them may be in one
    /// network. Otherwise nodes must be public, and at most two of one network count among the closest to a target.
    pub allow_private: bool,
    /// The rate of datagrams.
    pub rate: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self { allow_private: false, rate: Rate::per_second(64, 64) }
    }
}

/// The address families on which this computer can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Default for Families {
    fn default() -> Self {
        Self { v4: true, v6: false }
    }
}

impl Families {
    pub(crate) const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Returns true if nodes of the address's family can be asked.
    pub(crate) const fn carries(self, address: SocketAddr) -> bool {
        self.has(Family::of(address))
    }
}

/// An address family. Each has a DHT of its own (BEP 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the family's place in arrays with one element for each.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

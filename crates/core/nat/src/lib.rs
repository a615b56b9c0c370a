//! A model of NAT behavior, for simulations, for the tests of NAT behavior discovery and traversal, and for the router
//! of the NAT lab. None of it ships.
//!
//! In the terms of RFC 4787 a NAT has a mapping behavior (which destinations share an external port), a filtering
//! behavior (which sources a mapping lets in) and a port assignment (how the port of a new mapping is chosen). Three of
//! each make 27 types; [`Rules::all_types`] lists them. [`Rules`] also has what else real routers differ in: the range
//! of ports, the size of the mapping table, the lifetime of idle mappings, port collisions, hairpinning, and background
//! traffic that advances a contiguous assignment.
//!
//! [`Nat`] translates addresses, not packets:
//!
//! | packet | method |
//! |---|---|
//! | from inside | [`Nat::outbound`] |
//! | from outside | [`Nat::inbound`] |
//! | from inside to the NAT's own external address | [`Nat::hairpin`] |
//! | quoted by an ICMP error from outside | [`Nat::lookup_inbound`] |
//! | quoted by an ICMP error from inside | [`Nat::lookup_outbound`] |
//!
//! Time and randomness are passed in, so that the same seed and packets give the same ports. [`oracle`] says which pairs
//! of NATs allow a direct path at all.
//!
//! ```
//! use std::{net::SocketAddr, time::Instant};
//! use partyline_model::{Allocation, Filtering, Mapping};
//! use partyline_nat::{Nat, Protocol, Rules};
//!
//! let rules = Rules::new(Mapping::EndpointIndependent, Filtering::AddressDependent, Allocation::Preserving);
//! let mut nat = Nat::new(1, [203, 0, 113, 1].into(), rules);
//! let inside = SocketAddr::from(([192, 168, 1, 2], 5000));
//! let server = SocketAddr::from(([198, 51, 100, 1], 3478));
//! let now = Instant::now();
//! let external = nat.outbound(now, Protocol::Udp, inside, server).unwrap();
//! assert_eq!(external.port(), 5000, "the port is preserved");
//! assert_eq!(nat.inbound(now, Protocol::Udp, external, server), Some(inside));
//! assert_eq!(nat.inbound(now, Protocol::Udp, external, ([192, 0, 2, 9], 1).into()), None, "filtered");
//! ```

mod nat;
pub mod oracle;
mod ports;
mod rules;
mod table;

pub use nat::{Hairpinned, Nat};
pub use rules::{PortCollision, Rules, TableUnit};

/// A protocol with ports. Each has a mapping table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP, whose idle mappings live for at least two hours and four minutes (RFC 5382).
    Tcp,
    /// ICMP queries, whose identifier takes the place of the port (RFC 5508).
    Icmp,
}

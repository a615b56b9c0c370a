//! What a NAT does, as pure code: one model for simulations, for the tests of what measures and crosses NATs, and for
//! the NAT lab's own router.
//!
//! In the words of RFC 4787 a NAT has a *mapping* policy (which destinations share an external port), a *filtering*
//! policy (whose packets a mapping lets in) and, as NATCracker adds, an *allocation* policy (how the port of a new
//! mapping is chosen). Three of each make the 27 types; [`Rules::all_types`] lists them. Around these stand what real
//! routers differ in: the range of ports, how many mappings the table holds, how long an idle one lives, what happens
//! when two inside computers use the same port, whether they meet at the outside address (hairpinning), and the
//! traffic of others that moves a counting allocator on.
//!
//! [`Nat`] translates addresses, not packets. A packet from inside is shown to [`Nat::outbound`], one from outside to
//! [`Nat::inbound`], one from inside to the NAT's own outside address to [`Nat::hairpin`], and what an ICMP error quotes
//! to [`Nat::lookup_inbound`] (from outside) or [`Nat::lookup_outbound`] (from inside). Time and randomness are handed in, so the same
//! seed and packets give the same ports.
//!
//! [`oracle`] says which pairs of NATs allow a direct path at all.

mod nat;
pub mod oracle;
mod ports;
mod rules;
mod table;

pub use nat::{Hairpinned, Nat};
pub use rules::{PortCollision, Rules};

/// What has ports. Each has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP; idle mappings live for two hours and four minutes at least (RFC 5382).
    Tcp,
    /// ICMP queries, whose identifier stands for the port (RFC 5508).
    Icmp,
}

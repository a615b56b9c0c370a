//! Measures how the network's NAT behaves, as a [`partyline_model::NatProfile`], and at which public addresses the main
//! socket is seen.
//!
//! [`Netcheck`] sends Binding requests (RFC 8489) from the main socket, which carries the tunnel, and runs NAT behavior
//! discovery (RFC 5780) with servers that have a second address. It does so from probe sockets, since the main socket has
//! sent to members and relays, and a port that the router opened for it behaves like no other. The first response gives a
//! public address and the next ones the mapping policy; filtering, allocation, hairpinning and the IPv6 firewall follow
//! within about a second, the lifetime of an idle mapping within five minutes. One keepalive every 22 seconds keeps the
//! mapping and notices a change.
//!
//! No policy is ever guessed. Each is named only when all observations agree with it and with no other one; loss, servers
//! that ignore CHANGE-REQUEST, and mappings that change meanwhile leave it unknown. Two accidents remain: a NAT that
//! allocates ports at random and happens to allocate the inside port (1 in 64,000), and loss in exactly the pattern of a
//! filter (`filtering_rounds` says how seldom).
//!
//! Policies are measured over IPv4. Over IPv6 the same tests show what a firewall lets in.
//!
//! The machine does no input or output itself:
//!
//! ```
//! use std::time::Instant;
//!
//! use partyline_model::SocketId;
//! use partyline_netcheck::{Config, Netcheck, StunServer};
//!
//! let now = Instant::now();
//! let mut netcheck = Netcheck::new(now, [7; 32], Config::default());
//! netcheck.set_servers(now, vec![StunServer::new("stun.example", ([192, 0, 2, 1], 3478).into())]);
//!
//! // The caller sends this, hands what arrives to `handle_datagram`, and waits until `poll_timeout`.
//! let request = netcheck.poll_transmit().expect("a Binding request");
//! assert_eq!((request.socket, request.destination.port()), (SocketId::MAIN, 3478));
//! let timeout = netcheck.poll_timeout().expect("the request may get lost");
//! netcheck.handle_timeout(timeout);
//!
//! assert_eq!(netcheck.profile().mapping, None, "unknown, not guessed");
//! assert_eq!(netcheck.counters().requests.contact, 1);
//! ```
//!
//! # Structure
//!
//! Each test of RFC 5780 is a machine of its own: `mapping`, `filtering`, `allocation`, `hairpin` and
//! `lifetime`; members of the party may stand in for servers in `observer` and `port_pair`. The machines read one
//! `context` and know nothing of each other; `schedule` alone says which of them runs when.

mod address;
mod allocation;
mod api;
mod client;
mod context;
mod counters;
mod discovery;
mod filtering;
mod filtering_rounds;
mod hairpin;
mod history;
mod idle_lifetime;
mod infer;
mod lifetime;
mod mapping;
mod netcheck;
mod observer;
mod peer_mappings;
mod port_pair;
mod probe_sockets;
mod profile;
mod purpose;
mod schedule;
mod servers;
mod stun;
#[cfg(test)]
#[path = "tests/nat.rs"]
mod test_nat;

pub use api::{
    Config, CredentialMechanism, Event, FilteringProbeRequest, PeerMapping, PortPair, ProbeRound, Report,
    ServerReport, StunCredentials, StunServer, Transmit, binding_request, mapped_address,
};
pub use counters::{Counters, DropCounters, TestCounters};
pub use netcheck::Netcheck;

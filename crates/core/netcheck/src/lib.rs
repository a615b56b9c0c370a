//! Finds out how the local network's NAT behaves, as a [`partyline_model::NatProfile`], and at which public addresses
//! the tunnel's socket is seen.
//!
//! [`Netcheck`] asks STUN servers (RFC 8489) where they see the tunnel's own UDP socket, and runs behaviour discovery
//! (RFC 5780) with those that have a second address, from sockets lent for it: the tunnel's own has sent to members and
//! relays, and a port that the router opened for it behaves like no other. The first answer gives a public address at
//! once and with the next answers the mapping policy; filtering, allocation, hairpinning and the IPv6 firewall follow in
//! the background within about a second, the lifetime of an idle mapping within five minutes, and one cheap question every 22 seconds keeps the mapping alive and notices a change.
//!
//! Of the three policies none is ever guessed. Each is named only when everything seen agrees with it and with no
//! other; loss, servers that ignore what they are asked, and mappings that change meanwhile leave it unknown. What is
//! left to chance is a NAT that picks ports at random and happens to pick our own (1 in 64,000), and that
//! packets are lost in just the pattern of a filter ([`trial`] says how seldom).
//!
//! Policies are measured over IPv4. Over IPv6 the same tests show what a firewall lets in.

mod api;
mod client;
mod filtering;
mod hairpin;
mod history;
mod infer;
mod kept;
mod lending;
mod lifetime;
mod mapping;
mod netcheck;
mod observer;
mod pair;
mod ports;
mod profile;
mod rto;
mod servers;
mod stun;
mod survey;
mod trial;
mod watch;

pub use api::{
    Config, CredentialMechanism, DropCounters, Event, FilteringProbeRequest, PeerMapping, PortPair,
    ProbeRound, Report, ServerReport, StunCredentials, StunServer, Transmit,
};
pub use netcheck::Netcheck;
pub use observer::{binding_request, mapped_address};

//! Keeps one UDP port mapped on the router by every protocol that the router speaks.
//!
//! PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD are tried side by side, each in a task of its own, so that one that
//! is slow, silent or sends garbage delays no other; so are PCP and UPnP pinholes for the IPv6 firewall. Each requests
//! the same external port as the internal one and takes what it gets, renews at half the lease, and deletes its mapping
//! when [`PortMapper::stop`] is called. A mapping that a crash left behind is deleted at the next start: see
//! [`MappingRecord`].
//!
//! Routers lose mappings when they restart, and get new addresses, mostly without an announcement. So a mapping is
//! checked every minute, by the epoch in the router's answers where there is one, and the announcements that routers
//! may send (RFC 6886 section 3.2.1, RFC 6887 section 14.1) are listened to.
//!
//! A router may speak PCP and yet map no ports: its owner or the provider forbids it, or it has no room. Then it is
//! asked (PEER, RFC 6887 section 12) to keep the socket's flows to the remotes of [`PortMapper::set_remotes`], and
//! reports the external address from which those see the socket.
//!
//! A circuit breaker guards each protocol. It opens after three failures in a row; requests are then repeated after
//! delays that grow from one second to a minute. [`MethodState`] shows its state, the last failure and all counters.

mod announcements;
mod api;
mod board;
mod breaker;
mod client;
mod counters;
mod epoch;
mod error;
mod grant;
mod journal;
mod keeper;
mod mapper;
mod natpmp;
mod pcp;
mod pinhole;
mod protocol;
mod upnp;

pub use api::{Flow, Health, Ipv6Endpoint, Mapping, MappingRecord, MethodState, Options, RecordSink};
pub use counters::Counters;
pub use mapper::PortMapper;
pub use protocol::Protocol;

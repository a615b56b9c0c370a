//! Keeps one UDP port open on the router, by every means the router knows.
//!
//! PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD are tried side by side, each in a task of its own, so that one that
//! is slow, silent or talks garbage delays no other; so are PCP and UPnP pinholes for the IPv6 firewall. Each asks for
//! the same number outside as inside and takes what it gets, renews at half the lease, and deletes its mapping when
//! [`PortMapper::stop`] is called. What could not be deleted for a crash is deleted at the next start: see [`MappingRecord`].
//!
//! Routers forget mappings when they restart, and get new addresses, mostly without a word. So a standing mapping is
//! looked after every minute, by the clock in the router's answers where there is one, and the announcements that
//! routers may send (RFC 6886 section 3.2.1, RFC 6887 section 14.1) are listened to.
//!
//! A router may speak PCP and yet open no ports: its owner or the provider forbids it, or there is no room. Then it is
//! asked (PEER, RFC 6887 section 12) to keep the socket's flows to the remotes of [`PortMapper::set_remotes`], and says
//! where those see the socket.
//!
//! A method that fails three times in a row is broken: it is tried again after pauses that grow from one second to a
//! minute, and says so in its [`MethodState`].

mod announcements;
mod api;
mod backoff;
mod epoch;
mod keeper;
mod mapper;
mod natpmp;
mod notebook;
mod pcp;
mod pinhole;
mod problem;
mod upnp;

pub use api::{
    Flow, Health, Ipv6Endpoint, Mapping, MappingRecord, MethodState, Options, Protocol, RecordSink,
};
pub use mapper::PortMapper;

//! Finds, checks and keeps the best path to every peer, relay first.
//!
//! All parties of a device share one [`Paths`] and one UDP socket. The caller says what it has gathered itself (its
//! addresses, what STUN servers saw, ports that the router opened) and which relays there are; the machine answers
//! with the candidates to announce. It is told every peer's candidates as they come in, in any order and as often as
//! they change.
//!
//! **Relay first.** As soon as there is an allocation on either side, packets flow through it. Meanwhile every other
//! address of the peer is checked from the shared socket with authenticated STUN Binding requests
//! ([`partyline_wire::probe`]), both sides at once, so that the checks open the NATs for each other (the spirit of
//! RFC 8445: pairs, pacing, triggered checks, addresses learned from the peer's own packets). A direct path takes
//! over once a check was answered on it: it carries packets both ways then, and what is still under way through the
//! relay arrives as well, so nothing is lost and the tunnel's replay window drops whatever would be double.
//!
//! **Keeping it.** Whoever sends wants to hear something back, and where the traffic gives no answer, checks ask for
//! one. Silence for longer than half a second makes a path suspect: packets go out on the next best path as well.
//! After three seconds it has failed, and everything is checked again. Idle paths are kept alive by one side every 15
//! seconds, paths that are not in use not at all. See [`choice`] for how a path is chosen, [`pair`] for the life of
//! one path, [`relays`] for which relay is used over which transport, and [`turn`] for the TURN client.
//!
//! **Use.** After every call, take [`Paths::poll_transmit`] and [`Paths::poll_event`] until they are empty, and call
//! [`Paths::handle_timeout`] when [`Paths::poll_timeout`] says. Tunnel messages do not pass through the machine:
//! [`Paths::route`] says where they go, and incoming ones are handed back as a range of the datagram.

#![allow(rustdoc::private_intra_doc_links)]

mod address;
mod api;
mod choice;
mod explain;
mod machine;
mod pair;
mod pairing;
mod passage;
mod peer;
mod punch;
mod quality;
mod receive;
mod relays;
mod role;
mod schedule;
mod strategy;
mod turn;

pub use api::{
    AllocationId, Config, Counters, Event, Handled, Hop, Local, MemberRelay, Path, PeerId, PeerParams, PeerView,
    RelayServer, RelayTransport, Route, SocketId, StreamId, Transmit, Via,
};
pub use machine::Paths;
pub use turn::{AllocationTest, AllocationOutcome};

/// How many candidates of one peer are tried.
pub const MAX_REMOTE_CANDIDATES: usize = 32;

//! A small internet in memory, with time that is moved by hand.
//!
//! A [`World`] is one thread: members are real nodes whose network devices are queues of IP packets, the server is the
//! real rendezvous core behind connections made of memory, the relay is the real TURN core. Datagrams, frames and
//! beacons travel through one queue ordered by their moment of arrival; [`World::run`] jumps from one moment to the
//! next. Everything random comes from the world's seed, so that a run that failed can be played again. (Only WireGuard
//! draws its own ephemeral keys and reads its own clock; nothing here depends on either.)
//!
//! Members have public addresses, or live behind routers and carriers ([`Internet`]) that translate addresses with
//! `core/nat`. What the network does to datagrams besides is a test's own function ([`World::network`]) and each
//! member's own [`Line`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a world that cannot go on must fail")]

mod arrive;
mod ask;
pub mod crowd;
pub mod figures;
mod internet;
pub mod judge;
mod member;
pub mod outcome;
pub mod packet;
mod perform;
mod relay;
pub mod report;
pub mod scale;
pub mod scenario;
mod server;
pub mod shrink;
pub mod stage;
mod trace;
pub mod watch;
mod wires;
mod world;

pub use internet::{Internet, Place, address_v6};
pub use member::{Line, Member};
pub use trace::Trace;
pub use world::{Datagram, SERVER, World};
